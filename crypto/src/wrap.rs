//! Wrapping the content key for one recipient: HPKE base mode, bound to header, recipient, prekey and index (PROTOCOL §2.5).

use std::convert::Infallible;

use bytes::Bytes;
use hpke::{
    Deserializable, OpModeR, OpModeS, Serializable,
    aead::ChaCha20Poly1305,
    kdf::HkdfSha256,
    rand_core::{TryCryptoRng, TryRng},
};
use murmur_core::id::AgentId;
use zeroize::Zeroizing;

use crate::{
    SUITE_X25519,
    content_key::{ContentKey, HeaderHash},
    error::{self, WireError},
    hash::label,
    kem::Kem,
    keys::{Encapsulation, PrekeyPublic, PrekeySecret},
    prekey::PrekeyId,
    wire,
};

type Encapped = <Kem as hpke::Kem>::EncappedKey;

/// A wrapped content key.
#[derive(Clone)]
pub(crate) struct Stanza {
    pub(crate) prekey_id: PrekeyId,
    pub(crate) enc: [u8; 32],
    pub(crate) wrapped_key: [u8; 48],
}

impl Stanza {
    pub(crate) fn from_wire(stanza: &wire::Stanza) -> Result<Self, WireError> {
        Ok(Self {
            prekey_id: PrekeyId::from_bytes(error::fixed(&stanza.prekey_id, "prekey_id")?),
            enc: error::fixed(&stanza.enc, "enc")?,
            wrapped_key: error::fixed(&stanza.wrapped_key, "wrapped_key")?,
        })
    }

    pub(crate) fn to_wire(&self) -> wire::Stanza {
        wire::Stanza {
            prekey_id: Bytes::copy_from_slice(self.prekey_id.as_bytes()),
            enc: Bytes::copy_from_slice(&self.enc),
            wrapped_key: Bytes::copy_from_slice(&self.wrapped_key),
        }
    }
}

/// Where a stanza stands; a stanza moved elsewhere does not open.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) header_hash: HeaderHash,
    pub(crate) agent_id: AgentId,
    pub(crate) prekey_id: PrekeyId,
    pub(crate) index: u16,
}

impl Place {
    pub(crate) fn info(&self) -> Vec<u8> {
        let [high, low] = SUITE_BYTES;
        [label::WRAP, &[high, low], &self.header_hash.0].concat()
    }

    pub(crate) fn aad(&self) -> Vec<u8> {
        [self.agent_id.as_bytes().as_slice(), self.prekey_id.as_bytes(), &self.index.to_be_bytes()].concat()
    }
}

const SUITE_BYTES: [u8; 2] = {
    let [_, _, high, low] = SUITE_X25519.to_be_bytes();
    [high, low]
};

/// Wraps a content key, with what was encapsulated to the prekey before, or else with an ephemeral key made of `ikm_e`: fresh and random for
/// every stanza.
pub(crate) fn wrap(
    place: Place,
    to: PrekeyPublic,
    encapsulation: Option<Encapsulation>,
    key: &ContentKey,
    ikm_e: &[u8; 32],
) -> Option<Stanza> {
    let mut rng = OneDraw(ikm_e);
    let to = &to.kem(encapsulation);
    let (enc, wrapped) = hpke::single_shot_seal_with_rng::<ChaCha20Poly1305, HkdfSha256, Kem>(
        &OpModeS::Base,
        to,
        &place.info(),
        &*key.0,
        &place.aad(),
        &mut rng,
    )
    .ok()?;
    let wrapped_key = wrapped.try_into().ok()?;
    Some(Stanza { prekey_id: place.prekey_id, enc: enc.to_bytes().into(), wrapped_key })
}

/// Unwraps a content key; `None` for whatever reason, since the reason must not be told (PROTOCOL §2.5).
pub(crate) fn unwrap(place: Place, secret: &PrekeySecret, stanza: &Stanza) -> Option<ContentKey> {
    let enc = Encapped::from_bytes(&stanza.enc).ok()?;
    let key = hpke::single_shot_open::<ChaCha20Poly1305, HkdfSha256, Kem>(
        &OpModeR::Base,
        secret.kem(),
        &enc,
        &place.info(),
        &stanza.wrapped_key,
        &place.aad(),
    );
    let key = Zeroizing::new(key.ok()?);
    Some(ContentKey(Zeroizing::new(key.as_slice().try_into().ok()?)))
}

/// Hands HPKE the ephemeral key's material. HPKE draws at most once, 32 bytes, and derives its key pair from them
/// (RFC 9180 §7.1.3); the known-answer tests would notice a version that draws otherwise.
struct OneDraw<'a>(&'a [u8; 32]);

impl TryRng for OneDraw<'_> {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, dst: &mut [u8]) -> Result<(), Infallible> {
        debug_assert_eq!(dst.len(), self.0.len(), "HPKE draws its ephemeral key material in one piece");
        for (to, from) in dst.iter_mut().zip(self.0.iter().cycle()) {
            *to = *from;
        }
        Ok(())
    }
}

impl TryCryptoRng for OneDraw<'_> {}
