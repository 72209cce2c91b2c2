//! Buckets in Redis, with purses of this process before them ([`super::purses`]), and buckets of this process for as long as Redis is
//! away.
//!
//! Meanwhile each process gives its share of every quota: all of them together give no more than the quota, on top of what was
//! given before. How many they are is heard every second while Redis is there.

use super::{Ask, Charge, Limits, MemoryLimits, RedisLimits, Result, Verdict, purses::Purses};
use async_trait::async_trait;
use std::{
    sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    time::Duration,
};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

/// Longest wait for Redis: requests stand behind it.
const PATIENCE: Duration = Duration::from_secs(1);
/// Between two greetings.
const PERIOD: Duration = Duration::from_secs(1);
/// Who was not heard of for this long is gone.
const LATELY: Duration = Duration::from_secs(10);

/// Buckets in Redis, with buckets of this process behind them.
pub struct SharedLimits {
    redis: RedisLimits,
    purses: Purses,
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
            purses: Purses::default(),
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

    /// Asks Redis, with what is given back and charged in advance on the way; `None` if it is away.
    async fn ask(&self, asks: &[Ask]) -> Option<Vec<Verdict>> {
        let more = self.purses.beside(asks, Instant::now());
        let all: Vec<Ask> = asks.iter().chain(&more).cloned().collect();
        match timeout(PATIENCE, self.redis.take(&all)).await {
            Ok(Ok(mut verdicts)) => {
                let now = Instant::now();
                let beside = verdicts.split_off(asks.len());
                self.purses.note(asks, &verdicts, now);
                self.purses.fill(&more, &beside, now);
                Some(verdicts)
            }
            failed => {
                self.lose(failed.ok().and_then(Result::err));
                None
            }
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
                    let unused = self.purses.unused(Instant::now());
                    if !unused.is_empty() {
                        self.ask(&unused).await;
                    }
                }
                failed => self.lose(failed.ok().and_then(Result::err)),
            }
        }
    }

    fn at_once(&self, ask: &Ask) -> Option<Verdict> {
        self.purses.judge(ask, Instant::now())
    }

    async fn take(&self, asks: &[Ask]) -> Result<Vec<Verdict>> {
        let now = Instant::now();
        let mut verdicts: Vec<Option<Verdict>> = asks.iter().map(|ask| self.purses.judge(ask, now)).collect();
        let open = verdicts.iter().zip(asks).filter(|(verdict, _)| verdict.is_none());
        let rest: Vec<Ask> = open.map(|(_, ask)| ask.clone()).collect();
        // What is forced was decided elsewhere: here it is only written down.
        let reach = !self.away.load(Relaxed) || rest.iter().all(|ask| ask.forced);
        let heard = match reach && !rest.is_empty() {
            true => self.ask(&rest).await,
            false => None,
        };
        let heard = heard
            .unwrap_or_else(|| self.mine.judge(&rest.iter().map(|ask| self.share(ask)).collect::<Vec<_>>()));
        let mut heard = heard.into_iter();
        verdicts.iter_mut().filter(|verdict| verdict.is_none()).for_each(|verdict| *verdict = heard.next());
        Ok(verdicts.into_iter().flatten().collect())
    }
}
