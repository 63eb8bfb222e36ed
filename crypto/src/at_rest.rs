//! Secrets that a database keeps and their owner needs back: XChaCha20-Poly1305 under a key that lies elsewhere (PROTOCOL §6.10).
//!
//! `place` says where the sealed bytes stand (`table||column||primary key`) and is authenticated, so that whoever can write to the database
//! cannot move one secret into another's row.

use chacha20poly1305::{
    KeyInit as _, XChaCha20Poly1305, XNonce,
    aead::{Aead as _, Payload},
};
use zeroize::Zeroizing;

const NONCE_BYTES: usize = 24;

/// The key under which secrets are sealed.
pub struct AtRestKey(Zeroizing<[u8; 32]>);

/// Sealed bytes that were changed, moved, or sealed under another key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a sealed secret cannot be opened with this key")]
pub struct NotOpened;

impl AtRestKey {
    /// Wraps 32 random bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Seals a secret for its place. `nonce` must be random.
    #[must_use]
    #[expect(clippy::expect_used, reason = "only a text of 2^38 bytes is too long, and secrets are short")]
    pub fn seal(&self, place: &[u8], secret: &[u8], nonce: [u8; NONCE_BYTES]) -> Vec<u8> {
        let cipher = XChaCha20Poly1305::new((&*self.0).into());
        let nonce = XNonce::from(nonce);
        let sealed = cipher.encrypt(&nonce, Payload { msg: secret, aad: place }).expect("a short text");
        [nonce.as_slice(), sealed.as_slice()].concat()
    }

    /// Opens what [`AtRestKey::seal`] made for the same place.
    ///
    /// # Errors
    /// [`NotOpened`].
    pub fn open(&self, place: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, NotOpened> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_BYTES>().ok_or(NotOpened)?;
        let cipher = XChaCha20Poly1305::new((&*self.0).into());
        let opened = cipher.decrypt(&XNonce::from(*nonce), Payload { msg: sealed, aad: place });
        opened.map(Zeroizing::new).map_err(|_| NotOpened)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_opens_in_its_place_with_its_key_alone() {
        let key = AtRestKey::from_bytes([7; 32]);
        let sealed = key.seal(b"here", b"secret", [1; 24]);
        assert_eq!(key.open(b"here", &sealed).unwrap().as_slice(), b"secret");
        assert_eq!(key.open(b"there", &sealed), Err(NotOpened));
        assert_eq!(AtRestKey::from_bytes([8; 32]).open(b"here", &sealed), Err(NotOpened));
        for length in 0..sealed.len() {
            assert_eq!(key.open(b"here", &sealed[..length]), Err(NotOpened));
        }
    }
}
