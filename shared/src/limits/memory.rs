//! Buckets of one process.

use super::{Ask, Charge, Limits, Result, Verdict, gcra};
use async_trait::async_trait;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// Buckets that are looked through for empty ones when so many new ones have come.
const SWEEP_AT: usize = 4_096;

/// Buckets of one process.
pub struct MemoryLimits {
    start: Instant,
    buckets: Mutex<Buckets>,
}

#[derive(Default)]
struct Buckets {
    /// When each will be empty, µs after the start.
    empty_at: HashMap<Arc<str>, f64>,
    /// Size at which empty ones are thrown away.
    sweep_at: usize,
}

impl Default for MemoryLimits {
    fn default() -> Self {
        Self { start: Instant::now(), buckets: Mutex::default() }
    }
}

impl MemoryLimits {
    fn buckets(&self) -> MutexGuard<'_, Buckets> {
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long a charge would have to wait; nothing is charged.
    #[must_use]
    pub fn wait(&self, charge: &Charge) -> Duration {
        let now = self.start.elapsed().as_micros() as f64;
        let before = self.buckets().empty_at.get(&charge.bucket).map_or(0.0, |at| (at - now).max(0.0));
        gcra::left(before, charge.quota, gcra::charge(before, charge.quota, charge.cost).wait).wait
    }

    /// Judges asks without waiting for anything.
    #[must_use]
    pub fn judge(&self, asks: &[Ask]) -> Vec<Verdict> {
        self.judge_at(asks, Instant::now())
    }

    pub(super) fn judge_at(&self, asks: &[Ask], now: Instant) -> Vec<Verdict> {
        let now = (now - self.start).as_micros() as f64;
        let mut buckets = self.buckets();
        buckets.sweep(now);
        asks.iter().map(|ask| buckets.judge(now, ask)).collect()
    }
}

impl Buckets {
    fn judge(&mut self, now: f64, ask: &Ask) -> Verdict {
        let sums: Vec<_> = ask
            .charges
            .iter()
            .map(|charge| {
                let before = self.empty_at.get(&charge.bucket).map_or(0.0, |at| (at - now).max(0.0));
                gcra::charge(before, charge.quota, charge.cost)
            })
            .collect();
        let charged = ask.forced || sums.iter().all(|sum| sum.wait == 0.0);
        let left = ask.charges.iter().zip(&sums).map(|(charge, sum)| {
            if charged {
                self.empty_at.insert(charge.bucket.clone(), now + sum.after);
            }
            gcra::left(if charged { sum.after } else { sum.before }, charge.quota, sum.wait)
        });
        Verdict { left: left.collect(), charged }
    }

    /// Throws empty buckets away, if there are many.
    fn sweep(&mut self, now: f64) {
        if self.empty_at.len() > self.sweep_at.max(SWEEP_AT) {
            self.empty_at.retain(|_, at| *at > now);
            self.sweep_at = 2 * self.empty_at.len();
        }
    }
}

#[async_trait]
impl Limits for MemoryLimits {
    fn at_once(&self, ask: &Ask) -> Option<Verdict> {
        self.judge(std::slice::from_ref(ask)).pop()
    }

    async fn take(&self, asks: &[Ask]) -> Result<Vec<Verdict>> {
        Ok(self.judge(asks))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn charge(bucket: &str, cost: i64) -> Charge {
        Charge { bucket: bucket.into(), quota: 10, cost }
    }

    #[test]
    fn charges_are_made_together_or_not_at_all() {
        let limits = MemoryLimits::default();
        let (now, later) = (limits.start + Duration::from_secs(90), limits.start + Duration::from_secs(96));
        let ask = |charges: [Charge; 2], forced| Ask { charges: charges.into(), forced };
        let both = |costs: [i64; 2], forced, now| {
            let ask = ask([charge("a", costs[0]), charge("b", costs[1])], forced);
            let verdict = limits.judge_at(&[ask], now).remove(0);
            (verdict.charged, verdict.left.iter().map(|left| left.remaining).collect::<Vec<_>>())
        };
        assert_eq!(both([4, 10], false, now), (true, vec![6, 0]));
        assert_eq!(both([1, 1], false, now), (false, vec![6, 0]));
        assert_eq!(both([1, 1], false, later), (true, vec![6, 0]), "one comes back every 6 s");
        assert_eq!(both([1, 1], true, later), (true, vec![5, 0]), "what was spent was spent");
        assert_eq!(both([1, 1], false, later + Duration::from_secs(6)), (false, vec![6, 0]));
    }

    #[tokio::test]
    async fn a_question_charges_nothing() {
        let start = Instant::now() - Duration::from_secs(60);
        let limits = MemoryLimits { start, buckets: Mutex::default() };
        let ask = Ask { charges: vec![charge("a", 10)], forced: false };
        assert_eq!(limits.wait(&charge("a", 10)), Duration::ZERO);
        assert!(limits.at_once(&ask).expect("a verdict").charged);
        let taken = limits.take(&[ask.clone(), ask]).await.expect("verdicts");
        assert!(taken.len() == 2 && taken.iter().all(|verdict| !verdict.charged));
        let wait = limits.wait(&charge("a", 10)).as_secs();
        assert!((30..=60).contains(&wait), "ten a minute: {wait}");
    }

    #[test]
    fn empty_buckets_go_once_there_are_many() {
        let mut buckets = Buckets::default();
        buckets.empty_at.extend((0..SWEEP_AT).map(|n| (n.to_string().into(), n as f64)));
        buckets.sweep(1e9);
        assert_eq!(buckets.empty_at.len(), SWEEP_AT, "not many");
        buckets.empty_at.insert("last".into(), 1e9);
        buckets.sweep(2_000.0);
        assert_eq!(buckets.empty_at.len(), SWEEP_AT - 2_000);
        assert_eq!(buckets.sweep_at, 2 * (SWEEP_AT - 2_000));
    }
}
