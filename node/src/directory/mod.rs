//! Who there is: the node's copy of the workspace's directory, and whose keys in it hold.
//!
//! Readers take a [`Snapshot`], swapped whole at every change. The control plane's word is enough for names and presence; keys
//! are believed only by [`Directory::verified`], against the root that the invite pinned (PROTOCOL §3.4). Copy, resume token and
//! the highest serials seen are kept in the store, so that a restart with the control plane down knows its peers.

mod change;
mod peer;
mod snapshot;
mod trust;
mod verified;

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use murmur_core::{
    id::{AgentId, NodeId},
    limits::REVOCATION_LIST_OVERDUE_MS,
};
use murmur_crypto::revocation::{RevocationList, RevocationListError, Revoked};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

pub use change::{Batch, Change};
pub use peer::{AgentKind, Peer, PeerKeys};
pub use snapshot::Snapshot;
pub use trust::{Floor, FloorKey, Floors};
pub use verified::{PeerTrouble, VerifiedPeer};

use self::{trust::Trust, verified::Cache};
use crate::{
    identity::NodeIdentity,
    store::{self, Store, StoreError},
};

/// The directory.
pub struct Directory {
    snapshot: ArcSwap<Snapshot>,
    version: watch::Sender<u64>,
    /// Held while a new snapshot is made, so that two changes do not lose one another. Holds the agents with a session here.
    attached: Mutex<HashSet<AgentId>>,
    identity: Arc<NodeIdentity>,
    store: Store,
    trust: Trust,
    /// Nodes that a list revoked since [`Directory::take_revoked`].
    revoked: Mutex<HashSet<NodeId>>,
    cache: Cache,
    /// Writes that nobody waits for.
    tasks: TaskTracker,
}

impl Directory {
    /// Loads the last copy from the store. Nobody counts as online until the control plane says so.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn load(identity: Arc<NodeIdentity>, store: Store) -> Result<Arc<Self>, StoreError> {
        let mut saved = store.read(store::directory::load).await?;
        let floors = Floors::new(std::mem::take(&mut saved.floors));
        let revocations = saved.revocations.take().and_then(|list| match RevocationList::decode(list, &identity.root) {
            Ok(list) => Some(list),
            Err(error) => {
                warn!(%error, "the revocation list on disk is not this workspace's; the control plane sends it again");
                None
            }
        });
        let snapshot = Snapshot::new(identity.node_id, saved);
        Ok(Arc::new(Self {
            snapshot: ArcSwap::from_pointee(snapshot),
            version: watch::Sender::new(0),
            attached: Mutex::default(),
            trust: Trust::new(floors, revocations),
            revoked: Mutex::default(),
            cache: Cache::default(),
            identity,
            store,
            tasks: TaskTracker::new(),
        }))
    }

    /// The directory as it is now.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// A counter that goes up with every change.
    #[must_use]
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// Takes over what the control plane said. Readers see it at once; the copy on disk follows by itself, in order.
    pub fn apply(&self, batch: Batch, now_ms: u64) {
        self.update(|snapshot, attached| snapshot.apply(&batch, attached, now_ms));
        let saved = self.store.queue_lazily(move |tx| store::directory::save(tx, &batch, now_ms));
        self.tasks.spawn(async move {
            if let Err(error) = saved.await {
                warn!(%error, "the directory's copy on disk is behind");
            }
        });
    }

    /// Agents that were found on another node than before, each told once.
    #[must_use]
    pub fn take_moved(&self) -> Vec<AgentId> {
        if self.snapshot.load().has_moved() { self.change(|snapshot, _| snapshot.take_moved()) } else { Vec::new() }
    }

    /// Nodes that a new list revoked, each told once. Whoever else it revoked is among them and known by no route.
    #[must_use]
    pub fn take_revoked(&self) -> HashSet<NodeId> {
        std::mem::take(&mut *self.revoked.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Believes a node that an agent has left it, as it said at this time: nothing is sealed for it there until the control plane says
    /// where it is.
    pub fn set_left(&self, agent: AgentId, node: NodeId, at_ms: u64) {
        let snapshot = self.snapshot();
        let is_news = snapshot.peer(agent).is_some_and(|peer| {
            // It may have come back since.
            let is_old = peer.former.is_some_and(|(_, moved_ms)| at_ms < moved_ms);
            peer.node_id == node && !is_old && !snapshot.has_left(peer)
        });
        if is_news {
            self.update(|snapshot, _| snapshot.set_left(agent, node));
        }
    }

    /// Takes the owner's word on which certificates do not count any more, if it is later than what is known (PROTOCOL §3.6). From here on
    /// nothing is sealed for them, and nothing of theirs is taken.
    ///
    /// # Errors
    /// [`RevocationListError`] when it is not of this workspace's owner.
    pub fn revoke(&self, list: Bytes, now_ms: u64) -> Result<(), RevocationListError> {
        let list = Arc::new(RevocationList::decode(list, &self.identity.root)?);
        let spec = list.spec();
        if now_ms > spec.next_update_ms.saturating_add(REVOCATION_LIST_OVERDUE_MS) {
            warn!(
                version = spec.version,
                "the revocation list is out of date: somebody may keep a newer one back, or the owner has not run `murmurctl up` for weeks"
            );
        }
        if !self.trust.follow(&list) {
            return Ok(());
        }
        info!(version = spec.version, entries = spec.entries.len(), "the owner's revocation list has changed");
        let subjects = spec.entries.iter().filter_map(|entry| match entry.what {
            Revoked::Subject { subject_id, .. } => Some(NodeId::from_bytes(subject_id)),
            Revoked::Certificate(_) => None,
        });
        self.revoked.lock().unwrap_or_else(PoisonError::into_inner).extend(subjects);
        self.version.send_modify(|version| *version = version.wrapping_add(1));
        let saved = self
            .store
            .queue_lazily(move |tx| store::directory::save_revocations(tx, list.spec().version, &list.encode()));
        self.tasks.spawn(async move {
            if let Err(error) = saved.await {
                warn!(%error, "the revocation list is not on disk");
            }
        });
        Ok(())
    }

    /// Waits until everything taken over so far is on disk.
    pub async fn saved(&self) {
        self.tasks.close();
        self.tasks.wait().await;
        self.tasks.reopen();
    }

    /// Says whether the control plane is connected.
    pub fn set_live(&self, live: bool) {
        self.update(|snapshot, _| snapshot.set_live(live));
    }

    /// Says that a session of an agent of this node began or ended.
    pub fn set_attached(&self, agent: AgentId, is_attached: bool) {
        self.update(|snapshot, attached| {
            if is_attached {
                attached.insert(agent);
            } else {
                attached.remove(&agent);
            }
            snapshot.set_attached(agent, is_attached);
        });
    }

    /// The agents that have a session on this node.
    #[must_use]
    pub fn attached(&self) -> Vec<AgentId> {
        self.attached.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }

    fn update(&self, change: impl FnOnce(&mut Snapshot, &mut HashSet<AgentId>)) {
        self.change(change);
        self.version.send_modify(|version| *version += 1);
    }

    fn change<T>(&self, change: impl FnOnce(&mut Snapshot, &mut HashSet<AgentId>) -> T) -> T {
        let mut attached = self.attached.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = Snapshot::clone(&self.snapshot.load());
        let changed = change(&mut next, &mut attached);
        self.snapshot.store(Arc::new(next));
        changed
    }
}

#[cfg(test)]
mod tests;
