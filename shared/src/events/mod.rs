//! The shout: one bounded event log per task while somebody may watch it, and fan-out to watchers.
//!
//! It may lose everything at any moment. A lifecycle event can always be derived from the row (`derive.rs`); history that is
//! gone shows as a `task.snapshot`. Its speaker begins a lost log anew with one that has all of the output so far, and puts one into a long log
//! now and then ([`SNAPSHOT_EVERY`]), so that a log always tells the whole state. Order and fence: [`Append`] refuses attempts older than the newest one seen by the log, and gives
//! `seq = max(last of the log, floor − 1) + 1`. `tests/it/conformance/events.rs` holds every implementation to the docs below.

mod derive;
mod feed;
mod hub;
mod memory;
mod redis;

pub use self::redis::RedisEvents;
pub use derive::derive;
pub use hub::{Hub, Lagged, Subscription};
pub use memory::MemoryEvents;

use crate::{
    clock::UnixMs,
    task::{Change, Event, EventKind, TaskId, Topic},
};
use async_trait::async_trait;
use serde_json::value::RawValue;
use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

/// Most events kept of one task; older ones make room.
const EVENTS_MAX: usize = 10_000;

/// Events after which a long log has a `task.snapshot`: what is kept of it always holds one.
pub const SNAPSHOT_EVERY: usize = EVENTS_MAX / 2;

/// Time a log is kept at least after its last event that is no token, while the run goes on.
const KEEP_RUNNING: Duration = Duration::from_secs(24 * 60 * 60);

/// Time in which nobody can speak for a task whose log was removed.
const KEEP_REMOVED: Duration = Duration::from_secs(60 * 60);

/// Logs of one look for unfinished ones, about.
const LOOKED_AT: usize = 500;

/// The transport is away; watchers find the row's state by themselves within a second.
#[derive(Debug, thiserror::Error)]
#[error("the event log is unavailable")]
pub struct Error(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// Shorthand of this module's results.
pub type Result<T> = std::result::Result<T, Error>;

/// Events of one task to be told, in order.
#[derive(Debug, Clone)]
pub struct Append {
    /// The task.
    pub task: TaskId,
    /// The attempt that speaks.
    pub attempt: u32,
    /// Lowest seq that the first event may get.
    pub floor: i64,
    /// Start the task's log if there is none. Without a log and without this, events are only published, with seqs from
    /// `floor`.
    pub start: bool,
    /// Kind, time and details of each event.
    pub events: Vec<(EventKind, UnixMs, Arc<RawValue>)>,
    /// Where lifecycle events are published besides [`Topic::Task`].
    pub topics: Vec<Topic>,
}

/// What became of an [`Append`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appended {
    /// Told, and kept; the seq of its last event.
    Last(i64),
    /// Told to who listens, and not kept, because there is no log; the seq of its last event.
    Unkept(i64),
    /// The log has seen a newer attempt, or the run's terminal event of this attempt and the floor is not above that:
    /// nothing was told.
    Stale,
}

/// The retained part of a task's log.
#[derive(Debug, Clone, Default)]
pub struct Log {
    /// Seq of the oldest retained event; `None`: there is no log.
    pub first: Option<i64>,
    /// Events after the cursor, in order.
    pub events: Vec<Event>,
}

/// The event logs and their fan-out.
#[async_trait]
pub trait Events: Send + Sync {
    /// Appends and publishes: one answer per input, in order. Details that are too long are left out: see [`bounded`]. An attempt starts once: where the log knows of it, a late or
    /// repeated `task.started` is left out. A terminal event starts the log's keeping time (`events.keep`).
    async fn append(&self, appends: &[Append]) -> Result<Vec<Appended>>;

    /// Events with `seq > after` (all retained ones for `None`).
    async fn read(&self, task: TaskId, after: Option<i64>) -> Result<Log>;

    /// Forgets a task's log, at once. Whoever still speaks for the task is stale for the next hour.
    async fn remove(&self, task: TaskId) -> Result<()>;

    /// Looks at some of the logs, from `cursor` on: tasks whose log would be kept for longer than after a terminal event, and where to go
    /// on, 0 at the end. A cheap look, whose size is bounded.
    async fn unfinished(&self, cursor: u64) -> Result<(u64, Vec<TaskId>)>;

    /// Starts the keeping time (`events.keep`) of these tasks' logs, as a terminal event does.
    async fn finish(&self, tasks: &[TaskId]) -> Result<()>;

    /// What is published on a topic from now on; an event told just before may still be heard. Dropping it ends the
    /// subscription.
    async fn subscribe(&self, topic: Topic) -> Result<Subscription>;

    /// Logs of tasks that are older than this are lost, as far as the transport knows.
    fn born(&self) -> UnixMs {
        UnixMs(0)
    }
}

/// Longest details of an event, bytes. Clients' libraries take frames of 1 MiB by default, and each chunk may be kept
/// [`EVENTS_MAX`] times over.
pub const DETAILS_MAX: usize = 512 << 10;

/// The details of an event, or `{"omitted":true}` in place of long ones.
#[must_use]
pub fn bounded(data: Arc<RawValue>) -> Arc<RawValue> {
    static OMITTED: LazyLock<Arc<RawValue>> =
        LazyLock::new(|| RawValue::from_string(r#"{"omitted":true}"#.into()).expect("this is JSON").into());
    if data.get().len() > DETAILS_MAX { OMITTED.clone() } else { data }
}

/// The empty JSON object.
#[must_use]
pub fn no_details() -> Arc<RawValue> {
    // One shared allocation: most lifecycle events have no details of their own.
    static EMPTY: LazyLock<Arc<RawValue>> =
        LazyLock::new(|| RawValue::from_string("{}".into()).expect("an empty object is JSON").into());
    EMPTY.clone()
}

impl Append {
    /// The lifecycle event of a committed change, with these details (a JSON object).
    #[must_use]
    pub fn lifecycle(change: &Change, data: Arc<RawValue>) -> Self {
        let kind = if change.seq == 0 { EventKind::Created } else { EventKind::of(change.state) };
        let mut topics = vec![Topic::Project(change.project)];
        topics.extend(change.batch.map(Topic::Batch));
        if kind == EventKind::Cancelled {
            topics.push(Topic::Control);
        }
        Self {
            task: change.task,
            attempt: change.attempt,
            floor: change.seq,
            start: false,
            events: vec![(kind, change.at.unwrap_or_else(UnixMs::now), data)],
            topics,
        }
    }
}

/// Tells watchers of committed changes, best effort: the row is the truth and watchers look at it every second.
pub async fn announce(events: &dyn Events, changes: &[Change]) {
    let appends: Vec<Append> = changes.iter().map(|change| Append::lifecycle(change, no_details())).collect();
    if !appends.is_empty()
        && let Err(error) = events.append(&appends).await
    {
        tracing::debug!(
            error = &error as &dyn std::error::Error,
            "watchers learn of {} changes later",
            appends.len()
        );
    }
}
