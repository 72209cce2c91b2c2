//! How much: quotas a minute, in buckets that all API processes share.
//!
//! In: asks, each a list of charges that are made together or not at all. Out: whether, and what is left. Never here: who has which quota
//! ([`crate::identity::Quotas`]), and what a refusal looks like.

mod gcra;
mod memory;
mod purses;
mod redis;
mod shared;

pub use memory::MemoryLimits;
pub use redis::RedisLimits;
pub use shared::SharedLimits;

use crate::clock::{UnixMs, ms};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::{sync::Arc, time::Duration};

/// The window of every quota.
pub const WINDOW: Duration = Duration::from_secs(60);

/// So much, out of that bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Charge {
    /// The bucket: a kind and an id, e.g. `requests:key_…`.
    pub bucket: Arc<str>,
    /// What it gives in a [`WINDOW`], at least 1.
    pub quota: u32,
    /// What is wanted; negative: given back.
    pub cost: i64,
}

/// Charges that belong together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// The charges.
    pub charges: Vec<Charge>,
    /// They are made whether they fit or not: what was spent was spent.
    pub forced: bool,
}

/// What is left in a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left {
    /// Of the quota.
    pub remaining: u32,
    /// Time until the whole quota is there again.
    pub reset: Duration,
    /// Time until the charge would fit; zero: it does.
    pub wait: Duration,
}

/// What became of an ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it was charged.
    pub charged: bool,
    /// What is left, charge by charge.
    pub left: Vec<Left>,
}

/// What a task was charged before it ran, when and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reservation {
    /// Tokens.
    pub tokens: u32,
    /// When, milliseconds since the epoch.
    pub at: i64,
    /// Buckets with their quotas.
    pub buckets: Vec<(Arc<str>, u32)>,
}

impl Reservation {
    /// As it is kept beside the task.
    ///
    /// # Panics
    /// Never: numbers and names are JSON.
    #[must_use]
    pub fn to_json(&self) -> Arc<str> {
        serde_json::to_string(self).expect("numbers and names are JSON").into()
    }

    /// Puts `used` tokens in the place of what was reserved. What the time has given back already is not given back again.
    #[must_use]
    pub fn settled(&self, used: u32, now: UnixMs) -> Ask {
        let (used, tokens) = (i64::from(used), i64::from(self.tokens));
        let window = ms(WINDOW);
        let left = window - (now.0 - self.at).clamp(0, window);
        self.charged(if used >= tokens { used - tokens } else { (used - tokens) * left / window })
    }

    /// Adds tokens that were used beside what was reserved.
    #[must_use]
    pub fn charged(&self, cost: i64) -> Ask {
        let charge =
            |(bucket, quota): &(Arc<str>, u32)| Charge { bucket: bucket.clone(), quota: *quota, cost };
        Ask { charges: self.buckets.iter().map(charge).collect(), forced: true }
    }
}

/// The buckets are away.
#[derive(Debug, thiserror::Error)]
#[error("the limits are away")]
pub struct Error(#[source] Box<dyn std::error::Error + Send + Sync>);

/// What the buckets answer.
pub type Result<T> = std::result::Result<T, Error>;

/// Buckets.
#[async_trait]
pub trait Limits: Send + Sync {
    /// Judges an ask, if that can be done without waiting for anything. `None`: see [`Limits::take`].
    fn at_once(&self, ask: &Ask) -> Option<Verdict>;

    /// Judges each ask, one after the other: one verdict per ask, in order.
    ///
    /// # Errors
    /// The buckets are away; nothing or something was charged.
    ///
    /// # Cancel safety
    /// As with an error.
    async fn take(&self, asks: &[Ask]) -> Result<Vec<Verdict>>;

    /// Runs beside the asks of a process that limits callers, and does not end: tells the others that it is there.
    async fn keep(&self) {
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reservation() -> Reservation {
        Reservation { tokens: 1_000, at: 5_000, buckets: vec![("a".into(), 60), ("b".into(), 600)] }
    }

    #[test]
    fn what_the_time_has_given_back_is_not_given_back_again() {
        let cost = |used, at| reservation().settled(used, UnixMs(at)).charges[0].cost;
        assert_eq!(cost(200, 5_000), -800);
        assert_eq!(cost(200, 20_000), -600, "a quarter of the window is over");
        assert_eq!(cost(200, 65_000), 0);
        assert_eq!(cost(200, 1_000_000), 0);
        assert_eq!(cost(200, 0), -800, "a clock went back");
        assert_eq!((cost(1_000, 20_000), cost(1_500, 1_000_000)), (0, 500), "more was used");
    }

    #[test]
    fn every_bucket_pays_what_was_used() {
        let charge = |bucket: &str, quota| Charge { bucket: bucket.into(), quota, cost: 7 };
        let paid = reservation().charged(7);
        assert_eq!(paid, Ask { charges: vec![charge("a", 60), charge("b", 600)], forced: true });
        let kept = reservation().to_json();
        assert_eq!(serde_json::from_str::<Reservation>(&kept).expect("a reservation"), reservation());
    }

    #[tokio::test]
    async fn a_process_says_for_ever_that_it_is_there() {
        let limits = MemoryLimits::default();
        assert!(tokio::time::timeout(Duration::from_millis(1), limits.keep()).await.is_err());
    }
}
