//! Times: the one place that reads the clock, and how times are shown.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use murmur_proto::time::unix_ms;

/// Unix milliseconds now.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// RFC 3339 in UTC; `None` when absent or out of range.
pub(crate) fn rfc3339(time: Option<&prost_types::Timestamp>) -> Option<String> {
    let time = time?;
    Timestamp::new(time.seconds, time.nanos).ok().map(|time| format!("{time:.3}"))
}

/// How long from now, such as `in 3 min`; a dash when absent.
pub(crate) fn ahead(time: Option<&prost_types::Timestamp>) -> String {
    let Some(time) = time else { return "-".into() };
    match unix_ms(time).saturating_sub(now_ms()) / 1000 {
        0 => "now".into(),
        s @ 1..=99 => format!("in {s} s"),
        s @ 100..=5999 => format!("in {} min", s / 60),
        s @ 6000..=172_800 => format!("in {} h", s / 3600),
        s => format!("in {} d", s / 86_400),
    }
}

/// How long ago, such as `3 min`; a dash when absent.
pub(crate) fn ago(time: Option<&prost_types::Timestamp>) -> String {
    time.map_or_else(|| "-".into(), |time| ago_ms(unix_ms(time)))
}

/// How long ago a Unix time in milliseconds was.
pub(crate) fn ago_ms(time_ms: u64) -> String {
    match now_ms().saturating_sub(time_ms) / 1000 {
        0 => "now".into(),
        s @ 1..=99 => format!("{s} s ago"),
        s @ 100..=5999 => format!("{} min ago", s / 60),
        s @ 6000..=172_800 => format!("{} h ago", s / 3600),
        s => format!("{} d ago", s / 86_400),
    }
}
