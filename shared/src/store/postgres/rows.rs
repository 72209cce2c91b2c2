//! From rows to values: the columns that a domain value is read from stand here once, beside the code that reads them.

use super::super::codec;
use crate::{
    clock::UnixMs,
    store::{Batch, Bell, Claimed, Error, Result},
    task::{
        Backoff, BatchId, BatchLine, Change, Payload, ProjectId, QueueName, State, Task, TaskId, Usage,
        WorkerId,
    },
};
use sqlx::{Decode, Postgres, Row, Type, postgres::PgRow};
use std::sync::Arc;
use uuid::Uuid;

/// A column, by name.
pub(super) fn get<'r, T: Decode<'r, Postgres> + Type<Postgres>>(row: &'r PgRow, column: &str) -> Result<T> {
    Ok(row.try_get(column)?)
}

pub(super) fn moment(row: &PgRow, column: &str) -> Result<Option<UnixMs>> {
    Ok(get::<Option<i64>>(row, column)?.map(UnixMs))
}

fn text(row: &PgRow, column: &str) -> Result<Arc<str>> {
    Ok(get::<&str>(row, column)?.into())
}

/// What [`change`] reads, of a table named `t`.
macro_rules! change_columns {
    () => {
        " t.id, t.project, t.batch, t.attempt, t.last_seq, t.state, \
         coalesce(t.finished_at, case t.state when 'in_progress' then t.started_at end) as changed_at "
    };
}
pub(super) use change_columns;

/// What [`task`] reads, of tables named `t`, `p` and `r`.
macro_rules! task_columns {
    () => {
        " t.*, p.custom_id, p.metadata, r.error, r.status, r.input_tokens, r.cached_tokens, r.output_tokens, \
         r.reasoning_tokens "
    };
}
pub(super) use task_columns;

/// Where [`task_columns`] come from.
macro_rules! task_tables {
    () => {
        " tasks t join payloads p on p.task = t.id left join results r on r.task = t.id "
    };
}
pub(super) use task_tables;

pub(super) fn task(row: &PgRow) -> Result<Task> {
    let state = codec::state(get(row, "state")?)?;
    let batch = get::<Option<Uuid>>(row, "batch")?.map(BatchId);
    Ok(Task {
        id: TaskId(get(row, "id")?),
        project: ProjectId(get(row, "project")?),
        queue: codec::queue(get(row, "queue")?)?,
        priority: get(row, "priority")?,
        state,
        endpoint: text(row, "endpoint")?,
        model: text(row, "model")?,
        relay: codec::relay(get(row, "relay")?)?,
        attempt: codec::small(get(row, "attempt")?),
        failures: codec::small(get::<i16>(row, "failures")?.into()),
        crashes: codec::small(get::<i16>(row, "crashes")?.into()),
        max_attempts: codec::small(get::<i16>(row, "max_attempts")?.into()),
        last_seq: get(row, "last_seq")?,
        created_at: UnixMs(get(row, "created_at")?),
        run_at: moment(row, "ready_at")?.filter(|_| state == State::Scheduled),
        started_at: moment(row, "started_at")?,
        finished_at: moment(row, "finished_at")?,
        expires_at: UnixMs(get(row, "expires_at")?),
        result_expires_at: moment(row, "result_expires_at")?,
        worker: get::<Option<Uuid>>(row, "started_by")?.map(WorkerId),
        batch: batch.map(|batch| line(row, batch)).transpose()?,
        metadata: codec::shared(get(row, "metadata")?),
        error: codec::error(get(row, "error")?)?,
        usage: codec::usage(tokens(row)?),
        answer_status: get::<Option<i16>>(row, "status")?.and_then(|status| status.try_into().ok()),
    })
}

fn line(row: &PgRow, batch: BatchId) -> Result<BatchLine> {
    let custom_id =
        get::<Option<&str>>(row, "custom_id")?.ok_or(Error::Unreadable { column: "custom_id" })?;
    Ok(BatchLine { batch, line: codec::small(get(row, "line")?), custom_id: custom_id.into() })
}

fn tokens(row: &PgRow) -> Result<[Option<i64>; 4]> {
    Ok([
        get(row, "input_tokens")?,
        get(row, "cached_tokens")?,
        get(row, "output_tokens")?,
        get(row, "reasoning_tokens")?,
    ])
}

pub(super) fn change(row: &PgRow) -> Result<Change> {
    Ok(Change {
        task: TaskId(get(row, "id")?),
        project: ProjectId(get(row, "project")?),
        batch: get::<Option<Uuid>>(row, "batch")?.map(BatchId),
        attempt: codec::small(get(row, "attempt")?),
        seq: get(row, "last_seq")?,
        state: codec::state(get(row, "state")?)?,
        at: moment(row, "changed_at")?,
    })
}

pub(super) fn changes(rows: &[PgRow]) -> Result<Vec<Change>> {
    rows.iter().map(change).collect()
}

/// Columns `id`, `project`, `queue`, `priority` and `crashes`.
pub(super) fn bell(row: &PgRow) -> Result<Bell> {
    Ok(Bell {
        task: TaskId(get(row, "id")?),
        project: ProjectId(get(row, "project")?),
        queue: codec::queue(get(row, "queue")?)?,
        priority: get(row, "priority")?,
        orphan: get::<i16>(row, "crashes")? > 0,
    })
}

/// Columns `body`, `object` and `object_len`.
pub(super) fn payload(row: &PgRow) -> Result<Payload> {
    if let Some(key) = get::<Option<String>>(row, "object")? {
        return Ok(Payload::Object { key, len: codec::count(get(row, "object_len")?) });
    }
    let body = get::<Option<Vec<u8>>>(row, "body")?.ok_or(Error::Unreadable { column: "body" })?;
    Ok(Payload::Inline(body.into()))
}

/// A payload as the three columns `body`, `object` and `object_len`.
pub(super) fn columns(payload: &Payload) -> (Option<&[u8]>, Option<&str>, Option<i64>) {
    match payload {
        Payload::Inline(body) => (Some(body), None, None),
        Payload::Object { key, len } => (None, Some(key), Some(i64::try_from(*len).unwrap_or(i64::MAX))),
    }
}

/// What [`claimed`] reads, of tables named `t` and `p`, besides `now`.
macro_rules! claimed_columns {
    () => {
        " t.*, (select now_ms()) as now, p.body, p.object, p.object_len, p.execution_timeout_ms, p.backoff_base_ms, \
         p.backoff_max_ms, p.reserved, p.moderation "
    };
}
pub(super) use claimed_columns;

/// Queues as an argument.
pub(super) fn names(queues: &[QueueName]) -> Vec<&str> {
    queues.iter().map(QueueName::as_str).collect()
}

pub(super) fn claimed(row: &PgRow) -> Result<Claimed> {
    let now: i64 = get(row, "now")?;
    Ok(Claimed {
        task: TaskId(get(row, "id")?),
        project: ProjectId(get(row, "project")?),
        batch: get::<Option<Uuid>>(row, "batch")?.map(BatchId),
        attempt: codec::small(get(row, "attempt")?),
        failures: codec::small(get::<i16>(row, "failures")?.into()),
        crashes: codec::small(get::<i16>(row, "crashes")?.into()),
        max_attempts: codec::small(get::<i16>(row, "max_attempts")?.into()),
        queue: codec::queue(get(row, "queue")?)?,
        endpoint: text(row, "endpoint")?,
        model: text(row, "model")?,
        relay: codec::relay(get(row, "relay")?)?,
        payload: payload(row)?,
        last_seq: get(row, "last_seq")?,
        floor_unknown: get(row, "floor_unknown")?,
        started_at: UnixMs(get(row, "started_at")?),
        time_left: codec::span(get::<i64>(row, "expires_at")? - now),
        execution_timeout: codec::span(get(row, "execution_timeout_ms")?),
        backoff: Backoff {
            base: codec::span(get(row, "backoff_base_ms")?),
            max: codec::span(get(row, "backoff_max_ms")?),
        },
        waited: codec::span(now - get::<i64>(row, "ready_at")?),
        reserved: codec::from_json(get(row, "reserved")?, "reserved")?,
        moderation: codec::from_json(get(row, "moderation")?, "moderation")?.unwrap_or_default(),
    })
}

/// What [`batch`] reads, of a table named `b`.
macro_rules! batch_columns {
    () => {
        " b.*, c.completed, c.failed, c.input_tokens, c.cached_tokens, c.output_tokens, c.reasoning_tokens "
    };
}
pub(super) use batch_columns;

/// The sums beside each `b`.
macro_rules! batch_counts {
    () => {
        " cross join lateral (select
            coalesce(sum(n.completed), 0)::bigint as completed, coalesce(sum(n.failed), 0)::bigint as failed,
            coalesce(sum(n.input_tokens), 0)::bigint as input_tokens,
            coalesce(sum(n.cached_tokens), 0)::bigint as cached_tokens,
            coalesce(sum(n.output_tokens), 0)::bigint as output_tokens,
            coalesce(sum(n.reasoning_tokens), 0)::bigint as reasoning_tokens
          from batch_counts n where n.batch = b.id) c "
    };
}
pub(super) use batch_counts;

pub(super) fn batch(row: &PgRow) -> Result<Batch> {
    let usage: Usage = codec::usage(tokens(row)?).unwrap_or_default();
    Ok(Batch {
        id: BatchId(get(row, "id")?),
        project: ProjectId(get(row, "project")?),
        state: codec::batch_state(get(row, "state")?)?,
        endpoint: text(row, "endpoint")?,
        completion_window: get(row, "completion_window")?,
        model: codec::shared(get(row, "model")?),
        metadata: codec::shared(get(row, "metadata")?),
        errors: get(row, "errors")?,
        created_at: UnixMs(get(row, "created_at")?),
        expires_at: UnixMs(get(row, "expires_at")?),
        in_progress_at: moment(row, "in_progress_at")?,
        finalizing_at: moment(row, "finalizing_at")?,
        cancelling_at: moment(row, "cancelling_at")?,
        finished_at: moment(row, "finished_at")?,
        total: codec::count(get::<i32>(row, "total")?.into()),
        completed: codec::count(get(row, "completed")?),
        failed: codec::count(get(row, "failed")?),
        usage,
    })
}

/// The bare ids, for an array parameter.
pub(super) fn uuids(ids: &[TaskId]) -> Vec<Uuid> {
    ids.iter().map(|id| id.0).collect()
}
