//! The truth: every promise of Longhaul rests on rows that are committed here.
//!
//! Domain verbs, not queries. Each is one statement (or one owned transaction on SQLite), safe to repeat, and decided on the
//! database's clock. Verbs that change a task's state are guarded by the state (and the attempt, where a worker speaks) and
//! return what they changed: a lost race is a value, not an error. `tests/it/conformance/store.rs` holds every
//! implementation to the docs below.

mod codec;
mod kept;
mod listing;
mod postgres;
mod registry;
mod served;
mod sqlite;
mod types;
mod webhooks;

pub use kept::{Kept, SHORT_BYTES};
pub use listing::{LOOKED_AT_MAX, METADATA_LOOKED_AT_MAX, TaskPage};
pub use postgres::PostgresStore;
pub use registry::{Act, Grant, Key, KnownKey, NewKey, Project, Registry, Whose};
pub use served::{Cap, Capped, Cause, Open, Pause, Scope, Served, UpstreamModels};
pub use sqlite::SqliteStore;
pub use types::*;
pub use webhooks::{
    DeliveryClaim, DeliveryQuery, ENDPOINTS_MAX, EndpointChange, FAILING_MAX, NewEndpoint, Receivers, Settle,
    Webhooks,
};

use crate::{
    clock::UnixMs,
    task::{BatchId, Change, Fingerprint, NewTask, Payload, ProjectId, QueueName, Task, TaskId, WorkerId},
};
use async_trait::async_trait;
use std::time::Duration;

/// What went wrong with the database; what the caller does next is the same for all of its causes.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not reachable, too slow or out of connections: nothing is known to be stored; try again with the same ids.
    #[error("the database is unavailable")]
    Unavailable(#[source] sqlx::Error),
    /// Out of space: nothing is stored, reading works, and it passes when there is room again.
    #[error("the database is out of space")]
    Full(#[source] sqlx::Error),
    /// The schema is older or newer than this program.
    #[error("{0}")]
    Schema(String),
    /// A row or statement that should not exist.
    #[error("the database answered with an error")]
    Broken(#[source] sqlx::Error),
    /// A stored value that this program cannot read.
    #[error("unreadable value in column {column}")]
    Unreadable {
        /// The column.
        column: &'static str,
    },
}

impl Error {
    /// Whether the same call may succeed later.
    #[must_use]
    pub fn passes(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Full(_))
    }

    /// No answer in time.
    #[must_use]
    pub fn silent() -> Self {
        Self::Unavailable(sqlx::Error::PoolTimedOut)
    }
}

/// Shorthand of this module's results.
pub type Result<T> = std::result::Result<T, Error>;

/// Hears of answers that are not promised yet: see [`Store::submit_early`].
pub type Early<'e> = &'e (dyn Fn(&[Submitted]) + Send + Sync);

/// The database, as the rooms use it.
#[async_trait]
pub trait Store: Send + Sync {
    // ── health and schema ────────────────────────────────────────────────────────────────────────────────────────────

    /// Applies the embedded migrations. Safe to repeat and to run from several processes at once.
    async fn migrate(&self) -> Result<()>;

    /// One cheap round trip that also checks that the schema is the one this program was built for.
    async fn check(&self) -> Result<()>;

    /// Writes a row that means nothing, and commits it: whether anything can be written is only known by that.
    async fn check_writing(&self) -> Result<()>;

    /// Brings everything into one file where there is one, and closes it. Nothing may be asked afterwards.
    async fn close(&self) -> Result<()> {
        Ok(())
    }

    // ── submit ───────────────────────────────────────────────────────────────────────────────────────────────────────

    /// Commits tasks: one answer per input, in order. A row that cannot be stored fails alone. An id that exists already
    /// answers [`Submitted::Accepted`] again (a repeat after a lost reply). Of several inputs with one idempotency key,
    /// in this call or in earlier ones of the last 24 h, exactly one is stored.
    async fn submit(&self, tasks: &[NewTask]) -> Result<Vec<Submitted>> {
        self.submit_early(tasks, &|_| {}).await
    }

    /// As [`Store::submit`], and calls `early` with the answers as soon as workers can claim the tasks. That may be before they
    /// survive a crash of the database: bells may ring, but nothing is promised. After an error it may have been called or not.
    async fn submit_early(&self, tasks: &[NewTask], early: Early<'_>) -> Result<Vec<Submitted>>;

    /// Commits a batch and its tasks together, all or none. Repeating it with the same ids changes nothing. Of several with one
    /// idempotency key, in the last 24 h, exactly one is stored; batches and tasks share their keys.
    async fn create_batch(&self, batch: &NewBatch, tasks: &[NewTask]) -> Result<BatchCreated>;

    // ── read ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    /// One task, if the project has it.
    async fn get(&self, project: ProjectId, id: TaskId) -> Result<Option<Task>>;

    /// A task with its kept answer, in one look. A body of more than [`SHORT_BYTES`] stays in its row: [`Store::answer`] reads it.
    async fn whole(&self, project: ProjectId, id: TaskId) -> Result<Option<(Task, Option<Kept>)>>;

    /// A page of the project's tasks. With filters it ends at the latest after [`LOOKED_AT_MAX`] rows were looked at.
    async fn list(&self, project: ProjectId, query: &ListQuery) -> Result<TaskPage>;

    /// The request body.
    async fn payload(&self, project: ProjectId, id: TaskId) -> Result<Option<Payload>>;

    /// The kept answer, if the task has one.
    async fn answer(&self, project: ProjectId, id: TaskId) -> Result<Option<crate::task::Answer>>;

    /// Where these tasks stand, in any order; unknown ids are left out. One statement for all that a process watches.
    async fn glance(&self, ids: &[TaskId]) -> Result<Vec<Change>>;

    /// Tasks ready before this one in its queue: approximate, `None` unless queued.
    async fn position(&self, project: ProjectId, id: TaskId) -> Result<Option<u64>>;

    /// One batch with exact counts, if the project has it.
    async fn batch(&self, project: ProjectId, id: BatchId) -> Result<Option<Batch>>;

    /// Newest first, ids below `after`, at most `limit`.
    async fn batches(&self, project: ProjectId, after: Option<BatchId>, limit: u32) -> Result<Page<Batch>>;

    /// Figures per queue of the project, or of all.
    async fn queues(&self, project: Option<ProjectId>) -> Result<Vec<QueueFigures>>;

    // ── the owner's verbs ────────────────────────────────────────────────────────────────────────────────────────────

    /// Ends the task as `cancelled`, whatever non-terminal state it is in. The result row gets the error; a line of a batch
    /// is counted as failed.
    async fn cancel(&self, project: ProjectId, id: TaskId, reason: &str) -> Result<Option<Cancelled>>;

    /// The task that an idempotency key stands for, and the request that it was used for.
    async fn keyed(&self, project: ProjectId, key: &str) -> Result<Option<(TaskId, Fingerprint)>>;

    /// How many tasks of the project wait, for a start in one of these queues or for their time; at most `most` are counted.
    async fn waiting(&self, project: ProjectId, queues: &[QueueName], most: u32) -> Result<u32>;

    /// Starts another run of a failed, cancelled or expired task: `failures` and `crashes` are zeroed, answer and error are
    /// removed, the deadline is set anew from the stored policy; the batch's count is taken back. `attempt` stays. What `rerun`
    /// says takes the place of what was said of the last run.
    async fn retry(&self, project: ProjectId, id: TaskId, rerun: &Rerun) -> Result<Option<Retried>>;

    /// Removes a task with its bodies. An active one only with `force` (its attempt is then aborted by the heartbeat).
    async fn delete(&self, project: ProjectId, id: TaskId, force: bool) -> Result<Option<Deleted>>;

    /// Asks for a batch's end: `cancelling`; its unfinished tasks are cancelled by [`Store::cancel_batch_tasks`].
    async fn cancel_batch(&self, project: ProjectId, id: BatchId) -> Result<Option<Batch>>;

    /// Cancels up to `limit` unfinished tasks of batches that are `cancelling`.
    async fn cancel_batch_tasks(&self, limit: u32) -> Result<Vec<Change>>;

    // ── the worker's verbs ───────────────────────────────────────────────────────────────────────────────────────────

    /// Registers a new worker incarnation.
    async fn register(&self, worker: &NewWorker) -> Result<()>;

    /// Extends the lease by `ttl`, and tells which attempts the database thinks are this worker's. `None`: the incarnation
    /// was reaped; abort everything and start a new one.
    async fn heartbeat(
        &self,
        worker: WorkerId,
        ttl: Duration,
        running: u32,
    ) -> Result<Option<Vec<(TaskId, u32)>>>;

    /// Takes the worker off the list; attempts it still holds are found by the reaper at once.
    async fn retire(&self, worker: WorkerId) -> Result<()>;

    /// Starts the next attempt of those of `ids` that are queued: `attempt + 1`, `in_progress`, for a worker whose lease is
    /// alive. Ids that do not come back are stale hints, not `served` at the moment, suspects ([`Store::has_suspects`]), or of
    /// projects with a cap.
    async fn claim(&self, worker: WorkerId, ids: &[TaskId], served: &Served) -> Result<Vec<Claimed>>;

    /// As [`Store::claim`], for tasks of projects with a cap: of each project as many as may still run, by priority, then age.
    /// However many workers claim at once, no more run than that.
    async fn claim_capped(&self, worker: WorkerId, ids: &[TaskId], served: &Served) -> Result<Vec<Claimed>>;

    /// Whether there are suspects, queued here and `served`: tasks that took their worker down [`SUSPECT_CRASHES`] times.
    async fn has_suspects(&self, queues: &[QueueName], served: &Served) -> Result<bool>;

    /// As [`Store::claim`], for the suspect that has waited longest and that no rival has. Its worker starts nothing else for
    /// [`START_GAP`] before and after.
    async fn claim_suspect(
        &self,
        worker: WorkerId,
        queues: &[QueueName],
        served: &Served,
    ) -> Result<Option<Claimed>>;

    /// As [`Store::claim`], for up to `limit` ready tasks of these queues, without a doorbell: for when Redis is away.
    async fn claim_ready(
        &self,
        worker: WorkerId,
        queues: &[QueueName],
        limit: u32,
        served: &Served,
    ) -> Result<Vec<Claimed>>;

    /// Writes terminal states, fenced by the attempt: one answer per input, in order. Result, usage and batch count go with
    /// the state in one commit. Repeating it for the same attempt and state is [`Finished::Applied`] again. Usage of an attempt
    /// that did not win is kept in `attempts`.
    async fn finish(&self, ends: &[Finish]) -> Result<Vec<Finished>>;

    /// Ends attempts that are followed by another one: `scheduled` at now + `delay`, fenced by the attempt. One answer per
    /// input, in order.
    async fn again(&self, agains: &[Again]) -> Result<Vec<Finished>>;

    /// Gives claims back uncharged: `queued`, fenced by worker and attempt.
    async fn release(&self, worker: WorkerId, claims: &[(TaskId, u32)]) -> Result<Vec<Change>>;

    // ── the sweep's verbs: no input, safe to run twice, skip locked rows ─────────────────────────────────────────────

    /// Moves up to `limit` due `scheduled` tasks to `queued`: what to tell watchers, and what to ring for.
    async fn due(&self, limit: u32) -> Result<Vec<(Change, Bell)>>;

    /// Up to `limit` ready tasks of a queue that are `served`: equal shares per project, by priority, then age. Changes nothing.
    /// Those of projects with a cap are left to [`Store::ready_capped`].
    async fn ready(&self, queue: &QueueName, limit: u32, served: &Served) -> Result<Vec<Bell>>;

    /// As [`Store::ready`], for projects with a cap: of each no more than may still run. `limit` counts for each of them in each queue.
    async fn ready_capped(&self, queues: &[QueueName], limit: u32, served: &Served) -> Result<Vec<Bell>>;

    /// Ends up to `limit` tasks whose deadline or queue timeout has passed.
    async fn expire(&self, limit: u32) -> Result<Vec<Change>>;

    /// Marks workers whose lease has run out as reaped, and takes up to `limit` attempts from owners that are missing or
    /// reaped: back to `scheduled` (with jitter up to `spread`) with `crashes + 1`, or `failed` (`worker_crashed`) at
    /// `crashes_max` crashes that it can be shown to have caused: its worker held nothing else, or it was a suspect and nothing else that
    /// runs had started later, or less than [`START_GAP`] before it. Who was only there has any number of them.
    async fn reap(&self, limit: u32, spread: Duration, crashes_max: u32) -> Result<Vec<Change>>;

    /// Closes batches that have no unfinished task: `in_progress` → `completed`, `cancelling` → `cancelled`. Returns their ids.
    async fn close_batches(&self, limit: u32) -> Result<Vec<BatchId>>;

    /// Removes up to `limit` tasks whose keeping time is over; returns the object keys to delete.
    async fn forget(&self, limit: u32) -> Result<Forgotten>;

    // ── upstreams ────────────────────────────────────────────────────────────────────────────────────────────────────

    /// Pauses an upstream or a model of it for `wait` from now, for everyone. The later end of two pauses counts; one that is to
    /// be tried stays so until [`Store::resume`].
    async fn pause(&self, scope: &Scope, wait: Duration, cause: Cause) -> Result<()>;

    /// Ends a pause.
    async fn resume(&self, scope: &Scope) -> Result<()>;

    /// Asks to be the one who tries what is failing and whose pause is over: `true` for one caller per `wait`.
    async fn probe(&self, scope: &Scope, wait: Duration) -> Result<bool>;

    /// What is paused, or was until a moment ago and is failing.
    async fn pauses(&self) -> Result<Vec<Pause>>;

    /// Notes which models an upstream lists; `None`: the list is unavailable.
    async fn put_models(&self, upstream: &str, models: Option<&[String]>) -> Result<()>;

    /// What workers noted in the last `within`.
    async fn models(&self, within: Duration) -> Result<Vec<UpstreamModels>>;

    /// Live worker incarnations.
    async fn workers(&self) -> Result<Vec<Worker>>;

    /// The database's clock.
    async fn now(&self) -> Result<UnixMs>;
}
