//! Nodes that do not count any more (PROTOCOL §3.6): the owner signs a list, and whatever it revokes is cut off here.
//!
//! The control plane adds nothing to the list and takes nothing from it. What it does of its own is to end what it gave those nodes:
//! tokens, sessions, entries in the directory, broker credentials and mail that waits there. The other nodes hold to the list itself.

use bytes::Bytes;
use murmur_core::{
    id::{NodeId, WorkspaceId},
    limits::REVOCATION_KEPT_MS,
    slug::WorkspaceName,
    subject::Route,
};
use murmur_crypto::{
    cert::Certificate,
    revocation::{Revocation, RevocationList, Revoked},
};
use tokio::sync::watch;

use super::{NodeError, Nodes, Session};
use crate::{
    agents::{Work, end_all_of_node},
    db::{
        Conn, DbError, lease, meta,
        node::{self, Node, State},
        revocation_list, token, workspace,
    },
    tokens::{Principal, target_workspace},
};

/// Nodes looked at in one go.
const PAGE: u32 = 500;
/// Broker credentials that were signed while the node was being revoked are void too, whatever the clock does meanwhile.
const VOID_AHEAD_S: u64 = 24 * 3600;

/// What a list did.
pub struct Published {
    /// The nodes that it revoked.
    pub nodes: Vec<Node>,
    /// False while the broker cannot be told.
    pub broker_told: bool,
}

impl Nodes {
    /// Takes the owner's next list, and cuts off the nodes that it revokes.
    ///
    /// # Errors
    /// [`NodeError`].
    pub async fn publish_revocations(
        &self,
        caller: &Principal,
        workspace: Option<WorkspaceName>,
        bytes: Bytes,
    ) -> Result<Published, NodeError> {
        let mut work = self.agents.begin().await?;
        let (workspace_id, _) = target_workspace(&mut work, caller, workspace.as_ref()).await?;
        let root = workspace::root(&mut work, workspace_id).await?;
        let list = RevocationList::decode(bytes, &root)?;
        if let Some((_, stored)) = revocation_list::get(&mut work, workspace_id).await? {
            let stored = RevocationList::decode(stored, &root)
                .map_err(|_| DbError::Corrupt { column: "revocation_list.list" })?;
            if list != stored {
                check_follows(&stored, &list, work.now_ms())?;
            }
        }
        revocation_list::put(&mut work, workspace_id, list.spec().version, &list.encode()).await?;
        let mut nodes = Vec::new();
        for (node, why) in revoked_by(&mut work, workspace_id, &list).await? {
            nodes.push(revoke(&mut work, &node, &why).await?);
        }
        work.directory_moved(workspace_id);
        self.agents.commit(work).await?;
        for node in &nodes {
            self.registry.evict(node.id);
            tracing::warn!(node.id = %node.id, node.name = %node.name, "node {} is revoked", node.name);
        }
        self.lists.send_replace(());
        let broker_told = match self.void_revoked().await {
            Ok(()) => true,
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(error, "the broker is told of the revocation as soon as it can be");
                false
            }
        };
        // What waits for them is deleted behind this call: that may take as long as there is mail.
        self.broker_due.notify_one();
        Ok(Published { nodes, broker_told })
    }

    /// The list that holds in a workspace; `None` when nothing was ever revoked.
    ///
    /// # Errors
    /// [`NodeError`].
    pub async fn revocation_list(
        &self,
        caller: &Principal,
        workspace: Option<WorkspaceName>,
    ) -> Result<Option<Vec<u8>>, NodeError> {
        let mut tx = self.db.read().await?;
        let (workspace_id, _) = target_workspace(&mut tx, caller, workspace.as_ref()).await?;
        Ok(revocation_list::get(&mut tx, workspace_id).await?.map(|(_, list)| list))
    }

    /// The bell of all lists. Take it before the first look.
    #[must_use]
    pub fn revocation_lists(&self) -> watch::Receiver<()> {
        self.lists.subscribe()
    }

    /// The list that a session's node is to hold to, and its version; 0 and nothing when nothing was ever revoked.
    ///
    /// # Errors
    /// [`NodeError::Db`].
    pub async fn revocation_list_for(&self, session: &Session) -> Result<(u64, Vec<u8>), NodeError> {
        let mut tx = self.db.read().await?;
        Ok(revocation_list::get(&mut tx, session.workspace_id).await?.unwrap_or_default())
    }

    /// Ends the connections of revoked nodes to the broker.
    pub(super) async fn void_revoked(&self) -> Result<(), NodeError> {
        let mut tx = self.db.read().await?;
        let nodes = node::to_void(&mut tx).await?;
        drop(tx);
        for node in nodes {
            let place = (node.workspace_id, node.id);
            let mut tx = self.db.read().await?;
            let lease = lease::get(&mut tx, place).await?;
            drop(tx);
            let Some(lease) = lease else { continue };
            self.broker.void(&node.broker_public_key, lease.void_s).await?;
            let mut tx = self.db.write().await?;
            lease::voided(&mut tx, place, lease.void_s).await?;
            tx.commit().await?;
        }
        Ok(())
    }

    /// Removes the consumers of revoked nodes, and what waits for them.
    pub(super) async fn remove_revoked(&self) -> Result<(), NodeError> {
        let mut tx = self.db.read().await?;
        let nodes = node::to_remove(&mut tx).await?;
        drop(tx);
        for node in nodes {
            let route: Route = node.route.parse().map_err(|_| DbError::Corrupt { column: "node.route" })?;
            let messages = self.broker.remove_node(&route).await?;
            tracing::info!(node.id = %node.id, messages, "the broker knows node {} no more", node.name);
            let mut tx = self.db.write().await?;
            let revision = meta::next_revision(&mut tx).await?;
            node::set_route(&mut tx, (node.workspace_id, node.id), "", revision).await?;
            tx.commit().await?;
        }
        Ok(())
    }
}

/// A list that follows another has a higher version and goes on revoking what that one revoked, for as long as it could matter.
fn check_follows(before: &RevocationList, list: &RevocationList, now_ms: u64) -> Result<(), NodeError> {
    let (before, list) = (before.spec(), list.spec());
    if list.version <= before.version {
        let text = format!("its version must be above {}, got {}", before.version, list.version);
        return Err(NodeError::ListOrder(text));
    }
    let is_needed = |entry: &&Revocation| entry.at_ms.saturating_add(REVOCATION_KEPT_MS) > now_ms;
    match before.entries.iter().filter(is_needed).find(|entry| !is_kept(entry.what, &list.entries)) {
        Some(lost) => Err(NodeError::ListOrder(format!("it must go on revoking {}", name_of(lost.what)))),
        None => Ok(()),
    }
}

fn is_kept(what: Revoked, entries: &[Revocation]) -> bool {
    entries.iter().any(|entry| match (entry.what, what) {
        (Revoked::Subject { subject_id: here, serial_lt }, Revoked::Subject { subject_id, serial_lt: floor }) => {
            here == subject_id && serial_lt >= floor
        }
        (here, _) => here == what,
    })
}

fn name_of(what: Revoked) -> String {
    match what {
        Revoked::Certificate(fp) => format!("certificate {fp}"),
        Revoked::Subject { subject_id, .. } => NodeId::from_bytes(subject_id).to_string(),
    }
}

/// The nodes that a list revokes and that still count, each with why.
async fn revoked_by(conn: &mut Conn, id: WorkspaceId, list: &RevocationList) -> Result<Vec<(Node, String)>, NodeError> {
    let (mut after, mut found) = (Vec::new(), Vec::new());
    loop {
        let nodes = node::page(conn, Some(id), &after, PAGE).await?;
        let Some(last) = nodes.last() else { return Ok(found) };
        after = last.id.to_vec();
        for node in nodes.into_iter().filter(|node| node.state != State::Revoked) {
            if let Some(entry) = entry_of(&node, list)? {
                let said = if entry.reason.is_empty() { String::new() } else { format!(": {}", entry.reason) };
                let why = format!("node_revoked: the owner has revoked node {}{said}", node.name);
                found.push((node, why));
            }
        }
    }
}

/// The entry that revokes a node. One that waits for its certificate can be named by its id alone.
fn entry_of<'a>(node: &Node, list: &'a RevocationList) -> Result<Option<&'a Revocation>, DbError> {
    let Some(certificate) = &node.certificate else {
        let is_its =
            |what: Revoked| matches!(what, Revoked::Subject { subject_id, .. } if subject_id == *node.id.as_bytes());
        return Ok(list.spec().entries.iter().find(|entry| is_its(entry.what)));
    };
    let certificate =
        Certificate::decode(certificate.clone()).map_err(|_| DbError::Corrupt { column: "node.certificate" })?;
    Ok(list.entry_of(&certificate))
}

/// Ends a node, its tokens and its agents.
async fn revoke(work: &mut Work, node: &Node, why: &str) -> Result<Node, NodeError> {
    let (now_ms, place) = (work.now_ms(), (node.workspace_id, node.id));
    let revision = meta::next_revision(work).await?;
    // First, so that nothing of what follows is told to this node.
    node::revoke(work, place, now_ms / 1000 + VOID_AHEAD_S, now_ms, revision).await?;
    for id in token::live_of_node(work, node.workspace_id, node.id).await? {
        let ended = token::revoke_tree(work, id, now_ms).await?;
        work.tokens_ended(ended);
    }
    end_all_of_node(work, node.id, why).await.map_err(Box::new)?;
    let found = node::get(work, node.workspace_id, node.id).await?;
    found.ok_or_else(|| NodeError::NodeNotFound(node.id.to_string()))
}

#[cfg(test)]
mod tests {
    use murmur_crypto::{
        cert::Origin,
        issue::{self, RootSpec, Validity},
        keys::IdentityKey,
        revocation::RevocationListSpec,
    };

    use super::*;

    const NOW_MS: u64 = 1_795_000_000_000;
    const KEPT: Revoked = Revoked::Subject { subject_id: [1; 16], serial_lt: 5 };

    fn list(version: u64, entries: &[(Revoked, u64)]) -> RevocationList {
        let key = IdentityKey::from_seed(&[1; 32]);
        let spec = RootSpec {
            workspace_id: WorkspaceId::from_bytes([1; 16]),
            serial: 1,
            validity: Validity::from_now(NOW_MS, 1_000_000),
            slug_scope: vec!["/w/acme/".to_owned()],
            origin: Origin::Owner,
        };
        let entries =
            entries.iter().map(|(what, at_ms)| Revocation { what: *what, reason: String::new(), at_ms: *at_ms });
        let spec_of_list =
            RevocationListSpec { version, issued_ms: NOW_MS, next_update_ms: NOW_MS + 1, entries: entries.collect() };
        RevocationList::issue(&key, &issue::root(&key, spec).unwrap(), &spec_of_list).unwrap()
    }

    #[test]
    fn a_list_never_goes_back() {
        let before = list(7, &[(KEPT, NOW_MS)]);
        let higher = Revoked::Subject { subject_id: [1; 16], serial_lt: 6 };
        let lower = Revoked::Subject { subject_id: [1; 16], serial_lt: 4 };
        assert!(check_follows(&before, &list(8, &[(KEPT, NOW_MS)]), NOW_MS).is_ok());
        assert!(check_follows(&before, &list(8, &[(higher, NOW_MS)]), NOW_MS).is_ok());
        for (version, entries) in
            [(7, vec![(KEPT, NOW_MS)]), (6, vec![(KEPT, NOW_MS)]), (8, vec![]), (8, vec![(lower, NOW_MS)])]
        {
            assert!(check_follows(&before, &list(version, &entries), NOW_MS).is_err(), "{version} {entries:?}");
        }
        let later = NOW_MS + REVOCATION_KEPT_MS;
        assert!(check_follows(&before, &list(8, &[]), later).is_ok(), "every certificate that it revoked has ended");
    }
}
