//! The number of an item.

use std::{fmt, num::NonZeroU32, str::FromStr};

use serde::{Deserialize, Serialize};

/// An item's number, which counts from 1 within its checklist and is never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TaskId(NonZeroU32);

impl TaskId {
    /// The first of a checklist.
    pub const FIRST: Self = Self(NonZeroU32::MIN);

    /// An item's number; `None` for 0.
    #[must_use]
    pub const fn new(number: u32) -> Option<Self> {
        match NonZeroU32::new(number) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    /// The number, from 1.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0.get()
    }

    /// The number after this one; the last number stays itself, which no checklist reaches.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A text that numbers no item.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be the number of an item, such as 3, got `{0}`")]
pub struct InvalidTaskId(String);

impl FromStr for TaskId {
    type Err = InvalidTaskId;

    /// Accepts what [`fmt::Display`] prints and nothing else.
    fn from_str(text: &str) -> Result<Self, InvalidTaskId> {
        let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
        let number = text.parse().ok().filter(|_| plain);
        number.and_then(Self::new).ok_or_else(|| InvalidTaskId(text.chars().take(64).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_number_has_one_form() {
        assert_eq!("17".parse::<TaskId>().map(TaskId::get), Ok(17));
        for text in ["", "0", "-1", "+1", "01", "1.0", "#1", "4294967296", " 1", "eins"] {
            assert!(text.parse::<TaskId>().is_err(), "{text}");
        }
    }
}
