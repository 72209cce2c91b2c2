//! Waits between attempts. Pure: the random number comes in.

use std::time::Duration;

/// Bounds of the wait between two attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// Upper bound of the first wait.
    pub base: Duration,
    /// Upper bound of every wait.
    pub max: Duration,
}

/// The wait after the `failures`-th failure (1 is the first): `random` (0 to 1) of `base · 2^(failures − 1)`, at most `max`.
///
/// Full jitter, so that tasks which failed together do not come back together.
#[must_use]
pub fn full_jitter(backoff: Backoff, failures: u32, random: f64) -> Duration {
    let bound = backoff.base.saturating_mul(1 << failures.saturating_sub(1).min(30)).min(backoff.max);
    bound.mul_f64(random.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_bound() {
        let backoff = Backoff { base: Duration::from_secs(1), max: Duration::from_secs(60) };
        let bounds = [1, 2, 3, 7, 40, u32::MAX].map(|failures| full_jitter(backoff, failures, 1.0).as_secs());
        assert_eq!(bounds, [1, 2, 4, 60, 60, 60]);
        assert_eq!(full_jitter(backoff, 3, 0.0), Duration::ZERO);
    }
}
