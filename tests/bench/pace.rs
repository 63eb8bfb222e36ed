//! Offering load at times that were fixed beforehand, whatever becomes of it.
//!
//! A sender that waits for its last answer before it begins the next message offers less exactly when the system is slow, and so
//! hides what it should show (coordinated omission). Here every message has a time at which it was to be sent; its latency counts
//! from that time, also when it left late.

use std::{
    os::fd::AsFd as _,
    thread,
    time::{Duration, Instant},
};

use nix::sys::{
    time::TimeSpec,
    timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags},
};
use tokio::{io::AsyncReadExt as _, net::unix::pipe, runtime::Builder, task::JoinSet};

/// Runs a program that is given a number and its intended time, at that time or as soon after as possible, and begins what is to be done
/// then; nothing waits for its end. What `program` prepares, connections above all, is its own.
///
/// It has a runtime and a thread of its own, as a program has that is not this one: whom the receivers' tasks would keep waiting, and who
/// would have to wake another thread for each message, would measure that as well.
pub(crate) fn pace<A, W>(per_second: f64, count: usize, program: impl Future<Output = A> + Send + 'static)
where
    A: FnMut(usize, Instant) -> W,
    W: Future<Output = ()> + Send + 'static,
{
    thread::spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (mut act, mut timer, mut begun) = (program.await, Timer::new(), JoinSet::new());
            let start = Instant::now() + Duration::from_millis(5);
            for number in 0..count {
                let intended = start + Duration::from_secs_f64(number as f64 / per_second);
                timer.sleep_until(intended).await;
                begun.spawn(act(number, intended));
            }
            while let Some(ended) = begun.join_next().await {
                ended.expect("a send failed");
            }
        });
    });
}

/// A timer of the kernel's, which the runtime reads like a pipe: its own timers are a millisecond coarse.
struct Timer {
    timer: TimerFd,
    expirations: pipe::Receiver,
}

impl Timer {
    fn new() -> Self {
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC).unwrap();
        let expirations = timer.as_fd().try_clone_to_owned().and_then(pipe::Receiver::from_owned_fd_unchecked);
        Self { timer, expirations: expirations.unwrap() }
    }

    /// Returns at once when the time is over.
    async fn sleep_until(&mut self, at: Instant) {
        let wait = at.saturating_duration_since(Instant::now());
        if wait.is_zero() {
            return;
        }
        let once = Expiration::OneShot(TimeSpec::from_duration(wait));
        self.timer.set(once, TimerSetTimeFlags::empty()).unwrap();
        // How often it expired, which is once.
        self.expirations.read_u64_le().await.unwrap();
    }
}
