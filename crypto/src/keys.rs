//! Keys: Ed25519 identities that sign, X25519 prekeys that others seal to.
//!
//! Secrets have neither `Debug` nor `Clone`, are wiped on drop and leave only through `seed` and `to_bytes`, for sealed
//! storage. Public keys are checked once, here, and are good ever after.

use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::LazyLock,
};

use curve25519_dalek::constants::EIGHT_TORSION;
use ed25519_dalek::{Signature, Signer, SigningKey, Verifier as _, VerifyingKey};
use hpke::{Deserializable as _, Kem as _, Serializable as _};
use zeroize::Zeroizing;

pub use crate::kem::{Encapsulation, Multiples};
use crate::{
    error::RandomError,
    kem::{Kem, Public, Secret},
};

/// A public key that must not be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKey {
    /// The bytes are no point of the curve, or not its one canonical encoding.
    #[error("public key must be a canonical curve point")]
    NotCanonical,
    /// The point has small order, so that signatures or shared secrets under it prove nothing.
    #[error("public key must not be of small order")]
    SmallOrder,
}

/// An Ed25519 key that signs: a workspace root, an enroller, a node or an agent.
pub struct IdentityKey(SigningKey);

impl IdentityKey {
    /// Makes a new key from the operating system's randomness.
    ///
    /// # Errors
    /// [`RandomError`] when there is none.
    pub fn generate() -> Result<Self, RandomError> {
        Ok(Self::from_seed(&*random()?))
    }

    /// Restores a key from its stored seed (RFC 8032 §5.1.5).
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// The seed, for sealed storage.
    #[must_use]
    pub fn seed(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_bytes())
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    pub(crate) fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }
}

/// Every point of small order, encoded.
static SMALL_ORDER: LazyLock<[[u8; 32]; 8]> = LazyLock::new(|| EIGHT_TORSION.map(|point| point.compress().to_bytes()));

/// An Ed25519 public key: canonical and not of small order.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// Reads 32 bytes.
    ///
    /// # Errors
    /// [`InvalidKey`] when they are no canonical point or one of small order.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, InvalidKey> {
        let key = VerifyingKey::from_bytes(bytes).map_err(|_| InvalidKey::NotCanonical)?;
        if key.to_edwards().compress().as_bytes() != bytes {
            return Err(InvalidKey::NotCanonical);
        }
        if key.is_weak() { Err(InvalidKey::SmallOrder) } else { Ok(Self(key)) }
    }

    /// The raw bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// Whether `signature` is this key's over `message`, by the strict rules (no malleable or small-order forms).
    ///
    /// The outcome is that of `verify_strict`, for less: the key was checked when it was read, and a nonce point that the equation
    /// confirms is the one canonical encoding of a point, so that comparing bytes tells one of small order.
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        let signature = Signature::from_bytes(signature);
        !SMALL_ORDER.contains(signature.r_bytes()) && self.0.verify(message, &signature).is_ok()
    }
}

impl Hash for PublicKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", data_encoding::HEXLOWER.encode(self.as_bytes()))
    }
}

/// The private half of a prekey.
pub struct PrekeySecret(Secret);

impl PrekeySecret {
    /// Makes a new key from the operating system's randomness.
    ///
    /// # Errors
    /// [`RandomError`] when there is none.
    pub fn generate() -> Result<Self, RandomError> {
        Ok(Self::derive(&*random()?))
    }

    /// Derives a key from 32 secret bytes (RFC 9180 §7.1.3).
    #[must_use]
    pub fn derive(ikm: &[u8; 32]) -> Self {
        Self(Kem::derive_keypair(ikm).0)
    }

    /// Restores a key from storage.
    #[must_use]
    #[expect(clippy::expect_used, reason = "the only way to fail is another length than 32")]
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        Self(Secret::from_bytes(bytes).expect("32 bytes are an X25519 key"))
    }

    /// The raw key, for sealed storage.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_bytes().into())
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> PrekeyPublic {
        PrekeyPublic(*self.0.public())
    }

    pub(crate) const fn kem(&self) -> &Secret {
        &self.0
    }
}

/// The public half of a prekey, not of low order.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PrekeyPublic([u8; 32]);

impl PrekeyPublic {
    /// Reads 32 bytes.
    ///
    /// # Errors
    /// [`InvalidKey::SmallOrder`] when every shared secret with it would be zero (RFC 7748 §6.1).
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, InvalidKey> {
        // A clamped scalar is a multiple of the cofactor, so any one of them sends every low-order point to zero.
        let probe = x25519_dalek::StaticSecret::from([1; 32]);
        let shared = probe.diffie_hellman(&x25519_dalek::PublicKey::from(*bytes));
        if shared.was_contributory() { Ok(Self(*bytes)) } else { Err(InvalidKey::SmallOrder) }
    }

    /// The raw bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Its multiples, for who encapsulates to it often.
    #[must_use]
    pub fn multiples(&self) -> Multiples {
        Multiples::new(self.0)
    }

    /// Encapsulates to it for [`crate::seal::seal_encapsulated`], by its multiples where there are some. `None` when there is no randomness.
    #[must_use]
    pub fn encapsulate(&self, multiples: Option<&Multiples>) -> Option<Encapsulation> {
        Encapsulation::derive(self.0, multiples, &*random().ok()?)
    }

    pub(crate) fn kem(&self, encapsulation: Option<Encapsulation>) -> Public {
        Public::new(self.0, encapsulation)
    }
}

impl fmt::Debug for PrekeyPublic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrekeyPublic({})", data_encoding::HEXLOWER.encode(&self.0))
    }
}

/// Draws `N` random bytes.
pub(crate) fn random<const N: usize>() -> Result<Zeroizing<[u8; N]>, RandomError> {
    let mut bytes = Zeroizing::new([0; N]);
    getrandom::fill(&mut *bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_order_and_non_canonical_identities_are_refused() {
        let mut neutral = [0; 32];
        neutral[0] = 1;
        assert_eq!(PublicKey::from_bytes(&neutral), Err(InvalidKey::SmallOrder));
        // p + 1 encodes the neutral point a second time.
        let mut twice = [0xff; 32];
        twice[0] = 0xee;
        twice[31] = 0x7f;
        assert_eq!(PublicKey::from_bytes(&twice), Err(InvalidKey::NotCanonical));
    }

    /// With the neutral point for a nonce, `s = H(R, A, M) a` fulfils the equation, and proves nothing.
    #[test]
    fn a_nonce_point_of_small_order_is_refused_as_verify_strict_does() {
        use curve25519_dalek::{Scalar, traits::IsIdentity as _};
        use sha2::{Digest as _, Sha512};
        let (key, message) = (IdentityKey::from_seed(&[7; 32]), b"anything");
        let public = key.public();
        let mut secret = [0; 32];
        secret.copy_from_slice(&Sha512::digest(key.seed())[..32]);
        let secret = Scalar::from_bytes_mod_order(curve25519_dalek::scalar::clamp_integer(secret));
        for nonce in *SMALL_ORDER {
            let hash =
                Sha512::new().chain_update(nonce).chain_update(public.as_bytes()).chain_update(message).finalize();
            let s = Scalar::from_bytes_mod_order_wide(&hash.into()) * secret;
            let mut signature = [0; 64];
            signature[..32].copy_from_slice(&nonce);
            signature[32..].copy_from_slice(s.as_bytes());
            let neutral = curve25519_dalek::edwards::CompressedEdwardsY(nonce).decompress().unwrap().is_identity();
            let plain = public.0.verify(message, &Signature::from_bytes(&signature)).is_ok();
            assert_eq!(plain, neutral, "the plain rules take it for the neutral point alone");
            assert!(public.0.verify_strict(message, &Signature::from_bytes(&signature)).is_err());
            assert!(!public.verifies(message, &signature));
        }
        assert!(public.verifies(message, &key.sign(message)));
    }

    #[test]
    fn low_order_prekeys_are_refused() {
        let mut one = [0; 32];
        one[0] = 1;
        for low in [[0; 32], one] {
            assert_eq!(PrekeyPublic::from_bytes(&low), Err(InvalidKey::SmallOrder));
        }
    }

    #[test]
    fn keys_survive_storage() {
        let key = IdentityKey::generate().unwrap();
        assert_eq!(IdentityKey::from_seed(&key.seed()).public(), key.public());
        let prekey = PrekeySecret::generate().unwrap();
        assert_eq!(PrekeySecret::from_bytes(&prekey.to_bytes()).public(), prekey.public());
        assert_eq!(PrekeyPublic::from_bytes(prekey.public().as_bytes()), Ok(prekey.public()));
    }
}
