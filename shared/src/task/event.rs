//! What is told to watchers.

use super::{BatchId, ProjectId, State, TaskId};
use crate::clock::UnixMs;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::{fmt, sync::Arc};

/// The kinds of event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum EventKind {
    /// Accepted; `seq` 0.
    #[serde(rename = "task.created")]
    Created,
    /// Ready to be claimed (again).
    #[serde(rename = "task.queued")]
    Queued,
    /// An attempt started.
    #[serde(rename = "task.started")]
    Started,
    /// One verbatim chunk of the upstream's stream: `data.chunk`.
    #[serde(rename = "task.output.delta")]
    Delta,
    /// Output shown so far belongs to an attempt that is over: discard it.
    #[serde(rename = "task.output.reset")]
    Reset,
    /// The attempt failed; another one follows.
    #[serde(rename = "task.retrying")]
    Retrying,
    /// The whole task as it stands: earlier events are gone. Cursors restart at its `seq`.
    #[serde(rename = "task.snapshot")]
    Snapshot,
    /// Terminal: `data.task` is the task.
    #[serde(rename = "task.completed")]
    Completed,
    /// Terminal.
    #[serde(rename = "task.failed")]
    Failed,
    /// Terminal.
    #[serde(rename = "task.cancelled")]
    Cancelled,
    /// Terminal.
    #[serde(rename = "task.expired")]
    Expired,
}

impl EventKind {
    /// The name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "task.created",
            Self::Queued => "task.queued",
            Self::Started => "task.started",
            Self::Delta => "task.output.delta",
            Self::Reset => "task.output.reset",
            Self::Retrying => "task.retrying",
            Self::Snapshot => "task.snapshot",
            Self::Completed => "task.completed",
            Self::Failed => "task.failed",
            Self::Cancelled => "task.cancelled",
            Self::Expired => "task.expired",
        }
    }

    /// Whether a run ends with it.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled | Self::Expired)
    }

    /// Whether it tells of the task's life rather than of its output.
    #[must_use]
    pub fn is_lifecycle(self) -> bool {
        !matches!(self, Self::Delta | Self::Reset)
    }

    /// The event of entering `state` (`Started` for `in_progress`, `Retrying` for `scheduled`).
    #[must_use]
    pub fn of(state: State) -> Self {
        match state {
            State::Scheduled => Self::Retrying,
            State::Queued => Self::Queued,
            State::InProgress => Self::Started,
            State::Completed => Self::Completed,
            State::Failed => Self::Failed,
            State::Cancelled => Self::Cancelled,
            State::Expired => Self::Expired,
        }
    }
}

/// One event of one task: immutable once it has a `seq`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Event {
    /// What happened.
    #[serde(rename = "type")]
    pub kind: EventKind,
    /// Place in the task's log, from 0, without gaps.
    pub seq: i64,
    /// The task.
    pub task_id: TaskId,
    /// The attempt it belongs to.
    pub attempt: u32,
    /// When, on the teller's clock.
    pub ts: UnixMs,
    /// Details, a JSON object.
    pub data: Arc<RawValue>,
}

/// Where events can be watched.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Topic {
    /// Everything of one task.
    Task(TaskId),
    /// Lifecycle events of a batch's tasks.
    Batch(BatchId),
    /// Lifecycle events of a project's tasks.
    Project(ProjectId),
    /// What workers must hear at once: cancelled tasks.
    Control,
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Task(id) => write!(f, "task:{id}"),
            Self::Batch(id) => write!(f, "batch:{id}"),
            Self::Project(id) => write!(f, "project:{id}"),
            Self::Control => f.write_str("control"),
        }
    }
}

/// A committed change of a task's state. The store returns it; whoever asked for the change tells the watchers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The task.
    pub task: TaskId,
    /// Its tenant.
    pub project: ProjectId,
    /// Its batch.
    pub batch: Option<BatchId>,
    /// Its newest attempt.
    pub attempt: u32,
    /// The row's `last_seq` after the change.
    pub seq: i64,
    /// The state entered.
    pub state: State,
    /// When, where the row keeps it: of a creation, of the start of the attempt that runs, and of an end.
    pub at: Option<UnixMs>,
}
