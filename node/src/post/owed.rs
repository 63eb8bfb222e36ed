//! What is owed for messages that were dealt with: a receipt to the sender, an answer to the broker.
//!
//! Receipts are handed on as soon as whoever was woken has gone on. Acknowledgements to the broker wait for company. Each wakes the
//! broker, and one that leaves a stream without a message makes the broker begin a new file and delete the old one, for as long as it
//! takes to store and deliver a message, which then waits. So the newest is kept back until nothing came for a while. What a crash
//! loses of them comes again and is known (PROTOCOL §5.6, R3).

use std::{
    collections::{HashSet, VecDeque},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use murmur_core::id::AgentId;

use super::{
    Post, moved,
    receive::{Debt, Settled},
};
use crate::{
    bus::{Unanswered, Verdict},
    failpoint::failpoint,
};

/// Debts that may wait until whoever was woken has gone on.
const OWED_MAX: usize = 64;
/// How long an acknowledgement waits for the next one, at most. A message that comes later than this has a new file made for it.
const COMPANY: Duration = Duration::from_millis(10);
/// Acknowledgements that wait, at most: a small part of what the broker keeps of one lane, or hands out unacknowledged.
const WAITING_MAX: usize = 32;

/// What is owed.
#[derive(Default)]
pub(super) struct Owed {
    debts: Vec<(Unanswered, Debt)>,
    /// Acknowledgements to the broker.
    acks: Waiting<Unanswered>,
    /// Agents that were shown something here and live elsewhere: it goes back behind the receipts that say that it had arrived.
    moved: HashSet<AgentId>,
}

impl Owed {
    /// Does what follows a commit, and keeps what is owed.
    pub(super) fn take(&mut self, post: &Post, settled: Settled) {
        let debt = (settled.after)();
        self.debts.extend(settled.unanswered.map(|unanswered| (unanswered, debt)));
        self.moved.extend(post.take_left_behind());
    }

    /// Pays all that can wait no longer.
    pub(super) async fn pay(&mut self, post: &Arc<Post>) {
        for (unanswered, Debt { verdict, receipt }) in self.debts.drain(..) {
            failpoint("R3");
            post.acknowledge(receipt);
            match verdict {
                Verdict::Ack => self.acks.push(Instant::now(), unanswered),
                verdict => unanswered.answer(verdict).await,
            }
        }
        self.acknowledge_due(post, Instant::now()).await;
        for agent in self.moved.drain() {
            post.tasks.spawn(moved::give_back_to_senders(Arc::clone(post), agent));
        }
    }

    /// Acknowledges to the broker what has waited for long enough at a time.
    pub(super) async fn acknowledge_due(&mut self, post: &Post, now: Instant) {
        if !post.bus.wake().is_sure() {
            // This process was stopped: what waits comes again, to whoever has the place of this node by now.
            self.acks.clear();
        }
        let now = if post.acknowledges_at_once.load(Ordering::Relaxed) { now + COMPANY } else { now };
        for unanswered in self.acks.take_due(now) {
            unanswered.answer(Verdict::Ack).await;
            failpoint("R4");
        }
    }

    /// Pays all: nothing comes any more.
    pub(super) async fn pay_all(&mut self, post: &Arc<Post>) {
        self.pay(post).await;
        self.acknowledge_due(post, Instant::now() + COMPANY).await;
        post.bus.flush().await;
    }

    /// When [`Owed::acknowledge_due`] has something to do.
    pub(super) fn due_at(&self) -> Option<Instant> {
        self.acks.due_at()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.debts.is_empty() && self.moved.is_empty()
    }

    /// Whether nothing more is taken before it is paid.
    pub(super) const fn is_full(&self) -> bool {
        self.debts.len() >= OWED_MAX
    }
}

/// What waits for company, the oldest first, and since when.
struct Waiting<T>(VecDeque<(Instant, T)>);

impl<T> Default for Waiting<T> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<T> Waiting<T> {
    fn push(&mut self, now: Instant, item: T) {
        self.0.push_back((now, item));
    }

    fn clear(&mut self) {
        self.0.clear();
    }

    fn due_at(&self) -> Option<Instant> {
        self.0.front().map(|(since, _)| *since + COMPANY)
    }

    /// What waits no longer. Once the oldest is due, or too many wait, all but the newest go, so that they go together; the newest goes
    /// when it is due itself.
    fn take_due(&mut self, now: Instant) -> impl Iterator<Item = T> {
        let is_due = |item: Option<&(Instant, T)>| item.is_some_and(|(since, _)| now >= *since + COMPANY);
        let count = match self.0.len() {
            all if is_due(self.0.back()) => all,
            all if all > WAITING_MAX || is_due(self.0.front()) => all - 1,
            _ => 0,
        };
        self.0.drain(..count).map(|(_, item)| item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is taken at each of these times, in ms, of items that came at these.
    fn taken(came: &[u64], looks: &[u64]) -> Vec<Vec<u64>> {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut waiting = Waiting::default();
        let mut coming = came.iter().copied().peekable();
        let look = |look: &u64| {
            while let Some(ms) = coming.next_if(|ms| ms <= look) {
                waiting.push(at(ms), ms);
            }
            waiting.take_due(at(*look)).collect()
        };
        looks.iter().map(look).collect()
    }

    #[test]
    fn one_alone_goes_when_its_time_is_over() {
        assert_eq!(taken(&[0], &[0, 9, 10, 11]), [vec![], vec![], vec![0], vec![]]);
    }

    #[test]
    fn while_more_come_the_newest_stays() {
        let looks = [10, 17, 18, 25, 26, 29, 30];
        let wanted = [vec![0, 4], vec![], vec![8, 12], vec![], vec![16], vec![], vec![20]];
        assert_eq!(taken(&[0, 4, 8, 12, 16, 20], &looks), wanted);
        assert_eq!(taken(&[0, 5], &[200]), [vec![0, 5]]);
    }

    #[test]
    fn no_more_wait_than_may() {
        let burst: Vec<u64> = vec![0; WAITING_MAX];
        assert_eq!(taken(&burst, &[0]), [vec![0; 0]]);
        let burst: Vec<u64> = vec![0; WAITING_MAX + 1];
        assert_eq!(taken(&burst, &[0, 10]), [vec![0; WAITING_MAX], vec![0]]);
    }

    #[test]
    fn it_is_due_when_the_oldest_is() {
        let (mut waiting, now) = (Waiting::default(), Instant::now());
        assert_eq!(waiting.due_at(), None);
        waiting.push(now, 1);
        waiting.push(now + COMPANY, 2);
        assert_eq!(waiting.due_at(), Some(now + COMPANY));
    }
}
