//! The owner's signature under a node.

use murmur_core::{id::NodeId, slug::Scope};
use murmur_crypto::{
    cert::{Certificate, RootCertificate},
    chain::{Chain, ChainError, NothingSeen, verify_node_chain},
};

use super::{NodeError, Nodes, room::visible};
use crate::{
    db::{
        meta,
        node::{self, Node, State},
        workspace,
    },
    tokens::Principal,
};

impl Nodes {
    /// Stores a node's certificate, the first one or a renewed one.
    ///
    /// # Errors
    /// [`NodeError`].
    pub async fn approve(&self, caller: &Principal, id: NodeId, certificate: Vec<u8>) -> Result<Node, NodeError> {
        let now_ms = self.clock.now_ms();
        let mut tx = self.db.write().await?;
        let node = visible(&mut tx, caller, id).await?;
        if node.state == State::Revoked {
            return Err(NodeError::NodeNotFound(id.to_string()));
        }
        if node.certificate.as_ref() == Some(&certificate) {
            return Ok(node);
        }
        let root = workspace::root(&mut tx, node.workspace_id).await?;
        let (serial, slug_scope) = check(&root, &node, certificate.clone(), now_ms)?;
        let revision = meta::next_revision(&mut tx).await?;
        let certificate = Some(certificate);
        let node = Node { state: State::Approved, certificate, serial, slug_scope, revision, ..node };
        node::put(&mut tx, &node).await?;
        tx.commit().await?;
        self.hub.ring(node.workspace_id);
        tracing::info!(node.id = %id, node.name = %node.name, "node {} approved", node.name);
        Ok(node)
    }
}

/// The certificate's serial and scope, when it is one for this node.
fn check(
    root: &RootCertificate,
    node: &Node,
    certificate: Vec<u8>,
    now_ms: u64,
) -> Result<(u64, Vec<Scope>), NodeError> {
    let certificate = Certificate::decode(certificate).map_err(ChainError::Malformed)?;
    let chain = Chain::new(certificate, Vec::new())?;
    let verified = verify_node_chain(&chain, root, now_ms, &NothingSeen)?;
    let claims = verified.node().claims();
    let refuse = |rule: String| Err(NodeError::Certificate(rule));
    if verified.node_id() != node.id {
        return refuse(format!("it is node {}'s, not {}'s", verified.node_id(), node.id));
    }
    if *claims.public_key.as_bytes() != node.public_key {
        return refuse("its key is not the one that the node enrolled".into());
    }
    if claims.serial <= node.serial && node.certificate.is_some() {
        return refuse(format!("its serial must be above {}, got {}", node.serial, claims.serial));
    }
    let scope: Vec<Scope> = claims
        .slug_scope
        .iter()
        .map(|text| text.parse())
        .collect::<Result<_, _>>()
        .map_err(|error| NodeError::Certificate(format!("{error}")))?;
    if scope.is_empty() {
        return refuse("it has no scope, so the node could name no agent".into());
    }
    match scope.iter().find(|inner| !node.slug_scope.iter().any(|outer| outer.contains_scope(inner))) {
        Some(beyond) => refuse(format!("scope {beyond} is outside what the invite allows")),
        None => Ok((claims.serial, scope)),
    }
}
