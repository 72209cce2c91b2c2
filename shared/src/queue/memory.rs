//! The doorbell inside one process: the rules of `sorted.rs` over ordered sets. Waiting poppers sleep until somebody pushes.

use super::{Bell, Lane, Queue, Result, rotation};
use crate::task::{ProjectId, QueueName, TaskId};
use async_trait::async_trait;
use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashMap, HashSet},
    pin::pin,
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};

/// The doorbell inside one process.
pub struct MemoryQueue {
    names: Vec<QueueName>,
    window: usize,
    turns: Vec<u8>,
    // std's mutex: never held across an await.
    state: Mutex<State>,
    rung: Notify,
}

struct State {
    lanes: Vec<Ready>,
    at: usize,
}

/// One lane: who is next, and the virtual time of every priority.
#[derive(Default)]
struct Ready {
    // By priority, then tag, then age: ids sort by age.
    order: BTreeSet<(Reverse<i16>, u64, TaskId)>,
    ids: HashSet<TaskId>,
    /// The tag that a project's next id gets.
    tags: HashMap<(i16, ProjectId), u64>,
    /// The tag of the last id popped.
    now: HashMap<i16, u64>,
}

impl Ready {
    /// Takes an id in, unless it is there already. A project's tags rise by one per id; one that was idle starts at the
    /// virtual time.
    fn push(&mut self, bell: &Bell, window: usize) -> bool {
        // An orphan goes in before all others, full or not, also if it waits at a later place.
        if bell.orphan && self.ids.contains(&bell.task) {
            self.order.retain(|(_, _, id)| *id != bell.task);
        } else if (self.ids.len() >= window && !bell.orphan) || !self.ids.insert(bell.task) {
            return false;
        }
        // More projects than two windows came by: their fairness starts anew.
        if self.tags.len() > 2 * window {
            self.tags.clear();
        }
        let now = self.now.get(&bell.priority).copied().unwrap_or(0);
        let tag = if bell.orphan {
            now
        } else {
            let next = self.tags.entry((bell.priority, bell.project)).or_insert(now);
            let tag = now.max(*next);
            *next = tag + 1;
            tag
        };
        self.order.insert((Reverse(bell.priority), tag, bell.task))
    }

    fn pop(&mut self) -> Option<TaskId> {
        let (Reverse(priority), tag, id) = self.order.pop_first()?;
        self.ids.remove(&id);
        self.now.insert(priority, tag);
        if self.ids.is_empty() {
            self.tags.clear();
            self.now.clear();
        }
        Some(id)
    }
}

impl MemoryQueue {
    /// An empty queue with a window of ids per lane.
    #[must_use]
    pub fn new(lanes: &[Lane], window: usize) -> Self {
        let ready = lanes.iter().map(|_| Ready::default()).collect();
        Self {
            names: lanes.iter().map(|lane| lane.name.clone()).collect(),
            window,
            turns: rotation::cycle(lanes.iter().map(|lane| lane.weight)),
            state: Mutex::new(State { lanes: ready, at: 0 }),
            rung: Notify::new(),
        }
    }

    fn place(&self, lane: &QueueName) -> Option<usize> {
        self.names.iter().position(|known| known == lane)
    }

    fn take(&self, lanes: &[QueueName], max: usize) -> Vec<TaskId> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut have = vec![0; self.names.len()];
        for place in lanes.iter().filter_map(|lane| self.place(lane)) {
            have[place] = state.lanes[place].ids.len();
        }
        let give = rotation::split(&self.turns, &mut state.at, &have, max);
        let served = state.lanes.iter_mut().zip(give);
        served.flat_map(|(lane, give)| std::iter::from_fn(|| lane.pop()).take(give)).collect()
    }
}

#[async_trait]
impl Queue for MemoryQueue {
    async fn push(&self, bells: &[Bell]) -> Result<usize> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken = 0;
        for bell in bells {
            let lane = self.place(&bell.queue).map(|place| &mut state.lanes[place]);
            taken += usize::from(lane.is_some_and(|lane| lane.push(bell, self.window)));
        }
        drop(state);
        if taken > 0 {
            self.rung.notify_waiters();
        }
        Ok(taken)
    }

    async fn pop(&self, lanes: &[QueueName], max: usize, wait: Duration) -> Result<Vec<TaskId>> {
        let deadline = Instant::now() + wait;
        loop {
            // Registered before looking: a bell between the look and the wait is heard.
            let mut rung = pin!(self.rung.notified());
            rung.as_mut().enable();
            let ids = self.take(lanes, max);
            if !ids.is_empty() || timeout_at(deadline, rung).await.is_err() {
                return Ok(ids);
            }
        }
    }

    async fn depth(&self, lane: &QueueName) -> Result<usize> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(self.place(lane).map_or(0, |place| state.lanes[place].ids.len()))
    }
}
