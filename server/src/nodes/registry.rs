//! The live sessions of this process, one a node, and who fences whom.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use murmur_core::id::{Incarnation, NodeId};
use tokio::sync::oneshot;

/// Told to a session that another one replaced: the incarnation of the new one. An error when the node was revoked.
pub type Ended = oneshot::Receiver<Incarnation>;

struct Live {
    session: [u8; 16],
    incarnation: Incarnation,
    last_seen_ms: u64,
    fence: oneshot::Sender<Incarnation>,
}

/// See the module.
#[derive(Default)]
pub struct Registry(Mutex<HashMap<NodeId, Live>>);

impl Registry {
    /// Takes the node's place.
    ///
    /// A session of the same incarnation is the same process with a new connection and replaces the old one; so does a
    /// takeover. Any other is refused with the incarnation that is there.
    pub(super) fn claim(
        &self,
        node_id: NodeId,
        session: [u8; 16],
        incarnation: Incarnation,
        takeover: bool,
        now_ms: u64,
    ) -> Result<Ended, Incarnation> {
        let mut live = self.lock();
        if let Some(other) = live.get(&node_id).filter(|other| other.incarnation != incarnation && !takeover) {
            return Err(other.incarnation);
        }
        let (fence, ended) = oneshot::channel();
        if let Some(old) = live.insert(node_id, Live { session, incarnation, last_seen_ms: now_ms, fence }) {
            // A receiver that is gone has ended by itself.
            let _ = old.fence.send(incarnation);
        }
        Ok(ended)
    }

    /// Gives the place up, if the session still has it.
    pub(super) fn release(&self, node_id: NodeId, session: &[u8; 16]) {
        let mut live = self.lock();
        if live.get(&node_id).is_some_and(|mine| mine.session == *session) {
            live.remove(&node_id);
        }
    }

    /// Ends whatever session the node has: it hears of no other that took its place.
    pub(super) fn evict(&self, node_id: NodeId) {
        self.lock().remove(&node_id);
    }

    /// Notes a sign of life.
    pub(super) fn saw(&self, node_id: NodeId, session: &[u8; 16], now_ms: u64) {
        if let Some(mine) = self.lock().get_mut(&node_id).filter(|mine| mine.session == *session) {
            mine.last_seen_ms = now_ms;
        }
    }

    pub(super) fn last_seen_ms(&self, node_id: NodeId) -> Option<u64> {
        self.lock().get(&node_id).map(|live| live.last_seen_ms)
    }

    /// Who holds the node's place right now.
    pub(super) fn holder(&self, node_id: NodeId) -> Option<Incarnation> {
        self.lock().get(&node_id).map(|live| live.incarnation)
    }

    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<NodeId, Live>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: NodeId = NodeId::from_bytes([1; 16]);
    const FIRST: Incarnation = Incarnation::from_bytes([1; 16]);
    const SECOND: Incarnation = Incarnation::from_bytes([2; 16]);

    #[test]
    fn a_stranger_waits_until_the_place_is_free() {
        let registry = Registry::default();
        let _ended = registry.claim(NODE, [1; 16], FIRST, false, 0).unwrap();
        assert_eq!(registry.claim(NODE, [2; 16], SECOND, false, 0).unwrap_err(), FIRST);
        registry.release(NODE, &[1; 16]);
        assert!(registry.claim(NODE, [2; 16], SECOND, false, 0).is_ok());
    }

    #[test]
    fn the_replaced_session_is_told_and_cannot_free_the_new_one() {
        let registry = Registry::default();
        let mut ended = registry.claim(NODE, [1; 16], FIRST, false, 0).unwrap();
        let _new = registry.claim(NODE, [2; 16], SECOND, true, 0).unwrap();
        assert_eq!(ended.try_recv(), Ok(SECOND));
        registry.release(NODE, &[1; 16]);
        assert_eq!(registry.len(), 1);
    }

    #[test]
    fn an_evicted_session_hears_of_no_other() {
        let registry = Registry::default();
        let mut ended = registry.claim(NODE, [1; 16], FIRST, false, 0).unwrap();
        registry.evict(NODE);
        assert_eq!(ended.try_recv(), Err(oneshot::error::TryRecvError::Closed));
        assert_eq!(registry.holder(NODE), None);
    }
}
