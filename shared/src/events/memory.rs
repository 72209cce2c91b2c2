//! The shout inside one process: the rules of `append.lua` over queues in memory.

use super::{
    Append, Appended, EVENTS_MAX, Events, Hub, KEEP_REMOVED, KEEP_RUNNING, LOOKED_AT, Log, Result,
    Subscription, bounded,
};
use crate::{
    clock::UnixMs,
    task::{Event, EventKind, TaskId, Topic},
};
use async_trait::async_trait;
use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// Most finished logs kept; the oldest make room.
const FINISHED_MAX: usize = 2_000;

/// The shout inside one process.
pub struct MemoryEvents {
    hub: Hub,
    /// Time a log is kept after a terminal event.
    keep: Duration,
    // std's mutex: never held across an await. Published under it, so that listeners hear in the order of seqs.
    logs: Mutex<Logs>,
    born: UnixMs,
}

#[derive(Default)]
struct Logs {
    by_task: HashMap<TaskId, TaskLog>,
    /// Finished logs by the end of their keeping time. A log that went on since has another end, and is passed over.
    finished: VecDeque<(Instant, TaskId)>,
}

struct TaskLog {
    events: VecDeque<Arc<Event>>,
    last: i64,
    attempt: u32,
    /// Seq of the terminal event of this attempt.
    sealed: Option<i64>,
    kept_until: Instant,
}

impl TaskLog {
    /// Whether the speaker is too late: a newer attempt has spoken, or this one's run has ended and the speaker does not know.
    fn refuses(&self, append: &Append) -> bool {
        let ended = self.sealed.is_some_and(|seal| append.floor <= seal);
        append.attempt < self.attempt || append.attempt == self.attempt && ended
    }

    fn push(&mut self, event: &Arc<Event>) {
        if event.attempt > self.attempt {
            (self.attempt, self.sealed) = (event.attempt, None);
        }
        if event.kind.is_terminal() {
            self.sealed = Some(event.seq);
        }
        self.last = event.seq;
        self.events.push_back(event.clone());
        if self.events.len() > EVENTS_MAX {
            self.events.pop_front();
        }
    }
}

impl Logs {
    fn get(&self, task: TaskId) -> Option<&TaskLog> {
        self.by_task.get(&task).filter(|log| log.kept_until > Instant::now())
    }

    /// Numbers the events and keeps them if there is a log or one is to start.
    fn append(&mut self, append: &Append, keep: Duration) -> (Appended, Vec<Arc<Event>>) {
        let log = self.get(append.task);
        if log.is_some_and(|log| log.refuses(append)) {
            return (Appended::Stale, Vec::new());
        }
        let keeps = log.is_some() || append.start;
        let before = log.map_or(-1, |log| log.last).max(append.floor - 1);
        let (task_id, attempt) = (append.task, append.attempt);
        let has_started = log.is_some_and(|log| log.attempt == append.attempt && append.floor <= log.last);
        let told = append.events.iter().filter(|(kind, ..)| !(has_started && *kind == EventKind::Started));
        let numbered = (before + 1..).zip(told.cloned());
        let event = |(seq, (kind, ts, data))| {
            Arc::new(Event { kind, seq, task_id, attempt, ts, data: bounded(data) })
        };
        let events: Vec<_> = numbered.map(event).collect();
        let last = events.last().map_or(before, |event| event.seq);
        if keeps && !events.is_empty() {
            self.keep(append, &events, keep);
        }
        let told = if keeps { Appended::Last(last) } else { Appended::Unkept(last) };
        (told, events)
    }

    fn keep(&mut self, append: &Append, events: &[Arc<Event>], keep: Duration) {
        let now = Instant::now();
        if self.get(append.task).is_none() {
            self.by_task.remove(&append.task);
        }
        let log = self.by_task.entry(append.task).or_insert_with(|| TaskLog {
            events: VecDeque::new(),
            last: -1,
            attempt: append.attempt,
            sealed: None,
            kept_until: now,
        });
        events.iter().for_each(|event| log.push(event));
        let ended = events.last().is_some_and(|event| event.kind.is_terminal());
        log.kept_until = now + if ended { keep } else { KEEP_RUNNING };
        if ended {
            self.finished.push_back((log.kept_until, append.task));
            self.forget(now);
        }
    }

    /// Ends a log at this moment.
    fn finish(&mut self, task: TaskId, until: Instant) {
        if let Some(log) = self.by_task.get_mut(&task) {
            log.kept_until = until;
            self.finished.push_back((until, task));
        }
        self.forget(Instant::now());
    }

    /// Drops finished logs whose time is over, and the oldest ones beyond the bound.
    fn forget(&mut self, now: Instant) {
        while let Some(&(until, task)) = self.finished.front()
            && (until <= now || self.finished.len() > FINISHED_MAX)
        {
            self.finished.pop_front();
            if self.by_task.get(&task).is_some_and(|log| log.kept_until == until) {
                self.by_task.remove(&task);
            }
        }
    }
}

impl MemoryEvents {
    /// No logs, no listeners. `keep`: the time a log is kept after a terminal event.
    #[must_use]
    pub fn new(keep: Duration) -> Self {
        Self { hub: Hub::new(|_| ()), keep, logs: Mutex::default(), born: UnixMs::now() }
    }
}

#[async_trait]
impl Events for MemoryEvents {
    async fn append(&self, appends: &[Append]) -> Result<Vec<Appended>> {
        let mut logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        let tell = |append: &Append| {
            let (told, events) = logs.append(append, self.keep);
            for event in &events {
                self.hub.publish(&Topic::Task(append.task), event);
                let topics = append.topics.iter().filter(|_| event.kind.is_lifecycle());
                topics.for_each(|topic| self.hub.publish(topic, event));
            }
            told
        };
        Ok(appends.iter().map(tell).collect())
    }

    async fn read(&self, task: TaskId, after: Option<i64>) -> Result<Log> {
        let logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(log) = logs.get(task) else { return Ok(Log::default()) };
        let unseen = log.events.iter().filter(|event| after.is_none_or(|after| event.seq > after));
        Ok(Log {
            first: log.events.front().map(|event| event.seq),
            events: unseen.map(|event| Event::clone(event)).collect(),
        })
    }

    async fn remove(&self, task: TaskId) -> Result<()> {
        let mut logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        let until = Instant::now() + KEEP_REMOVED;
        // Nothing is told any more, by whatever attempt.
        let removed =
            TaskLog { events: VecDeque::new(), last: 0, attempt: u32::MAX, sealed: None, kept_until: until };
        logs.by_task.insert(task, removed);
        logs.finish(task, until);
        Ok(())
    }

    async fn unfinished(&self, cursor: u64) -> Result<(u64, Vec<TaskId>)> {
        let logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        let (from, longer) =
            (usize::try_from(cursor).unwrap_or(0), Instant::now() + self.keep.max(KEEP_REMOVED));
        let some = logs.by_task.iter().skip(from).take(LOOKED_AT);
        let long = some.filter(|(_, log)| log.kept_until > longer).map(|(task, _)| *task).collect();
        let next = if from + LOOKED_AT < logs.by_task.len() { from + LOOKED_AT } else { 0 };
        Ok((next as u64, long))
    }

    async fn finish(&self, tasks: &[TaskId]) -> Result<()> {
        let mut logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        let until = Instant::now() + self.keep;
        tasks.iter().for_each(|task| logs.finish(*task, until));
        Ok(())
    }

    async fn subscribe(&self, topic: Topic) -> Result<Subscription> {
        Ok(self.hub.subscribe(topic).0)
    }

    fn born(&self) -> UnixMs {
        self.born
    }
}
