//! A node's session as rows: presence, and which of its agents are attached.

use std::collections::HashSet;

use murmur_core::id::{AgentId, Incarnation, NodeId, TokenId, WorkspaceId};

use super::{Ended, NodeError, Nodes, token::taken_into_use};
use crate::{
    db::{
        Conn, DbError, agent,
        lease::{self, Departed, Lease},
        meta,
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
    /// How far its store has come.
    pub store_mark: u64,
}

/// A session that holds the node's lease.
pub struct Session {
    pub(super) workspace_id: WorkspaceId,
    node_id: NodeId,
    id: [u8; 16],
    incarnation: Incarnation,
    /// The largest mark that the node ever told.
    pub store_mark: u64,
    /// When the node's token is to be renewed, Unix milliseconds.
    pub token_renew_ms: Option<u64>,
    /// Resolves when another session took over, or with an error when the node was revoked.
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
        caller: &Principal,
        hello: Hello,
    ) -> Result<Session, NodeError> {
        let now_ms = self.clock.now_ms();
        let id: [u8; 16] = random::bytes()?;
        self.require_approved(workspace_id, node_id).await?;
        let claimed = self.registry.claim(node_id, id, hello.incarnation, hello.takeover, now_ms);
        let ended = claimed.map_err(NodeError::Fenced)?;
        let incarnation = hello.incarnation;
        let mut session =
            Session { workspace_id, node_id, id, incarnation, store_mark: 0, token_renew_ms: None, ended };
        match self.store_opened(&mut session, caller.token_id, &hello, now_ms).await {
            Ok(()) => Ok(session),
            Err(error) => {
                self.registry.release(node_id, &id);
                Err(error)
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

    /// Remembers how far the node's store has come. The mark is the node's word alone and concerns nobody else.
    ///
    /// # Errors
    /// [`NodeError::Db`].
    pub async fn note_store(&self, session: &mut Session, mark: u64) -> Result<(), NodeError> {
        if mark != session.store_mark {
            let mut tx = self.db.write().await?;
            lease::set_store_mark(&mut tx, (session.workspace_id, session.node_id), mark).await?;
            tx.commit().await?;
            session.store_mark = mark;
        }
        Ok(())
    }

    /// Refuses a call of an incarnation that is not this node any more: another one has its place, or had it since. One that has not
    /// said hello yet is let pass, and so is one that states no incarnation.
    ///
    /// # Errors
    /// [`NodeError::Fenced`].
    pub async fn require_current(
        &self,
        place: (WorkspaceId, NodeId),
        caller: Option<Incarnation>,
    ) -> Result<(), NodeError> {
        let Some(caller) = caller else { return Ok(()) };
        let live = match self.registry.holder(place.1) {
            Some(holder) => Some(holder),
            None => {
                let mut tx = self.db.read().await?;
                let last = lease::get(&mut tx, place).await?.and_then(|lease| lease.incarnation);
                // An incarnation begins with the time of its making.
                last.filter(|last| caller.as_bytes() < last.as_bytes())
            }
        };
        match live.filter(|holder| *holder != caller) {
            Some(holder) => Err(NodeError::Fenced(holder)),
            None => Ok(()),
        }
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
    pub async fn close_session(&self, session: &Session, departed: Departed) -> Result<(), NodeError> {
        self.registry.release(session.node_id, &session.id);
        let place = (session.workspace_id, session.node_id);
        let mut tx = self.db.write().await?;
        let revision = meta::next_revision(&mut tx).await?;
        let was_current = node::close_session(&mut tx, place, &session.id, self.clock.now_ms(), revision).await?;
        if was_current {
            // How a connection ended that the same process has replaced says nothing about that process.
            lease::leave(&mut tx, place, session.incarnation, departed).await?;
        }
        tx.commit().await?;
        if was_current {
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

    async fn store_opened(
        &self,
        session: &mut Session,
        token: TokenId,
        hello: &Hello,
        now_ms: u64,
    ) -> Result<(), NodeError> {
        let mut tx = self.db.write().await?;
        let place = (session.workspace_id, session.node_id);
        // It may have been revoked since it was looked at.
        if node::get(&mut tx, place.0, place.1).await?.is_none_or(|node| node.state != State::Approved) {
            return Err(NodeError::NodeNotFound(session.node_id.to_string()));
        }
        let revision = meta::next_revision(&mut tx).await?;
        let last = lease::get(&mut tx, place).await?;
        // Whoever held the lease before and did not say goodbye may still be connected to the broker. What one was handed that was killed
        // comes again by itself, and is counted: a message that kills its recipient must be recognised.
        let is_other = |last: &Lease| last.incarnation.is_some_and(|other| other != hello.incarnation);
        let other = last.filter(is_other);
        let may_run = other.is_some_and(|other| other.departed == Departed::No || hello.takeover);
        let is_void = may_run || other.is_some_and(|other| other.departed == Departed::Broke);
        lease::grant(&mut tx, place, hello.incarnation, is_void.then_some(now_ms / 1000), may_run).await?;
        node::open_session(&mut tx, place, &session.id, &hello.version, now_ms, revision).await?;
        attach_exactly(&mut tx, place, &hello.attached).await?;
        let (token_renew_ms, replaced) = taken_into_use(&mut tx, place, token, now_ms).await?;
        tx.commit().await?;
        self.tokens.forget(&replaced);
        self.hub.ring(session.workspace_id);
        session.store_mark = last.map_or(0, |last| last.store_mark);
        session.token_renew_ms = token_renew_ms;
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
