//! Bad input: the field and the rule that it breaks.

/// A refused field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {rule}")]
pub struct Invalid {
    /// As the contract names it.
    pub field: &'static str,
    /// What it must be.
    pub rule: String,
}

impl Invalid {
    pub(crate) fn new(field: &'static str, rule: impl Into<String>) -> Self {
        Self { field, rule: rule.into() }
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

/// Refuses a text for people that is longer than its limit, or would not stay on its line wherever it is shown.
pub(crate) fn words(field: &'static str, text: &str, bytes_max: usize) -> Result<(), Invalid> {
    at_most(field, text, bytes_max)?;
    if text.chars().any(char::is_control) {
        return Err(Invalid::new(field, "must not hold control characters"));
    }
    Ok(())
}
