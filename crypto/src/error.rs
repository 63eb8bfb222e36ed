//! Errors that several rooms share: bytes that break a rule of the wire, and randomness that cannot be had.

use std::borrow::Cow;

use bytes::Bytes;
use murmur_core::code::Code;

/// Bytes that are no valid wire message: which field, and which rule it breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} {rule}")]
pub struct WireError {
    /// The protocol's code for it.
    pub code: Code,
    /// The field as the proto file names it.
    pub field: &'static str,
    /// The rule, such as `must be exactly 16 bytes, got 3`.
    pub rule: Cow<'static, str>,
}

impl WireError {
    pub(crate) fn malformed(field: &'static str, rule: impl Into<Cow<'static, str>>) -> Self {
        Self { code: Code::Malformed, field, rule: rule.into() }
    }

    pub(crate) fn too_large(field: &'static str, limit: usize, got: usize) -> Self {
        Self { code: Code::TooLarge, field, rule: format!("must be at most {limit} bytes, got {got}").into() }
    }
}

/// The operating system gave no randomness.
#[derive(Debug, thiserror::Error)]
#[error("the operating system gave no randomness")]
pub struct RandomError(#[from] getrandom::Error);

/// Reads a protobuf message, naming it in the error.
pub(crate) fn decode<M: prost::Message + Default>(bytes: Bytes, field: &'static str) -> Result<M, WireError> {
    M::decode(bytes).map_err(|_| WireError::malformed(field, "must be a valid protobuf message"))
}

/// Reads a field whose length is fixed.
pub(crate) fn fixed<const N: usize>(bytes: &[u8], field: &'static str) -> Result<[u8; N], WireError> {
    bytes.try_into().map_err(|_| WireError::malformed(field, format!("must be exactly {N} bytes, got {}", bytes.len())))
}

/// Reads a field that is either absent or of a fixed length.
pub(crate) fn fixed_or_absent<const N: usize>(bytes: &[u8], field: &'static str) -> Result<Option<[u8; N]>, WireError> {
    if bytes.is_empty() { Ok(None) } else { fixed(bytes, field).map(Some) }
}

/// Refuses a field unless its rule holds.
pub(crate) fn require(holds: bool, field: &'static str, rule: &'static str) -> Result<(), WireError> {
    if holds { Ok(()) } else { Err(WireError::malformed(field, rule)) }
}

/// Refuses a field longer than its limit.
pub(crate) fn at_most(len: usize, limit: usize, field: &'static str) -> Result<(), WireError> {
    if len > limit { Err(WireError::too_large(field, limit, len)) } else { Ok(()) }
}

/// Refuses a list longer than its limit.
pub(crate) fn count_at_most(len: usize, limit: usize, field: &'static str) -> Result<(), WireError> {
    if len > limit {
        return Err(WireError::malformed(field, format!("must have at most {limit} entries, got {len}")));
    }
    Ok(())
}
