//! Broker credentials: a route for the node, its stream and consumer, and a signed user token for its own broker key.

use murmur_core::{
    id::{NodeId, WorkspaceId},
    subject::{Route, Shard, consumer_name, stream_name},
};

use super::{NodeError, Nodes};
use crate::{
    broker_link::Access,
    db::{
        agent,
        lease::{self, Lease},
        meta,
        node::{self, Node, State},
    },
    invalid::Invalid,
};

/// What a node needs to reach its mail.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// Token, addresses and authority.
    pub access: Access,
    /// Where the node takes deliveries.
    pub route: Route,
    /// The stream they wait in.
    pub stream: String,
    /// The consumer that hands them out.
    pub consumer: String,
}

impl Nodes {
    /// Prepares the broker for a node and signs its credential.
    ///
    /// # Errors
    /// [`NodeError`].
    pub async fn credentials(
        &self,
        (workspace_id, id): (WorkspaceId, NodeId),
        broker_public_key: &str,
        redeliver: bool,
    ) -> Result<Credentials, NodeError> {
        let (node, lease) = self.approved(workspace_id, id).await?;
        if node.broker_public_key != broker_public_key {
            return Err(Invalid::new("broker_public_key", "must be the key given at enrolment").into());
        }
        // One shard until a site outgrows it; the directory hands the number out, so senders need not know.
        let route = Route { site: self.broker.site().clone(), shard: Shard::ZERO, workspace: workspace_id, node: id };
        let (issue_s, take_back) = self.void_earlier((workspace_id, id), broker_public_key, lease).await?;
        // What an earlier incarnation was handed, did not acknowledge and may still hold is for this one.
        let access = self.broker.admit(&route, broker_public_key, issue_s, redeliver || take_back).await?;
        self.store_route(&node, &route).await?;
        // One that was revoked meanwhile has its credentials voided ahead of the clock; what was made for it goes, too.
        if let Err(error) = self.approved(workspace_id, id).await {
            self.broker_due.notify_one();
            return Err(error);
        }
        Ok(Credentials { access, stream: stream_name(route.shard), consumer: consumer_name(id), route })
    }

    /// Voids at the broker what an earlier incarnation got, if that has to be. Returns the Unix second from which on a credential
    /// counts, and whether what that one was handed is to be taken back.
    async fn void_earlier(
        &self,
        place: (WorkspaceId, NodeId),
        broker_public_key: &str,
        lease: Option<Lease>,
    ) -> Result<(u64, bool), NodeError> {
        let now_s = self.clock.now_ms() / 1000;
        let Some(lease) = lease else { return Ok((now_s, false)) };
        let is_due = lease.void_s > lease.voided_s;
        if is_due {
            self.broker.void(broker_public_key, lease.void_s).await?;
            let mut tx = self.db.write().await?;
            lease::voided(&mut tx, place, lease.void_s).await?;
            tx.commit().await?;
            tracing::info!(node.id = %place.1, "broker credentials of an earlier incarnation of node {} are void", place.1);
        }
        // The broker refuses what was issued in or before that second; the clock may also have been set back since.
        let issue_s = if lease.void_s == 0 { now_s } else { now_s.max(lease.void_s + 1) };
        Ok((issue_s, is_due && lease.redeliver))
    }

    /// A node that counts, and its lease as of the same moment: a revocation voids ahead of the clock, which nothing may be issued beyond.
    async fn approved(&self, workspace_id: WorkspaceId, id: NodeId) -> Result<(Node, Option<Lease>), NodeError> {
        let mut tx = self.db.read().await?;
        let node = node::get(&mut tx, workspace_id, id).await?;
        let node = node.ok_or_else(|| NodeError::NodeNotFound(id.to_string()))?;
        match node.state {
            State::Approved => Ok((node, lease::get(&mut tx, (workspace_id, id)).await?)),
            State::Pending => Err(NodeError::NodePending),
            State::Revoked => Err(NodeError::NodeNotFound(id.to_string())),
        }
    }

    /// Remembers the route; it is part of every entry of the node's agents.
    async fn store_route(&self, node: &Node, route: &Route) -> Result<(), NodeError> {
        let text = route.to_string();
        if node.route == text {
            return Ok(());
        }
        let mut tx = self.db.write().await?;
        let found = node::get(&mut tx, node.workspace_id, node.id).await?;
        if found.is_none_or(|found| found.state != State::Approved) {
            return Err(NodeError::NodeNotFound(node.id.to_string()));
        }
        let revision = meta::next_revision(&mut tx).await?;
        node::set_route(&mut tx, (node.workspace_id, node.id), &text, revision).await?;
        for agent in agent::live_of_node(&mut tx, node.workspace_id, node.id).await? {
            let revision = meta::next_revision(&mut tx).await?;
            agent::touch(&mut tx, node.workspace_id, agent.id, revision).await?;
        }
        tx.commit().await?;
        self.hub.ring(node.workspace_id);
        Ok(())
    }
}
