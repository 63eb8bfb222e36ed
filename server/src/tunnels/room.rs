//! What the functions of this room share.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use murmur_core::id::{AgentId, NodeId};
use tokio::{
    io::DuplexStream,
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
};
use tokio_util::sync::CancellationToken;

use crate::{
    agents::Agents,
    clock::Clock,
    db::Db,
    hub::Hub,
    links::{LinkKey, PublicUrl},
};

/// Connections through one tunnel at once: what a browser opens, several times.
const TUNNEL_LINES_MAX: usize = 64;
/// Connections to one node at once, of all its tunnels; half of the streams that its connection may have.
const NODE_LINES_MAX: usize = 128;

/// The tunnels of this control plane.
pub struct Tunnels {
    pub(super) db: Db,
    pub(super) clock: Clock,
    pub(super) hub: Arc<Hub>,
    /// Who can ask a node.
    pub(super) agents: Arc<Agents>,
    pub(super) public: PublicUrl,
    pub(super) waiting: Mutex<HashMap<AgentId, Waiting>>,
    pub(super) live: Mutex<HashMap<AgentId, (LinkKey, CancellationToken)>>,
    rooms: Mutex<Rooms>,
}

/// A visitor who waits for the node.
pub(super) struct Waiting {
    pub(super) node_id: NodeId,
    pub(super) answer: oneshot::Sender<Result<DuplexStream, String>>,
    pub(super) closed: CancellationToken,
}

#[derive(Default)]
struct Rooms {
    tunnels: HashMap<LinkKey, Arc<Semaphore>>,
    nodes: HashMap<NodeId, Arc<Semaphore>>,
}

impl Tunnels {
    /// The room over a database.
    #[must_use]
    pub fn new((db, clock): (Db, Clock), hub: Arc<Hub>, agents: Arc<Agents>, public: PublicUrl) -> Self {
        let (waiting, live, rooms) = (Mutex::default(), Mutex::default(), Mutex::default());
        Self { db, clock, hub, agents, public, waiting, live, rooms }
    }

    /// Where others reach this control plane.
    #[must_use]
    pub const fn public(&self) -> &PublicUrl {
        &self.public
    }

    /// Places for one more connection; `None` when there are as many as there may be.
    pub(super) fn places(&self, key: LinkKey, node_id: NodeId) -> Option<[OwnedSemaphorePermit; 2]> {
        let mut rooms = lock(&self.rooms);
        // Whoever is there holds a clone.
        rooms.tunnels.retain(|_, room| Arc::strong_count(room) > 1);
        rooms.nodes.retain(|_, room| Arc::strong_count(room) > 1);
        let room = |max| move || Arc::new(Semaphore::new(max));
        let tunnel = rooms.tunnels.entry(key).or_insert_with(room(TUNNEL_LINES_MAX)).clone();
        let node = rooms.nodes.entry(node_id).or_insert_with(room(NODE_LINES_MAX)).clone();
        Some([tunnel.try_acquire_owned().ok()?, node.try_acquire_owned().ok()?])
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
