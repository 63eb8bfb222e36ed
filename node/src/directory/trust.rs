//! What was seen before: certificates and prekeys never go back (PROTOCOL §3.4 points 2 and 3).

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use murmur_crypto::{
    cert::{CertKind, Certificate},
    chain::{Chain, ChainError, TrustState},
    hash::Fingerprint,
};

/// Whose floor it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FloorKey {
    /// The serial of a subject's certificates.
    Serial {
        /// Kind of the certificate.
        kind: u32,
        /// Workspace, enroller, node or agent.
        subject_id: [u8; 16],
    },
    /// The sequence of the prekeys under an agent's certificate.
    Prekey(Fingerprint),
}

/// The highest value seen, and the certificate that had it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Floor {
    /// Serial or sequence.
    pub value: u64,
    /// The certificate.
    pub fp: Fingerprint,
}

/// Every floor.
#[derive(Debug, Default)]
pub struct Floors(Mutex<HashMap<FloorKey, Floor>>);

impl Floors {
    /// Floors as loaded.
    #[must_use]
    pub fn new(floors: impl IntoIterator<Item = (FloorKey, Floor)>) -> Self {
        Self(Mutex::new(floors.into_iter().collect()))
    }

    /// The highest sequence seen for the prekeys of a certificate; 0 when none was.
    #[must_use]
    pub fn prekey(&self, fp: Fingerprint) -> u64 {
        self.get(FloorKey::Prekey(fp)).map_or(0, |floor| floor.value)
    }

    /// Refuses a certificate that is older than one seen before, or another one of the same serial.
    ///
    /// # Errors
    /// [`ChainError::Serial`].
    pub fn check(&self, certificate: &Certificate) -> Result<(), ChainError> {
        let (key, floor) = of_certificate(certificate);
        match self.get(key) {
            Some(seen) if seen.value > floor.value || (seen.value == floor.value && seen.fp != floor.fp) => {
                Err(ChainError::Serial(certificate.fp()))
            }
            _ => Ok(()),
        }
    }

    /// Remembers the issuers of a chain that holds, wherever the chain came from. Returns the floors that rose.
    ///
    /// Not its agent: a message may show a newer certificate than the directory's copy, and that copy must go on serving while the
    /// control plane is away. The agent's floor rises with what the directory itself has offered, by [`Floors::raise_agent`].
    pub fn raise_issuers(&self, chain: &Chain) -> Vec<(FloorKey, Floor)> {
        let issuers = chain.certificates().filter(|certificate| certificate.claims().kind != CertKind::Agent);
        issuers.map(of_certificate).filter(|(key, floor)| self.raise(*key, *floor)).collect()
    }

    /// Remembers an agent certificate that the directory offered and that holds. Returns the floor if it rose.
    pub fn raise_agent(&self, certificate: &Certificate) -> Option<(FloorKey, Floor)> {
        let (key, floor) = of_certificate(certificate);
        self.raise(key, floor).then_some((key, floor))
    }

    /// Remembers a prekey that holds. Returns the floor if it rose.
    pub fn raise_prekey(&self, fp: Fingerprint, seq: u64) -> Option<(FloorKey, Floor)> {
        let risen = (FloorKey::Prekey(fp), Floor { value: seq, fp });
        self.raise(risen.0, risen.1).then_some(risen)
    }

    fn get(&self, key: FloorKey) -> Option<Floor> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&key).copied()
    }

    fn raise(&self, key: FloorKey, floor: Floor) -> bool {
        let mut floors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let rises = floors.get(&key).is_none_or(|seen| seen.value < floor.value);
        if rises {
            floors.insert(key, floor);
        }
        rises
    }
}

fn of_certificate(certificate: &Certificate) -> (FloorKey, Floor) {
    let claims = certificate.claims();
    let key = FloorKey::Serial { kind: claims.kind as u32, subject_id: claims.subject_id };
    (key, Floor { value: claims.serial, fp: certificate.fp() })
}

impl TrustState for Floors {
    /// Revocation lists are not distributed yet; a revoked node loses its broker credential and its directory entries.
    fn is_revoked(&self, _: &Certificate) -> bool {
        false
    }

    /// An agent's certificate is renewed daily, and a message sealed under the one before may be days on its way: it counts as
    /// long as it was valid when the message was made. What the directory offers for sealing is held to the floor by
    /// [`Floors::check`].
    fn highest_serial(&self, kind: CertKind, subject_id: &[u8; 16]) -> Option<u64> {
        if kind == CertKind::Agent {
            return None;
        }
        self.get(FloorKey::Serial { kind: kind as u32, subject_id: *subject_id }).map(|floor| floor.value)
    }
}
