//! Sealing with chosen randomness, for known-answer tests and simulations only.
//!
//! Two seals with the same content key and nonce, or the same ephemeral key material, give their content away. Programs use
//! [`crate::seal`].

use zeroize::Zeroizing;

use crate::{
    keys::IdentityKey,
    seal::{self, SealError, SealRequest, Sealed},
};

/// Everything random about one sealed copy.
pub struct SealRandomness {
    /// The content key.
    pub cek: Zeroizing<[u8; 32]>,
    /// The payload's nonce.
    pub payload_nonce: [u8; 24],
    /// The ephemeral HPKE key material, one per recipient (RFC 9180's `ikmE`).
    pub hpke_ikm_e: Zeroizing<Vec<[u8; 32]>>,
}

/// Seals with the given randomness.
///
/// # Errors
/// As [`crate::seal::seal`]; [`SealError::Randomness`] when it is not given for exactly the recipients.
pub fn seal_with(
    sender: &IdentityKey,
    request: &SealRequest<'_>,
    randomness: &SealRandomness,
) -> Result<Sealed, SealError> {
    seal::seal_with(sender, request, randomness, None)
}
