//! Keys that are sealed to often, and the multiples that make it cheaper.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicU32, Ordering},
};

use moka::sync::Cache;
use murmur_crypto::keys::{Multiples, PrekeyPublic};

/// Keys that are remembered; with multiples of 30 KiB each, 8 MiB.
const KEYS_MAX: u64 = 256;
/// After so many seals it pays to compute a key's multiples, which takes as long as some fifty of what is saved.
const SEALS: u32 = 128;

/// The keys that were sealed to last.
pub(super) struct Often(Cache<PrekeyPublic, Arc<Key>>);

#[derive(Default)]
struct Key {
    seals: AtomicU32,
    multiples: OnceLock<Arc<Multiples>>,
}

impl Default for Often {
    fn default() -> Self {
        Self(Cache::new(KEYS_MAX))
    }
}

impl Often {
    /// Counts a seal to a key; its multiples when there were many.
    pub(super) fn seal(&self, public: PrekeyPublic) -> Option<Arc<Multiples>> {
        let key = self.0.get_with(public, Arc::default);
        if key.multiples.get().is_none() && key.seals.fetch_add(1, Ordering::Relaxed) < SEALS {
            return None;
        }
        Some(Arc::clone(key.multiples.get_or_init(|| Arc::new(public.multiples()))))
    }
}

#[cfg(test)]
mod tests {
    use murmur_crypto::keys::PrekeySecret;

    use super::*;

    #[test]
    fn a_key_has_multiples_once_it_was_sealed_to_often() {
        let often = Often::default();
        let keys = [[1; 32], [2; 32]].map(|seed| PrekeySecret::derive(&seed).public());
        assert!((0..SEALS).all(|_| often.seal(keys[0]).is_none()));
        let multiples = often.seal(keys[0]).unwrap();
        assert!(Arc::ptr_eq(&multiples, &often.seal(keys[0]).unwrap()));
        assert!(often.seal(keys[1]).is_none());
    }
}
