//! How much one turn takes.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::limits::TURN_BYTES_MAX;

/// Who made an entry. The kinds never share a turn, so that an agent never takes what an event says for what a person wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Written by a person or an agent.
    Written,
    /// Made from an event.
    Event,
}

impl Kind {
    /// The word as stored.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Written => "written",
            Self::Event => "event",
        }
    }
}

impl FromStr for Kind {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        [Self::Written, Self::Event].into_iter().find(|kind| kind.as_str() == text).ok_or(())
    }
}

/// How many entries one turn takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DequeueStrategy {
    /// At most five.
    #[default]
    Auto,
    /// All that wait.
    All,
    /// One.
    One,
    /// At most five.
    Five,
}

/// An entry that waits, as far as this decision needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    /// Who made it.
    pub kind: Kind,
    /// How many bytes it adds to the turn.
    pub bytes: usize,
}

impl DequeueStrategy {
    /// Every strategy.
    pub const ALL: [Self; 4] = [Self::Auto, Self::All, Self::One, Self::Five];

    /// The word as stored and shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::All => "all",
            Self::One => "one",
            Self::Five => "five",
        }
    }

    /// How many from the front of a queue make the next turn: of the first one's kind only, as many as the strategy allows, and no more
    /// bytes than one answer may carry. The first one always goes; only an empty queue gives none.
    pub fn take(self, waiting: impl IntoIterator<Item = Waiting>) -> usize {
        let most = match self {
            Self::Auto | Self::Five => 5,
            Self::All => usize::MAX,
            Self::One => 1,
        };
        let (mut taken, mut bytes, mut first) = (0, 0_usize, None);
        for entry in waiting {
            let kind = *first.get_or_insert(entry.kind);
            bytes = bytes.saturating_add(entry.bytes);
            if taken == most || entry.kind != kind || (taken > 0 && bytes > TURN_BYTES_MAX) {
                break;
            }
            taken += 1;
        }
        taken
    }
}

impl fmt::Display for DequeueStrategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that is no strategy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be auto, all, one or five, got `{0}`")]
pub struct InvalidDequeueStrategy(String);

impl FromStr for DequeueStrategy {
    type Err = InvalidDequeueStrategy;

    fn from_str(text: &str) -> Result<Self, InvalidDequeueStrategy> {
        Self::ALL
            .into_iter()
            .find(|strategy| strategy.as_str() == text)
            .ok_or_else(|| InvalidDequeueStrategy(text.chars().take(32).collect()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn queue(kinds: &str) -> Vec<Waiting> {
        kinds.chars().map(|c| Waiting { kind: if c == 'w' { Kind::Written } else { Kind::Event }, bytes: 10 }).collect()
    }

    #[test]
    fn a_turn_takes_what_its_strategy_says() {
        for (strategy, kinds, taken) in [
            (DequeueStrategy::Auto, "wwwwwww", 5),
            (DequeueStrategy::Five, "wwwwwww", 5),
            (DequeueStrategy::All, "wwwwwww", 7),
            (DequeueStrategy::One, "wwwwwww", 1),
            (DequeueStrategy::Auto, "", 0),
        ] {
            assert_eq!(strategy.take(queue(kinds)), taken, "{strategy} {kinds}");
        }
    }

    #[test]
    fn what_people_wrote_and_events_never_share_a_turn() {
        for strategy in DequeueStrategy::ALL {
            assert_eq!(strategy.take(queue("weww")), 1, "{strategy}");
            assert_eq!(
                strategy.take(queue("eewe")).min(2),
                if strategy == DequeueStrategy::One { 1 } else { 2 },
                "{strategy}"
            );
        }
    }

    #[test]
    fn a_turn_fits_into_one_answer_and_a_large_entry_still_goes() {
        let large = Waiting { kind: Kind::Written, bytes: TURN_BYTES_MAX + 1 };
        assert_eq!(DequeueStrategy::All.take([large, large]), 1);
        let half = Waiting { kind: Kind::Written, bytes: TURN_BYTES_MAX / 2 };
        assert_eq!(DequeueStrategy::All.take([half, half, half]), 2);
    }

    proptest! {
        #[test]
        fn turns_empty_any_queue_in_order_and_without_mixing(kinds in "[we]{0,60}", strategy in 0..4_usize) {
            let strategy = DequeueStrategy::ALL[strategy];
            let mut rest = queue(&kinds);
            while !rest.is_empty() {
                let taken = strategy.take(rest.iter().copied());
                prop_assert!(taken > 0);
                let turn: Vec<_> = rest.drain(..taken).collect();
                prop_assert!(turn.iter().all(|entry| entry.kind == turn[0].kind));
                prop_assert!(strategy == DequeueStrategy::All || turn.len() <= 5);
            }
            prop_assert_eq!(strategy.take(rest), 0);
        }
    }
}
