//! How much of a lane is with the broker: no more than it has room for, so that it never has to refuse.
//!
//! The broker keeps a bounded number of messages of one node for one agent, and refuses what is beyond (PROTOCOL §5.2). A refused
//! message is late by its back-off, and everything behind it waits for it at the recipient. So a message enters the window when it is
//! published and leaves it when its delivery is closed; what finds no room waits here in order, in memory up to a bound, and beyond
//! that with the driver.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::mpsc;

use super::{
    direct::{Coming, Gate},
    driver::Lane,
    publish::Direct,
    transition::{Key, Stepped},
};

/// Committed messages of one lane that wait in memory.
const HELD_MAX: usize = 2_048;
/// Bytes of all of them, over all lanes.
const HELD_BYTES_MAX: usize = 32 * 1024 * 1024;

/// The windows of all lanes.
pub(super) struct Windows {
    size: usize,
    state: Mutex<State>,
    /// Lanes in which something is held and room has come.
    room: mpsc::UnboundedSender<Lane>,
}

#[derive(Default)]
struct State {
    lanes: HashMap<Lane, Window>,
    held_bytes: usize,
}

#[derive(Default)]
struct Window {
    /// With the broker, or on the way there.
    entered: HashSet<Key>,
    /// Committed and waiting for room, by sequence.
    held: BTreeMap<u64, Direct>,
}

/// What becomes of a message that was just committed.
#[expect(clippy::large_enum_variant, reason = "it lives for a moment, and most often it is the large one")]
pub(super) enum Offered {
    /// It is published now.
    Publish(Direct),
    /// It waits for room.
    Held,
    /// These are left to the driver, in this order; nothing overtakes them meanwhile.
    Left(Vec<Direct>, Coming),
}

impl Windows {
    /// Windows of `size` messages. The other end of `room` hears of lanes to go on with.
    pub(super) fn new(size: usize, room: mpsc::UnboundedSender<Lane>) -> Self {
        Self { size: size.max(1), state: Mutex::default(), room }
    }

    /// Decides about a message on the short way. The gate is asked under the lock, so that what the driver takes and what is held here
    /// never change places; what is not published at once the driver is told of before it can find it here.
    pub(super) fn offer(&self, direct: Direct, gate: &Arc<Gate>, tell: impl FnOnce(&Stepped)) -> Offered {
        let (lane, bytes) = (direct.lane, direct.ready.outgoing.bytes.len());
        let mut state = self.state();
        let is_crowded = state.held_bytes.saturating_add(bytes) > HELD_BYTES_MAX;
        let window = state.lanes.entry(lane).or_default();
        if window.held.is_empty() && window.entered.len() < self.size && !gate.is_waiting(lane) {
            window.entered.insert(direct.ready.key);
            return Offered::Publish(direct);
        }
        tell(&direct.stepped);
        if gate.is_waiting(lane) || is_crowded || window.held.len() >= HELD_MAX {
            let mut left = state.take_held(lane);
            left.push(direct);
            return Offered::Left(left, gate.announce(lane));
        }
        window.held.insert(direct.stepped.row.sequence, direct);
        state.held_bytes += bytes;
        Offered::Held
    }

    /// The next held message of a lane that there is room for.
    pub(super) fn next(&self, lane: Lane) -> Option<Direct> {
        let mut state = self.state();
        let window = state.lanes.get_mut(&lane).filter(|window| window.entered.len() < self.size)?;
        let (_, direct) = window.held.pop_first()?;
        window.entered.insert(direct.ready.key);
        state.held_bytes -= direct.ready.outgoing.bytes.len();
        Some(direct)
    }

    /// Takes everything that is held of a lane.
    pub(super) fn take_held(&self, lane: Lane) -> Vec<Direct> {
        self.state().take_held(lane)
    }

    /// Whether there is room for a message, which then has it; it may have had it before.
    pub(super) fn enter(&self, lane: Lane, key: Key) -> bool {
        let mut state = self.state();
        let window = state.lanes.entry(lane).or_default();
        let has_room = window.entered.contains(&key) || window.entered.len() < self.size;
        if has_room {
            window.entered.insert(key);
        }
        has_room
    }

    /// Notes a message that the broker has, room or not.
    pub(super) fn force(&self, lane: Lane, key: Key) {
        self.state().lanes.entry(lane).or_default().entered.insert(key);
    }

    /// Whether a message waits here for room.
    pub(super) fn holds(&self, lane: Lane, sequence: u64) -> bool {
        self.state().lanes.get(&lane).is_some_and(|window| window.held.contains_key(&sequence))
    }

    /// Forgets a message whose delivery is closed, wherever it is.
    pub(super) fn forget(&self, lane: Lane, key: Key, sequence: u64) {
        let mut state = self.state();
        if let Some(direct) = state.lanes.get_mut(&lane).and_then(|window| window.held.remove(&sequence)) {
            state.held_bytes -= direct.ready.outgoing.bytes.len();
        }
        self.left(&mut state, lane, key);
    }

    /// Notes that the broker does not have a message, or need not keep it any longer.
    pub(super) fn leave(&self, lane: Lane, key: Key) {
        self.left(&mut self.state(), lane, key);
    }

    fn left(&self, state: &mut State, lane: Lane, key: Key) {
        let Some(window) = state.lanes.get_mut(&lane) else { return };
        if window.entered.remove(&key) && !window.held.is_empty() {
            // Its taker is gone only when the node ends.
            let _ = self.room.send(lane);
        }
        state.drop_empty(lane);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take_held(&mut self, lane: Lane) -> Vec<Direct> {
        let Some(window) = self.lanes.get_mut(&lane) else { return Vec::new() };
        let held: Vec<Direct> = std::mem::take(&mut window.held).into_values().collect();
        self.held_bytes -= held.iter().map(|direct| direct.ready.outgoing.bytes.len()).sum::<usize>();
        self.drop_empty(lane);
        held
    }

    fn drop_empty(&mut self, lane: Lane) {
        if self.lanes.get(&lane).is_some_and(|window| window.entered.is_empty() && window.held.is_empty()) {
            self.lanes.remove(&lane);
        }
    }
}
