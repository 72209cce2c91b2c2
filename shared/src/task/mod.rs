//! The domain: what a task is and how it moves. Pure: no async, no I/O, no other module of this crate but `clock`.

mod event;
mod id;
mod outcome;
mod request;
mod retry;
mod state;

pub use event::{Change, Event, EventKind, Topic};
pub use id::{
    ActId, BatchId, DeliveryId, EndpointId, IllFormed, KeyId, ProjectId, RequestId, TaskId, WorkerId,
};
pub use outcome::{Answer, Ending, ErrorCode, Payload, TaskError, Usage};
pub use request::{BatchLine, Fingerprint, Idempotency, NewTask, Policy, QueueName, Relay};
pub use retry::{Backoff, full_jitter};
pub use state::{State, Step, UnknownState};

use crate::clock::UnixMs;
use std::sync::Arc;

/// A task as its row tells it. Bodies are not in it: they are read on their own.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// Its id.
    pub id: TaskId,
    /// The tenant.
    pub project: ProjectId,
    /// The named lane it waits in.
    pub queue: QueueName,
    /// Place inside the queue, −100 to 100, higher first.
    pub priority: i16,
    /// Where it stands.
    pub state: State,
    /// The upstream path, e.g. `/v1/chat/completions`.
    pub endpoint: Arc<str>,
    /// The model named in the body.
    pub model: Arc<str>,
    /// How the answer is relayed.
    pub relay: Relay,
    /// Number of the newest attempt, 0 before the first: the fence.
    pub attempt: u32,
    /// Attempts of this run that count against `max_attempts`.
    pub failures: u32,
    /// Attempts of this run that took their worker down.
    pub crashes: u32,
    /// Failures at which the task is given up on.
    pub max_attempts: u32,
    /// `seq` of the newest event that the row knows of. It rises with every change of the row.
    pub last_seq: i64,
    /// When it was accepted.
    pub created_at: UnixMs,
    /// When it becomes ready, while `scheduled`.
    pub run_at: Option<UnixMs>,
    /// Start of the newest attempt.
    pub started_at: Option<UnixMs>,
    /// When it reached its terminal state.
    pub finished_at: Option<UnixMs>,
    /// The deadline of the run.
    pub expires_at: UnixMs,
    /// When row, payload and result may be removed.
    pub result_expires_at: Option<UnixMs>,
    /// The worker incarnation that runs it, while `in_progress`.
    pub worker: Option<WorkerId>,
    /// Its place in a batch.
    pub batch: Option<BatchLine>,
    /// The client's own key-value pairs, a JSON object as it came.
    pub metadata: Option<Arc<str>>,
    /// Why it did not complete: kept for failed, cancelled and expired tasks and between attempts.
    pub error: Option<TaskError>,
    /// Tokens, as the upstream reported them.
    pub usage: Option<Usage>,
    /// HTTP status of the kept answer, if there is one.
    pub answer_status: Option<u16>,
}
