//! What a chain proves once [`crate::chain`] has checked it. Only that room makes these.

use murmur_core::{
    id::{AgentId, NodeId, WorkspaceId},
    tier::Tier,
};

use crate::{
    cert::{Certificate, Origin},
    hash::Fingerprint,
};

/// An agent's chain that holds: this key speaks for this agent, on this node, under this root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedChain {
    pub(crate) agent: Certificate,
    pub(crate) agent_id: AgentId,
    pub(crate) node: VerifiedNodeChain,
}

impl VerifiedChain {
    /// The agent's certificate.
    #[must_use]
    pub const fn agent(&self) -> &Certificate {
        &self.agent
    }

    /// The agent.
    #[must_use]
    pub const fn agent_id(&self) -> AgentId {
        self.agent_id
    }

    /// The agent's absolute slug.
    #[must_use]
    pub fn slug(&self) -> &str {
        self.agent.claims().slug.as_deref().unwrap_or_default()
    }

    /// The certificate of the node that holds the agent's key.
    #[must_use]
    pub const fn node(&self) -> &Certificate {
        self.node.node()
    }

    /// The node that holds the agent's key.
    #[must_use]
    pub const fn node_id(&self) -> NodeId {
        self.node.node_id()
    }

    /// The workspace.
    #[must_use]
    pub const fn workspace_id(&self) -> WorkspaceId {
        self.agent.claims().workspace_id
    }

    /// The pinned root it ends at.
    #[must_use]
    pub const fn root_fp(&self) -> Fingerprint {
        self.node.root_fp
    }

    /// The operator's when any link is, else the owner's.
    #[must_use]
    pub fn origin(&self) -> Origin {
        self.node.origin.max(self.agent.claims().origin)
    }

    /// How far to trust the agent, given how the root came to be pinned.
    #[must_use]
    pub fn tier(&self, pinned_out_of_band: bool) -> Tier {
        tier(self.origin(), pinned_out_of_band)
    }
}

/// A node's chain that holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedNodeChain {
    pub(crate) node: Certificate,
    pub(crate) node_id: NodeId,
    pub(crate) root_fp: Fingerprint,
    pub(crate) origin: Origin,
}

impl VerifiedNodeChain {
    /// The node's certificate.
    #[must_use]
    pub const fn node(&self) -> &Certificate {
        &self.node
    }

    /// The node.
    #[must_use]
    pub const fn node_id(&self) -> NodeId {
        self.node_id
    }

    /// The pinned root it ends at.
    #[must_use]
    pub const fn root_fp(&self) -> Fingerprint {
        self.root_fp
    }

    /// The operator's when any link is, else the owner's.
    #[must_use]
    pub const fn origin(&self) -> Origin {
        self.origin
    }

    /// How far to trust the node, given how the root came to be pinned.
    #[must_use]
    pub fn tier(&self, pinned_out_of_band: bool) -> Tier {
        tier(self.origin, pinned_out_of_band)
    }
}

const fn tier(origin: Origin, pinned_out_of_band: bool) -> Tier {
    match (origin, pinned_out_of_band) {
        (Origin::Operator, _) => Tier::Operator,
        (Origin::Owner, true) => Tier::Verified,
        (Origin::Owner, false) => Tier::Pinned,
    }
}
