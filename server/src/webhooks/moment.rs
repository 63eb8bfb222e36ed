//! Times as code hosts write them.

use jiff::Timestamp;

/// Unix milliseconds of RFC 3339, or of GitLab's `2013-12-03 17:23:34 UTC` and `2021-04-28 21:50:00 +0200`; `None` for anything else, and for a time before 1970.
pub(super) fn unix_ms(text: &str) -> Option<u64> {
    let parsed = text.parse::<Timestamp>().ok().or_else(|| {
        let spaced = text.strip_suffix("UTC").map(|plain| format!("{plain}+0000"));
        Timestamp::strptime("%Y-%m-%d %H:%M:%S %z", spaced.as_deref().unwrap_or(text)).ok()
    });
    parsed.and_then(|at| u64::try_from(at.as_millisecond()).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_is_one_moment() {
        for text in [
            "2019-05-15T15:20:33Z",
            "2019-05-15T17:20:33+02:00",
            "2019-05-15 15:20:33 UTC",
            "2019-05-15 15:20:33 +0000",
        ] {
            assert_eq!(unix_ms(text), Some(1_557_933_633_000), "{text}");
        }
        for text in ["", "yesterday", "2019-05-15", "1960-01-01T00:00:00Z", "2019-13-15T15:20:33Z", " UTC"] {
            assert_eq!(unix_ms(text), None, "{text}");
        }
    }
}
