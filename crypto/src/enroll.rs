//! Proof at enrolment that the caller holds the identity key that it enrols (`EnrollNodeRequest.proof`).
//!
//! The signature covers the invite's secret by its digest and the broker's key, so that nobody who sees it can enrol the key with
//! another invite or under another broker key.

use crate::{
    hash::{label, sha256},
    keys::{IdentityKey, PublicKey},
};

/// Signs the proof: Ed25519 over `L("murmur/2 enroll") || SHA-256(secret) || broker key` (its text, starting with `U`).
#[must_use]
pub fn prove(key: &IdentityKey, secret: &[u8; 32], broker_public_key: &str) -> [u8; 64] {
    key.sign(&message(&sha256(secret), broker_public_key))
}

/// Whether a proof is `key`'s. The verifier knows only the digest of the secret.
#[must_use]
pub fn holds(key: &PublicKey, secret_hash: &[u8; 32], broker_public_key: &str, proof: &[u8; 64]) -> bool {
    key.verifies(&message(secret_hash, broker_public_key), proof)
}

fn message(secret_hash: &[u8; 32], broker_public_key: &str) -> Vec<u8> {
    [label::ENROLL, secret_hash.as_slice(), broker_public_key.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_is_bound_to_key_secret_and_broker_key() {
        let key = IdentityKey::from_seed(&[1; 32]);
        let proof = prove(&key, &[2; 32], "UABC");
        let hash = sha256(&[2; 32]);
        assert!(holds(&key.public(), &hash, "UABC", &proof));
        assert!(!holds(&key.public(), &hash, "UABD", &proof));
        assert!(!holds(&key.public(), &sha256(&[3; 32]), "UABC", &proof));
        assert!(!holds(&IdentityKey::from_seed(&[4; 32]).public(), &hash, "UABC", &proof));
    }
}
