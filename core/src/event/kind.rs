//! What kinds of events there are, when one of each is old news, and which earlier one it takes the place of.

use std::{fmt, str::FromStr};

const MINUTE_MS: u64 = 60 * 1000;
const DAY_MS: u64 = 24 * 60 * MINUTE_MS;

/// Between the parts of a subject: no name or value of ours contains it.
const PART: char = '\u{1f}';

/// The kinds that Murmur knows. Others pass through under their own names, marked as untrusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// A comment on a pull request.
    PrComment,
    /// A review of one.
    PrReview,
    /// What a check came to.
    CiResult,
    /// A child began, changed its phase or ended.
    ChildLifecycle,
    /// What a child is doing.
    Progress,
    /// Words of a person, a program or an agent.
    Notify,
    /// Files changed on a branch that the agent works on.
    FileChanged,
    /// Events before it were dropped.
    Gap,
}

impl EventKind {
    /// Every kind.
    pub const ALL: [Self; 8] = [
        Self::PrComment,
        Self::PrReview,
        Self::CiResult,
        Self::ChildLifecycle,
        Self::Progress,
        Self::Notify,
        Self::FileChanged,
        Self::Gap,
    ];

    /// Its name, as in events.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PrComment => "pr_comment",
            Self::PrReview => "pr_review",
            Self::CiResult => "ci_result",
            Self::ChildLifecycle => "child_lifecycle",
            Self::Progress => "progress",
            Self::Notify => "notify",
            Self::FileChanged => "file_changed",
            Self::Gap => "gap",
        }
    }

    /// How long after what happened an event is news, in milliseconds; `None`: always.
    #[must_use]
    pub const fn stale_after_ms(self) -> Option<u64> {
        match self {
            Self::PrComment | Self::PrReview | Self::Notify => Some(DAY_MS),
            Self::CiResult => Some(30 * MINUTE_MS),
            Self::ChildLifecycle => Some(15 * MINUTE_MS),
            Self::Progress => Some(2 * MINUTE_MS),
            Self::FileChanged => Some(60 * MINUTE_MS),
            Self::Gap => None,
        }
    }

    /// The attributes that say what an event is about, where a newer one about the same takes its place; none for kinds where every
    /// event stands for itself.
    #[must_use]
    pub const fn subject_attributes(self) -> &'static [&'static str] {
        match self {
            Self::CiResult => &["repo", "check", "sha"],
            Self::ChildLifecycle | Self::Progress => &["child"],
            Self::FileChanged => &["repo", "branch"],
            Self::PrComment | Self::PrReview | Self::Notify | Self::Gap => &[],
        }
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A name that is no kind of this version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unknown kind of event")]
pub struct UnknownEventKind;

impl FromStr for EventKind {
    type Err = UnknownEventKind;

    fn from_str(text: &str) -> Result<Self, UnknownEventKind> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or(UnknownEventKind)
    }
}

/// What an event of this kind is about, as one text, when a newer one about the same takes its place. `None` where each stands for
/// itself: for other kinds, and where an attribute is missing.
pub fn subject<'a>(kind: &str, attribute: impl Fn(&str) -> Option<&'a str>) -> Option<String> {
    let names = kind.parse::<EventKind>().ok()?.subject_attributes();
    if names.is_empty() {
        return None;
    }
    let mut subject = kind.to_owned();
    for name in names {
        subject.push(PART);
        subject.push_str(attribute(name).filter(|value| !value.is_empty())?);
    }
    Some(subject)
}

/// Whether what happened at `time_ms` is old news at `now_ms`. Other kinds never are.
#[must_use]
pub fn is_stale(kind: &str, time_ms: u64, now_ms: u64) -> bool {
    let limit = kind.parse::<EventKind>().ok().and_then(EventKind::stale_after_ms);
    limit.is_some_and(|limit| now_ms.saturating_sub(time_ms) > limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_read_back() {
        for kind in EventKind::ALL {
            assert_eq!(kind.as_str().parse(), Ok(kind));
        }
        assert_eq!("deploy".parse::<EventKind>(), Err(UnknownEventKind));
    }

    #[test]
    fn a_newer_event_takes_the_place_of_one_about_the_same_and_of_no_other() {
        let about = |kind: &str, repo: &'static str, check: &'static str, sha: &'static str| {
            subject(kind, |name| match name {
                "repo" => Some(repo),
                "check" => Some(check),
                "sha" => Some(sha),
                _ => None,
            })
        };
        assert_eq!(about("ci_result", "a/b", "lint", "1"), about("ci_result", "a/b", "lint", "1"));
        assert_ne!(about("ci_result", "a/b", "lint", "1"), about("ci_result", "a/b", "lint", "2"));
        assert_ne!(about("ci_result", "a/b", "lint", "1"), about("ci_result", "a/b", "test", "1"));
        assert_eq!(about("ci_result", "a/b", "", "1"), None, "what it is about is not known");
        assert_eq!(about("pr_comment", "a/b", "lint", "1"), None);
        let child = |kind| subject(kind, |_| Some("/w/a/u/b/c"));
        assert!(child("progress").is_some() && child("progress") != child("child_lifecycle"));
    }

    #[test]
    fn news_get_old_by_their_kind() {
        for (kind, limit_ms) in [("progress", 120_000), ("child_lifecycle", 900_000), ("ci_result", 1_800_000)] {
            assert!(!is_stale(kind, 1_000, 1_000 + limit_ms), "{kind}");
            assert!(is_stale(kind, 1_000, 1_001 + limit_ms), "{kind}");
        }
        assert!(!is_stale("gap", 0, u64::MAX) && !is_stale("deploy", 0, u64::MAX));
        assert!(!is_stale("notify", 5_000, 1_000), "a clock that is behind makes nothing old");
    }
}
