//! Showing what was received in the sender's order, and at the pace that a pair of agents may have (PROTOCOL §5.7, DESIGN §8.15).
//!
//! What a message waits for is decided by the pure rooms of [`murmur_core::order`] inside the transaction that stores it; what is
//! held lies in the inbox table. Here is remembered when to look at which thread again, and nothing else, so that a restart only
//! has to read that from the store.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use murmur_core::id::AgentId;
use tokio::sync::Notify;

use super::{Post, types::InboxMessage};
use crate::{
    clock::Clock,
    store::{
        StoreError, Tx, agents,
        order::{self, Thread},
        request,
    },
};

/// When a release that the store did not take is tried again.
const AGAIN_MS: u64 = 1_000;
const IDLE: Duration = Duration::from_secs(3600);

/// When to look at which thread.
#[derive(Default)]
pub(super) struct Schedule {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    at: HashMap<Thread, u64>,
    due: BTreeSet<(u64, Thread)>,
}

impl Schedule {
    /// Sets when a thread is looked at; `None` when nothing of it is held.
    pub(super) fn set(&self, thread: Thread, at_ms: Option<u64>) {
        let mut state = self.lock();
        if let Some(before) = state.at.remove(&thread) {
            state.due.remove(&(before, thread));
        }
        let Some(at_ms) = at_ms else { return };
        state.at.insert(thread, at_ms);
        state.due.insert((at_ms, thread));
        drop(state);
        self.changed.notify_one();
    }

    /// Waits until a thread is due.
    pub(super) async fn due(&self, clock: &Clock) {
        loop {
            let wait = match self.lock().due.first() {
                None => IDLE,
                Some((at_ms, _)) => Duration::from_millis(at_ms.saturating_sub(clock.now_ms())),
            };
            if wait.is_zero() {
                return;
            }
            tokio::select! {
                () = self.changed.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Takes the threads that are due.
    pub(super) fn take_due(&self, now_ms: u64) -> Vec<Thread> {
        let mut state = self.lock();
        let mut threads = Vec::new();
        while let Some((_, thread)) = state.due.first().copied().filter(|(at_ms, _)| *at_ms <= now_ms) {
            state.due.pop_first();
            state.at.remove(&thread);
            threads.push(thread);
        }
        threads
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A message that has just got its place in an inbox.
pub(super) struct Released {
    pub(super) recipient: AgentId,
    pub(super) message: Box<InboxMessage>,
    /// It is the first reply to a request of its recipient.
    pub(super) completes: bool,
    /// Messages that were unread before it.
    pub(super) unread: u64,
}

/// What came of looking at a thread.
pub(super) struct Look {
    pub(super) thread: Thread,
    pub(super) released: Vec<Released>,
    /// When to look again; `None` when nothing is held.
    pub(super) next_ms: Option<u64>,
}

/// Shows what may be shown of a thread now.
pub(super) fn release(tx: Tx<'_>, thread: Thread, now_ms: u64) -> Result<Look, StoreError> {
    let mut sequencer = order::load(tx, &thread)?;
    let shown_before = sequencer.shown();
    let mut released = Vec::new();
    for shown in sequencer.release(now_ms) {
        let recipient = thread.recipient;
        let unread = agents::unread(tx, recipient)?;
        let Some(message) = order::show(tx, shown.id, shown.gap)? else { continue };
        let completes = completes(tx, recipient, &message)?;
        released.push(Released { recipient, message: Box::new(message), completes, unread });
    }
    if sequencer.shown() != shown_before {
        order::save(tx, &thread, sequencer.shown())?;
    }
    Ok(Look { thread, released, next_ms: sequencer.next_at_ms() })
}

/// Completes the request that a reply answers, if somebody asked. A reply with a file answers when the file is whole.
pub(super) fn completes(tx: Tx<'_>, recipient: AgentId, message: &InboxMessage) -> Result<bool, StoreError> {
    match message.in_reply_to {
        Some(request) if message.kind == super::types::MessageKind::Reply && !message.has_file_to_come() => {
            request::complete(tx, request, recipient, message.from_agent_id, message.cursor)
        }
        _ => Ok(false),
    }
}

impl Post {
    /// Takes up what is held after a start.
    pub(super) async fn load_held(&self) -> Result<(), StoreError> {
        let now_ms = self.clock.now_ms();
        for (thread, latest_ms) in self.store.read(order::threads).await? {
            self.policy.resume(thread.sender, thread.recipient, latest_ms);
            self.schedule.set(thread, Some(now_ms));
        }
        Ok(())
    }

    /// Looks at the threads that are due; the transaction is queued when this returns, and what comes back waits for it and says
    /// what to do after it, in the order of the transactions.
    pub(super) fn release_due(&self) -> impl Future<Output = Result<Vec<Look>, StoreError>> + Send + use<> {
        let now_ms = self.clock.now_ms();
        let threads = self.schedule.take_due(now_ms);
        for thread in &threads {
            // Should the store fail, or this process stop caring, the thread is not forgotten.
            self.schedule.set(*thread, Some(now_ms.saturating_add(AGAIN_MS)));
        }
        self.store.queue(move |tx| threads.into_iter().map(|thread| release(tx, thread, now_ms)).collect())
    }

    /// Tells who waits about what was released.
    pub(super) fn released(&self, look: Look) {
        let Look { thread, released, next_ms } = look;
        self.schedule.set(thread, next_ms);
        for one in released {
            self.show_arrival(one);
        }
    }
}
