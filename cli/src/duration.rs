//! Durations on the command line, such as `500ms`, `30s`, `5m`, `24h` or `7d`.

use std::time::Duration;

/// Reads a whole number with one unit.
///
/// # Errors
/// A sentence for clap that names the rule.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit_ms: u64 = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err("must be a whole number with a unit: ms, s, m, h or d, such as 30s".into()),
    };
    let number: u64 = number.parse().map_err(|_| "must begin with a whole number, such as 30s".to_owned())?;
    number
        .checked_mul(unit_ms)
        .filter(|ms| *ms > 0)
        .map(Duration::from_millis)
        .ok_or_else(|| "must be more than zero, and not absurd".into())
}

/// A duration as a person says it: `12.3 ms`, `4.2 s`, `3 min`, `5 h`.
pub(crate) fn show(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    match duration.as_secs() {
        0 => format!("{:.1} ms", seconds * 1000.0),
        1..=99 => format!("{seconds:.1} s"),
        100..=5999 => format!("{} min", duration.as_secs() / 60),
        _ => format!("{} h", duration.as_secs() / 3600),
    }
}

/// How old something is, short enough for a table: `42s`, `5m`, `3h`, `2d`.
pub(crate) fn show_coarse(duration: Duration) -> String {
    match duration.as_secs() {
        s @ 0..=119 => format!("{s}s"),
        s @ 120..=7199 => format!("{}m", s / 60),
        s @ 7200..=172_799 => format!("{}h", s / 3600),
        s => format!("{}d", s / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_read() {
        for (text, ms) in [("500ms", 500), ("30s", 30_000), ("5m", 300_000), ("24h", 86_400_000), ("7d", 604_800_000)] {
            assert_eq!(parse(text), Ok(Duration::from_millis(ms)));
        }
    }

    #[test]
    fn everything_else_is_refused() {
        for text in ["", "5", "s", "-5s", "1.5h", "5 s", "0s", "99999999999999999d"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn shown_in_the_fitting_unit() {
        let shown: Vec<_> = [1, 4_200, 180_000, 18_000_000].map(|ms| show(Duration::from_millis(ms))).into();
        assert_eq!(shown, ["1.0 ms", "4.2 s", "3 min", "5 h"]);
    }
}
