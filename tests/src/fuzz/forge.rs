//! Signs what the public interface would not: an attacker who holds a real key and writes what it likes.

use ed25519_dalek::{Signer as _, SigningKey};
use sha2::{Digest as _, Sha256};

use super::wire::{Value, write};

/// A serialized `SignedStatement` over any body.
#[must_use]
pub fn statement(label: &str, body: &[u8], seed: &[u8; 32]) -> Vec<u8> {
    let signed = [label.as_bytes(), &[0], Sha256::digest(body).as_slice()].concat();
    let signature = SigningKey::from_bytes(seed).sign(&signed).to_bytes();
    write(&[(1, Value::Bytes(body.to_vec())), (2, Value::Bytes(signature.to_vec()))])
}

/// How a certificate is named: `H(L("murmur/2 cert-fp") || body)`.
#[must_use]
pub fn fingerprint(body: &[u8]) -> [u8; 32] {
    Sha256::digest([b"murmur/2 cert-fp\0".as_slice(), body].concat()).into()
}
