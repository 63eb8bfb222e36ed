//! A connection to the socket, and who is at its other end.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{UnixStream, unix::UCred},
};
use tonic::transport::server::Connected;

/// A connection.
pub(super) struct Connection {
    stream: UnixStream,
    end: OtherEnd,
}

/// Who made a connection; it goes with each of its requests.
#[derive(Debug, Clone)]
pub(super) struct OtherEnd {
    /// As the kernel tells; `None` when it does not.
    pub(super) cred: Option<UCred>,
    is_agents: Arc<OnceLock<bool>>,
}

impl OtherEnd {
    /// Whether an agent's process made the connection; looked up with its first request alone.
    pub(super) fn is_agents(&self, look: impl FnOnce() -> bool) -> bool {
        *self.is_agents.get_or_init(look)
    }
}

impl From<UnixStream> for Connection {
    fn from(stream: UnixStream) -> Self {
        let end = OtherEnd { cred: stream.peer_cred().ok(), is_agents: Arc::default() };
        Self { stream, end }
    }
}

impl Connected for Connection {
    type ConnectInfo = OtherEnd;

    fn connect_info(&self) -> OtherEnd {
        self.end.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
