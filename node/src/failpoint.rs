//! Crash points for the scenarios: those of PROTOCOL §5.6, and A1 to A3 of ADR 12. A debug build told `MURMUR_FAILPOINT=name` dies there, as by kill -9;
//! `name:3` lets it pass two times first. A release build holds none of this.

/// Dies here when the environment says so. Its last words tell a test that it was here and not elsewhere.
#[cfg(debug_assertions)]
pub(crate) fn failpoint(name: &str) {
    use std::sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    };
    static CHOSEN: OnceLock<Option<(String, AtomicU64)>> = OnceLock::new();
    let chosen = CHOSEN.get_or_init(|| {
        let text = std::env::var("MURMUR_FAILPOINT").ok()?;
        let (name, nth) = text.split_once(':').unwrap_or((&text, "1"));
        Some((name.to_owned(), AtomicU64::new(nth.parse().unwrap_or(1))))
    });
    if let Some((chosen, left)) = chosen
        && chosen == name
        && left.fetch_sub(1, Ordering::SeqCst) == 1
    {
        eprintln!("failpoint {name}");
        // No handler, no destructor and no core dump: the process is gone with this line.
        let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL);
        std::process::abort();
    }
}

/// Nothing, in a release build.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub(crate) const fn failpoint(_: &str) {}
