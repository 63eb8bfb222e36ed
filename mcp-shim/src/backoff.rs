//! How long to wait before the next attempt to reach the node.

use std::time::Duration;

const DELAY_MIN: Duration = Duration::from_millis(50);
const AWAY_DELAY_MAX: Duration = Duration::from_secs(5);
const REFUSED_DELAY_MIN: Duration = Duration::from_secs(1);
const REFUSED_DELAY_MAX: Duration = Duration::from_secs(30);

/// The wait after `failures` failed attempts in a row, at least one.
///
/// A node that is away comes back without notice, so it is looked for often; one that refused will refuse again.
pub(crate) fn delay(failures: u32, refused: bool) -> Duration {
    let (first, most) = if refused { (REFUSED_DELAY_MIN, REFUSED_DELAY_MAX) } else { (DELAY_MIN, AWAY_DELAY_MAX) };
    first.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_bound() {
        assert_eq!(delay(1, false), DELAY_MIN);
        assert_eq!(delay(2, false), DELAY_MIN * 2);
        assert_eq!(delay(u32::MAX, false), AWAY_DELAY_MAX);
        assert_eq!(delay(1, true), REFUSED_DELAY_MIN);
        assert_eq!(delay(40, true), REFUSED_DELAY_MAX);
    }
}
