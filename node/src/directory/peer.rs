//! One entry of the directory, parsed.

use bytes::Bytes;
use murmur_core::{
    id::{AgentId, NodeId},
    slug::Slug,
    subject::Route,
};

/// What keeps an agent alive (DESIGN §8.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AgentKind {
    /// A session that a person or program attached by itself.
    Interactive,
    /// A process that its node started.
    Spawned,
}

impl AgentKind {
    /// `murmur.v1.AgentKind`, as stored.
    #[must_use]
    pub const fn number(self) -> i32 {
        match self {
            Self::Interactive => 1,
            Self::Spawned => 2,
        }
    }

    /// Reads `murmur.v1.AgentKind`. A kind of a newer version counts as spawned, which nobody may speak for without a token.
    #[must_use]
    pub const fn from_number(number: i32) -> Self {
        match number {
            1 => Self::Interactive,
            _ => Self::Spawned,
        }
    }
}

/// An agent's published keys, not yet believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerKeys {
    /// Serialized `Chain`.
    pub chain: Bytes,
    /// Serialized `SignedStatement` of the newest prekey.
    pub prekey: Bytes,
}

/// An agent of the workspace as the control plane describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The agent.
    pub agent_id: AgentId,
    /// Its slug.
    pub slug: Slug,
    /// The node that holds its keys.
    pub node_id: NodeId,
    /// What keeps it alive.
    pub kind: AgentKind,
    /// What it is for, in its owner's words.
    pub description: String,
    /// Its group; empty for none.
    pub group: String,
    /// Its host's name, for people.
    pub host: String,
    /// Whether it has a session. It is online when its node is, too.
    pub attached: bool,
    /// Where its node takes deliveries; `None` until the node has a route.
    pub route: Option<Route>,
    /// Its keys; `None` until its node published them.
    pub keys: Option<PeerKeys>,
    /// Goes up with every change of the entry.
    pub revision: u64,
    /// When it was registered.
    pub created_ms: u64,
    /// The node that it moved away from last, and when.
    pub former: Option<(NodeId, u64)>,
}
