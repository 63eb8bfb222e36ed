//! Output on its way from an agent's node to whoever watches. Nothing is kept here.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use murmur_core::{
    id::{AgentId, NodeId, WorkspaceId},
    output::OutputPosition,
};
use murmur_proto::v1::{self, watch_orders_response::Item};
use tokio::sync::mpsc;

use super::{
    AgentError, Agents,
    find::{Who, resolved},
};
use crate::{
    invalid::{Invalid, parse},
    random,
    tokens::Principal,
};

/// Chunks that wait for a slow watcher; then the node's stream waits.
const CHUNKS_MAX: usize = 64;

/// Who watches, by the id that the node was told.
#[derive(Default)]
pub(super) struct Relay {
    watches: Arc<Mutex<HashMap<AgentId, Watch>>>,
}

struct Watch {
    node_id: NodeId,
    chunks: mpsc::Sender<v1::OutputChunk>,
    /// The node's stream has begun: its end is the output's.
    taken: bool,
}

impl Relay {
    /// A node's stream of orders ended: it never heard of wishes that no stream of its has answered.
    pub(super) fn lost(&self, node_id: NodeId) {
        lock(&self.watches).retain(|_, watch| watch.node_id != node_id || watch.taken);
    }
}

fn lock(watches: &Mutex<HashMap<AgentId, Watch>>) -> MutexGuard<'_, HashMap<AgentId, Watch>> {
    watches.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a watcher reads. Dropping it tells the node that nobody watches.
pub struct OutputWatch {
    /// Ends with the output, or with the node's stream.
    pub chunks: mpsc::Receiver<v1::OutputChunk>,
    id: AgentId,
    watches: Arc<Mutex<HashMap<AgentId, Watch>>>,
    node: String,
}

impl OutputWatch {
    /// After the end of `chunks`: whether the output ended, or the node was lost before it said anything.
    ///
    /// # Errors
    /// [`AgentError::NodeOffline`].
    pub fn end(&self) -> Result<(), AgentError> {
        // A stream that ended properly left its mark.
        match lock(&self.watches).get(&self.id) {
            Some(watch) if watch.taken => Ok(()),
            _ => Err(AgentError::NodeOffline(format!("node {} went away", self.node))),
        }
    }
}

impl Drop for OutputWatch {
    fn drop(&mut self) {
        lock(&self.watches).remove(&self.id);
    }
}

/// Where a node's stream of output goes.
#[derive(Debug)]
pub struct OutputSink {
    /// Closed when nobody watches any more.
    pub chunks: mpsc::Sender<v1::OutputChunk>,
    id: AgentId,
}

impl Agents {
    /// Asks an agent's node for its output.
    ///
    /// # Errors
    /// [`AgentError::NodeOffline`] while the node does not listen.
    pub async fn watch_output(
        &self,
        principal: &Principal,
        request: &v1::WatchAgentOutputRequest,
    ) -> Result<OutputWatch, AgentError> {
        if !request.resume_token.is_empty() {
            parse::<OutputPosition>("resume_token", &request.resume_token)?;
        }
        let mut tx = self.db.read().await?;
        let who = Who::of(&mut tx, principal).await?;
        let run = resolved(&mut tx, &who, &request.slug).await?;
        drop(tx);
        if run.interactive {
            return Err(
                Invalid::new("slug", "must be an agent that a node started: of others no output is kept").into()
            );
        }
        let Some(node_id) = run.node_id else {
            return Err(AgentError::NodeOffline(format!("{} has no node yet: {}", run.slug, run.reason)));
        };
        let id = AgentId::new_v7(self.clock.now_ms(), random::bytes()?);
        let (chunks, out) = mpsc::channel(CHUNKS_MAX);
        lock(&self.relay.watches).insert(id, Watch { node_id, chunks, taken: false });
        let watch =
            OutputWatch { chunks: out, id, watches: Arc::clone(&self.relay.watches), node: run.node_name.clone() };
        let wanted = v1::OutputWanted {
            watch_id: id.to_string(),
            agent_id: run.agent_id.to_string(),
            follow: request.follow,
            tail: request.tail,
            resume_token: request.resume_token.clone(),
        };
        if self.ask_node(node_id, Item::OutputWanted(wanted)) {
            Ok(watch)
        } else {
            Err(AgentError::NodeOffline(format!("node {} is not connected", run.node_name)))
        }
    }

    /// Whoever watches what a node is about to send; `None` when nobody does any more.
    ///
    /// # Errors
    /// [`AgentError::Invalid`] for an id that is none.
    pub fn output_sink(
        &self,
        (_, node_id): (WorkspaceId, NodeId),
        watch_id: &str,
    ) -> Result<Option<OutputSink>, AgentError> {
        let id: AgentId = parse("watch_id", watch_id)?;
        let mut watches = lock(&self.relay.watches);
        let Some(watch) = watches.get_mut(&id).filter(|watch| watch.node_id == node_id && !watch.taken) else {
            return Ok(None);
        };
        watch.taken = true;
        // From now on the node's stream alone holds the way to the watcher open.
        let chunks = std::mem::replace(&mut watch.chunks, mpsc::channel(1).0);
        Ok(Some(OutputSink { chunks, id }))
    }

    /// The node's stream broke off before it was through.
    pub fn output_broke(&self, sink: &OutputSink) {
        lock(&self.relay.watches).remove(&sink.id);
    }
}
