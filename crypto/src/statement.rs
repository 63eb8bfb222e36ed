//! Signed statements: a body, exactly as it was signed, and an Ed25519 signature over its labelled hash (PROTOCOL §2.4).

use std::fmt;

use bytes::Bytes;
use prost::Message as _;

use crate::{
    error::{self, WireError},
    hash::sha256_of,
    keys::{IdentityKey, PublicKey},
    wire,
};

/// Largest statement: a certificate with a long slug and a wide scope, or an invite, fits well inside.
pub const STATEMENT_BYTES_MAX: usize = 16 * 1024;

/// A signature that is not the stated key's over these bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("signature does not verify")]
pub struct BadSignature;

/// A body and its signature, not yet believed.
#[derive(Clone, PartialEq, Eq)]
pub struct Statement {
    body: Bytes,
    signature: [u8; 64],
}

impl Statement {
    /// Reads a serialized `SignedStatement`.
    ///
    /// # Errors
    /// [`WireError`] when it is longer than [`STATEMENT_BYTES_MAX`], no protobuf, or its signature is not 64 bytes.
    pub fn decode(bytes: impl Into<Bytes>) -> Result<Self, WireError> {
        Self::decode_at_most(bytes, STATEMENT_BYTES_MAX)
    }

    /// As [`Statement::decode`], of a kind that may be longer.
    pub(crate) fn decode_at_most(bytes: impl Into<Bytes>, bytes_max: usize) -> Result<Self, WireError> {
        let bytes = bytes.into();
        error::at_most(bytes.len(), bytes_max, "statement")?;
        let wire: wire::SignedStatement = error::decode(bytes, "statement")?;
        Self::of_parts(&wire)
    }

    /// The serialized `SignedStatement`.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        self.to_wire().encode_to_vec()
    }

    /// The signed body, for the key log.
    #[must_use]
    pub const fn body(&self) -> &Bytes {
        &self.body
    }

    /// The signature, 64 bytes.
    #[must_use]
    pub const fn signature(&self) -> &[u8; 64] {
        &self.signature
    }

    pub(crate) fn from_wire(wire: &wire::SignedStatement) -> Result<Self, WireError> {
        error::at_most(wire.body.len(), STATEMENT_BYTES_MAX, "body")?;
        Self::of_parts(wire)
    }

    fn of_parts(wire: &wire::SignedStatement) -> Result<Self, WireError> {
        let signature = error::fixed(&wire.signature, "signature")?;
        // A copy, because a slice would keep the whole message it came in alive for as long as the certificate is cached.
        Ok(Self::from_parts(Bytes::copy_from_slice(&wire.body), signature))
    }

    pub(crate) const fn from_parts(body: Bytes, signature: [u8; 64]) -> Self {
        Self { body, signature }
    }

    pub(crate) fn to_wire(&self) -> wire::SignedStatement {
        wire::SignedStatement { body: self.body.clone(), signature: Bytes::copy_from_slice(&self.signature) }
    }

    pub(crate) fn sign(key: &IdentityKey, label: &[u8], body: Vec<u8>) -> Self {
        Self { signature: key.sign(&signed_bytes(label, &body)), body: body.into() }
    }

    pub(crate) fn verify(&self, label: &[u8], key: &PublicKey) -> Result<(), BadSignature> {
        if key.verifies(&signed_bytes(label, &self.body), &self.signature) { Ok(()) } else { Err(BadSignature) }
    }
}

impl fmt::Debug for Statement {
    /// Prints the length only: an invite's body holds a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Statement").field("body_len", &self.body.len()).finish_non_exhaustive()
    }
}

/// What is signed: `L(label) || H(body)`.
fn signed_bytes(label: &[u8], body: &[u8]) -> Vec<u8> {
    [label, &sha256_of(&[body])].concat()
}
