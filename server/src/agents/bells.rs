//! Who is woken by what. Level-triggered: a wake says only that something moved; whoever is woken reads the database.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, PoisonError},
};

use tokio::sync::watch;

/// One bell for each of many.
pub(super) struct Bells<K>(Mutex<HashMap<K, watch::Sender<()>>>);

impl<K> Default for Bells<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash> Bells<K> {
    /// Listens. Subscribe before the first read, or a change between the two is missed.
    pub(super) fn listen(&self, of: K) -> watch::Receiver<()> {
        let mut bells = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        bells.entry(of).or_insert_with(|| watch::Sender::new(())).subscribe()
    }

    /// Rings, after the change is committed. A bell that nobody listens to is forgotten.
    pub(super) fn ring(&self, of: &K) {
        let mut bells = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bell) = bells.get(of) {
            if bell.receiver_count() == 0 {
                bells.remove(of);
            } else {
                bell.send_replace(());
            }
        }
    }
}
