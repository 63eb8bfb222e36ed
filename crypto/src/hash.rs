//! Domain-separated hashing: every use of SHA-256 or HKDF carries a label of its own (PROTOCOL, notation).

use std::fmt;

use hkdf::Hkdf;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// Labels that end in one zero byte, written `L("…")` in the protocol.
pub(crate) mod label {
    pub(crate) const ACK: &[u8] = b"murmur/2 ack\0";
    pub(crate) const CERT: &[u8] = b"murmur/2 cert\0";
    pub(crate) const CERT_FP: &[u8] = b"murmur/2 cert-fp\0";
    pub(crate) const CHUNK: &[u8] = b"murmur/2 chunk\0";
    pub(crate) const CRL: &[u8] = b"murmur/2 crl\0";
    pub(crate) const DM: &[u8] = b"murmur/2 dm\0";
    pub(crate) const ENROLL: &[u8] = b"murmur/2 enroll\0";
    pub(crate) const ENV_HEADER: &[u8] = b"murmur/2 env-hdr\0";
    pub(crate) const ENV_SIGNATURE: &[u8] = b"murmur/2 env-sig\0";
    pub(crate) const INVITE: &[u8] = b"murmur/2 invite\0";
    pub(crate) const INVITE_REPLY: &[u8] = b"murmur/2 invite-reply\0";
    pub(crate) const KEYLOG: &[u8] = b"murmur/2 keylog\0";
    pub(crate) const PAYLOAD_AAD: &[u8] = b"murmur/2 payload\0";
    pub(crate) const PREKEY: &[u8] = b"murmur/2 prekey\0";
    pub(crate) const PREKEY_ID: &[u8] = b"murmur/2 prekey-id\0";
    pub(crate) const SAFETY: &[u8] = b"murmur/2 safety\0";
    pub(crate) const WRAP: &[u8] = b"murmur/2 wrap\0";
}

/// HKDF `info` strings, which stand without a closing zero byte.
pub(crate) mod info {
    pub(crate) const COMMIT: &[u8] = b"murmur/2 commit";
    pub(crate) const INVITE_MAC: &[u8] = b"murmur/2 invite-mac";
    pub(crate) const PAYLOAD: &[u8] = b"murmur/2 payload";
    pub(crate) const STREAM: &[u8] = b"murmur/2 stream";
}

/// SHA-256 of one byte string.
#[must_use]
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// SHA-256 of something that comes in pieces, such as a file.
#[derive(Clone, Default)]
pub struct Sha256Pieces(Sha256);

impl Sha256Pieces {
    /// Adds a piece.
    pub fn add(&mut self, piece: &[u8]) {
        self.0.update(piece);
    }

    /// The digest of all pieces.
    #[must_use]
    pub fn finish(self) -> [u8; 32] {
        self.0.finalize().into()
    }
}

/// What a person compares before approving a node: SHA-256 of its identity key, 64 hex digits.
#[must_use]
pub fn key_fingerprint(public_key: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(&sha256(public_key))
}

/// SHA-256 of the concatenation of `parts`.
pub(crate) fn sha256_of(parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize().into()
}

/// HKDF-SHA256, extract then expand, to 32 bytes (RFC 5869).
#[expect(clippy::expect_used, reason = "32 bytes are always within HKDF-SHA256's limit of 8160")]
pub(crate) fn hkdf32(salt: &[u8], ikm: &[u8], info: &[u8]) -> Zeroizing<[u8; 32]> {
    let mut key = Zeroizing::new([0; 32]);
    Hkdf::<Sha256>::new(Some(salt), ikm).expand(info, &mut *key).expect("32 bytes fit HKDF-SHA256");
    key
}

macro_rules! digest {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 32]);

        impl $name {
            /// Wraps 32 raw bytes.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// The raw bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            /// Prints 64 lowercase hex digits.
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }
    };
}

digest! {
    /// Names a certificate: `H(L("murmur/2 cert-fp") || body)`.
    Fingerprint
}
digest! {
    /// Names one sealed copy of a message: `H(signature input || signature)`. Acknowledgements refer to it.
    EnvDigest
}
