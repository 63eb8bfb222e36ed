//! What the functions of this room share.

use std::sync::Arc;

use murmur_core::id::{AgentId, NodeId, WorkspaceId};

use super::DirectoryError;
use crate::{
    agents::Agents,
    clock::Clock,
    db::{
        Conn, Db,
        agent::{self, Agent},
        node::{self, Node, State},
    },
    hub::Hub,
    tokens::{Principal, Tokens},
};

/// The directory of this control plane.
pub struct Directory {
    pub(super) db: Db,
    pub(super) clock: Clock,
    pub(super) hub: Arc<Hub>,
    pub(super) tokens: Arc<Tokens>,
    pub(super) agents: Arc<Agents>,
}

impl Directory {
    /// The room over a database.
    #[must_use]
    pub fn new(db: Db, clock: Clock, hub: Arc<Hub>, tokens: Arc<Tokens>, agents: Arc<Agents>) -> Self {
        Self { db, clock, hub, tokens, agents }
    }
}

/// The caller's workspace. The administrator of all has none and is asked for a token of one.
pub(super) fn own_workspace(caller: &Principal) -> Result<WorkspaceId, DirectoryError> {
    caller.workspace_id().ok_or(DirectoryError::NoWorkspace)
}

/// The workspace that a caller may read. A node reads once the owner has approved it, and so do its agents.
pub(super) async fn readable_workspace(conn: &mut Conn, caller: &Principal) -> Result<WorkspaceId, DirectoryError> {
    let workspace_id = own_workspace(caller)?;
    if let Some(node_id) = caller.node_id {
        approved_node(conn, (workspace_id, node_id)).await?;
    }
    Ok(workspace_id)
}

/// The calling node, once it is approved.
pub(super) async fn approved_node(
    conn: &mut Conn,
    (workspace_id, id): (WorkspaceId, NodeId),
) -> Result<Node, DirectoryError> {
    let node = node::get(conn, workspace_id, id).await?.ok_or(DirectoryError::NodeNotFound(id))?;
    match node.state {
        State::Approved => Ok(node),
        State::Pending => Err(DirectoryError::NodePending),
        State::Revoked => Err(DirectoryError::NodeNotFound(id)),
    }
}

/// A live agent of the calling node; every other is not found.
pub(super) async fn agent_of_node(
    conn: &mut Conn,
    (workspace_id, node_id): (WorkspaceId, NodeId),
    id: AgentId,
) -> Result<Agent, DirectoryError> {
    let found = agent::live(conn, workspace_id, id).await?.filter(|agent| agent.node_id == node_id);
    found.ok_or_else(|| DirectoryError::AgentNotFound(id.to_string()))
}
