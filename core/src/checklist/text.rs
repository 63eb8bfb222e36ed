//! What an item says.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::limits::{TASK_DETAILS_BYTES_MAX, TASK_SUBJECT_CHARS_MAX};

/// An item's subject: one line of 1 to 240 characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Subject(String);

/// A text that is no subject, with the rule that it breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSubject {
    /// There is nothing to read.
    #[error("must not be empty")]
    Empty,
    /// It would not stay on its line.
    #[error("must be one line without control characters")]
    Control,
    /// It is a description rather than a subject.
    #[error("must be at most {TASK_SUBJECT_CHARS_MAX} characters, got {0}; put the rest into the description")]
    Long(usize),
}

impl Subject {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Subject {
    type Err = InvalidSubject;

    fn from_str(text: &str) -> Result<Self, InvalidSubject> {
        let length = text.chars().count();
        if text.trim().is_empty() {
            Err(InvalidSubject::Empty)
        } else if length > TASK_SUBJECT_CHARS_MAX {
            Err(InvalidSubject::Long(length))
        } else if text.chars().any(char::is_control) {
            Err(InvalidSubject::Control)
        } else {
            Ok(Self(text.to_owned()))
        }
    }
}

impl TryFrom<String> for Subject {
    type Error = InvalidSubject;

    fn try_from(text: String) -> Result<Self, InvalidSubject> {
        text.parse()
    }
}

impl From<Subject> for String {
    fn from(subject: Subject) -> Self {
        subject.0
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An item's description: at most 16 KiB, in as many lines as it takes; may be empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Details(String);

/// A description that is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be at most {TASK_DETAILS_BYTES_MAX} bytes, got {0}")]
pub struct InvalidDetails(usize);

impl Details {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Details {
    type Error = InvalidDetails;

    fn try_from(text: String) -> Result<Self, InvalidDetails> {
        if text.len() > TASK_DETAILS_BYTES_MAX { Err(InvalidDetails(text.len())) } else { Ok(Self(text)) }
    }
}

impl FromStr for Details {
    type Err = InvalidDetails;

    fn from_str(text: &str) -> Result<Self, InvalidDetails> {
        text.to_owned().try_into()
    }
}

impl From<Details> for String {
    fn from(details: Details) -> Self {
        details.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_are_counted_and_not_bytes() {
        assert!("ü".repeat(240).parse::<Subject>().is_ok());
        assert_eq!("ü".repeat(241).parse::<Subject>(), Err(InvalidSubject::Long(241)));
        for text in ["", " ", "a\nb", "a\u{1b}b"] {
            assert!(text.parse::<Subject>().is_err(), "{text:?}");
        }
        assert!("a\nb".parse::<Details>().is_ok() && "a".repeat(16_385).parse::<Details>().is_err());
    }
}
