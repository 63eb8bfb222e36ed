//! One sender's messages in one conversation, shown in the order in which they were sent.

use std::collections::{BTreeMap, BTreeSet};

/// A message that is stored and not shown yet. Times are Unix milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Its place in the conversation, as the sender counted from 1.
    pub sequence: u64,
    /// Its owner's name for it; of two with one sequence, the smaller is shown first.
    pub id: u64,
    /// It is not shown before this.
    pub not_before_ms: u64,
    /// Until when a message before it may be waited for.
    pub patience_ms: u64,
}

/// A message to show now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shown {
    /// Its owner's name for it.
    pub id: u64,
    /// Its place in the conversation.
    pub sequence: u64,
    /// At least one message before it is missing, and was waited for.
    pub gap: bool,
}

type Place = (u64, u64);

/// What was shown of a conversation, and what is held.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sequencer {
    shown: u64,
    /// By sequence and id: when each may be shown at the earliest, and until when it may be kept waiting for others.
    held: BTreeMap<Place, (u64, u64)>,
    /// When the patience of each is over.
    patience: BTreeSet<(u64, Place)>,
}

impl Sequencer {
    /// A conversation of which everything up to the sequence `shown` was shown or given up.
    #[must_use]
    pub const fn new(shown: u64) -> Self {
        Self { shown, held: BTreeMap::new(), patience: BTreeSet::new() }
    }

    /// The highest sequence that was shown.
    #[must_use]
    pub const fn shown(&self) -> u64 {
        self.shown
    }

    /// Whether a message with this sequence is the next, or comes too late to wait for anything.
    #[must_use]
    pub const fn follows(&self, sequence: u64) -> bool {
        sequence <= self.shown.saturating_add(1)
    }

    /// Takes a message that came.
    pub fn hold(&mut self, held: Held) {
        let Held { sequence, id, not_before_ms, patience_ms } = held;
        self.held.insert((sequence, id), (not_before_ms, patience_ms));
        self.patience.insert((patience_ms, (sequence, id)));
    }

    /// Passes over a message that will never be shown, because its recipient refused it for good.
    pub const fn pass_over(&mut self, sequence: u64) {
        if self.shown.saturating_add(1) == sequence {
            self.shown = sequence;
        }
    }

    /// Takes out what is to be shown now, in order. A message follows the one before it, or shows a gap when any message of the
    /// conversation has waited long enough for what is missing.
    pub fn release(&mut self, now_ms: u64) -> Vec<Shown> {
        let mut released = Vec::new();
        while let Some((place, gap)) = self.head(now_ms) {
            let (sequence, id) = place;
            if let Some((_, patience_ms)) = self.held.remove(&place) {
                self.patience.remove(&(patience_ms, place));
            }
            self.shown = self.shown.max(sequence);
            released.push(Shown { id, sequence, gap });
        }
        released
    }

    /// When there will be something to show, if nothing else comes; `None` when nothing is held.
    #[must_use]
    pub fn next_at_ms(&self) -> Option<u64> {
        let ((sequence, _), (not_before_ms, _)) = self.held.first_key_value()?;
        if self.follows(*sequence) {
            return Some(*not_before_ms);
        }
        let patience_ms = self.patience.first().map_or(0, |(at_ms, _)| *at_ms);
        Some(patience_ms.max(*not_before_ms))
    }

    /// The first one held, if it may be shown now, and whether that shows a gap.
    fn head(&self, now_ms: u64) -> Option<(Place, bool)> {
        let (place, (not_before_ms, _)) = self.held.first_key_value()?;
        let follows = self.follows(place.0);
        let gave_up = || self.patience.first().is_some_and(|(at_ms, _)| *at_ms <= now_ms);
        (*not_before_ms <= now_ms && (follows || gave_up())).then_some((*place, !follows))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    const WAIT_MS: u64 = 30_000;

    fn came(sequence: u64, at_ms: u64) -> Held {
        Held { sequence, id: sequence * 10, not_before_ms: at_ms, patience_ms: at_ms + WAIT_MS }
    }

    fn shown(sequencer: &mut Sequencer, now_ms: u64) -> Vec<(u64, bool)> {
        sequencer.release(now_ms).into_iter().map(|shown| (shown.sequence, shown.gap)).collect()
    }

    #[test]
    fn what_overtook_another_waits_for_it() {
        let mut sequencer = Sequencer::new(0);
        sequencer.hold(came(2, 0));
        assert!(shown(&mut sequencer, 1).is_empty());
        assert_eq!(sequencer.next_at_ms(), Some(WAIT_MS));
        sequencer.hold(came(1, 5));
        assert_eq!(shown(&mut sequencer, 5), [(1, false), (2, false)]);
        assert_eq!((sequencer.shown(), sequencer.next_at_ms()), (2, None));
    }

    #[test]
    fn a_gap_is_waited_for_and_then_told() {
        let mut sequencer = Sequencer::new(1);
        sequencer.hold(came(5, 0));
        sequencer.hold(came(3, 10_000));
        sequencer.hold(came(6, 20_000));
        assert!(shown(&mut sequencer, WAIT_MS - 1).is_empty());
        assert_eq!(shown(&mut sequencer, WAIT_MS), [(3, true), (5, true), (6, false)]);
        sequencer.hold(came(4, 40_000));
        assert_eq!(shown(&mut sequencer, 40_000), [(4, false)], "what comes too late is shown all the same");
        assert_eq!(sequencer.shown(), 6);
    }

    #[test]
    fn the_next_gap_is_waited_for_anew() {
        let mut sequencer = Sequencer::new(1);
        sequencer.hold(came(3, 0));
        sequencer.hold(came(100, 29_000));
        assert_eq!(shown(&mut sequencer, WAIT_MS), [(3, true)]);
        assert_eq!(sequencer.next_at_ms(), Some(29_000 + WAIT_MS));
    }

    #[test]
    fn what_was_refused_for_good_leaves_no_gap() {
        let mut sequencer = Sequencer::new(1);
        sequencer.pass_over(2);
        sequencer.hold(came(3, 0));
        assert_eq!(shown(&mut sequencer, 0), [(3, false)]);
    }

    #[test]
    fn what_may_not_be_shown_yet_holds_up_what_is_behind_it() {
        let mut sequencer = Sequencer::new(0);
        sequencer.hold(Held { not_before_ms: 50, ..came(1, 0) });
        sequencer.hold(came(2, 0));
        assert!(shown(&mut sequencer, 49).is_empty());
        assert_eq!(sequencer.next_at_ms(), Some(50));
        assert_eq!(shown(&mut sequencer, 50), [(1, false), (2, false)]);
    }

    /// A message of a history: its sequence, when it comes, and how long its pair's pace keeps it.
    type Step = (u64, u64, u64);

    proptest! {
        #[test]
        fn each_is_shown_once_in_order_in_time_and_a_restart_changes_nothing(
            steps in proptest::collection::vec((1..40_u64, 0..20_000_u64, 0..3_u64), 1..60),
        ) {
            let (mut sequencer, mut now_ms) = (Sequencer::new(0), 0);
            let (mut seen, mut waiting, mut last): (HashSet<u64>, BTreeMap<u64, Held>, u64) = Default::default();
            let end: Step = (0, 10_000_000, 0);
            for (id, (sequence, passed_ms, paced)) in steps.into_iter().chain([end]).enumerate() {
                let until_ms = now_ms + passed_ms;
                // Whatever is due meanwhile is released at its time.
                while let Some(at_ms) = sequencer.next_at_ms().filter(|at_ms| *at_ms <= until_ms) {
                    now_ms = now_ms.max(at_ms);
                    check_release(&mut sequencer, now_ms, &mut seen, &mut waiting, &mut last)?;
                }
                now_ms = until_ms;
                if sequence == 0 {
                    continue;
                }
                let held = Held {
                    sequence,
                    id: id as u64,
                    not_before_ms: now_ms + paced * 7_000,
                    patience_ms: now_ms + WAIT_MS,
                };
                waiting.insert(held.id, held);
                sequencer.hold(held);
                // A process that lost its memory loads the same from its store.
                let mut again = Sequencer::new(sequencer.shown());
                waiting.values().for_each(|held| again.hold(*held));
                prop_assert_eq!(&again, &sequencer);
                check_release(&mut sequencer, now_ms, &mut seen, &mut waiting, &mut last)?;
            }
            prop_assert!(waiting.is_empty() && sequencer.next_at_ms().is_none(), "something is held for ever");
        }
    }

    fn check_release(
        sequencer: &mut Sequencer,
        now_ms: u64,
        seen: &mut HashSet<u64>,
        waiting: &mut BTreeMap<u64, Held>,
        last: &mut u64,
    ) -> Result<(), TestCaseError> {
        for Shown { id, sequence, gap } in sequencer.release(now_ms) {
            let held = waiting.remove(&id).ok_or_else(|| TestCaseError::fail("shown twice, or never held"))?;
            prop_assert!(held.not_before_ms <= now_ms, "shown too early");
            prop_assert_eq!(gap, sequence > *last + 1, "a gap is told when there is one, and only then");
            if gap {
                prop_assert!(
                    held.patience_ms <= now_ms || waiting.values().any(|other| other.patience_ms <= now_ms),
                    "nobody had waited long enough"
                );
            }
            prop_assert!(
                waiting.values().all(|other| (other.sequence, other.id) > (sequence, id)),
                "one before it is still held"
            );
            prop_assert!(seen.insert(id));
            *last = (*last).max(sequence);
        }
        prop_assert!(sequencer.next_at_ms().is_none_or(|at_ms| at_ms > now_ms), "something due was left");
        Ok(())
    }
}
