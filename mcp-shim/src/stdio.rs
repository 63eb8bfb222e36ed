//! Standard input and output, with word of the end of input.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use rmcp::transport::io::{StdioReader, StdioWriter, stdio_pipes};
use tokio::io::{AsyncRead, ReadBuf};
use tokio_util::sync::CancellationToken;

/// Both streams; `ended` is cancelled when input is over, before anything waits for calls that are still running.
pub(crate) fn streams(ended: CancellationToken) -> (EndingReader, StdioWriter) {
    let (inner, writer) = stdio_pipes();
    (EndingReader { inner, ended }, writer)
}

/// Standard input that tells when it is over.
pub(crate) struct EndingReader {
    inner: StdioReader,
    ended: CancellationToken,
}

impl AsyncRead for EndingReader {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let filled = buf.filled().len();
        let polled = Pin::new(&mut this.inner).poll_read(cx, buf);
        let over = match &polled {
            Poll::Ready(Ok(())) => buf.filled().len() == filled && buf.remaining() > 0,
            Poll::Ready(Err(_)) => true,
            Poll::Pending => false,
        };
        if over {
            this.ended.cancel();
        }
        polled
    }
}
