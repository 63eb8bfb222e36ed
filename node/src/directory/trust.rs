//! What was seen before: certificates, prekeys and revocations never go back (PROTOCOL §3.4 points 2 and 3, §3.6).

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::ArcSwapOption;
use murmur_crypto::{
    cert::{CertKind, Certificate},
    chain::{Chain, ChainError, TrustState},
    hash::Fingerprint,
    revocation::RevocationList,
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

/// What a chain is held to beside its own rules: nothing older than what was seen, and nothing that the owner has revoked.
#[derive(Debug)]
pub(super) struct Trust {
    pub(super) floors: Floors,
    /// The newest list; `None` when none came yet.
    revocations: ArcSwapOption<RevocationList>,
}

impl Trust {
    pub(super) fn new(floors: Floors, revocations: Option<RevocationList>) -> Self {
        Self { floors, revocations: ArcSwapOption::from_pointee(revocations) }
    }

    /// The number of the list that holds; 0 without one. What was believed under one number is looked at again under the next: take the
    /// number first.
    pub(super) fn version(&self) -> u64 {
        self.revocations.load().as_ref().map_or(0, |list| list.spec().version)
    }

    /// Takes a list in the place of an earlier one; false when it is no later one (PROTOCOL §3.6).
    pub(super) fn follow(&self, list: &Arc<RevocationList>) -> bool {
        let is_later = |held: &Option<Arc<RevocationList>>| {
            held.as_ref().is_none_or(|held| held.spec().version < list.spec().version)
        };
        let held = self.revocations.rcu(|held| if is_later(held) { Some(Arc::clone(list)) } else { held.clone() });
        is_later(&held)
    }
}

impl TrustState for Trust {
    fn is_revoked(&self, certificate: &Certificate) -> bool {
        self.revocations.load().as_ref().is_some_and(|list| list.revokes(certificate))
    }

    /// An agent's certificate is renewed daily, and a message sealed under the one before may be days on its way: it counts as
    /// long as it was valid when the message was made. What the directory offers for sealing is held to the floor by
    /// [`Floors::check`].
    fn highest_serial(&self, kind: CertKind, subject_id: &[u8; 16]) -> Option<u64> {
        if kind == CertKind::Agent {
            return None;
        }
        self.floors.get(FloorKey::Serial { kind: kind as u32, subject_id: *subject_id }).map(|floor| floor.value)
    }
}
