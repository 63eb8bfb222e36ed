//! The clock: the one place of the node that asks what time it is.
//!
//! A host's clock may be wrong by hours, and be set while we run. Certificates, prekeys and messages are judged by time, on this host and
//! on others, so the node counts by the control plane's time once it has been told it: from then on by the machine's uptime, which
//! nobody sets, and told again with every heartbeat (docs/adr/0007-time.md). A process that starts again while the machine stays up goes on
//! by what the one before was told. Without that the host's clock is all there is.
//!
//! Debug builds add an offset to the host's clock, from `MURMUR_CLOCK_OFFSET_MS` or, read again each time, from the file that
//! `MURMUR_CLOCK_OFFSET_FILE` names (milliseconds, may be negative), so that scenarios can let clocks disagree and step; release
//! builds hold no trace of it.

use std::{
    sync::atomic::{AtomicBool, AtomicI64, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Closer than this is good enough: the time is not set again for it.
pub const CLOSE_MS: u64 = 1_000;
/// Further than this the control plane is not believed. Duplicates are known for two days longer than a message lives, which is more
/// than twice this, so nobody who lies about the time can have an old message accepted again.
pub const CORRECTION_MS_MAX: u64 = 12 * 3600 * 1000;

/// Unix time in milliseconds, as this process sees it. Cheap to copy; copies tell the same time.
#[derive(Debug, Clone, Copy, Default)]
pub struct Clock {
    offset_ms: i64,
    told: Option<&'static Told>,
}

/// What the control plane said.
#[derive(Debug, Default)]
struct Told {
    is_known: AtomicBool,
    /// It was the control plane's word, or as good as it, and not the host's own in its place.
    is_believed: AtomicBool,
    /// Unix time less uptime.
    base_ms: AtomicI64,
}

impl Told {
    fn set(&self, base_ms: i64, is_believed: bool) {
        self.base_ms.store(base_ms, Ordering::SeqCst);
        self.is_believed.store(is_believed, Ordering::SeqCst);
        self.is_known.store(true, Ordering::SeqCst);
    }
}

impl Clock {
    /// The process's clock, with the offset of a debug build's environment. To be made once: it is never freed.
    #[must_use]
    pub fn system() -> Self {
        Self { offset_ms: 0, told: Some(Box::leak(Box::default())) }
    }

    /// A clock that is ahead of the system's by `offset_ms`, and that nobody tells the time.
    #[must_use]
    pub const fn with_offset(offset_ms: i64) -> Self {
        Self { offset_ms, told: None }
    }

    /// Milliseconds since 1970.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        match self.told.filter(|told| told.is_known.load(Ordering::SeqCst)) {
            Some(told) => uptime_ms().saturating_add_signed(told.base_ms.load(Ordering::SeqCst)),
            None => self.host_ms(),
        }
    }

    /// What the host's clock says.
    fn host_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let since_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        since_ms.saturating_add_signed(self.offset_ms.saturating_add(offset_ms()))
    }

    /// How many milliseconds it is ahead of the host's clock.
    #[must_use]
    pub fn ahead_ms(&self) -> i64 {
        difference_ms(self.now_ms(), self.host_ms())
    }

    /// Takes the control plane's time. Returns how many milliseconds it is ahead of the host's clock.
    pub fn tell(&self, server_ms: u64) -> i64 {
        let host_ms = self.host_ms();
        if let Some(told) = self.told {
            // A clock that is right is left as it is, to the millisecond; one that differs too much may be right, too.
            let error_ms = server_ms.abs_diff(host_ms);
            let is_wrong = (CLOSE_MS + 1..=CORRECTION_MS_MAX).contains(&error_ms);
            let time_ms = if is_wrong { server_ms } else { host_ms };
            if !told.is_known.load(Ordering::SeqCst) || self.now_ms().abs_diff(time_ms) > CLOSE_MS {
                told.set(difference_ms(time_ms, uptime_ms()), error_ms <= CORRECTION_MS_MAX);
            }
        }
        difference_ms(server_ms, host_ms)
    }

    /// What this process was told, in words for one that follows it; `None` before the first word, when that was not believed, and where the
    /// system has no name for the time since it was started.
    #[must_use]
    pub fn remembered(&self) -> Option<String> {
        let told = self.told.filter(|told| told.is_believed.load(Ordering::SeqCst))?;
        Some(format!("{} {}\n", boot()?, told.base_ms.load(Ordering::SeqCst)))
    }

    /// Goes on by the words of an earlier process, if the machine has been up ever since, and if the control plane itself would be believed
    /// with them. Returns whether it does.
    pub fn recall(&self, words: &str) -> bool {
        let line = words.strip_suffix('\n').and_then(|line| line.rsplit_once(' '));
        let of_this_boot = line.filter(|(of, _)| boot().is_some_and(|boot| boot == *of));
        let base_ms = of_this_boot.and_then(|(_, base_ms)| base_ms.parse::<i64>().ok());
        let is_credible =
            |base_ms: &i64| uptime_ms().saturating_add_signed(*base_ms).abs_diff(self.host_ms()) <= CORRECTION_MS_MAX;
        match (self.told, base_ms.filter(is_credible)) {
            (Some(told), Some(base_ms)) => {
                told.set(base_ms, true);
                true
            }
            _ => false,
        }
    }
}

fn difference_ms(left_ms: u64, right_ms: u64) -> i64 {
    i64::try_from(i128::from(left_ms) - i128::from(right_ms)).unwrap_or(i64::MAX)
}

/// Milliseconds that the machine has been up. Goes on while it sleeps, and nobody sets it.
#[must_use]
pub fn uptime_ms() -> u64 {
    use nix::time::{ClockId, clock_gettime};
    #[cfg(target_os = "linux")]
    const CLOCK: ClockId = ClockId::CLOCK_BOOTTIME;
    #[cfg(not(target_os = "linux"))]
    const CLOCK: ClockId = ClockId::CLOCK_MONOTONIC;
    // The kernel has these clocks, or nothing works.
    let time = clock_gettime(CLOCK).map(Duration::from).unwrap_or_default();
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A name for the time since the machine was started, during which its uptime counts on. A debug build whose clock the environment moves is
/// on another machine, as it were.
fn boot() -> Option<String> {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(format!("{}{}", id.trim(), moved_by()))
}

#[cfg(debug_assertions)]
static FIXED_MS: std::sync::LazyLock<i64> = std::sync::LazyLock::new(|| {
    std::env::var("MURMUR_CLOCK_OFFSET_MS").ok().and_then(|text| text.parse().ok()).unwrap_or(0)
});

#[cfg(debug_assertions)]
fn moved_by() -> String {
    format!("{:+}", *FIXED_MS)
}

#[cfg(not(debug_assertions))]
const fn moved_by() -> &'static str {
    ""
}

#[cfg(debug_assertions)]
fn offset_ms() -> i64 {
    use std::{path::PathBuf, sync::LazyLock};
    static FILE: LazyLock<Option<PathBuf>> =
        LazyLock::new(|| std::env::var_os("MURMUR_CLOCK_OFFSET_FILE").map(PathBuf::from));
    let of_file = || std::fs::read_to_string(FILE.as_ref()?).ok()?.trim().parse::<i64>().ok();
    *FIXED_MS + of_file().unwrap_or(0)
}

#[cfg(not(debug_assertions))]
const fn offset_ms() -> i64 {
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: i64 = 3_600_000;
    /// How long a test may be kept waiting between two looks at the clock; far less than any error that it makes.
    const SLACK_MS: i64 = 30_000;

    fn close(left_ms: u64, right_ms: u64) -> bool {
        left_ms.abs_diff(right_ms) < SLACK_MS.unsigned_abs()
    }

    fn clock(offset_ms: i64) -> Clock {
        Clock { offset_ms, ..Clock::system() }
    }

    #[test]
    fn an_offset_moves_the_clock() {
        let (now, ahead) = (Clock::with_offset(0).now_ms(), Clock::with_offset(HOUR_MS).now_ms());
        assert!(close(ahead, now + 3_600_000));
        assert!(Clock::with_offset(-HOUR_MS).now_ms() < now);
    }

    #[test]
    fn what_the_control_plane_says_counts_and_the_hosts_error_is_told() {
        let right = Clock::with_offset(0);
        for offset_ms in [HOUR_MS, -HOUR_MS] {
            let wrong = clock(offset_ms);
            assert!(
                close(wrong.now_ms(), right.now_ms().saturating_add_signed(offset_ms)),
                "nothing else is known yet"
            );
            assert!((wrong.tell(right.now_ms()) + offset_ms).abs() < SLACK_MS);
            assert!(close(wrong.now_ms(), right.now_ms()));
        }
    }

    #[test]
    fn a_host_clock_that_steps_is_not_followed_once_the_time_is_told() {
        let clock = clock(0);
        clock.tell(clock.now_ms());
        let stepped = Clock { offset_ms: -HOUR_MS, ..clock };
        assert!(close(stepped.now_ms(), clock.now_ms()));
        assert!((stepped.tell(clock.now_ms()) - HOUR_MS).abs() < SLACK_MS, "and the step is told");
        assert!(close(stepped.now_ms(), clock.now_ms()));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_process_goes_on_by_what_the_one_before_was_told_while_the_machine_is_up() {
        let right = Clock::with_offset(0);
        let before = clock(-HOUR_MS);
        assert_eq!(before.remembered(), None, "nobody has said anything");
        before.tell(right.now_ms());
        let words = before.remembered().unwrap();
        let after = clock(-HOUR_MS);
        assert!(after.recall(&words));
        assert!(close(after.now_ms(), right.now_ms()));
        assert_eq!(after.remembered(), Some(words.clone()));
        let base_ms = words.trim_end().rsplit_once(' ').unwrap().1;
        let cut = words.trim_end().to_owned();
        let another = format!("another-boot {base_ms}\n");
        for foreign in
            ["", "x\n", base_ms, &cut, &another, &words.replace(base_ms, "soon"), &words.replace(base_ms, "17")]
        {
            let after = clock(-HOUR_MS);
            assert!(!after.recall(foreign), "{foreign:?}");
            assert!(close(after.now_ms(), right.now_ms() - HOUR_MS.unsigned_abs()));
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn what_was_not_believed_or_is_out_of_all_proportion_is_not_remembered() {
        let right = Clock::with_offset(0);
        let days_off = clock(-48 * HOUR_MS);
        days_off.tell(right.now_ms());
        assert_eq!(days_off.remembered(), None, "its own clock is all that it went by");
        let before = clock(0);
        before.tell(right.now_ms());
        let after = clock(-13 * HOUR_MS);
        assert!(!after.recall(&before.remembered().unwrap()));
        assert_eq!(after.ahead_ms(), 0);
    }

    #[test]
    fn a_control_plane_that_is_a_day_off_is_not_believed() {
        let (clock, right) = (clock(0), Clock::with_offset(0));
        for error_ms in [24 * HOUR_MS, -24 * HOUR_MS] {
            clock.tell(right.now_ms().saturating_add_signed(error_ms));
            assert!(close(clock.now_ms(), right.now_ms()));
        }
    }
}
