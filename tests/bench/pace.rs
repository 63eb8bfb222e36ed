//! Offering load at times that were fixed beforehand, whatever becomes of it.
//!
//! A sender that waits for its last answer before it begins the next message offers less exactly when the system is slow, and so
//! hides what it should show (coordinated omission). Here every message has a time at which it was to be sent; its latency counts
//! from that time, also when it left late.

use std::{
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Calls `act` with a number and its intended time, at that time or as soon after as possible, on a thread of its own: the
/// runtime's timers are a millisecond coarse. `act` must not block.
pub(crate) fn pace(
    per_second: f64,
    count: usize,
    mut act: impl FnMut(usize, Instant) + Send + 'static,
) -> JoinHandle<()> {
    thread::spawn(move || {
        // The kernel's default of 50 µs would be part of what is measured.
        let _ = nix::sys::prctl::set_timerslack(1_000);
        let start = Instant::now() + Duration::from_millis(5);
        for number in 0..count {
            let intended = start + Duration::from_secs_f64(number as f64 / per_second);
            thread::sleep(intended.saturating_duration_since(Instant::now()));
            act(number, intended);
        }
    })
}
