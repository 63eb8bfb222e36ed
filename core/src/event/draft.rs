//! An event before it stands in a log.

use std::collections::BTreeMap;

use super::{EventKind, Kind, Origin, clean_text, clean_value, subject};
use crate::{
    limits::{EVENT_ATTRIBUTES_MAX, EVENT_NAME_BYTES_MAX},
    phase::Phase,
};

/// What is to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// What it tells of.
    pub kind: Kind,
    /// Unique for what happened: a repeat with the same one is told once in each log.
    pub event_id: String,
    /// Who says so.
    pub origin: Origin,
    /// Text and attributes were written by somebody outside of the workspace.
    pub untrusted: bool,
    /// It is recorded and told to nobody: its author is on no list of those who may.
    pub withheld: bool,
    /// What it is about.
    pub attributes: BTreeMap<String, String>,
    /// For people and models.
    pub text: String,
    /// When it happened, Unix milliseconds.
    pub time_ms: u64,
}

/// Attributes that cannot be told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAttribute {
    /// A name would vanish in front of a session.
    #[error("names must be 1 to {EVENT_NAME_BYTES_MAX} letters, digits and `_`, got `{0}`")]
    Name(String),
    /// There are too many.
    #[error("must be at most {EVENT_ATTRIBUTES_MAX}, got {0}")]
    Many(usize),
}

impl Draft {
    /// An event without attributes.
    #[must_use]
    pub fn new(kind: impl Into<Kind>, event_id: impl Into<String>, origin: Origin, time_ms: u64) -> Self {
        let kind = kind.into();
        Self {
            untrusted: kind.known().is_none(),
            withheld: false,
            kind,
            event_id: event_id.into(),
            origin,
            attributes: BTreeMap::new(),
            text: String::new(),
            time_ms,
        }
    }

    /// With one more attribute; an empty value is none.
    #[must_use]
    #[expect(clippy::needless_pass_by_value, reason = "numbers, words and references alike are given as they are")]
    pub fn with(mut self, name: &str, value: impl ToString) -> Self {
        let value = value.to_string();
        if !value.is_empty() {
            self.attributes.insert(name.to_owned(), value);
        }
        self
    }

    /// With this text.
    #[must_use]
    pub fn text(mut self, text: impl Into<String>) -> Self {
        self.text = text.into();
        self
    }

    /// As it is stored: cleaned and cut.
    #[must_use]
    pub fn cleaned(mut self) -> Self {
        self.text = clean_text(&self.text);
        self.attributes.values_mut().for_each(|value| *value = clean_value(value));
        self
    }

    /// Checks what somebody from outside wrote.
    ///
    /// # Errors
    /// [`InvalidAttribute`].
    pub fn check_attributes(&self) -> Result<(), InvalidAttribute> {
        if self.attributes.len() > EVENT_ATTRIBUTES_MAX {
            return Err(InvalidAttribute::Many(self.attributes.len()));
        }
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let is_name =
            |name: &&String| !name.is_empty() && name.len() <= EVENT_NAME_BYTES_MAX && name.bytes().all(is_plain);
        match self.attributes.keys().find(|name| !is_name(name)) {
            Some(name) => Err(InvalidAttribute::Name(name.chars().take(64).collect())),
            None => Ok(()),
        }
    }

    /// What it says something about: a newer one with the same key, in the same log, takes its place. Two that speak with different
    /// authority never do. `None`: it stands beside all others.
    #[must_use]
    pub fn supersede_key(&self) -> Option<String> {
        let about = subject(self.kind.as_str(), |name| self.attributes.get(name).map(String::as_str))?;
        Some(format!("{}\n{about}", self.origin))
    }

    /// Whether an agent that nobody attends to is given it as work. A child's phase is when it has a result, has nothing to do although it
    /// told of none, or has ended.
    #[must_use]
    pub fn needs_attention(&self, from: Option<Phase>, to: Option<Phase>) -> bool {
        if self.withheld {
            return false;
        }
        use EventKind::{ChildLifecycle, CiResult, FileChanged, Gap, Notify, PrComment, PrReview, Progress};
        match self.kind.known() {
            None | Some(PrComment | PrReview | CiResult | Notify | FileChanged) => true,
            Some(ChildLifecycle) => match to {
                Some(Phase::Idle) => matches!(from, Some(Phase::Running | Phase::ChecksPending)),
                Some(to) => to == Phase::TaskComplete || to.is_ended(),
                None => false,
            },
            Some(Progress | Gap) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ci(repo: &str, check: &str, sha: &str, origin: Origin) -> Draft {
        let draft = Draft::new(EventKind::CiResult, "x", origin, 0);
        draft.with("repo", repo).with("check", check).with("sha", sha).with("conclusion", "failure").cleaned()
    }

    #[test]
    fn only_the_same_authority_replaces_what_it_said() {
        let github = Origin::Verified("github");
        let one = ci("o/r", "test", "abc", github.clone()).supersede_key();
        assert_eq!(one, ci("o/r", "test", "abc", github).supersede_key());
        assert_ne!(one, ci("o/r", "test", "abc", Origin::Program(None)).supersede_key());
        assert_eq!(Draft::new(EventKind::Notify, "x", Origin::Murmur, 0).supersede_key(), None);
    }

    #[test]
    fn a_parent_is_bothered_once_for_a_result() {
        let event = Draft::new(EventKind::ChildLifecycle, "x", Origin::Murmur, 0);
        let bothers = |from, to| event.needs_attention(Some(from), Some(to));
        assert!(bothers(Phase::Running, Phase::TaskComplete) && !bothers(Phase::TaskComplete, Phase::Idle));
        assert!(bothers(Phase::Running, Phase::Idle) && bothers(Phase::Destroying, Phase::Failed));
        assert!(!bothers(Phase::Starting, Phase::Running) && !bothers(Phase::Idle, Phase::Sleeping));
        assert!(!Draft::new(EventKind::Progress, "x", Origin::Murmur, 0).needs_attention(None, None));
        let withheld = Draft { withheld: true, ..Draft::new(EventKind::PrComment, "x", Origin::Murmur, 0) };
        assert!(!withheld.needs_attention(None, None));
    }

    #[test]
    fn names_that_would_vanish_are_refused() {
        let with =
            |name: &str| Draft::new(EventKind::Notify, "x", Origin::Murmur, 0).with(name, "v").check_attributes();
        assert_eq!(with("Run_2"), Ok(()));
        for name in ["", "a-b", "a b", "é", &"x".repeat(65)] {
            assert!(with(name).is_err(), "{name}");
        }
    }

    proptest! {
        /// Values are on one line once they are stored, so none of them can reach into the next part of a key.
        #[test]
        fn keys_are_equal_only_for_equal_parts(a in "[ab\n]{0,3}", b in "[ab\n]{0,3}", c in "[ab\n]{0,3}", d in "[ab\n]{0,3}") {
            let one = ci(&a, &b, "s", Origin::Murmur);
            let other = ci(&c, &d, "s", Origin::Murmur);
            let same = one.attributes == other.attributes;
            match (one.supersede_key(), other.supersede_key()) {
                (Some(one), Some(other)) => prop_assert_eq!(one == other, same),
                (one, other) => prop_assert!([&a, &b, &c, &d].iter().any(|part| part.is_empty()), "{:?} {:?}", one, other),
            }
        }
    }
}
