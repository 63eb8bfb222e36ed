//! What the functions of this room share.

use std::sync::Arc;

use murmur_core::id::NodeId;
use tokio::sync::{Notify, watch};

use super::{NodeError, Registry};
use crate::{
    agents::Agents,
    broker_link::BrokerLink,
    clock::Clock,
    db::{
        Conn, Db, meta,
        node::{self, Node},
    },
    hub::Hub,
    tokens::{Principal, Tokens},
};

/// The nodes of this control plane.
pub struct Nodes {
    pub(super) db: Db,
    pub(super) clock: Clock,
    pub(super) hub: Arc<Hub>,
    pub(super) tokens: Arc<Tokens>,
    pub(super) registry: Registry,
    pub(super) broker: Arc<BrokerLink>,
    pub(super) agents: Arc<Agents>,
    /// Rings when a workspace has a new revocation list.
    pub(super) lists: watch::Sender<()>,
    /// The broker is to be told of something that it could not be told at once.
    pub(super) broker_due: Notify,
    /// How long a node's token is good.
    pub(super) token_life_ms: u64,
}

impl Nodes {
    /// The room over a database. Sessions that a dead control plane left behind are ended.
    ///
    /// # Errors
    /// [`NodeError::Db`].
    pub async fn open(
        db: Db,
        clock: Clock,
        (hub, tokens): (Arc<Hub>, Arc<Tokens>),
        (broker, agents): (Arc<BrokerLink>, Arc<Agents>),
        token_life_ms: u64,
    ) -> Result<Self, NodeError> {
        let mut tx = db.write().await?;
        let revision = meta::next_revision(&mut tx).await?;
        let left_behind = node::close_all_sessions(&mut tx, clock.now_ms(), revision).await?;
        tx.commit().await?;
        if left_behind > 0 {
            tracing::info!(nodes = left_behind, "{left_behind} nodes are offline since the last stop");
        }
        Ok(Self {
            db,
            clock,
            hub,
            tokens,
            registry: Registry::default(),
            broker,
            agents,
            lists: watch::Sender::new(()),
            broker_due: Notify::new(),
            token_life_ms,
        })
    }

    /// How many sessions live.
    #[must_use]
    pub fn session_count(&self) -> usize {
        self.registry.len()
    }
}

/// A node that the caller may see: of its own workspace, or any for an administrator of all.
pub(super) async fn visible(conn: &mut Conn, caller: &Principal, id: NodeId) -> Result<Node, NodeError> {
    let not_found = || NodeError::NodeNotFound(id.to_string());
    let workspace_id = match caller.workspace_id() {
        Some(own) => own,
        None => node::workspace_of(conn, id).await?.ok_or_else(not_found)?,
    };
    node::get(conn, workspace_id, id).await?.ok_or_else(not_found)
}
