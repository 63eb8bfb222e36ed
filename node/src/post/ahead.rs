//! The curve's part of sealing, done before there is a message.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, SystemTime},
};

use moka::sync::Cache;
use murmur_crypto::keys::{Encapsulation, Multiples, PrekeyPublic};

/// Keys that are remembered, each with multiples of 30 KiB, 8 MiB in all, and with one encapsulation.
const KEYS_MAX: u64 = 256;
/// After so many seals it pays to compute a key's multiples, which takes as long as some fifty of what is saved.
const SEALS: u32 = 128;
/// For so long an encapsulation may wait for its message. Whoever saw this process's memory meanwhile could read that message.
const LIFE: Duration = Duration::from_secs(600);

/// The keys that were sealed to last.
pub(super) struct Ahead {
    keys: Cache<PrekeyPublic, Arc<Key>>,
    /// The last key that was sealed to, until it was encapsulated to.
    last: Mutex<Option<Arc<Key>>>,
}

struct Key {
    public: PrekeyPublic,
    seals: AtomicU32,
    multiples: OnceLock<Multiples>,
    ready: Mutex<Option<Ready>>,
}

/// An encapsulation for the next message.
struct Ready {
    encapsulation: Encapsulation,
    made: SystemTime,
}

impl Default for Ahead {
    fn default() -> Self {
        Self { keys: Cache::new(KEYS_MAX), last: Mutex::default() }
    }
}

impl Ahead {
    /// An encapsulation for one seal to a key: the one that is ready, or else one that is made now. `None` when there is no randomness.
    pub(super) fn take(&self, public: PrekeyPublic) -> Option<Encapsulation> {
        let key = self.keys.get_with(public, || Arc::new(Key::new(public)));
        key.seals.fetch_add(1, Ordering::Relaxed);
        let encapsulation = key.take_ready(SystemTime::now()).or_else(|| key.encapsulate());
        *lock(&self.last) = Some(key);
        encapsulation
    }

    /// Encapsulates to the key that was sealed to last, for its next message. To be called when nobody waits: it takes the thread for some 50 µs.
    pub(super) fn prepare(&self) {
        let Some(key) = lock(&self.last).take() else { return };
        let ready = key.encapsulate().map(|encapsulation| Ready { encapsulation, made: SystemTime::now() });
        *lock(&key.ready) = ready;
    }

    #[cfg(test)]
    pub(super) fn is_ready(&self, public: PrekeyPublic) -> bool {
        self.keys.get(&public).is_some_and(|key| lock(&key.ready).is_some())
    }
}

impl Key {
    fn new(public: PrekeyPublic) -> Self {
        Self { public, seals: AtomicU32::new(0), multiples: OnceLock::new(), ready: Mutex::default() }
    }

    fn take_ready(&self, now: SystemTime) -> Option<Encapsulation> {
        let Ready { encapsulation, made } = lock(&self.ready).take()?;
        now.duration_since(made).is_ok_and(|age| age <= LIFE).then_some(encapsulation)
    }

    fn encapsulate(&self) -> Option<Encapsulation> {
        self.public.encapsulate(self.multiples())
    }

    fn multiples(&self) -> Option<&Multiples> {
        let is_often = self.seals.load(Ordering::Relaxed) > SEALS;
        is_often.then(|| self.multiples.get_or_init(|| self.public.multiples()))
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
        let (ahead, [one, other]) = (Ahead::default(), keys());
        let has_multiples = |public| ahead.keys.get(&public).unwrap().multiples.get().is_some();
        for _ in 0..SEALS {
            assert!(ahead.take(one).is_some());
        }
        assert!(!has_multiples(one));
        ahead.take(one);
        ahead.take(other);
        assert!(has_multiples(one) && !has_multiples(other));
    }

    #[test]
    fn what_is_ready_is_for_the_last_key_and_for_one_seal() {
        let (ahead, [one, other]) = (Ahead::default(), keys());
        ahead.prepare();
        for key in [one, other] {
            assert!(ahead.take(key).is_some());
        }
        ahead.prepare();
        assert!(!ahead.is_ready(one) && ahead.is_ready(other), "one is for the last");
        ahead.take(one);
        ahead.prepare();
        assert!(ahead.is_ready(one) && ahead.is_ready(other), "each key has its own");
        assert!(ahead.take(one).is_some());
        assert!(!ahead.is_ready(one) && ahead.is_ready(other), "it is used up");
    }

    #[test]
    fn what_has_waited_for_long_is_not_used() {
        let (key, now) = (Key::new(keys()[0]), SystemTime::now());
        let ready_at = |made| *lock(&key.ready) = Some(Ready { encapsulation: key.encapsulate().unwrap(), made });
        ready_at(now - LIFE);
        assert!(key.take_ready(now).is_some());
        ready_at(now - LIFE - Duration::from_millis(1));
        assert!(key.take_ready(now).is_none());
        ready_at(now + Duration::from_millis(1));
        assert!(key.take_ready(now).is_none(), "the clock was set back, so nobody knows");
    }
}
