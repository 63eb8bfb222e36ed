//! When a call is made again: the service takes none now (429, 503), or nobody listens at its address. The turn has not begun then.
//!
//! Everything else is final, since the agent may be at work on what it was asked. All tries and waits together are bounded by the time that
//! the turn has.

use std::time::{Duration, Instant, SystemTime};

use murmur_core::retry::Backoff;

use super::Hosted;
use crate::{
    delay::Delay,
    outbound::{Head, OutboundError},
};

/// What the service says of when to come again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Busy(Option<Duration>);

impl Busy {
    /// Reads an answer; `None` when the turn was taken, or refused for good.
    pub(super) fn of(head: &Head) -> Option<Self> {
        let is_busy = matches!(head.status, 429 | 503);
        is_busy.then(|| Self(head.header("retry-after").and_then(|text| after(text, SystemTime::now()))))
    }

    /// Reads a failure; `None` when something may have reached the service.
    pub(super) fn unreached(error: &OutboundError) -> Option<Self> {
        matches!(error, OutboundError::Unreached { .. }).then_some(Self(None))
    }
}

/// A header `Retry-After`: seconds, or a date (RFC 9110, §10.2.3). One that has passed is no wait.
fn after(text: &str, now: SystemTime) -> Option<Duration> {
    let text = text.trim();
    let seconds = text.parse().ok().map(Duration::from_secs);
    seconds.or_else(|| Some(httpdate::parse_http_date(text).ok()?.duration_since(now).unwrap_or_default()))
}

/// The tries of one turn.
pub(super) struct Tries {
    made: u32,
    most: u32,
    delay: Delay,
    until: Instant,
}

impl Tries {
    pub(super) fn new(hosted: &Hosted, now: Instant) -> Self {
        let [base_ms, cap_ms] = hosted.retry_ms;
        let delay = Delay::new(Backoff { base_ms, cap_ms });
        Self { made: 0, most: hosted.tries, delay, until: now + Duration::from_secs(hosted.timeout_s) }
    }

    /// How long the next try may take.
    pub(super) fn left(&self, now: Instant) -> Duration {
        self.until.saturating_duration_since(now)
    }

    /// How long to wait before the next try; else why there is none.
    pub(super) fn next(&mut self, Busy(wanted): Busy, now: Instant) -> Result<Duration, String> {
        self.made += 1;
        if self.made >= self.most {
            return Err(if self.made == 1 { "asked once".to_owned() } else { format!("asked {} times", self.made) });
        }
        let wait = self.delay.next().max(wanted.unwrap_or_default());
        if wait >= self.left(now) {
            return Err(format!("to be asked again in {}, which is more than the turn has", shown(wait)));
        }
        Ok(wait)
    }

    /// What is told while it waits.
    pub(super) fn told(&self, why: &str, wait: Duration) -> String {
        format!("{why}; asked again in {} (try {} of {})", shown(wait), self.made + 1, self.most)
    }
}

/// A wait as people say it.
fn shown(wait: Duration) -> String {
    if wait < Duration::from_secs(1) {
        format!("{} ms", wait.as_millis())
    } else {
        format!("{} s", wait.as_secs_f64().round())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_says_when_to_come_again_in_seconds_or_by_a_date() {
        let now = httpdate::parse_http_date("Wed, 21 Oct 2026 07:28:00 GMT").unwrap();
        for (text, wait) in [
            ("0", Some(0)),
            (" 120 ", Some(120)),
            ("Wed, 21 Oct 2026 07:28:30 GMT", Some(30)),
            ("Wed, 21 Oct 2026 07:27:00 GMT", Some(0)),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
            ("99999999999999999999999", None),
        ] {
            assert_eq!(after(text, now), wait.map(Duration::from_secs), "{text}");
        }
    }

    #[test]
    fn tries_end_by_number_and_by_the_time_of_the_turn() {
        let hosted: Hosted =
            toml::from_str("url = 'https://example.com'\ntries = 3\nretry_ms = [10, 20]\ntimeout_s = 60").unwrap();
        let now = Instant::now();
        let mut tries = Tries::new(&hosted, now);
        assert!(tries.next(Busy(None), now).unwrap() <= Duration::from_millis(20));
        assert_eq!(tries.next(Busy(Some(Duration::from_secs(7))), now), Ok(Duration::from_secs(7)));
        assert_eq!(
            tries.told("it answered 503", Duration::from_secs(7)),
            "it answered 503; asked again in 7 s (try 3 of 3)"
        );
        assert_eq!(tries.next(Busy(None), now), Err("asked 3 times".to_owned()));
        let asked = Tries::new(&hosted, now).next(Busy(Some(Duration::from_secs(3600))), now);
        assert!(asked.unwrap_err().contains("3600 s, which is more than the turn has"));
        assert!(Tries::new(&hosted, now).next(Busy(Some(Duration::MAX)), now).is_err());
        assert_eq!(tries.left(now + Duration::from_secs(90)), Duration::ZERO);
    }
}
