//! How fast a service may be called.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// At most `count` calls in any `per`.
pub(super) struct Pace {
    count: usize,
    per: Duration,
    called: VecDeque<Instant>,
    /// The service itself asked to wait until then.
    not_before: Option<Instant>,
}

impl Pace {
    pub(super) fn new(count: usize, per: Duration) -> Self {
        Self { count, per, called: VecDeque::with_capacity(count), not_before: None }
    }

    /// How long to wait before the next call.
    pub(super) fn wait(&mut self, now: Instant) -> Duration {
        while self.called.front().is_some_and(|at| now.duration_since(*at) >= self.per) {
            self.called.pop_front();
        }
        let full = self.called.front().filter(|_| self.called.len() >= self.count).map(|at| *at + self.per);
        let until = full.max(self.not_before);
        until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }

    /// Counts a call.
    pub(super) fn called(&mut self, now: Instant) {
        self.called.push_back(now);
    }

    /// The service asked to wait.
    pub(super) fn pause(&mut self, now: Instant, wait: Duration) {
        self.not_before = self.not_before.max(Some(now + wait));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_so_many_go_in_any_stretch_of_time() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut pace = Pace::new(2, second);
        for at in [0, 300] {
            assert_eq!(pace.wait(start + Duration::from_millis(at)), Duration::ZERO);
            pace.called(start + Duration::from_millis(at));
        }
        assert_eq!(pace.wait(start + Duration::from_millis(400)), Duration::from_millis(600));
        assert_eq!(pace.wait(start + second), Duration::ZERO);
        pace.called(start + second);
        assert_eq!(pace.wait(start + second), Duration::from_millis(300));
    }

    #[test]
    fn a_service_that_asks_to_wait_is_left_alone() {
        let start = Instant::now();
        let mut pace = Pace::new(5, Duration::from_secs(2));
        pace.pause(start, Duration::from_secs(7));
        pace.pause(start, Duration::from_secs(1));
        assert_eq!(pace.wait(start), Duration::from_secs(7));
        assert_eq!(pace.wait(start + Duration::from_secs(7)), Duration::ZERO);
    }
}
