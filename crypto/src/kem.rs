//! DHKEM(X25519, HKDF-SHA256) of RFC 9180 without work that is done twice.
//!
//! HPKE, the schedule of its keys, its KDF and the derivation of key pairs are the `hpke` crate's. What differs from its own KEM is where
//! the same number is computed again for every message: the recipient's public key from its private one, and the ephemeral public key,
//! twice. And who seals to one key over and over multiplies by a table of that point ([`Multiples`]), which takes a third of the time, and
//! does so before there is a message ([`Encapsulation`]): nothing that the KEM computes depends on one.
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

/// What `Encap` gives (RFC 9180 §4.1): a shared secret, and the ephemeral public key from which the recipient derives it. It depends on no
/// message, and is for one: sealing takes it.
///
/// The ephemeral private key is wiped at once, the secret when this is dropped. Should a machine be cloned with one of these in its memory,
/// the two messages still have keys of their own, since the key schedule takes in the hash of the header.
pub struct Encapsulation {
    to: [u8; 32],
    enc: [u8; 32],
    /// In one place, whoever has this: what is moved leaves its bytes behind.
    shared: Box<SharedSecret<Kem>>,
}

impl Encapsulation {
    /// Encapsulates to a key with an ephemeral key pair derived from `ikm`, which is fresh and random; by multiples of that key where there
    /// are some. `None` when the shared point is zero.
    pub(crate) fn derive(to: [u8; 32], multiples: Option<&Multiples>, ikm: &[u8; 32]) -> Option<Self> {
        Self::new(to, multiples, &Kem::derive_keypair(ikm).0)
    }

    fn new(to: [u8; 32], multiples: Option<&Multiples>, ephemeral: &Secret) -> Option<Self> {
        let multiples = multiples.filter(|multiples| multiples.public == to);
        let product = multiples.and_then(|multiples| multiples.times(&ephemeral.secret));
        let product = product.unwrap_or_else(|| times(&ephemeral.secret, &to));
        let mut shared = Box::default();
        derive_shared(&product, &ephemeral.public, &to, &mut shared)?;
        Some(Self { to, enc: ephemeral.public, shared })
    }

    /// Whether it was made for this key.
    pub(crate) fn is_to(&self, public: &[u8; 32]) -> bool {
        self.to == *public
    }

    fn parts(&self) -> Result<(SharedSecret<Kem>, Encapped), HpkeError> {
        Ok((SharedSecret(self.shared.0), Encapped::from_bytes(&self.enc)?))
    }
}

/// The KEM.
pub(crate) struct Kem;

/// A recipient's public key. With an encapsulation it is for one stanza, although HPKE's interface lets it be cloned.
#[derive(Clone)]
pub(crate) struct Public {
    bytes: [u8; 32],
    encapsulation: Option<Arc<Encapsulation>>,
}

impl Public {
    /// A key, and what was encapsulated to it, if anything was; to another key counts as nothing.
    pub(crate) fn new(bytes: [u8; 32], encapsulation: Option<Encapsulation>) -> Self {
        Self { bytes, encapsulation: encapsulation.filter(|encapsulation| encapsulation.is_to(&bytes)).map(Arc::new) }
    }
}

impl fmt::Debug for Public {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Public").finish_non_exhaustive()
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
        match &to.encapsulation {
            Some(encapsulation) => encapsulation.parts(),
            None => {
                let (ephemeral, _) = Self::gen_keypair_with_rng(rng);
                Encapsulation::new(to.bytes, None, &ephemeral).ok_or(HpkeError::EncapError)?.parts()
            }
        }
    }

    fn decap(own: &Secret, sender: Option<&Public>, encapped: &Encapped) -> Result<SharedSecret<Self>, HpkeError> {
        if sender.is_some() {
            return Err(HpkeError::DecapError);
        }
        let ephemeral: [u8; 32] = encapped.to_bytes().into();
        let shared = times(&own.secret, &ephemeral);
        let mut secret = SharedSecret::default();
        derive_shared(&shared, &ephemeral, &own.public, &mut secret).ok_or(HpkeError::DecapError)?;
        Ok(secret)
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
fn derive_shared(
    dh: &[u8; 32],
    ephemeral: &[u8; 32],
    recipient: &[u8; 32],
    secret: &mut SharedSecret<Kem>,
) -> Option<()> {
    if bool::from(dh.ct_eq(&[0; 32])) {
        return None;
    }
    let mut context = [0; 64];
    context[..32].copy_from_slice(ephemeral);
    context[32..].copy_from_slice(recipient);
    HkdfSha256::extract_and_expand(dh, &SUITE_ID, &context, &mut secret.0).ok()
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

    /// The crate's word and ours: at once, and before, without multiples and with them.
    fn agree(ikm: [u8; 32], public: [u8; 32]) {
        let theirs = Plain::encap_with_rng(&PlainPublic::from_bytes(&public).unwrap(), None, &mut Drawn(ikm));
        let theirs = theirs.ok().map(|(secret, encapped)| (secret.0.to_vec(), encapped.to_bytes()));
        let told = |to: &Public, drawn| {
            let ours = Kem::encap_with_rng(to, None, &mut Drawn(drawn));
            ours.ok().map(|(secret, encapped)| (secret.0.to_vec(), encapped.to_bytes()))
        };
        assert_eq!(told(&Public::new(public, None), ikm), theirs, "to {public:02x?}");
        let multiples = Multiples::new(public);
        for multiples in [None, Some(&multiples)] {
            let before = Encapsulation::derive(public, multiples, &ikm);
            assert_eq!(before.is_some(), theirs.is_some(), "before, to {public:02x?}");
            if before.is_some() {
                // What is drawn does not count then.
                assert_eq!(told(&Public::new(public, before), [0xff; 32]), theirs, "before, to {public:02x?}");
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
            assert!(Encapsulation::derive(low, Some(&Multiples::new(low)), &[7; 32]).is_none());
            assert!(Kem::decap(&Secret::new(&[9; 32]), None, &Encapped::from_bytes(&low).unwrap()).is_err());
        }
    }

    #[test]
    fn what_is_of_another_key_is_not_used() {
        let [one, other] = [[1; 32], [2; 32]].map(|bytes| *Secret::new(&bytes).public());
        let encapsulated = |multiples| Encapsulation::derive(one, multiples, &[3; 32]).unwrap().shared.0.to_vec();
        assert_eq!(encapsulated(Some(&Multiples::new(other))), encapsulated(None));
        let to = |key| Encapsulation::derive(key, None, &[3; 32]);
        assert!(Public::new(one, to(one)).encapsulation.is_some());
        assert!(Public::new(one, to(other)).encapsulation.is_none());
    }
}
