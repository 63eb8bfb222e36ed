//! The manifest of a chunk stream, carried by the message that opens it (PROTOCOL §4.2, §4.6).

use bytes::Bytes;
use murmur_core::limits::CONTENT_TYPE_BYTES_MAX;

use crate::{
    chunk::CHUNK_BYTES_MAX,
    error::{self, WireError},
    wire,
};

/// Longest file name of a stream.
pub const FILENAME_BYTES_MAX: usize = 128;
/// Largest stream.
pub const STREAM_BYTES_MAX: u64 = 1 << 30;

/// A chunk stream to come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamManifest {
    /// Random.
    pub stream_id: [u8; 16],
    /// Random.
    pub nonce_prefix: [u8; 19],
    /// Plaintext bytes of every chunk but the last.
    pub chunk_size: u32,
    /// Bytes in all; `None` for a live stream.
    pub total_size: Option<u64>,
    /// A base name, never a path; may be empty.
    pub filename: String,
    /// What the content is.
    pub content_type: String,
    /// Digest of the whole, where known beforehand.
    pub sha256: Option<[u8; 32]>,
}

impl StreamManifest {
    pub(crate) fn from_wire(stream: wire::StreamManifest) -> Result<Self, WireError> {
        Ok(Self {
            stream_id: error::fixed(&stream.stream_id, "stream_id")?,
            nonce_prefix: error::fixed(&stream.nonce_prefix, "nonce_prefix")?,
            chunk_size: stream.chunk_size,
            total_size: Some(stream.total_size).filter(|size| *size != 0),
            filename: stream.filename,
            content_type: stream.content_type,
            sha256: error::fixed_or_absent(&stream.sha256, "sha256")?,
        })
    }

    pub(crate) fn to_wire(&self) -> wire::StreamManifest {
        wire::StreamManifest {
            stream_id: Bytes::copy_from_slice(&self.stream_id),
            nonce_prefix: Bytes::copy_from_slice(&self.nonce_prefix),
            chunk_size: self.chunk_size,
            total_size: self.total_size.unwrap_or_default(),
            filename: self.filename.clone(),
            content_type: self.content_type.clone(),
            sha256: self.sha256.map(|digest| Bytes::copy_from_slice(&digest)).unwrap_or_default(),
        }
    }

    pub(crate) fn check(&self) -> Result<(), WireError> {
        let chunk_size = usize::try_from(self.chunk_size).unwrap_or(usize::MAX);
        error::require((1..=CHUNK_BYTES_MAX).contains(&chunk_size), "chunk_size", "must be 1 to 131072")?;
        error::require(self.total_size.unwrap_or(1) <= STREAM_BYTES_MAX, "total_size", "must be at most 1 GiB")?;
        error::require(self.total_size != Some(0), "total_size", "must be absent for a live stream, not 0")?;
        error::at_most(self.content_type.len(), CONTENT_TYPE_BYTES_MAX, "stream.content_type")?;
        error::at_most(self.filename.len(), FILENAME_BYTES_MAX, "filename")?;
        error::require(
            is_base_name(&self.filename),
            "filename",
            "must be a base name, without separators or control characters",
        )
    }
}

fn is_base_name(name: &str) -> bool {
    let forbidden = |c: char| c.is_control() || matches!(c, '/' | '\\');
    !matches!(name, "." | "..") && !name.contains(forbidden)
}
