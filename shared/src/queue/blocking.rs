//! Pops that wait inside Redis, each on a connection of its own: whatever else went over it would wait too.

use crate::link::{ANSWER, Link, within};
use redis::{FromRedisValue, RedisResult, aio::MultiplexedConnection};
use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// Idle connections kept.
const IDLE_MAX: usize = 8;

/// The shortest block: Redis takes zero for "for ever".
const WAIT_MIN: f64 = 0.001;

/// The connections of waiting pops.
pub(super) struct Blocking {
    link: Link,
    idle: Mutex<Vec<MultiplexedConnection>>,
}

impl Blocking {
    pub(super) fn new(link: Link) -> Self {
        Self { link, idle: Mutex::default() }
    }

    /// `BZMPOP` or `BLMPOP`: up to `count` from that end of the first key that has some, within `wait`. The connection goes
    /// back to the others only after an answer: one that was dropped in the middle closes, and Redis forgets the block.
    pub(super) async fn pop<T: FromRedisValue>(
        &self,
        command: &str,
        wait: Duration,
        keys: impl ExactSizeIterator<Item = &str> + Send,
        end: &str,
        count: usize,
    ) -> RedisResult<T> {
        let mut call = redis::cmd(command);
        call.arg(wait.as_secs_f64().max(WAIT_MIN)).arg(keys.len());
        for key in keys {
            call.arg(key);
        }
        call.arg(end).arg("COUNT").arg(count);
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut connection = match idle {
            Some(connection) => connection,
            None => self.link.dedicated().await?,
        };
        let answer = within(wait + ANSWER, call.query_async(&mut connection)).await?;
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_MAX {
            idle.push(connection);
        }
        Ok(answer)
    }
}
