//! What was measured, reduced: percentiles of samples, medians of rounds.

use std::time::Duration;

/// Sorted durations of one round.
pub(crate) struct Samples(Vec<Duration>);

impl Samples {
    /// Sorts them.
    pub(crate) fn new(mut samples: Vec<Duration>) -> Self {
        assert!(!samples.is_empty(), "nothing was measured");
        samples.sort_unstable();
        Self(samples)
    }

    /// The duration that this share (0 to 1) of the samples does not exceed, in milliseconds.
    pub(crate) fn at(&self, share: f64) -> f64 {
        let rank = (self.0.len() as f64 * share).ceil() as usize;
        self.0[rank.clamp(1, self.0.len()) - 1].as_secs_f64() * 1000.0
    }

    /// The median, in milliseconds.
    pub(crate) fn p50(&self) -> f64 {
        self.at(0.5)
    }

    /// The 99th percentile, in milliseconds.
    pub(crate) fn p99(&self) -> f64 {
        self.at(0.99)
    }
}

/// One figure over several rounds.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rounds(Vec<f64>);

impl Rounds {
    /// Adds a round's figure.
    pub(crate) fn add(&mut self, figure: f64) {
        self.0.push(figure);
        self.0.sort_unstable_by(f64::total_cmp);
    }

    /// The middle one (of an even number the lower of the two); not a number when there was no round.
    pub(crate) fn median(&self) -> f64 {
        self.0.get(self.0.len().saturating_sub(1) / 2).copied().unwrap_or(f64::NAN)
    }

    /// The smallest and the largest.
    pub(crate) fn range(&self) -> Option<(f64, f64)> {
        Some((*self.0.first()?, *self.0.last()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_samples_that_were_taken() {
        let samples = Samples::new((1..=100).rev().map(Duration::from_millis).collect());
        assert_eq!((samples.p50(), samples.p99(), samples.at(1.0), samples.at(0.0)), (50.0, 99.0, 100.0, 1.0));
        assert_eq!(Samples::new(vec![Duration::from_millis(7)]).p99(), 7.0);
    }

    #[test]
    fn the_median_of_rounds_is_one_of_them() {
        let mut rounds = Rounds::default();
        for figure in [3.0, 1.0, 2.0, 9.0] {
            rounds.add(figure);
        }
        assert_eq!((rounds.median(), rounds.range()), (2.0, Some((1.0, 9.0))));
    }
}
