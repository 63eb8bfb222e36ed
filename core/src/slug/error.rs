//! What can be wrong with a slug: the offending piece and the rule that it breaks.

use std::fmt;

use crate::limits;

/// A text that is no slug, with the first piece that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("slug segment `{segment}` {rule}")]
pub struct SlugError {
    /// The offending segment, cut at 64 characters; the whole text when the rule is about the whole.
    pub segment: String,
    /// The rule that it breaks.
    pub rule: SlugRule,
}

impl SlugError {
    pub(super) fn new(segment: &str, rule: SlugRule) -> Self {
        Self { segment: segment.chars().take(64).collect(), rule }
    }
}

/// A rule of the slug grammar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlugRule {
    /// No segment is empty: no `//`, no trailing `/`.
    Empty,
    /// A segment holds lowercase letters, digits and hyphens only.
    Characters,
    /// A segment begins and ends with a letter or a digit.
    Edges,
    /// `w`, `u` and `self` have a meaning of their own.
    Reserved,
    /// `.` and `..` are understood once, at the very beginning of a relative slug.
    Dots,
    /// A segment has at most this many bytes.
    SegmentLength(usize),
    /// A whole slug has at most [`limits::SLUG_BYTES_MAX`] bytes.
    Length,
    /// A path has at most [`limits::SLUG_SEGMENTS_MAX`] segments.
    Depth,
    /// An absolute slug begins with `/w/{workspace}/u/{account}/`, or with `/u/{account}/` where the workspace is known.
    Absolute,
    /// A scope is a prefix that ends in `/`.
    Prefix,
}

impl fmt::Display for SlugRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("must not be empty (no `//`, no trailing `/`)"),
            Self::Characters => f.write_str("may hold only a-z, 0-9 and `-`"),
            Self::Edges => f.write_str("must begin and end with a letter or a digit"),
            Self::Reserved => f.write_str("is a reserved word (w, u, self)"),
            Self::Dots => f.write_str("is allowed only once, as a leading `./` or `../`"),
            Self::SegmentLength(max) => write!(f, "is longer than {max} bytes"),
            Self::Length => write!(f, "begins a slug longer than {} bytes", limits::SLUG_BYTES_MAX),
            Self::Depth => write!(f, "is one too many: a path has at most {}", limits::SLUG_SEGMENTS_MAX),
            Self::Absolute => f.write_str("does not fit `/w/{workspace}/u/{account}/{path}`"),
            Self::Prefix => f.write_str("does not end a scope: a scope is a prefix of a slug that ends in `/`"),
        }
    }
}
