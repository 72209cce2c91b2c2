//! The doorbell in Redis (7 or newer): one sorted set of ids per lane.
//!
//! Keys, with one hash tag so that a script may touch them all:
//! - `lh:{queue}:ready:<lane>`, a sorted set. Member: the id's 16 bytes. Score: `level · 2^44 + tag`, exact in a double, where
//!   the level is 100 − priority. Equal scores sort by member, and ids sort by age.
//! - `lh:{queue}:tags:<lane>`, a hash, gone when the lane is empty. `<level><project>`: the tag that the project's next id gets.
//!   `<level>`: the level's virtual time, the tag of the last id popped.
//!
//! A project's tags rise by one per id, and a project that was idle starts at the virtual time, as an orphan does, out of turn. So projects take turns however
//! many ids each has rung, and nobody saves up turns by waiting.
//!
//! `push.lua` and `pop.lua` do all of that. A pop that finds nothing waits in `BZMPOP` on a connection of its own. That way round
//! leaves the virtual time behind by the few ids it took, which `push.lua` makes up for by looking at the oldest id that waits.

use super::{Bell, Error, LANES_MAX, Lane, Queue, Result, blocking::Blocking, ids, places, rotation};
use crate::{
    link::Link,
    task::{QueueName, TaskId},
};
use async_trait::async_trait;
use redis::{RedisResult, Script, Value};
use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

/// Bells per script call: keeps each call well under a millisecond of Redis' one thread.
const BELLS_MAX: usize = 500;

/// The lane that gave, and its members with their scores.
type Popped = Option<(Value, Vec<(Vec<u8>, Value)>)>;

/// The doorbell in Redis.
pub struct SortedQueue {
    link: Link,
    lanes: Vec<Keys>,
    window: usize,
    turns: Vec<u8>,
    // The next turn. Concurrent pops may repeat or skip one, which the long run does not notice.
    at: AtomicUsize,
    push: Script,
    pop: Script,
    blocking: Blocking,
}

struct Keys {
    name: QueueName,
    ready: String,
    tags: String,
}

impl SortedQueue {
    /// Connects, within 5 s.
    ///
    /// # Errors
    /// Redis cannot be reached, is too old, or there are more than 200 lanes.
    pub async fn open(url: &str, lanes: &[Lane], window: usize) -> Result<Self> {
        if lanes.len() > LANES_MAX {
            return Err(Error(format!("at most {LANES_MAX} lanes are possible").into()));
        }
        let keys = lanes.iter().map(|Lane { name, .. }| Keys {
            ready: format!("lh:{{queue}}:ready:{name}"),
            tags: format!("lh:{{queue}}:tags:{name}"),
            name: name.clone(),
        });
        let link = Link::open(url).await?;
        Ok(Self {
            blocking: Blocking::new(link.clone()),
            link,
            lanes: keys.collect(),
            window,
            turns: rotation::cycle(lanes.iter().map(|lane| lane.weight)),
            at: AtomicUsize::new(0),
            push: Script::new(include_str!("push.lua")),
            pop: Script::new(include_str!("pop.lua")),
        })
    }

    fn place(&self, lane: &QueueName) -> Option<usize> {
        self.lanes.iter().position(|known| known.name == *lane)
    }

    /// What is there now.
    async fn take(&self, asked: &[usize], max: usize) -> RedisResult<Vec<Vec<u8>>> {
        let turn = |&lane: &u8| {
            asked.iter().position(|&place| place == usize::from(lane)).map_or(0, |i| i as u8 + 1)
        };
        let turns: Vec<u8> = self.turns.iter().map(turn).collect();
        let mut call = self.pop.arg(max);
        call.arg(turns).arg(self.at.load(Ordering::Relaxed));
        for &place in asked {
            call.key(&self.lanes[place].ready).key(&self.lanes[place].tags);
        }
        let (at, ids): (usize, Vec<Vec<u8>>) = call.invoke_async(&mut self.link.clone()).await?;
        self.at.store(at, Ordering::Relaxed);
        Ok(ids)
    }

    /// The first that come within `wait`.
    async fn block(&self, asked: &[usize], max: usize, wait: Duration) -> RedisResult<Vec<Vec<u8>>> {
        let keys = asked.iter().map(|&place| self.lanes[place].ready.as_str());
        let count = max.min(self.window.max(1));
        let popped: Popped = self.blocking.pop("BZMPOP", wait, keys, "MIN", count).await?;
        Ok(popped.into_iter().flat_map(|(_, members)| members).map(|(member, _)| member).collect())
    }
}

/// Lane, level, project and task of a bell, and whether it is an orphan, as `push.lua` reads them.
fn pack(lane: usize, bell: &Bell) -> Vec<u8> {
    let level = 100 - bell.priority.clamp(-100, 100);
    let mut bytes = Vec::with_capacity(35);
    bytes.extend([lane as u8, level as u8]);
    bytes.extend(bell.project.0.as_bytes());
    bytes.extend(bell.task.0.as_bytes());
    bytes.push(u8::from(bell.orphan));
    bytes
}

#[async_trait]
impl Queue for SortedQueue {
    async fn push(&self, bells: &[Bell]) -> Result<usize> {
        let mut taken = 0;
        for part in bells.chunks(BELLS_MAX) {
            let mut call = self.push.arg(self.window);
            for lane in &self.lanes {
                call.key(&lane.ready).key(&lane.tags);
            }
            for (lane, bell) in part.iter().filter_map(|bell| Some((self.place(&bell.queue)?, bell))) {
                call.arg(pack(lane, bell));
            }
            taken += call.invoke_async::<usize>(&mut self.link.clone()).await?;
        }
        Ok(taken)
    }

    async fn pop(&self, lanes: &[QueueName], max: usize, wait: Duration) -> Result<Vec<TaskId>> {
        let asked = places(lanes, |lane| self.place(lane));
        if asked.is_empty() || max == 0 {
            tokio::time::sleep(wait).await;
            return Ok(Vec::new());
        }
        let found = self.take(&asked, max).await?;
        if found.is_empty() && !wait.is_zero() {
            return Ok(ids(self.block(&asked, max, wait).await?));
        }
        Ok(ids(found))
    }

    async fn depth(&self, lane: &QueueName) -> Result<usize> {
        let Some(place) = self.place(lane) else { return Ok(0) };
        let ready = &self.lanes[place].ready;
        Ok(redis::cmd("ZCARD").arg(ready).query_async(&mut self.link.clone()).await?)
    }
}
