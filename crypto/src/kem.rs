//! DHKEM(X25519, HKDF-SHA256) of RFC 9180 without work that is done twice.
//!
//! HPKE, the schedule of its keys, its KDF and the derivation of key pairs are the `hpke` crate's. What differs from its own KEM is where
//! the same number is computed again for every message: the recipient's public key from its private one, and the ephemeral public key,
//! twice. And who seals to one key over and over multiplies by a table of that point ([`Multiples`]), which takes a third of the time, and
//! does so before there is a message ([`Encapsulation`]): nothing of what the KEM computes depends on one.
//! Every output is bit for bit that of the crate's KEM, which the tests compare.

use std::{fmt, sync::Arc};

use curve25519_dalek::{
    MontgomeryPoint,
    edwards::{EdwardsBasepointTable, EdwardsPoint},
    traits::BasepointTable as _,
};
use hpke::{
    Deserializable, HpkeError, Kem as _, Serializable,
    kdf::{HkdfSha256, Kdf as _},
    kem::{SharedSecret, X25519HkdfSha256 as Plain},
    rand_core::CryptoRng,
};
use subtle::{Choice, ConstantTimeEq};
use x25519_dalek::StaticSecret;
use zeroize::Zeroizing;

type PlainPublic = <Plain as hpke::Kem>::PublicKey;
type PlainSecret = <Plain as hpke::Kem>::PrivateKey;
type Encapped = <Plain as hpke::Kem>::EncappedKey;

/// `"KEM" || I2OSP(kem_id, 2)` (RFC 9180 §4.1).
const SUITE_ID: [u8; 5] = {
    let [high, low] = Plain::KEM_ID.to_be_bytes();
    [b'K', b'E', b'M', high, low]
};

/// Multiples of a public key, for who seals to it often. Some 30 KiB.
pub struct Multiples {
    public: [u8; 32],
    /// `None` for a point of the curve's twist, which X25519 takes as well and Edwards form does not have.
    table: Option<Box<EdwardsBasepointTable>>,
}

impl Multiples {
    /// Computes them, which takes as long as a few dozen seals.
    pub(crate) fn new(public: [u8; 32]) -> Self {
        // Either of the two points over one u will do: their multiples share their u.
        let point: Option<EdwardsPoint> = MontgomeryPoint(public).to_edwards(0);
        Self { public, table: point.map(|point| Box::new(EdwardsBasepointTable::create(&point))) }
    }

    fn times(&self, secret: &StaticSecret) -> Option<Zeroizing<[u8; 32]>> {
        let product = self.table.as_ref()?.mul_base_clamped(*secret.as_bytes());
        Some(Zeroizing::new(product.to_montgomery().to_bytes()))
    }
}

impl fmt::Debug for Multiples {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Multiples").finish_non_exhaustive()
    }
}

/// What `Encap` gives (RFC 9180 §4.1): a shared secret, and the ephemeral public key from which the recipient derives it. Made before there
/// is a message, and for one: it cannot be copied, and sealing takes it.
///
/// The ephemeral private key is wiped at once, the secret when this is dropped. Should a machine be cloned with one of these in its memory,
/// the two messages still have keys of their own, since the key schedule takes in the hash of the header.
pub struct Encapsulation {
    to: [u8; 32],
    shared: SharedSecret<Kem>,
    enc: [u8; 32],
}

impl Encapsulation {
    /// Encapsulates to a key with an ephemeral key pair derived from `ikm`, which is fresh and random. `None` when the shared point is zero.
    pub(crate) fn derive(to: &Public, ikm: &[u8; 32]) -> Option<Self> {
        Self::new(to, &Kem::derive_keypair(ikm).0)
    }

    fn new(to: &Public, ephemeral: &Secret) -> Option<Self> {
        let product = to.multiples.as_ref().and_then(|multiples| multiples.times(&ephemeral.secret));
        let product = product.unwrap_or_else(|| times(&ephemeral.secret, &to.bytes));
        let shared = shared_secret(&product, &ephemeral.public, &to.bytes)?;
        Some(Self { to: to.bytes, shared, enc: ephemeral.public })
    }

    fn parts(&self) -> Result<(SharedSecret<Kem>, Encapped), HpkeError> {
        Ok((SharedSecret(self.shared.0), Encapped::from_bytes(&self.enc)?))
    }
}

impl fmt::Debug for Encapsulation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encapsulation").finish_non_exhaustive()
    }
}

/// The KEM.
pub(crate) struct Kem;

/// A recipient's public key.
#[derive(Debug, Clone)]
pub(crate) struct Public {
    bytes: [u8; 32],
    multiples: Option<Arc<Multiples>>,
    ahead: Option<Arc<Encapsulation>>,
}

impl Public {
    /// A key, with its multiples where there are some; those of another key count as none.
    pub(crate) fn new(bytes: [u8; 32], multiples: Option<&Arc<Multiples>>) -> Self {
        Self { bytes, multiples: multiples.filter(|multiples| multiples.public == bytes).cloned(), ahead: None }
    }

    /// The same key, to which the next seal takes what was encapsulated before; what was encapsulated to another counts as none.
    pub(crate) fn with(self, ahead: Option<Encapsulation>) -> Self {
        let ahead = ahead.filter(|ahead| ahead.to == self.bytes).map(Arc::new);
        Self { ahead, ..self }
    }
}

impl PartialEq for Public {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for Public {}

impl Serializable for Public {
    type OutputSize = <PlainPublic as Serializable>::OutputSize;

    fn write_exact(&self, buf: &mut [u8]) {
        buf.copy_from_slice(&self.bytes);
    }
}

impl Deserializable for Public {
    fn from_bytes(bytes: &[u8]) -> Result<Self, HpkeError> {
        PlainPublic::from_bytes(bytes).map(|public| Self::new(public.to_bytes().into(), None))
    }
}

/// A recipient's private key, and its public half. Wiped on drop.
#[derive(Clone)]
pub(crate) struct Secret {
    secret: StaticSecret,
    public: [u8; 32],
}

impl Secret {
    /// Reads 32 bytes.
    pub(crate) fn new(bytes: &[u8; 32]) -> Self {
        let secret = StaticSecret::from(*bytes);
        Self { public: x25519_dalek::PublicKey::from(&secret).to_bytes(), secret }
    }

    /// The public half.
    pub(crate) const fn public(&self) -> &[u8; 32] {
        &self.public
    }
}

impl ConstantTimeEq for Secret {
    fn ct_eq(&self, other: &Self) -> Choice {
        self.secret.as_bytes().ct_eq(other.secret.as_bytes())
    }
}

impl Serializable for Secret {
    type OutputSize = <PlainSecret as Serializable>::OutputSize;

    fn write_exact(&self, buf: &mut [u8]) {
        buf.copy_from_slice(self.secret.as_bytes());
    }
}

impl Deserializable for Secret {
    /// Clamped, as RFC 9180 §7.1.2 has it.
    fn from_bytes(bytes: &[u8]) -> Result<Self, HpkeError> {
        let clamped: Zeroizing<[u8; 32]> = Zeroizing::new(PlainSecret::from_bytes(bytes)?.to_bytes().into());
        Ok(Self::new(&clamped))
    }
}

impl hpke::Kem for Kem {
    type PublicKey = Public;
    type PrivateKey = Secret;
    type EncappedKey = Encapped;
    type NSecret = <Plain as hpke::Kem>::NSecret;

    const KEM_ID: u16 = Plain::KEM_ID;

    fn sk_to_pk(secret: &Secret) -> Public {
        Public::new(secret.public, None)
    }

    fn derive_keypair(ikm: &[u8]) -> (Secret, Public) {
        let (secret, public) = Plain::derive_keypair(ikm);
        let bytes: Zeroizing<[u8; 32]> = Zeroizing::new(secret.to_bytes().into());
        let secret = Secret { secret: StaticSecret::from(*bytes), public: public.to_bytes().into() };
        let public = Self::sk_to_pk(&secret);
        (secret, public)
    }

    fn encap_with_rng(
        to: &Public,
        sender: Option<(&Secret, &Public)>,
        rng: &mut impl CryptoRng,
    ) -> Result<(SharedSecret<Self>, Encapped), HpkeError> {
        if sender.is_some() {
            // The protocol signs; it has no use for HPKE's authenticated modes.
            return Err(HpkeError::EncapError);
        }
        match &to.ahead {
            Some(ahead) => ahead.parts(),
            None => {
                let (ephemeral, _) = Self::gen_keypair_with_rng(rng);
                Encapsulation::new(to, &ephemeral).ok_or(HpkeError::EncapError)?.parts()
            }
        }
    }

    fn decap(own: &Secret, sender: Option<&Public>, encapped: &Encapped) -> Result<SharedSecret<Self>, HpkeError> {
        if sender.is_some() {
            return Err(HpkeError::DecapError);
        }
        let ephemeral: [u8; 32] = encapped.to_bytes().into();
        let shared = times(&own.secret, &ephemeral);
        shared_secret(&shared, &ephemeral, &own.public).ok_or(HpkeError::DecapError)
    }
}

/// X25519. In Edwards form, four multiplications at a time, it is faster than by the ladder where the processor has AVX-512 and the point
/// that form; either takes the same time whatever the secret is.
fn times(secret: &StaticSecret, public: &[u8; 32]) -> Zeroizing<[u8; 32]> {
    if !has_avx512() {
        return ladder(secret, public);
    }
    // Either of the two points over one u will do: their multiples share their u.
    match MontgomeryPoint(*public).to_edwards(0) {
        Some(point) => Zeroizing::new(point.mul_clamped(*secret.as_bytes()).to_montgomery().to_bytes()),
        None => ladder(secret, public),
    }
}

/// What the curve crate asks for as well.
#[cfg(target_arch = "x86_64")]
fn has_avx512() -> bool {
    std::arch::is_x86_feature_detected!("avx512ifma") && std::arch::is_x86_feature_detected!("avx512vl")
}

#[cfg(not(target_arch = "x86_64"))]
const fn has_avx512() -> bool {
    false
}

fn ladder(secret: &StaticSecret, public: &[u8; 32]) -> Zeroizing<[u8; 32]> {
    Zeroizing::new(secret.diffie_hellman(&x25519_dalek::PublicKey::from(*public)).to_bytes())
}

/// `ExtractAndExpand(dh, enc || pkRm)`; `None` when the shared point is zero (RFC 9180 §7.1.4).
fn shared_secret(dh: &[u8; 32], ephemeral: &[u8; 32], recipient: &[u8; 32]) -> Option<SharedSecret<Kem>> {
    if bool::from(dh.ct_eq(&[0; 32])) {
        return None;
    }
    let mut context = [0; 64];
    context[..32].copy_from_slice(ephemeral);
    context[32..].copy_from_slice(recipient);
    let mut secret = SharedSecret::<Kem>::default();
    HkdfSha256::extract_and_expand(dh, &SUITE_ID, &context, &mut secret.0).ok()?;
    Some(secret)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Draws the same bytes for either KEM.
    struct Drawn([u8; 32]);

    impl hpke::rand_core::TryRng for Drawn {
        type Error = std::convert::Infallible;

        fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
            Ok(0)
        }

        fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
            Ok(0)
        }

        fn try_fill_bytes(&mut self, dst: &mut [u8]) -> Result<(), Self::Error> {
            dst.copy_from_slice(&self.0);
            Ok(())
        }
    }

    impl hpke::rand_core::TryCryptoRng for Drawn {}

    /// The crate's word and ours: without multiples and with them, at once and ahead.
    fn agree(ikm: [u8; 32], public: [u8; 32]) {
        let theirs = Plain::encap_with_rng(&PlainPublic::from_bytes(&public).unwrap(), None, &mut Drawn(ikm));
        let theirs = theirs.ok().map(|(secret, encapped)| (secret.0.to_vec(), encapped.to_bytes()));
        let multiples = Arc::new(Multiples::new(public));
        for multiples in [None, Some(&multiples)] {
            let to = Public::new(public, multiples);
            let ours = Kem::encap_with_rng(&to, None, &mut Drawn(ikm));
            let ours = ours.ok().map(|(secret, encapped)| (secret.0.to_vec(), encapped.to_bytes()));
            assert_eq!(ours, theirs, "to {public:02x?}");
            let ahead = Encapsulation::derive(&to, &ikm);
            assert_eq!(ahead.is_some(), theirs.is_some(), "ahead to {public:02x?}");
            if ahead.is_some() {
                let ours = Kem::encap_with_rng(&to.with(ahead), None, &mut Drawn([0xff; 32]));
                let ours = ours.ok().map(|(secret, encapped)| (secret.0.to_vec(), encapped.to_bytes()));
                assert_eq!(ours, theirs, "ahead to {public:02x?}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Half of all numbers are points of the twist; some are not canonical.
        #[test]
        fn whatever_is_sealed_to_the_secret_is_the_crates(ikm: [u8; 32], public: [u8; 32], top: bool) {
            agree(ikm, public);
            let mut odd = [0xff; 32];
            (odd[0], odd[31]) = (public[0], if top { 0xff } else { 0x7f });
            agree(ikm, odd);
        }

        #[test]
        fn keys_and_what_is_opened_are_the_crates(ikm: [u8; 32], ephemeral: [u8; 32]) {
            let ((ours, public), (theirs, their_public)) = (Kem::derive_keypair(&ikm), Plain::derive_keypair(&ikm));
            prop_assert_eq!(ours.to_bytes(), theirs.to_bytes());
            prop_assert_eq!(public.to_bytes(), their_public.to_bytes());
            let stored = Secret::from_bytes(&ours.to_bytes()).unwrap();
            prop_assert_eq!(stored.public(), ours.public());
            let encapped = Encapped::from_bytes(&ephemeral).unwrap();
            let ours = Kem::decap(&stored, None, &encapped).ok().map(|secret| secret.0.to_vec());
            let theirs = Plain::decap(&theirs, None, &encapped).ok().map(|secret| secret.0.to_vec());
            prop_assert_eq!(ours, theirs);
        }
    }

    #[test]
    fn a_point_of_low_order_is_refused_with_multiples_and_without() {
        let mut one = [0; 32];
        one[0] = 1;
        for low in [[0; 32], one] {
            agree([7; 32], low);
            let multiples = Arc::new(Multiples::new(low));
            assert!(Kem::encap_with_rng(&Public::new(low, Some(&multiples)), None, &mut Drawn([7; 32])).is_err());
            assert!(Kem::decap(&Secret::new(&[9; 32]), None, &Encapped::from_bytes(&low).unwrap()).is_err());
        }
    }

    #[test]
    fn multiples_of_another_key_are_not_used() {
        let (one, other) = (Secret::new(&[1; 32]), Secret::new(&[2; 32]));
        let multiples = Arc::new(Multiples::new(*other.public()));
        assert!(Public::new(*one.public(), Some(&multiples)).multiples.is_none());
    }

    #[test]
    fn what_was_encapsulated_to_another_key_is_not_used() {
        let [one, other] = [[1; 32], [2; 32]].map(|bytes| Public::new(*Secret::new(&bytes).public(), None));
        assert!(one.clone().with(Encapsulation::derive(&one, &[3; 32])).ahead.is_some());
        assert!(one.with(Encapsulation::derive(&other, &[3; 32])).ahead.is_none());
    }
}
