//! How fast services may be called. What counts together is counted together: two channels of one bot share its rate.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// At most `count` calls in any `per`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rate {
    pub(super) count: usize,
    pub(super) per: Duration,
}

/// The calls of every place that is called.
#[derive(Default)]
pub(super) struct Paces(Mutex<HashMap<String, Calls>>);

/// Calls to one place.
#[derive(Default)]
struct Calls {
    made: VecDeque<Instant>,
    /// The service itself asked to wait until then.
    not_before: Option<Instant>,
}

impl Paces {
    /// Counts a call that is made now; or, when it must not be made yet, says how long to wait before asking again.
    pub(super) fn take(&self, rates: &[(String, Rate)], now: Instant) -> Result<(), Duration> {
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let wait = rates.iter().map(|(place, rate)| places.entry(place.clone()).or_default().wait(*rate, now)).max();
        match wait {
            Some(wait) if !wait.is_zero() => return Err(wait),
            _ => {}
        }
        for (place, _) in rates {
            places.entry(place.clone()).or_default().made.push_back(now);
        }
        Ok(())
    }

    /// The service asked to wait.
    pub(super) fn pause(&self, rates: &[(String, Rate)], now: Instant, wait: Duration) {
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (place, _) in rates {
            let calls = places.entry(place.clone()).or_default();
            calls.not_before = calls.not_before.max(Some(now + wait));
        }
    }
}

impl Calls {
    /// How long to wait before the next call.
    fn wait(&mut self, rate: Rate, now: Instant) -> Duration {
        while self.made.front().is_some_and(|at| now.duration_since(*at) >= rate.per) {
            self.made.pop_front();
        }
        let full = self.made.front().filter(|_| self.made.len() >= rate.count).map(|at| *at + rate.per);
        let until = full.max(self.not_before);
        until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::{Channel, Filter, Service, service::rates};

    fn after(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    #[test]
    fn no_more_than_so_many_go_in_any_stretch_of_time() {
        let (start, paces) = (Instant::now(), Paces::default());
        let rates = [("x".to_owned(), Rate { count: 2, per: Duration::from_secs(1) })];
        for at in [0, 300] {
            assert_eq!(paces.take(&rates, after(start, at)), Ok(()));
        }
        assert_eq!(paces.take(&rates, after(start, 400)), Err(Duration::from_millis(600)));
        assert_eq!(paces.take(&rates, after(start, 1_000)), Ok(()));
        assert_eq!(paces.take(&rates, after(start, 1_000)), Err(Duration::from_millis(300)));
    }

    #[test]
    fn a_service_that_asks_to_wait_is_left_alone() {
        let (start, paces) = (Instant::now(), Paces::default());
        let rates = [("x".to_owned(), Rate { count: 5, per: Duration::from_secs(2) })];
        paces.pause(&rates, start, Duration::from_secs(7));
        paces.pause(&rates, start, Duration::from_secs(1));
        assert_eq!(paces.take(&rates, start), Err(Duration::from_secs(7)));
        assert_eq!(paces.take(&rates, after(start, 7_000)), Ok(()));
    }

    fn telegram(bot: u32, chat: u32, name: &str) -> Channel {
        let token = format!("{bot}:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw");
        let service = Service::Telegram { token, chat_id: chat.to_string(), answerers: Vec::new() };
        Channel { name: name.to_owned(), service, filter: Filter::default() }
    }

    #[test]
    fn a_bot_sends_one_a_second_in_a_chat_and_thirty_a_second_in_all_whatever_the_channels() {
        let (start, paces) = (Instant::now(), Paces::default());
        // Two channels of one chat share its second.
        assert_eq!(paces.take(&rates(&telegram(1, 7, "one")), start), Ok(()));
        assert_eq!(paces.take(&rates(&telegram(1, 7, "two")), start), Err(Duration::from_secs(1)));
        // Twenty-nine more chats fill the bot's second; the next waits, another bot's does not.
        for chat in 100..129 {
            assert_eq!(paces.take(&rates(&telegram(1, chat, "x")), after(start, 100)), Ok(()), "{chat}");
        }
        assert_eq!(paces.take(&rates(&telegram(1, 200, "x")), after(start, 100)), Err(Duration::from_millis(900)));
        assert_eq!(paces.take(&rates(&telegram(2, 200, "x")), after(start, 100)), Ok(()));
        // A call that was refused a place took none.
        assert_eq!(paces.take(&rates(&telegram(1, 200, "x")), after(start, 1_000)), Ok(()));
        // What the service asks for holds for the whole bot.
        paces.pause(&rates(&telegram(1, 7, "one")), after(start, 1_000), Duration::from_secs(9));
        assert_eq!(paces.take(&rates(&telegram(1, 300, "x")), after(start, 2_000)), Err(Duration::from_secs(8)));
    }
}
