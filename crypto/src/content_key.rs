//! The content key of one sealed copy and everything derived from it (PROTOCOL §2.5).

use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, AeadInOut, Payload},
};
use murmur_core::id::MessageId;
use zeroize::Zeroizing;

use crate::hash::{hkdf32, info, label, sha256_of};

/// What encryption adds to a plaintext (RFC 8439 §2.8).
pub(crate) const TAG_BYTES: usize = 16;

/// `h = H(L("murmur/2 env-hdr") || header)`: binds every key and ciphertext of a copy to its header.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct HeaderHash(pub(crate) [u8; 32]);

impl HeaderHash {
    pub(crate) fn of(header: &[u8]) -> Self {
        Self(sha256_of(&[label::ENV_HEADER, header]))
    }
}

/// The 32 random bytes that a copy is sealed with.
pub(crate) struct ContentKey(pub(crate) Zeroizing<[u8; 32]>);

impl ContentKey {
    /// What the header promises about this key, so that no two recipients can be given different ones.
    pub(crate) fn commitment(&self, msg_id: MessageId) -> [u8; 32] {
        *hkdf32(msg_id.as_bytes(), &*self.0, info::COMMIT)
    }

    /// The key of a chunk stream opened by this message.
    pub(crate) fn stream_key(&self, header_hash: HeaderHash) -> Zeroizing<[u8; 32]> {
        hkdf32(&header_hash.0, &*self.0, info::STREAM)
    }

    pub(crate) fn payload_key(&self, header_hash: HeaderHash) -> Zeroizing<[u8; 32]> {
        hkdf32(&header_hash.0, &*self.0, info::PAYLOAD)
    }

    /// Encrypts the padded inner message in place; `None` only for lengths that the cipher cannot take.
    pub(crate) fn encrypt(&self, header_hash: HeaderHash, nonce: &[u8; 24], mut padded: Vec<u8>) -> Option<Vec<u8>> {
        let aad = payload_aad(header_hash);
        self.cipher(header_hash).encrypt_in_place(&XNonce::from(*nonce), &aad, &mut padded).ok()?;
        Some(padded)
    }

    /// Decrypts a payload; `None` when it was not made with this key, header and nonce.
    pub(crate) fn decrypt(&self, header_hash: HeaderHash, nonce: &[u8; 24], payload: &[u8]) -> Option<Vec<u8>> {
        let aad = payload_aad(header_hash);
        self.cipher(header_hash).decrypt(&XNonce::from(*nonce), Payload { msg: payload, aad: &aad }).ok()
    }

    fn cipher(&self, header_hash: HeaderHash) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new(&(*self.payload_key(header_hash)).into())
    }
}

pub(crate) fn payload_aad(header_hash: HeaderHash) -> Vec<u8> {
    [label::PAYLOAD_AAD, &header_hash.0].concat()
}
