//! Buckets in Redis, and buckets of this process for as long as Redis is away.
//!
//! Meanwhile each process gives its share of every quota: all of them together give no more than the quota, on top of what was
//! given before. How many they are is heard every second while Redis is there.

use super::{Ask, Charge, Limits, MemoryLimits, RedisLimits, Result, Verdict};
use async_trait::async_trait;
use std::{
    sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    time::Duration,
};
use tokio::time::{MissedTickBehavior, interval, timeout};

/// Longest wait for Redis: requests stand behind it.
const PATIENCE: Duration = Duration::from_secs(1);
/// Between two greetings.
const PERIOD: Duration = Duration::from_secs(1);
/// Who was not heard of for this long is gone.
const LATELY: Duration = Duration::from_secs(10);

/// Buckets in Redis, with buckets of this process behind them.
pub struct SharedLimits {
    redis: RedisLimits,
    mine: MemoryLimits,
    away: AtomicBool,
    processes: AtomicU32,
}

impl SharedLimits {
    /// Over buckets in Redis.
    #[must_use]
    pub fn new(redis: RedisLimits) -> Self {
        Self {
            redis,
            mine: MemoryLimits::default(),
            away: AtomicBool::new(false),
            processes: AtomicU32::new(1),
        }
    }

    fn lose(&self, error: Option<super::Error>) {
        if !self.away.swap(true, Relaxed) {
            let processes = self.processes.load(Relaxed);
            tracing::warn!(?error, processes, "Redis is away: this process gives its share of every limit");
        }
    }

    /// This process's share of an ask.
    fn share(&self, ask: &Ask) -> Ask {
        let processes = self.processes.load(Relaxed).max(1);
        let share = |charge: &Charge| {
            let quota = (charge.quota / processes).max(1);
            // What is more than the share takes all of it; what was spent was spent.
            let cost = if ask.forced { charge.cost } else { charge.cost.min(quota.into()) };
            Charge { quota, cost, ..charge.clone() }
        };
        Ask { charges: ask.charges.iter().map(share).collect(), forced: ask.forced }
    }
}

#[async_trait]
impl Limits for SharedLimits {
    async fn keep(&self) {
        let mut period = interval(PERIOD);
        period.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            period.tick().await;
            match timeout(PATIENCE, self.redis.greet(LATELY)).await {
                Ok(Ok(processes)) => {
                    self.processes.store(processes, Relaxed);
                    if self.away.swap(false, Relaxed) {
                        tracing::info!(processes, "limits are shared again");
                    }
                }
                failed => self.lose(failed.ok().and_then(Result::err)),
            }
        }
    }

    async fn take(&self, asks: &[Ask]) -> Result<Vec<Verdict>> {
        // What is forced was decided elsewhere: here it is only written down.
        let forced = asks.iter().all(|ask| ask.forced);
        if forced || !self.away.load(Relaxed) {
            match timeout(PATIENCE, self.redis.take(asks)).await {
                Ok(Ok(verdicts)) => return Ok(verdicts),
                failed => self.lose(failed.ok().and_then(Result::err)),
            }
        }
        Ok(self.mine.judge(&asks.iter().map(|ask| self.share(ask)).collect::<Vec<_>>()))
    }
}
