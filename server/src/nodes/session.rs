//! A node's session as rows: presence, and which of its agents are attached.

use std::collections::HashSet;

use murmur_core::id::{AgentId, Incarnation, NodeId, WorkspaceId};

use super::{Ended, NodeError, Nodes};
use crate::{
    db::{
        Conn, DbError, agent, meta,
        node::{self, State},
    },
    random,
    tokens::Principal,
};

/// What a node says first.
#[derive(Debug, Clone)]
pub struct Hello {
    /// New at every start of the node.
    pub incarnation: Incarnation,
    /// Of its program.
    pub version: String,
    /// Its agents with a session right now.
    pub attached: HashSet<AgentId>,
    /// End the other session instead of being refused.
    pub takeover: bool,
}

/// A session that holds the node's lease.
pub struct Session {
    workspace_id: WorkspaceId,
    node_id: NodeId,
    id: [u8; 16],
    /// Resolves when another session took over.
    pub ended: Ended,
}

impl Nodes {
    /// Takes the node's lease and sets its presence online.
    ///
    /// # Errors
    /// [`NodeError`].
    pub async fn open_session(
        &self,
        (workspace_id, node_id): (WorkspaceId, NodeId),
        hello: Hello,
    ) -> Result<Session, NodeError> {
        let now_ms = self.clock.now_ms();
        let id: [u8; 16] = random::bytes()?;
        self.require_approved(workspace_id, node_id).await?;
        let claimed = self.registry.claim(node_id, id, hello.incarnation, hello.takeover, now_ms);
        let session = Session { workspace_id, node_id, id, ended: claimed.map_err(NodeError::Fenced)? };
        match self.store_opened(&session, &hello, now_ms).await {
            Ok(()) => Ok(session),
            Err(error) => {
                self.registry.release(node_id, &id);
                Err(error.into())
            }
        }
    }

    /// Notes a sign of life, of a node whose token still holds.
    ///
    /// # Errors
    /// [`NodeError::Auth`] once it does not.
    pub async fn heard_from(&self, session: &Session, caller: &Principal) -> Result<(), NodeError> {
        let mut tx = self.db.read().await?;
        self.tokens.still_holds(&mut tx, caller).await?;
        self.registry.saw(session.node_id, &session.id, self.clock.now_ms());
        Ok(())
    }

    /// Marks one of the node's agents as attached or detached. One that is not the node's is left alone: it may have been
    /// deregistered a moment ago.
    ///
    /// # Errors
    /// [`NodeError::Db`].
    pub async fn attach(&self, session: &Session, id: AgentId, attached: bool) -> Result<(), NodeError> {
        let mut tx = self.db.write().await?;
        let found = agent::live(&mut tx, session.workspace_id, id).await?;
        let Some(found) = found.filter(|agent| agent.node_id == session.node_id) else { return Ok(()) };
        if found.attached != attached {
            let revision = meta::next_revision(&mut tx).await?;
            agent::set_attached(&mut tx, session.workspace_id, id, attached, revision).await?;
            tx.commit().await?;
            self.hub.ring(session.workspace_id);
        }
        Ok(())
    }

    /// Frees the lease at once and sets presence offline, unless a newer session has the place.
    ///
    /// # Errors
    /// [`NodeError::Db`].
    pub async fn close_session(&self, session: &Session) -> Result<(), NodeError> {
        self.registry.release(session.node_id, &session.id);
        let mut tx = self.db.write().await?;
        let revision = meta::next_revision(&mut tx).await?;
        let place = (session.workspace_id, session.node_id);
        if node::close_session(&mut tx, place, &session.id, self.clock.now_ms(), revision).await? {
            tx.commit().await?;
            self.hub.ring(session.workspace_id);
        }
        Ok(())
    }

    async fn require_approved(&self, workspace_id: WorkspaceId, node_id: NodeId) -> Result<(), NodeError> {
        let mut tx = self.db.read().await?;
        let found = node::get(&mut tx, workspace_id, node_id).await?;
        match found.map(|node| node.state) {
            Some(State::Approved) => Ok(()),
            Some(State::Pending) => Err(NodeError::NodePending),
            Some(State::Revoked) | None => Err(NodeError::NodeNotFound(node_id.to_string())),
        }
    }

    async fn store_opened(&self, session: &Session, hello: &Hello, now_ms: u64) -> Result<(), DbError> {
        let mut tx = self.db.write().await?;
        let revision = meta::next_revision(&mut tx).await?;
        let place = (session.workspace_id, session.node_id);
        node::open_session(&mut tx, place, &session.id, &hello.version, now_ms, revision).await?;
        attach_exactly(&mut tx, place, &hello.attached).await?;
        tx.commit().await?;
        self.hub.ring(session.workspace_id);
        Ok(())
    }
}

/// Marks these agents of the node as attached and all others as detached.
async fn attach_exactly(
    conn: &mut Conn,
    (workspace_id, node_id): (WorkspaceId, NodeId),
    attached: &HashSet<AgentId>,
) -> Result<(), DbError> {
    for agent in agent::live_of_node(conn, workspace_id, node_id).await? {
        let now = attached.contains(&agent.id);
        if agent.attached != now {
            let revision = meta::next_revision(conn).await?;
            agent::set_attached(conn, workspace_id, agent.id, now, revision).await?;
        }
    }
    Ok(())
}
