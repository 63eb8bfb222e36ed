//! Chunk streams: STREAM over XChaCha20-Poly1305, keyed by the message that opened the stream (PROTOCOL §4.6).
//!
//! Every chunk is bound to its stream, its index and whether it is the last, so that reordering, splicing, truncating and
//! extending all fail to authenticate.

use aead_stream::{NewStream as _, StreamBE32, StreamPrimitive as _};
use bytes::Bytes;
use chacha20poly1305::{KeyInit as _, XChaCha20Poly1305, aead::Payload};
use prost::Message as _;
use zeroize::Zeroizing;

use crate::{
    content_key::{HeaderHash, TAG_BYTES},
    error::{self, WireError},
    hash::label,
    wire,
};

/// Largest plaintext of one chunk.
pub const CHUNK_BYTES_MAX: usize = 128 * 1024;

/// A chunk that is not the one expected here (code 604).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("chunk does not authenticate")]
pub struct ChunkAuthFailed;

/// A chunk that cannot be encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("chunk must be at most {CHUNK_BYTES_MAX} bytes, got {0}")]
pub struct ChunkTooLarge(pub usize);

/// What a message that opens a stream gives its two ends: the stream's key and the header it is bound to.
pub struct StreamKey {
    key: Zeroizing<[u8; 32]>,
    header_hash: HeaderHash,
}

impl StreamKey {
    pub(crate) const fn new(key: Zeroizing<[u8; 32]>, header_hash: HeaderHash) -> Self {
        Self { key, header_hash }
    }

    /// Restores a key from sealed storage.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; 64]) -> Self {
        let mut stored = Self { key: Zeroizing::new([0; 32]), header_hash: HeaderHash([0; 32]) };
        stored.key.copy_from_slice(&bytes[..32]);
        stored.header_hash.0.copy_from_slice(&bytes[32..]);
        stored
    }

    /// Key and header hash, for sealed storage: a stream outlives a restart of either node.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<[u8; 64]> {
        let mut bytes = Zeroizing::new([0; 64]);
        bytes[..32].copy_from_slice(&*self.key);
        bytes[32..].copy_from_slice(&self.header_hash.0);
        bytes
    }
}

/// Encrypts and decrypts the chunks of one stream.
pub struct ChunkCipher {
    stream: StreamBE32<XChaCha20Poly1305>,
    aad: Vec<u8>,
}

impl ChunkCipher {
    /// Prepares a stream as its manifest says.
    #[must_use]
    pub fn new(key: &StreamKey, stream_id: &[u8; 16], nonce_prefix: &[u8; 19]) -> Self {
        let aead = XChaCha20Poly1305::new(&(*key.key).into());
        let aad = [label::CHUNK, &key.header_hash.0, stream_id].concat();
        Self { stream: StreamBE32::from_aead(aead, &(*nonce_prefix).into()), aad }
    }

    /// Encrypts the chunk at `index`; `last` ends the stream. An index is never used twice with other content.
    ///
    /// # Errors
    /// [`ChunkTooLarge`].
    pub fn encrypt(&self, index: u32, last: bool, plaintext: &[u8]) -> Result<Vec<u8>, ChunkTooLarge> {
        let too_large = ChunkTooLarge(plaintext.len());
        if plaintext.len() > CHUNK_BYTES_MAX {
            return Err(too_large);
        }
        self.stream.encrypt(index, last, Payload { msg: plaintext, aad: &self.aad }).map_err(|_| too_large)
    }

    /// Decrypts the chunk at `index`.
    ///
    /// # Errors
    /// [`ChunkAuthFailed`] when it is from elsewhere, another index, or lies about being the last.
    pub fn decrypt(&self, index: u32, last: bool, ciphertext: &[u8]) -> Result<Vec<u8>, ChunkAuthFailed> {
        self.stream.decrypt(index, last, Payload { msg: ciphertext, aad: &self.aad }).map_err(|_| ChunkAuthFailed)
    }
}

/// One chunk on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkFrame {
    /// The stream.
    pub stream_id: [u8; 16],
    /// Its place, from 0.
    pub index: u32,
    /// Whether it ends the stream.
    pub last: bool,
    /// The encrypted chunk.
    pub ciphertext: Bytes,
}

impl ChunkFrame {
    /// Reads a serialized frame.
    ///
    /// # Errors
    /// [`WireError`] naming the field and the rule it breaks.
    pub fn decode(bytes: impl Into<Bytes>) -> Result<Self, WireError> {
        let bytes = bytes.into();
        error::at_most(bytes.len(), CHUNK_BYTES_MAX + TAG_BYTES + 64, "chunk")?;
        let frame: wire::ChunkFrame = error::decode(bytes, "chunk")?;
        error::at_most(frame.ciphertext.len(), CHUNK_BYTES_MAX + TAG_BYTES, "ciphertext")?;
        let stream_id = error::fixed(&frame.stream_id, "stream_id")?;
        Ok(Self { stream_id, index: frame.index, last: frame.last, ciphertext: frame.ciphertext })
    }

    /// The serialized frame.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        wire::ChunkFrame {
            stream_id: Bytes::copy_from_slice(&self.stream_id),
            index: self.index,
            last: self.last,
            ciphertext: self.ciphertext.clone(),
        }
        .encode_to_vec()
    }
}
