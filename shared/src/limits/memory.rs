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
