//! Single names: a segment of a path or workspace, and an account.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::{SlugError, SlugRule};
use crate::limits::{ACCOUNT_BYTES_MAX, SLUG_SEGMENT_BYTES_MAX};

/// Words that no segment may be, because they mean something in a slug.
const RESERVED: [&str; 3] = ["w", "u", "self"];

/// One segment of a slug: 1 to 63 lowercase letters, digits and inner hyphens, and no reserved word.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Segment(String);

/// A workspace is named by one segment.
pub type WorkspaceName = Segment;

/// An account: 1 to 39 letters, digits and inner hyphens, lowercased on the way in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AccountName(String);

impl FromStr for Segment {
    type Err = SlugError;

    fn from_str(text: &str) -> Result<Self, SlugError> {
        check_segment(text)?;
        Ok(Self(text.to_owned()))
    }
}

impl FromStr for AccountName {
    type Err = SlugError;

    fn from_str(text: &str) -> Result<Self, SlugError> {
        let lowercase = text.to_ascii_lowercase();
        check_name(&lowercase, ACCOUNT_BYTES_MAX)?;
        Ok(Self(lowercase))
    }
}

macro_rules! text_type {
    ($name:ident) => {
        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = SlugError;

            fn try_from(text: String) -> Result<Self, SlugError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }
    };
}

text_type!(Segment);
text_type!(AccountName);

/// Makes a segment of a free name, such as a session's: lowercased, every run of other characters one `-`, cut at 63 bytes,
/// without `-` at either end. So `My Agent (2)` becomes `my-agent-2`.
///
/// # Errors
/// [`SlugError`] when nothing is left or a reserved word comes out; it names the text as given.
pub fn normalise_name(name: &str) -> Result<Segment, SlugError> {
    let mut text = String::new();
    for character in name.chars() {
        let folded = character.to_ascii_lowercase();
        if folded.is_ascii_lowercase() || folded.is_ascii_digit() {
            text.push(folded);
        } else if !text.is_empty() && !text.ends_with('-') {
            text.push('-');
        }
        if text.len() == SLUG_SEGMENT_BYTES_MAX {
            break;
        }
    }
    if text.is_empty() && !name.is_empty() {
        return Err(SlugError::new(name, SlugRule::Characters));
    }
    text.trim_end_matches('-').parse().map_err(|error: SlugError| SlugError::new(name, error.rule))
}

/// Checks one segment of a path or a workspace name.
pub(super) fn check_segment(text: &str) -> Result<(), SlugError> {
    check_name(text, SLUG_SEGMENT_BYTES_MAX)?;
    if RESERVED.contains(&text) {
        return Err(SlugError::new(text, SlugRule::Reserved));
    }
    Ok(())
}

fn check_name(text: &str, bytes_max: usize) -> Result<(), SlugError> {
    let broken = if text.is_empty() {
        SlugRule::Empty
    } else if text == "." || text == ".." {
        SlugRule::Dots
    } else if !text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-') {
        SlugRule::Characters
    } else if text.starts_with('-') || text.ends_with('-') {
        SlugRule::Edges
    } else if text.len() > bytes_max {
        SlugRule::SegmentLength(bytes_max)
    } else {
        return Ok(());
    };
    Err(SlugError::new(text, broken))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_rule_is_named() {
        let rule = |text: &str| text.parse::<Segment>().unwrap_err().rule;
        assert_eq!(rule(""), SlugRule::Empty);
        assert_eq!(rule(".."), SlugRule::Dots);
        assert_eq!(rule("Ci"), SlugRule::Characters);
        assert_eq!(rule("_x"), SlugRule::Characters);
        assert_eq!(rule("é"), SlugRule::Characters);
        assert_eq!(normalise_name("é").unwrap_err().rule, SlugRule::Characters);
        assert_eq!(rule("-a"), SlugRule::Edges);
        assert_eq!(rule("a-"), SlugRule::Edges);
        assert_eq!(rule("self"), SlugRule::Reserved);
        assert_eq!(rule(&"a".repeat(64)), SlugRule::SegmentLength(63));
        assert!("a".repeat(63).parse::<Segment>().is_ok());
    }

    #[test]
    fn accounts_are_lowercased_and_shorter() {
        assert_eq!("Octo-Cat".parse::<AccountName>().unwrap().as_str(), "octo-cat");
        assert!("a".repeat(39).parse::<AccountName>().is_ok());
        assert_eq!("a".repeat(40).parse::<AccountName>().unwrap_err().rule, SlugRule::SegmentLength(39));
    }

    #[test]
    fn names_become_segments() {
        let name = |text: &str| normalise_name(text).map(String::from);
        assert_eq!(name("My Agent (2)"), Ok("my-agent-2".to_owned()));
        assert_eq!(name(&format!("{} b", "a".repeat(62))), Ok("a".repeat(62)));
        assert_eq!(name("!?").unwrap_err().to_string(), "slug segment `!?` may hold only a-z, 0-9 and `-`");
        assert_eq!(name("Self").unwrap_err().rule, SlugRule::Reserved);
    }

    proptest! {
        #[test]
        fn normalising_is_total_and_idempotent(name in any::<String>()) {
            if let Ok(segment) = normalise_name(&name) {
                prop_assert_eq!(normalise_name(segment.as_str()), Ok(segment));
            }
        }
    }
}
