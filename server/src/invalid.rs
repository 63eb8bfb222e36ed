//! Bad input: the field and the rule that it breaks.

use murmur_proto::time::written_ms;
use prost_types::Timestamp;

/// A refused field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {rule}", self.path())]
pub struct Invalid {
    /// The message of the request in which it stands, as the contract names that; empty for the request itself.
    pub within: &'static str,
    /// As the contract names it.
    pub field: &'static str,
    /// What it must be.
    pub rule: String,
}

impl Invalid {
    pub(crate) fn new(field: &'static str, rule: impl Into<String>) -> Self {
        Self { within: "", field, rule: rule.into() }
    }

    /// As part of a message that stands in this field of the request.
    pub(crate) fn within(self, within: &'static str) -> Self {
        Self { within, ..self }
    }

    /// Where it stands in the request.
    #[must_use]
    pub fn path(&self) -> String {
        if self.within.is_empty() { self.field.to_owned() } else { format!("{}.{}", self.within, self.field) }
    }
}

/// Reads a text field into its type.
pub(crate) fn parse<T>(field: &'static str, text: &str) -> Result<T, Invalid>
where
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|error: T::Err| Invalid::new(field, error.to_string()))
}

/// As [`parse`], of a field that may be empty.
pub(crate) fn parse_optional<T>(field: &'static str, text: &str) -> Result<Option<T>, Invalid>
where
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    if text.is_empty() { Ok(None) } else { parse(field, text).map(Some) }
}

/// Reads a byte field of a fixed length.
pub(crate) fn fixed<const N: usize>(field: &'static str, bytes: &[u8]) -> Result<[u8; N], Invalid> {
    bytes.try_into().map_err(|_| Invalid::new(field, format!("must be exactly {N} bytes, got {}", bytes.len())))
}

/// Refuses a text that is longer than its limit.
pub(crate) fn at_most(field: &'static str, text: &str, bytes_max: usize) -> Result<(), Invalid> {
    if text.len() > bytes_max {
        return Err(Invalid::new(field, format!("must be at most {bytes_max} bytes, got {}", text.len())));
    }
    Ok(())
}

/// Refuses a text for a program that is longer than its limit, or that no program can be given: an argument ends at a NUL.
pub(crate) fn prompt(field: &'static str, text: &str, bytes_max: usize) -> Result<(), Invalid> {
    at_most(field, text, bytes_max)?;
    if text.contains('\0') {
        return Err(Invalid::new(field, "must not hold NUL"));
    }
    Ok(())
}

/// Reads a moment, in Unix milliseconds.
pub(crate) fn moment(field: &'static str, time: &Timestamp) -> Result<u64, Invalid> {
    written_ms(time).ok_or_else(|| Invalid::new(field, "must be a moment from 1970 on, with nanos of 0 to 999999999"))
}

/// Refuses a text for people that is longer than its limit, or would not stay on its line wherever it is shown.
pub(crate) fn words(field: &'static str, text: &str, bytes_max: usize) -> Result<(), Invalid> {
    at_most(field, text, bytes_max)?;
    if text.chars().any(char::is_control) {
        return Err(Invalid::new(field, "must not hold control characters"));
    }
    Ok(())
}
