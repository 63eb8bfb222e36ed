//! How far an item is.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// How far an item is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Not begun.
    Pending,
    /// Somebody works on it.
    InProgress,
    /// Done; it may be opened again.
    Completed,
    /// Given up, for good. The item can still be read.
    Deleted,
}

impl Status {
    /// Every status.
    pub const ALL: [Self; 4] = [Self::Pending, Self::InProgress, Self::Completed, Self::Deleted];

    /// The word as stored and shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::InProgress => "in_progress",
            Self::Completed => "completed",
            Self::Deleted => "deleted",
        }
    }

    /// Whether an item may go from this status to another. Staying is no change and is not asked here.
    #[must_use]
    pub const fn may_become(self, next: Self) -> bool {
        match self {
            Self::Pending => matches!(next, Self::InProgress | Self::Completed | Self::Deleted),
            Self::InProgress => matches!(next, Self::Pending | Self::Completed | Self::Deleted),
            Self::Completed => matches!(next, Self::Pending | Self::Deleted),
            Self::Deleted => false,
        }
    }

    /// Whether nothing waits for it any more.
    #[must_use]
    pub const fn is_done(self) -> bool {
        matches!(self, Self::Completed | Self::Deleted)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that is no status.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be pending, in_progress, completed or deleted, got `{0}`")]
pub struct InvalidStatus(String);

impl FromStr for Status {
    type Err = InvalidStatus;

    fn from_str(text: &str) -> Result<Self, InvalidStatus> {
        Self::ALL
            .into_iter()
            .find(|status| status.as_str() == text)
            .ok_or_else(|| InvalidStatus(text.chars().take(32).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_transitions_is_the_documented_one() {
        use Status::{Completed, Deleted, InProgress, Pending};
        let allowed = [
            (Pending, InProgress),
            (InProgress, Pending),
            (Pending, Completed),
            (InProgress, Completed),
            (Completed, Pending),
            (Pending, Deleted),
            (InProgress, Deleted),
            (Completed, Deleted),
        ];
        for from in Status::ALL {
            for to in Status::ALL {
                assert_eq!(from.may_become(to), allowed.contains(&(from, to)), "{from} → {to}");
            }
            assert_eq!(from.as_str().parse(), Ok(from));
        }
        assert!("done".parse::<Status>().is_err());
    }
}
