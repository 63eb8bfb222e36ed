//! One connection of a visitor: the node is asked, and answers with a stream.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use murmur_core::id::{AgentId, NodeId};
use murmur_proto::v1::{self, watch_orders_response::Item};
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex},
    sync::{OwnedSemaphorePermit, oneshot},
};
use tokio_util::sync::CancellationToken;

use super::{
    DialError, Tunnels,
    room::{Waiting, lock},
};
use crate::{db::tunnel, links::LinkKey, random};

/// How long a node may take to connect.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Between the visitor's side and the frames.
const PIPE_BYTES: usize = 32 * 1024;

/// A connection to a port, for the visitor's side. Dropping it ends it.
pub struct Line {
    pipe: DuplexStream,
    /// Cancelled when the tunnel's agent has ended.
    pub closed: CancellationToken,
    _places: [OwnedSemaphorePermit; 2],
    _entry: Entry,
}

/// Takes a connection off the list of those that live.
struct Entry {
    tunnels: Arc<Tunnels>,
    id: AgentId,
}

impl Drop for Entry {
    fn drop(&mut self) {
        lock(&self.tunnels.waiting).remove(&self.id);
        lock(&self.tunnels.live).remove(&self.id);
    }
}

/// The node's side of a connection.
pub struct Answered {
    /// What the frames carry.
    pub pipe: DuplexStream,
    /// Cancelled when the tunnel's agent has ended.
    pub closed: CancellationToken,
}

impl Tunnels {
    /// Connects to the port of a tunnel.
    ///
    /// # Errors
    /// [`DialError`].
    pub async fn dial(self: &Arc<Self>, key: LinkKey) -> Result<Line, DialError> {
        let id = AgentId::new_v7(self.clock.now_ms(), random::bytes()?);
        let closed = CancellationToken::new();
        let entry = Entry { tunnels: Arc::clone(self), id };
        // On the list before it is looked whether the agent lives, or an end in between would be missed.
        lock(&self.live).insert(id, (key, closed.clone()));
        let mut tx = self.db.read().await?;
        let tunnel = tunnel::live(&mut tx, key).await?.ok_or(DialError::NotFound)?;
        drop(tx);
        let places = self.places(key, tunnel.node_id).ok_or(DialError::Busy)?;
        let (answer, answered) = oneshot::channel();
        lock(&self.waiting).insert(id, Waiting { node_id: tunnel.node_id, answer, closed: closed.clone() });
        let wanted = v1::TunnelWanted { connection_id: id.to_string(), tunnel_id: key.to_string() };
        if !self.agents.ask_node(tunnel.node_id, Item::TunnelWanted(wanted)) {
            return Err(DialError::Offline);
        }
        let answered = tokio::select! {
            answered = tokio::time::timeout(ANSWER_MAX, answered) => answered.map_err(|_| DialError::Silent)?,
            () = closed.cancelled() => return Err(DialError::NotFound),
        };
        let pipe = answered.map_err(|_| DialError::Silent)?.map_err(DialError::Refused)?;
        Ok(Line { pipe, closed, _places: places, _entry: entry })
    }

    /// A node has connected, or says why it has not. `None` when nobody waits for that, or waits no more.
    pub fn answered(&self, node_id: NodeId, opened: &v1::TunnelOpened) -> Option<Answered> {
        let id: AgentId = opened.connection_id.parse().ok()?;
        let mut waiting = lock(&self.waiting);
        waiting.get(&id).filter(|waiting| waiting.node_id == node_id)?;
        let Waiting { answer, closed, .. } = waiting.remove(&id)?;
        drop(waiting);
        if !opened.refused.is_empty() {
            let _ = answer.send(Err(opened.refused.chars().filter(|c| !c.is_control()).take(200).collect()));
            return None;
        }
        let (near, far) = duplex(PIPE_BYTES);
        answer.send(Ok(near)).ok()?;
        Some(Answered { pipe: far, closed })
    }
}

impl AsyncRead for Line {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_read(cx, buf)
    }
}

impl AsyncWrite for Line {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.pipe).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_shutdown(cx)
    }
}
