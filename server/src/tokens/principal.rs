//! Who calls.

use murmur_core::{
    id::{AgentId, NodeId, TokenId, WorkspaceId},
    slug::{AccountName, Scope as SlugScope, WorkspaceName},
    token::TokenKind,
};

use super::ScopeSet;

/// A caller whose token was verified.
#[derive(Debug, Clone)]
pub struct Principal {
    /// The token; a node's own when it speaks for somebody.
    pub token_id: TokenId,
    /// Whom it speaks for.
    pub kind: TokenKind,
    /// Where it is valid, id and name; `None` for an administrator of all workspaces.
    pub workspace: Option<(WorkspaceId, WorkspaceName)>,
    /// Whose it is, if anybody's.
    pub account: Option<AccountName>,
    /// Set for a node, for an agent's token, and for whomever a node speaks for.
    pub node_id: Option<NodeId>,
    /// Set for an agent.
    pub agent_id: Option<AgentId>,
    /// What it may do.
    pub scopes: ScopeSet,
    /// Where it may do it; `None`: everywhere.
    pub slug_prefix: Option<SlugScope>,
    /// Unix milliseconds; `None`: never.
    pub expire_ms: Option<u64>,
}

/// Whose calls are counted together: those of one token, apart by whom a node speaks for.
pub type RateKey = (TokenId, &'static str, Option<AgentId>);

impl Principal {
    /// Whose calls are counted together.
    #[must_use]
    pub fn rate_key(&self) -> RateKey {
        (self.token_id, self.kind.as_str(), self.agent_id)
    }

    /// The workspace's id, `None` for an administrator of all.
    #[must_use]
    pub fn workspace_id(&self) -> Option<WorkspaceId> {
        self.workspace.as_ref().map(|(id, _)| *id)
    }

    /// The node, when the caller is one.
    #[must_use]
    pub fn as_node(&self) -> Option<(WorkspaceId, NodeId)> {
        match self.kind {
            TokenKind::Node => Some((self.workspace_id()?, self.node_id?)),
            TokenKind::User | TokenKind::Agent | TokenKind::Ci | TokenKind::Admin => None,
        }
    }

    /// Whether the caller may act for what lies under `scope`.
    #[must_use]
    pub fn reaches(&self, scope: &SlugScope) -> bool {
        self.slug_prefix.as_ref().is_none_or(|prefix| prefix.contains_scope(scope))
    }
}
