//! What sealing to a key can be spared, because it was computed ahead.

use std::sync::{
    Arc, Mutex, MutexGuard, OnceLock, PoisonError,
    atomic::{AtomicU32, Ordering},
};

use moka::sync::Cache;
use murmur_crypto::keys::{Encapsulation, Multiples, PrekeyPublic};

/// Keys that are remembered; with multiples of 30 KiB each, 8 MiB.
const KEYS_MAX: u64 = 256;
/// After so many seals it pays to compute a key's multiples, which takes as long as some fifty of what is saved.
const SEALS: u32 = 128;

/// The keys that were sealed to last.
pub(super) struct Ahead {
    keys: Cache<PrekeyPublic, Arc<Key>>,
    /// The last key that was sealed to, until it was encapsulated to.
    last: Mutex<Option<(PrekeyPublic, Arc<Key>)>>,
}

#[derive(Default)]
struct Key {
    seals: AtomicU32,
    multiples: OnceLock<Arc<Multiples>>,
    encapsulation: Mutex<Option<Encapsulation>>,
}

/// What there is for one seal.
pub(super) struct Prepared {
    pub(super) multiples: Option<Arc<Multiples>>,
    pub(super) encapsulation: Option<Encapsulation>,
}

impl Default for Ahead {
    fn default() -> Self {
        Self { keys: Cache::new(KEYS_MAX), last: Mutex::default() }
    }
}

impl Ahead {
    /// Counts a seal to a key: its multiples when there were many, and what was encapsulated to it since the last one.
    pub(super) fn seal(&self, public: PrekeyPublic) -> Prepared {
        let key = self.keys.get_with(public, Arc::default);
        let encapsulation = lock(&key.encapsulation).take();
        let is_often = key.multiples.get().is_some() || key.seals.fetch_add(1, Ordering::Relaxed) >= SEALS;
        let multiples = is_often.then(|| Arc::clone(key.multiples.get_or_init(|| Arc::new(public.multiples()))));
        *lock(&self.last) = Some((public, key));
        Prepared { multiples, encapsulation }
    }

    /// Encapsulates to the key that was sealed to last, for the next message: to be called when nobody waits. Half of sealing is done then.
    pub(super) fn encapsulate(&self) {
        let Some((public, key)) = lock(&self.last).take() else { return };
        let encapsulation = public.encapsulate(key.multiples.get());
        *lock(&key.encapsulation) = encapsulation;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use murmur_crypto::keys::PrekeySecret;

    use super::*;

    fn keys() -> [PrekeyPublic; 2] {
        [[1; 32], [2; 32]].map(|seed| PrekeySecret::derive(&seed).public())
    }

    #[test]
    fn a_key_has_multiples_once_it_was_sealed_to_often() {
        let (ahead, keys) = (Ahead::default(), keys());
        let multiples = |key| ahead.seal(key).multiples;
        assert!((0..SEALS).all(|_| multiples(keys[0]).is_none()));
        let first = multiples(keys[0]).unwrap();
        assert!(Arc::ptr_eq(&first, &multiples(keys[0]).unwrap()));
        assert!(multiples(keys[1]).is_none());
    }

    #[test]
    fn what_was_encapsulated_is_for_the_last_key_and_for_one_seal() {
        let (ahead, keys) = (Ahead::default(), keys());
        let is_prepared = |key| ahead.seal(key).encapsulation.is_some();
        ahead.encapsulate();
        assert!(!is_prepared(keys[0]), "nothing was sealed to before");
        assert!(!is_prepared(keys[1]));
        ahead.encapsulate();
        ahead.encapsulate();
        assert!(!is_prepared(keys[0]));
        assert!(is_prepared(keys[1]), "it was the last one");
        assert!(!is_prepared(keys[1]), "it is used up");
    }
}
