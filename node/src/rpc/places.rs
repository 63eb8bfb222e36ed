//! Places for calls that are forwarded to the control plane.
//!
//! One connection carries all of them, and so many at a time and no more: one that is too many would wait without a word, and a program
//! that opens too many would take the others' places.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use murmur_core::{id::AgentId, reason::Reason};
use murmur_proto::status::status;
use tonic::Status;

/// Calls that are under way at one time, below what the control plane takes on one connection (256, PROTOCOL §6.4).
const PLACES_MAX: usize = 240;
/// Of these those of one caller.
const OF_ONE_MAX: usize = 128;

/// An agent, or the node's user.
type Whose = Option<AgentId>;

/// The calls that are under way.
#[derive(Debug, Default)]
pub(super) struct Places(Mutex<HashMap<Whose, usize>>);

/// A place, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    whose: Whose,
}

impl Places {
    /// Takes a place for a call.
    ///
    /// # Errors
    /// `RATE_LIMITED` when the caller has as many as one may, or all are taken.
    pub(super) fn take(self: &Arc<Self>, whose: Whose) -> Result<Place, Status> {
        let mut taken = self.lock();
        let of_one = taken.get(&whose).copied().unwrap_or(0);
        let full = |text: String| Err(status(Reason::RateLimited, text));
        if of_one >= OF_ONE_MAX {
            return full(format!("{OF_ONE_MAX} calls to the control plane are open, as many as one caller may have"));
        }
        if taken.values().sum::<usize>() >= PLACES_MAX {
            return full(format!("{PLACES_MAX} calls to the control plane are open, as many as this node may have"));
        }
        taken.insert(whose, of_one + 1);
        Ok(Place { places: Arc::clone(self), whose })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Whose, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        if let Some(count) = taken.get_mut(&self.whose) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.whose);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_opens_many_calls_takes_nobody_elses_place() {
        let places = Arc::new(Places::default());
        let greedy = Some(AgentId::from_bytes([1; 16]));
        let mut held: Vec<_> = (0..OF_ONE_MAX).map(|_| places.take(greedy).unwrap()).collect();
        assert!(places.take(greedy).unwrap_err().message().contains("128"));
        let other = places.take(None).unwrap();
        held.pop();
        held.push(places.take(greedy).unwrap());
        drop((held, other));
        assert!(places.lock().is_empty());
    }

    #[test]
    fn all_of_them_together_are_bounded() {
        let places = Arc::new(Places::default());
        let agents = (0..=u8::MAX).cycle().map(|n| Some(AgentId::from_bytes([n; 16])));
        let held: Vec<_> = agents.clone().take(PLACES_MAX).map(|whose| places.take(whose).unwrap()).collect();
        assert!(places.take(None).unwrap_err().message().contains("240"));
        drop(held);
        places.take(None).unwrap();
    }
}
