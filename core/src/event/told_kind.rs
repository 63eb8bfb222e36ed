//! A kind as it is told: one that Murmur knows, or another's own.

use std::{fmt, str::FromStr};

use super::EventKind;
use crate::limits::EVENT_NAME_BYTES_MAX;

/// What an event tells of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Kind {
    /// One that Murmur knows.
    Known(EventKind),
    /// One that it does not know: it passes through, marked as untrusted.
    Other(Name),
}

/// The name of a kind that is not ours: 1 to 64 lowercase letters, digits and `_`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Name(String);

/// A text that names no kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to {EVENT_NAME_BYTES_MAX} lowercase letters, digits and `_`, such as ci_result, got `{0}`")]
pub struct InvalidKind(String);

impl Kind {
    /// The word as told and stored.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Known(kind) => kind.as_str(),
            Self::Other(Name(name)) => name,
        }
    }

    /// The kind, when Murmur knows it.
    #[must_use]
    pub const fn known(&self) -> Option<EventKind> {
        match self {
            Self::Known(kind) => Some(*kind),
            Self::Other(_) => None,
        }
    }

    /// Whether it is of the moment: one that is replaced is forgotten, and none is told late.
    #[must_use]
    pub fn is_fleeting(&self) -> bool {
        self.known() == Some(EventKind::Progress)
    }

    /// Whether it stands for events that are no longer kept.
    #[must_use]
    pub fn is_gap(&self) -> bool {
        self.known() == Some(EventKind::Gap)
    }

    /// Whether nobody but the control plane says so.
    #[must_use]
    pub const fn is_made_here(&self) -> bool {
        use EventKind::{ChildLifecycle, FileChanged, Gap, Progress};
        matches!(self.known(), Some(ChildLifecycle | Progress | FileChanged | Gap))
    }

    /// Whether it repeats what somebody outside of the workspace wrote, whoever hands it in.
    #[must_use]
    pub const fn quotes_strangers(&self) -> bool {
        matches!(self.known(), None | Some(EventKind::PrComment | EventKind::PrReview))
    }

    /// Whether whoever lies below an agent may tell it so.
    #[must_use]
    pub const fn tells_up(&self) -> bool {
        matches!(self.known(), None | Some(EventKind::Notify))
    }
}

impl From<EventKind> for Kind {
    fn from(kind: EventKind) -> Self {
        Self::Known(kind)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Kind {
    type Err = InvalidKind;

    fn from_str(text: &str) -> Result<Self, InvalidKind> {
        if let Ok(known) = text.parse() {
            return Ok(Self::Known(known));
        }
        let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        if text.is_empty() || text.len() > EVENT_NAME_BYTES_MAX || !text.bytes().all(is_plain) {
            return Err(InvalidKind(text.chars().take(64).collect()));
        }
        Ok(Self::Other(Name(text.to_owned())))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_the_control_plane_says_what_it_alone_knows() {
        let made: Vec<_> =
            EventKind::ALL.into_iter().filter(|kind| Kind::from(*kind).is_made_here()).map(EventKind::as_str).collect();
        assert_eq!(made, ["child_lifecycle", "progress", "file_changed", "gap"]);
        let other: Kind = "deployment".parse().unwrap();
        assert!(!other.is_made_here() && other.quotes_strangers() && other.tells_up());
    }

    proptest! {
        #[test]
        fn any_text_is_a_kind_or_refused(text in ".{0,80}") {
            if let Ok(kind) = text.parse::<Kind>() {
                prop_assert_eq!(kind.as_str(), &text);
                prop_assert!(text.len() <= 64 && !text.contains([' ', '\n', '<', ',']));
            }
        }
    }
}
