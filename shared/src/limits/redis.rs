//! Buckets in Redis, for all processes.
//!
//! Key `lh:limits:<bucket>`: when it will be empty, µs since the epoch by Redis' clock; gone when it is. `take.lua` judges a group of asks.
//! Key `lh:limits:processes`, a sorted set: who asks, by when it was last heard of.

use super::{Ask, Error, Limits, Result, Verdict, gcra};
use crate::link::Link;
use ::redis::{RedisError, Script, pipe};
use async_trait::async_trait;
use std::{collections::HashMap, time::Duration};
use uuid::Uuid;

/// Charges per script call: keeps each around a millisecond of Redis' one thread.
const CHARGES_MAX: usize = 512;
const PROCESSES: &str = "lh:limits:processes";

/// Buckets in Redis.
pub struct RedisLimits {
    link: Link,
    take: Script,
    me: String,
}

impl From<RedisError> for Error {
    fn from(error: RedisError) -> Self {
        Self(Box::new(error))
    }
}

impl RedisLimits {
    /// Connects, within 5 s.
    ///
    /// # Errors
    /// Redis cannot be reached or is too old.
    pub async fn open(url: &str) -> Result<Self> {
        let take = Script::new(include_str!("take.lua"));
        Ok(Self { link: Link::open(url).await?, take, me: Uuid::now_v7().simple().to_string() })
    }

    /// Says that this process is there, and hears how many were within `lately`.
    ///
    /// # Errors
    /// Redis is away.
    pub async fn greet(&self, lately: Duration) -> Result<u32> {
        let (now, _): (u64, u64) = ::redis::cmd("TIME").query_async(&mut self.link.clone()).await?;
        let gone = now.saturating_sub(lately.as_secs());
        let mut greeting = pipe();
        greeting.zadd(PROCESSES, &self.me, now).ignore().zrembyscore(PROCESSES, 0, gone).ignore();
        greeting.expire(PROCESSES, 60).ignore().zcard(PROCESSES);
        let (processes,): (u32,) = greeting.query_async(&mut self.link.clone()).await?;
        Ok(processes.max(1))
    }

    async fn call(&self, asks: &[Ask]) -> Result<Vec<Verdict>> {
        let mut call = self.take.prepare_invoke();
        let mut places: HashMap<&str, usize> = HashMap::new();
        call.arg(asks.len());
        for ask in asks {
            call.arg(u8::from(ask.forced)).arg(ask.charges.len());
            for charge in &ask.charges {
                let next = places.len() + 1;
                let place = *places.entry(&charge.bucket).or_insert_with(|| {
                    call.key(format!("lh:limits:{}", charge.bucket));
                    next
                });
                call.arg(place).arg(charge.quota).arg(charge.cost);
            }
        }
        if places.is_empty() {
            return Ok(vec![Verdict { charged: true, left: Vec::new() }; asks.len()]);
        }
        let answer: Vec<i64> = call.invoke_async(&mut self.link.clone()).await?;
        let mut numbers = answer.into_iter();
        let mut next = || numbers.next().ok_or_else(|| Error("an answer too short".into()));
        let mut verdicts = Vec::with_capacity(asks.len());
        for ask in asks {
            let charged = next()? == 1;
            let mut left = Vec::with_capacity(ask.charges.len());
            for charge in &ask.charges {
                left.push(gcra::left(next()? as f64, charge.quota, next()? as f64));
            }
            verdicts.push(Verdict { charged, left });
        }
        Ok(verdicts)
    }
}

#[async_trait]
impl Limits for RedisLimits {
    fn at_once(&self, _: &Ask) -> Option<Verdict> {
        None
    }

    async fn take(&self, asks: &[Ask]) -> Result<Vec<Verdict>> {
        let mut verdicts = Vec::with_capacity(asks.len());
        let mut rest = asks;
        while !rest.is_empty() {
            let mut charges = 0;
            let fit = rest.iter().take_while(|ask| {
                charges += ask.charges.len();
                charges <= CHARGES_MAX
            });
            let (group, later) = rest.split_at(fit.count().max(1));
            verdicts.extend(self.call(group).await?);
            rest = later;
        }
        Ok(verdicts)
    }
}
