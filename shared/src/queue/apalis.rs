//! The doorbell by way of apalis-redis: its `push_tasks` and `fetch_next`, and `look.lua` around them.
//!
//! Each lane is an apalis queue `lh:{queue}:apalis:<lane>`. The apalis task is named by the id, so that an id is there once,
//! and carries the id's 16 bytes. A bell's way, each step a script and so atomic:
//! 1. `push_tasks` lays it into `scheduled`, for the end of time: `fetch_next` never moves it on by itself, so neither the clocks
//!    of the processes nor the size of a burst play a part.
//! 2. A look moves it into `active`, as far as the window has room, and forgets the rest. It leaves a token in `wake` for those
//!    who wait in `BLMPOP`.
//! 3. `fetch_next` moves it into the `inflight` of our one worker's name and hands it out.
//! 4. The next look, by whichever process, forgets all that is `inflight`: only then the id may be rung again. There is no other
//!    goodbye, so a fetcher that dies or is dropped leaves nothing that a second later is still there.
//!
//! What apalis-redis has beyond that plays no part: locks, heartbeats, acknowledgements, results, its own signal.

use super::{Bell, Error, LANES_MAX, Lane, Queue, Result, blocking::Blocking, ids, places, rotation};
use crate::{
    link::Link,
    task::{QueueName, TaskId},
};
use apalis_core::{
    task::{self, builder::TaskBuilder},
    worker::context::WorkerContext,
};
use apalis_redis::{
    Config, RedisTask,
    queries::{fetch_next, push_tasks},
};
use async_trait::async_trait;
use futures_util::future::try_join_all;
use redis::{RedisResult, Script, Value};
use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};
use tokio::time::Instant;

/// Largest window: at 8,000 due ids the scripts of apalis-redis fail, and go on failing.
pub const WINDOW_MAX: usize = 4_000;

/// Bells per script call, to keep Redis' one thread free for others.
const BELLS_MAX: usize = 200;

/// All processes fetch under one name, so that each may forget what another has fetched.
const WORKER: &str = "longhaul";

/// The year 2106.
const NEVER: u64 = u32::MAX as u64;

/// The doorbell by way of apalis-redis.
pub struct ApalisQueue {
    link: Link,
    lanes: Vec<Keys>,
    window: usize,
    turns: Vec<u8>,
    // The next turn. Concurrent pops may repeat or skip one, which the long run does not notice.
    at: AtomicUsize,
    look: Script,
    worker: WorkerContext,
    blocking: Blocking,
}

struct Keys {
    name: QueueName,
    config: Config,
    /// Those of `look.lua`; the last is `wake`.
    look: [String; 7],
}

impl From<apalis_redis::Error> for Error {
    fn from(error: apalis_redis::Error) -> Self {
        Self(Box::new(error))
    }
}

impl Keys {
    fn new(name: &QueueName, worker: &WorkerContext) -> Self {
        let queue = format!("lh:{{queue}}:apalis:{name}");
        let config =
            Config::default().queue(&queue).lock_tasks(false).persist_results(false).emit_events(false);
        let look = [
            config.active_jobs_list(),
            config.scheduled_jobs_set(),
            config.job_data_hash(),
            config.job_meta_hash(),
            config.inflight_set_for(worker),
            config.workers_set(),
            format!("{queue}:wake"),
        ];
        Self { name: name.clone(), config, look }
    }
}

impl ApalisQueue {
    /// Connects, within 5 s.
    ///
    /// # Errors
    /// Redis cannot be reached, is too old, there are more than 200 lanes, or the window is larger than [`WINDOW_MAX`].
    pub async fn open(url: &str, lanes: &[Lane], window: usize) -> Result<Self> {
        if lanes.len() > LANES_MAX || window > WINDOW_MAX {
            let limits = format!("at most {LANES_MAX} lanes and a window of {WINDOW_MAX} are possible");
            return Err(Error(limits.into()));
        }
        let worker = WorkerContext::new(WORKER);
        let link = Link::open(url).await?;
        Ok(Self {
            blocking: Blocking::new(link.clone()),
            link,
            lanes: lanes.iter().map(|lane| Keys::new(&lane.name, &worker)).collect(),
            window,
            turns: rotation::cycle(lanes.iter().map(|lane| lane.weight)),
            at: AtomicUsize::new(0),
            look: Script::new(include_str!("look.lua")),
            worker,
        })
    }

    fn place(&self, lane: &QueueName) -> Option<usize> {
        self.lanes.iter().position(|known| known.name == *lane)
    }

    /// Ids that wait in these lanes, and newly rung ones that had no room.
    async fn look(&self, asked: &[usize], most: usize) -> RedisResult<(Vec<usize>, Vec<usize>)> {
        let mut call = self.look.arg(self.window);
        call.arg(most).arg(WORKER);
        for key in asked.iter().flat_map(|&place| &self.lanes[place].look) {
            call.key(key);
        }
        call.invoke_async(&mut self.link.clone()).await
    }

    /// Rings for the first of these ids that are not there yet, at most `room`. Returns how many those were.
    async fn ring(&self, lane: &Keys, ids: &[(TaskId, bool)], room: usize) -> Result<usize> {
        let (mut rung, mut rest) = (0, ids);
        while rung < room && !rest.is_empty() {
            let part;
            (part, rest) = rest.split_at(rest.len().min(room - rung).min(BELLS_MAX));
            let tasks: Vec<RedisTask> = part.iter().map(bell).collect();
            let (active, scheduled) = push_tasks(&mut self.link.clone(), &lane.config, &tasks).await?;
            rung += (active + scheduled) as usize;
        }
        Ok(rung)
    }

    /// What is there now.
    async fn take(&self, asked: &[usize], max: usize) -> Result<Vec<TaskId>> {
        let (depths, _) = self.look(asked, max).await?;
        let mut have = vec![0; self.lanes.len()];
        asked.iter().zip(depths).for_each(|(&place, depth)| have[place] = depth);
        let mut at = self.at.load(Ordering::Relaxed);
        let give = rotation::split(&self.turns, &mut at, &have, max.min(WINDOW_MAX));
        self.at.store(at, Ordering::Relaxed);
        let served = self.lanes.iter().zip(give).filter(|(_, give)| *give > 0);
        Ok(try_join_all(served.map(|(lane, give)| self.fetch(lane, give))).await?.concat())
    }

    async fn fetch(&self, lane: &Keys, most: usize) -> Result<Vec<TaskId>> {
        let config = lane.config.clone().batch_size(most);
        let tasks = fetch_next(&mut self.link.clone(), &self.worker, &config).await?;
        Ok(ids(tasks.into_iter().map(|task| task.args)))
    }
}

fn bell((id, orphan): &(TaskId, bool)) -> RedisTask {
    let name = task::task_id::TaskId::from_string(id.0.to_string());
    let at = if *orphan { NEVER - 1 } else { NEVER };
    TaskBuilder::new(id.0.as_bytes().to_vec()).task_id(name).run_at_timestamp(at).build()
}

#[async_trait]
impl Queue for ApalisQueue {
    async fn push(&self, bells: &[Bell]) -> Result<usize> {
        let mut lanes = BTreeMap::<usize, Vec<(TaskId, bool)>>::new();
        for (place, bell) in bells.iter().filter_map(|bell| Some((self.place(&bell.queue)?, bell))) {
            lanes.entry(place).or_default().push((bell.task, bell.orphan));
        }
        if lanes.is_empty() {
            return Ok(0);
        }
        let places: Vec<usize> = lanes.keys().copied().collect();
        lanes.values_mut().for_each(|ids| ids.sort_by_key(|(_, orphan)| !orphan));
        let (depths, _) = self.look(&places, 0).await?;
        let mut rung = 0;
        for ((place, ids), depth) in lanes.iter().zip(depths) {
            // Orphans go in whether there is room or not.
            let orphans = ids.iter().filter(|(_, orphan)| *orphan).count();
            rung +=
                self.ring(&self.lanes[*place], ids, self.window.saturating_sub(depth).max(orphans)).await?;
        }
        if rung == 0 {
            return Ok(0);
        }
        // Others may have rung meanwhile: then there was less room than the first look saw.
        let (_, surplus) = self.look(&places, 0).await?;
        Ok(rung.saturating_sub(surplus.iter().sum()))
    }

    async fn pop(&self, lanes: &[QueueName], max: usize, wait: Duration) -> Result<Vec<TaskId>> {
        let asked = places(lanes, |lane| self.place(lane));
        if asked.is_empty() || max == 0 {
            tokio::time::sleep(wait).await;
            return Ok(Vec::new());
        }
        let deadline = Instant::now() + wait;
        loop {
            let ids = self.take(&asked, max).await?;
            let left = deadline.saturating_duration_since(Instant::now());
            if !ids.is_empty() || left.is_zero() {
                return Ok(ids);
            }
            // A token only says that it is worth looking again.
            let tokens = asked.iter().map(|&place| self.lanes[place].look[6].as_str());
            self.blocking.pop::<Value>("BLMPOP", left, tokens, "LEFT", 1).await?;
        }
    }

    async fn depth(&self, lane: &QueueName) -> Result<usize> {
        let Some(place) = self.place(lane) else { return Ok(0) };
        let active = &self.lanes[place].look[0];
        Ok(redis::cmd("LLEN").arg(active).query_async(&mut self.link.clone()).await?)
    }
}
