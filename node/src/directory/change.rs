//! What the control plane's watch says, in our own types.

use std::sync::Arc;

use murmur_core::id::{AgentId, NodeId};

use super::Peer;

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// An agent is new or different.
    Agent(Arc<Peer>),
    /// An agent ended.
    Removed(AgentId),
    /// A node came or went.
    Node {
        /// The node.
        node_id: NodeId,
        /// Whether it is connected.
        online: bool,
    },
}

/// Changes that are taken over together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// What changed, in order.
    pub changes: Vec<Change>,
    /// These changes are the whole directory: what they do not name is gone.
    pub whole: bool,
    /// Where a later watch goes on behind these changes, if the control plane said so.
    pub resume_token: Option<String>,
}
