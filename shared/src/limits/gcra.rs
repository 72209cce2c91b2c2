//! The rule of all limits: GCRA (the generic cell rate algorithm, ITU-T I.371), as arithmetic.
//!
//! A bucket is one number: the moment at which it will be empty again, if nothing more is charged. A quota of `q` a minute lets `q` come
//! at once, and from then on one every 60 s / q. `take.lua` does the same sums on Redis' clock.

use super::{Left, WINDOW};
use std::time::Duration;

/// The window, µs.
const SPAN: f64 = WINDOW.as_micros() as f64;

/// Longest debt of a forced charge, µs: whoever was charged an absurd number is not shut out for ever.
const DEBT_MAX: f64 = 10.0 * SPAN;

/// What a charge makes of a bucket.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Sum {
    /// µs until the bucket is empty, before the charge.
    pub(super) before: f64,
    /// The same, after it.
    pub(super) after: f64,
    /// µs until the charge fits; 0: it does.
    pub(super) wait: f64,
}

/// Charges `cost` to a bucket that is empty in `before` µs. A negative cost gives back.
pub(super) fn charge(before: f64, quota: u32, cost: i64) -> Sum {
    let after = (before + cost as f64 * SPAN / f64::from(quota)).clamp(0.0, DEBT_MAX);
    // A thousandth of a µs is no reason to wait.
    let wait = if after > SPAN + 1e-3 { after - SPAN } else { 0.0 };
    Sum { before, after, wait }
}

/// What is left of a quota in a bucket that is empty in `used` µs.
pub(super) fn left(used: f64, quota: u32, wait: f64) -> Left {
    let remaining = ((SPAN - used) * f64::from(quota) / SPAN + 1e-6).max(0.0);
    Left {
        remaining: remaining as u32,
        reset: Duration::from_micros(used as u64),
        wait: Duration::from_micros(wait.ceil() as u64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_comes_at_once_and_then_bit_by_bit() {
        let mut used = 0.0;
        for _ in 0..10 {
            let sum = charge(used, 10, 1);
            assert_eq!(sum.wait, 0.0);
            used = sum.after;
        }
        assert_eq!(left(used, 10, 0.0).remaining, 0);
        let refused = charge(used, 10, 1);
        assert_eq!(refused.wait, 6e6, "one every 6 s");
        assert_eq!(charge(used - 6e6, 10, 1).wait, 0.0);
        assert_eq!(charge(used, 10, -10).after, 0.0);
        assert_eq!(charge(0.0, 10, -10).after, 0.0, "never more than the quota");
        assert_eq!(charge(used, 10, 4_000_000_000).after, 10.0 * SPAN, "ten minutes are the longest debt");
    }

    /// Whatever comes when: in any time no more than the quota and what the time gives, and one.
    #[test]
    fn no_more_than_promised() {
        for seed in 0..2_000 {
            let mut random = fastrand::Rng::with_seed(seed);
            let quota = random.u32(1..1_000);
            let (mut used, mut now, mut allowed) = (0.0_f64, 0.0, 0);
            for _ in 0..200 {
                let (pause, cost) = (f64::from(random.u32(..2_000_000)), random.i64(1..5));
                now += pause;
                used = (used - pause).max(0.0);
                let sum = charge(used, quota, cost);
                if sum.wait == 0.0 {
                    used = sum.after;
                    allowed += cost;
                } else if cost <= i64::from(quota) {
                    assert_eq!(charge((used - sum.wait).max(0.0), quota, cost).wait, 0.0, "seed {seed}");
                }
                assert!(allowed as f64 <= f64::from(quota) * (1.0 + now / SPAN) + 1.0, "seed {seed}");
            }
        }
    }

    #[test]
    fn what_is_left_is_told_in_whole_numbers() {
        let used = charge(0.0, 7, 3).after;
        assert_eq!(
            left(used, 7, 0.5),
            Left { remaining: 4, reset: Duration::from_micros(25_714_285), wait: Duration::from_micros(1) },
            "a wait is never too short"
        );
        assert_eq!(left(0.0, 7, 0.0).remaining, 7);
        assert_eq!(left(2.0 * SPAN, 7, 0.0).remaining, 0, "a debt");
    }

    #[test]
    fn a_thousandth_of_a_microsecond_is_no_reason_to_wait() {
        assert_eq!(SPAN, 6e7);
        assert_eq!(charge(SPAN - 6e6 + 5e-4, 10, 1).wait, 0.0);
        assert_eq!(charge(SPAN - 6e6 - 5e-4, 10, 1).wait, 0.0);
        assert_eq!(charge(SPAN - 6e6 + 1.0, 10, 1).wait, 1.0);
    }
}
