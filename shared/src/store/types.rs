//! What the store takes and gives.

use crate::{
    clock::UnixMs,
    limits::Reservation,
    task::{
        Backoff, BatchId, Change, Ending, Idempotency, Payload, ProjectId, QueueName, Relay, State, Task,
        TaskError, TaskId, Usage, WorkerId,
    },
};
use std::{sync::Arc, time::Duration};

/// Crashes after which a task is claimed by [`super::Store::claim_suspect`] alone.
pub const SUSPECT_CRASHES: u32 = 2;

/// Time before and after the start of such a task in which its worker starts no other.
pub const START_GAP: Duration = Duration::from_millis(50);

/// What became of one submitted task.
#[derive(Debug, Clone, PartialEq)]
pub enum Submitted {
    /// Committed, with this seq and creation time; also the answer to a repeat with the same id.
    Accepted(Box<Task>),
    /// The idempotency key stands for this earlier task.
    Replayed(TaskId),
    /// The idempotency key was used for something else.
    KeyReused,
    /// This row alone could not be stored.
    Refused(String),
}

/// A hint that a task is ready: all that the queue knows of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bell {
    /// The task.
    pub task: TaskId,
    /// Its tenant, for fair shares.
    pub project: ProjectId,
    /// Its lane.
    pub queue: QueueName,
    /// Its priority.
    pub priority: i16,
    /// Its worker died: it goes before what waits, since it was its turn already.
    pub orphan: bool,
}

/// An attempt that this worker holds.
#[derive(Debug, Clone)]
pub struct Claimed {
    /// The task.
    pub task: TaskId,
    /// Its tenant.
    pub project: ProjectId,
    /// Its batch and line.
    pub batch: Option<BatchId>,
    /// The attempt's number: the fence.
    pub attempt: u32,
    /// Failures so far in this run.
    pub failures: u32,
    /// Crashes so far in this run.
    pub crashes: u32,
    /// Failures at which to give up.
    pub max_attempts: u32,
    /// The lane it came from.
    pub queue: QueueName,
    /// Upstream path.
    pub endpoint: Arc<str>,
    /// Model.
    pub model: Arc<str>,
    /// Kind of relay.
    pub relay: Relay,
    /// The request body.
    pub payload: Payload,
    /// The row's `last_seq` after the claim: the seq of `task.started` and the floor of the event log.
    pub last_seq: i64,
    /// An earlier attempt has ended without saying how far it had told: it died, was given back, or its task was ended from outside.
    pub floor_unknown: bool,
    /// Start of this attempt: the time of its `task.started`.
    pub started_at: UnixMs,
    /// Left until the deadline, measured on the database's clock at the claim.
    pub time_left: Duration,
    /// Longest time of this attempt.
    pub execution_timeout: Duration,
    /// Waits between attempts.
    pub backoff: Backoff,
    /// From ready to claimed, measured on the database's clock.
    pub waited: Duration,
    /// What was charged for it before it ran.
    pub reserved: Option<Reservation>,
    /// Names of the input rules whose moderation model must pass it.
    pub moderation: Vec<String>,
}

/// A terminal write, fenced.
#[derive(Debug, Clone)]
pub struct Finish {
    /// The task.
    pub task: TaskId,
    /// The attempt that speaks.
    pub attempt: u32,
    /// What it came to.
    pub ending: Ending,
    /// Lowest seq that the terminal event may get: one above the last that may have been told, 0 if none was. One more leaves a gap:
    /// watchers are then told the whole task before the end.
    pub floor: i64,
    /// The upstream that answered.
    pub upstream: Option<Arc<str>>,
}

/// An attempt that ends and is followed by another one.
#[derive(Debug, Clone)]
pub struct Again {
    /// The task.
    pub task: TaskId,
    /// The attempt that speaks.
    pub attempt: u32,
    /// Wait before the next one.
    pub delay: Duration,
    /// Whether it counts against `max_attempts`.
    pub charged: bool,
    /// Why.
    pub error: TaskError,
    /// Tokens spent all the same.
    pub usage: Option<Usage>,
    /// As in [`Finish::floor`].
    pub floor: i64,
    /// The upstream that answered.
    pub upstream: Option<Arc<str>>,
}

/// What a fenced write met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finished {
    /// Written, now or by an earlier call of the same attempt.
    Applied(Change),
    /// Another attempt or another verb was first: the task stands like this.
    Lost(Change),
    /// The task is no more.
    Gone,
}

/// What a cancel met.
#[derive(Debug, Clone, PartialEq)]
pub enum Cancelled {
    /// Cancelled by this call.
    Applied(Change),
    /// It was terminal already.
    Terminal(State),
}

/// What a run that is started again is charged with, and must pass: rules and limits may have changed since the last one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rerun {
    /// Tokens that are reserved for it, as a [`Reservation`] in JSON.
    pub reserved: Option<Arc<str>>,
    /// Input rules whose moderation model must pass it.
    pub moderation: Vec<String>,
}

/// What a retry met.
#[derive(Debug, Clone, PartialEq)]
pub enum Retried {
    /// Queued again by this call.
    Applied(Change, Bell),
    /// Only failed, cancelled and expired tasks can be retried.
    Refused(State),
    /// It is a line of a batch that is no longer in progress.
    BatchClosed,
}

/// What a delete met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deleted {
    /// Removed; these objects can be deleted.
    Applied(Vec<String>),
    /// It is still active.
    Active(State),
}

/// What retention removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// Number of tasks.
    pub tasks: u64,
    /// Objects that nothing refers to any more.
    pub objects: Vec<String>,
}

/// A new worker incarnation.
#[derive(Debug, Clone)]
pub struct NewWorker {
    /// Its id.
    pub id: WorkerId,
    /// Host and pid, for people.
    pub name: String,
    /// Attempts it can run at once.
    pub slots: u32,
    /// Queues it serves.
    pub queues: Vec<QueueName>,
    /// Lease.
    pub ttl: Duration,
}

/// A live worker incarnation.
#[derive(Debug, Clone)]
pub struct Worker {
    /// Its id.
    pub id: WorkerId,
    /// Host and pid.
    pub name: String,
    /// Slots.
    pub slots: u32,
    /// Attempts it runs, as of its last heartbeat.
    pub running: u32,
    /// Queues it serves.
    pub queues: Vec<QueueName>,
    /// Last heartbeat.
    pub seen_at: UnixMs,
}

/// A validated batch on its way into the store: born `in_progress`.
#[derive(Debug, Clone)]
pub struct NewBatch {
    /// Its id.
    pub id: BatchId,
    /// The tenant.
    pub project: ProjectId,
    /// The endpoint of every line.
    pub endpoint: Arc<str>,
    /// As the client wrote it, e.g. `24h`.
    pub completion_window: String,
    /// The window itself.
    pub window: Duration,
    /// The model, if all lines share one.
    pub model: Option<Arc<str>>,
    /// The client's key-value pairs, a JSON object.
    pub metadata: Option<Arc<str>>,
    /// Errors of the input: set, it is born `failed` and has no tasks. OpenAI's list object as JSON.
    pub errors: Option<String>,
    /// How long a finished batch is kept.
    pub result_ttl: Duration,
    /// The client's key for this request.
    pub idempotency: Option<Idempotency>,
}

/// What became of a new batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchCreated {
    /// It is committed, now or by an earlier call with the same id.
    Stored,
    /// The idempotency key stands for this earlier batch.
    Replayed(BatchId),
    /// The idempotency key was used for something else.
    KeyReused,
}

/// OpenAI's words for where a batch stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BatchState {
    /// Its input is being read.
    Validating,
    /// Its input was refused.
    Failed,
    /// Its tasks are worked on.
    InProgress,
    /// Its output is being written.
    Finalizing,
    /// Every task has ended.
    Completed,
    /// Its window passed first.
    Expired,
    /// Being stopped.
    Cancelling,
    /// Stopped.
    Cancelled,
}

impl BatchState {
    /// Every state.
    pub const ALL: [Self; 8] = [
        Self::Validating,
        Self::Failed,
        Self::InProgress,
        Self::Finalizing,
        Self::Completed,
        Self::Expired,
        Self::Cancelling,
        Self::Cancelled,
    ];

    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Validating => "validating",
            Self::Failed => "failed",
            Self::InProgress => "in_progress",
            Self::Finalizing => "finalizing",
            Self::Completed => "completed",
            Self::Expired => "expired",
            Self::Cancelling => "cancelling",
            Self::Cancelled => "cancelled",
        }
    }
}

/// A batch with exact counts.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Its id.
    pub id: BatchId,
    /// The tenant.
    pub project: ProjectId,
    /// Where it stands.
    pub state: BatchState,
    /// Endpoint of every line.
    pub endpoint: Arc<str>,
    /// As the client wrote it.
    pub completion_window: String,
    /// The model, if all lines share one.
    pub model: Option<Arc<str>>,
    /// The client's pairs.
    pub metadata: Option<Arc<str>>,
    /// OpenAI's list object as JSON, if the input was refused.
    pub errors: Option<String>,
    /// Accepted at.
    pub created_at: UnixMs,
    /// End of its window.
    pub expires_at: UnixMs,
    /// Entered `in_progress`.
    pub in_progress_at: Option<UnixMs>,
    /// Entered `finalizing`.
    pub finalizing_at: Option<UnixMs>,
    /// Entered `cancelling`.
    pub cancelling_at: Option<UnixMs>,
    /// Entered its terminal state.
    pub finished_at: Option<UnixMs>,
    /// Lines.
    pub total: u64,
    /// Lines whose task completed.
    pub completed: u64,
    /// Lines whose task failed, expired or was cancelled.
    pub failed: u64,
    /// Tokens of all lines that ended.
    pub usage: Usage,
}

/// Figures of one queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueFigures {
    /// The queue.
    pub queue: QueueName,
    /// Ready tasks.
    pub queued: u64,
    /// Tasks waiting for a time.
    pub scheduled: u64,
    /// Tasks being run.
    pub in_progress: u64,
    /// Age of the oldest ready task.
    pub oldest: Option<Duration>,
}

/// Filters of a listing; all that are set must hold.
#[derive(Debug, Clone, Default)]
pub struct ListQuery {
    /// One of these states; empty: any.
    pub states: Vec<State>,
    /// This queue.
    pub queue: Option<QueueName>,
    /// This model.
    pub model: Option<String>,
    /// This batch.
    pub batch: Option<BatchId>,
    /// These metadata pairs.
    pub metadata: Vec<(String, String)>,
    /// Accepted at or after.
    pub created_after: Option<UnixMs>,
    /// Accepted at or before.
    pub created_before: Option<UnixMs>,
    /// Oldest first instead of newest first.
    pub ascending: bool,
    /// At most this many, 1 to 100.
    pub limit: u32,
    /// Only what follows this task in the chosen order.
    pub after: Option<TaskId>,
}

/// A page of a listing.
#[derive(Debug, Clone)]
pub struct Page<T> {
    /// The rows.
    pub items: Vec<T>,
    /// Whether more follow.
    pub has_more: bool,
}
