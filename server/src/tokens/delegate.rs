//! Whom a node speaks for: a person of its account, or one of its agents (ADR 11).
//!
//! The node has found out who calls, by the socket's peer and the agent's own token, which the control plane does not know. What it
//! says is believed about its own agents and its own account alone, inside the prefixes that its certificate gives it.

use std::str::FromStr;

use murmur_core::{
    id::{AgentId, NodeId, WorkspaceId},
    slug::{Scope as SlugScope, WorkspaceName},
    token::TokenKind,
};
use murmur_proto::v1::Scope;

use super::{Principal, ScopeSet, Tokens};
use crate::db::{
    DbError, Source, agent,
    node::{self, Node, State},
};

/// What those whom a node speaks for may do.
const SCOPES: [Scope; 10] = [
    Scope::DirectoryRead,
    Scope::AgentsRead,
    Scope::AgentsSpawn,
    Scope::AgentsKill,
    Scope::AgentsMessage,
    Scope::TasksRead,
    Scope::TasksWrite,
    Scope::EventsRead,
    Scope::EventsPublish,
    Scope::UploadsWrite,
];

/// For whom a node makes a call, written `user`, or `agent:` and an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delegate {
    /// Whoever owns the node's account.
    User,
    /// An agent of the node.
    Agent(AgentId),
}

/// A text that names nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be `user`, or `agent:` and an agent's id")]
pub struct InvalidDelegate;

impl FromStr for Delegate {
    type Err = InvalidDelegate;

    fn from_str(text: &str) -> Result<Self, InvalidDelegate> {
        match text.strip_prefix("agent:") {
            Some(id) => id.parse().map(Self::Agent).map_err(|_| InvalidDelegate),
            None if text == "user" => Ok(Self::User),
            None => Err(InvalidDelegate),
        }
    }
}

/// Why a node may not speak for somebody.
#[derive(Debug, thiserror::Error)]
pub enum DelegateError {
    /// The caller is no node.
    #[error("only a node speaks for others")]
    NotANode,
    /// The node is not approved, or not any more.
    #[error("a node speaks for others once its owner has approved it")]
    NotApproved,
    /// The agent is another node's, has ended, or never was.
    #[error("no live agent {0} of this node")]
    ForeignAgent(AgentId),
    /// The node may name nothing in its own account.
    #[error("the node's scope does not reach into its account")]
    OutsideAccount,
    /// The database failed.
    #[error("reading whom the node speaks for")]
    Db(#[from] DbError),
}

impl Tokens {
    /// The caller that a node names beside its own token.
    ///
    /// # Errors
    /// [`DelegateError`].
    pub(crate) async fn speaking_for(
        &self,
        node: &Principal,
        place: (WorkspaceId, NodeId),
        named: Delegate,
    ) -> Result<Principal, DelegateError> {
        // A node and one of its agents, which need not be of the same moment.
        let mut tx = self.db.look()?;
        let (_, workspace) = node.workspace.as_ref().ok_or(DelegateError::NotANode)?;
        let found = node::get(&mut tx, place.0, place.1).await?;
        let found = found.filter(|node| node.state == State::Approved).ok_or(DelegateError::NotApproved)?;
        let slug_prefix = Some(prefix(&found, workspace).ok_or(DelegateError::OutsideAccount)?);
        let (kind, agent_id) = match named {
            Delegate::User => (TokenKind::User, None),
            Delegate::Agent(id) => (TokenKind::Agent, Some(own_agent(&mut tx, place, id).await?)),
        };
        let scopes: ScopeSet = SCOPES.into_iter().collect();
        Ok(Principal { kind, account: Some(found.account), agent_id, scopes, slug_prefix, ..node.clone() })
    }
}

async fn own_agent(
    conn: &mut impl Source,
    (workspace_id, node_id): (WorkspaceId, NodeId),
    id: AgentId,
) -> Result<AgentId, DelegateError> {
    let found = agent::live(conn, workspace_id, id).await?.filter(|agent| agent.node_id == node_id);
    found.map(|agent| agent.id).ok_or(DelegateError::ForeignAgent(id))
}

/// The account, or as much of it as the node may name.
fn prefix(node: &Node, workspace: &WorkspaceName) -> Option<SlugScope> {
    let account = SlugScope::account(workspace, &node.account);
    if node.slug_scope.iter().any(|scope| scope.contains_scope(&account)) {
        return Some(account);
    }
    node.slug_scope.iter().find(|scope| account.contains_scope(scope)).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_two_forms_name_somebody() {
        let id = AgentId::from_bytes([7; 16]);
        assert_eq!("user".parse(), Ok(Delegate::User));
        assert_eq!(format!("agent:{id}").parse(), Ok(Delegate::Agent(id)));
        for text in ["", "User", "user ", "agent:", "agent:alice", "agent", "node", "admin", "user,agent:x"] {
            assert_eq!(text.parse::<Delegate>(), Err(InvalidDelegate), "{text}");
        }
    }
}
