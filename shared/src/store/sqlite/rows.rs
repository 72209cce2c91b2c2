//! Between rows and domain types: what every leaf of this folder needs to read and write values. No statement of its own.

use super::super::{Batch, BatchState, Bell, Claimed, Error, Kept};
use crate::{
    clock::{UnixMs, ms},
    task::{
        Answer, Backoff, BatchId, BatchLine, Change, Payload, ProjectId, QueueName, Relay, State, Task,
        TaskError, TaskId, Usage, WorkerId,
    },
};
use serde::{Serialize, de::DeserializeOwned};
use sqlx::{
    Row, Sqlite,
    query::Query,
    sqlite::{SqliteArguments, SqliteRow},
};
use std::{sync::Arc, time::Duration};
use uuid::Uuid;

/// Every duration is cut to this many milliseconds (35,000 years), so that sums of moments stay integers.
const FOREVER_MS: i64 = 1 << 50;

/// What a leaf can fail with; it becomes the trait's error where it leaves this folder.
#[derive(Debug)]
pub(super) enum Fault {
    /// A statement failed.
    Sql(sqlx::Error),
    /// A stored value of this column makes no sense.
    Unreadable(&'static str),
}

impl From<sqlx::Error> for Fault {
    fn from(error: sqlx::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Sql(error) if code(&error) == Some(13) => Self::Full(error),
            Fault::Sql(error) if is_unavailable(&error) => Self::Unavailable(error),
            Fault::Sql(error) => Self::Broken(error),
            Fault::Unreadable(column) => Self::Unreadable { column },
        }
    }
}

/// SQLite's primary result code.
fn code(error: &sqlx::Error) -> Option<i32> {
    error.as_database_error()?.code()?.parse::<i32>().ok().map(|extended| extended & 0xff)
}

/// Busy, locked, out of memory, read-only, I/O error, cannot open: the machine's fault, and it may pass.
fn is_unavailable(error: &sqlx::Error) -> bool {
    let away = matches!(
        error,
        sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed
    );
    away || matches!(code(error), Some(5..=8 | 10 | 14))
}

/// Too big, constraint, mismatch: the row's own fault, so that its neighbours need not share it.
pub(super) fn is_of_the_row(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Encode(_)) || matches!(code(error), Some(18..=20))
}

/// A duration as it is stored.
pub(super) fn millis(duration: Duration) -> i64 {
    ms(duration).min(FOREVER_MS)
}

/// Stored milliseconds as a duration; what lies in the past is zero.
pub(super) fn duration(millis: i64) -> Duration {
    Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}

/// A list of ids as one bound value: a JSON array of hex digits, for `in (select unhex(value) from json_each(?))`.
pub(super) fn id_list(ids: impl Iterator<Item = Uuid>) -> String {
    json(&ids.map(|id| format!("{:x}", id.simple())).collect::<Vec<_>>())
}

/// A value as the JSON text that is stored of it.
pub(super) fn json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("strings, numbers and lists of them are JSON")
}

/// Stored JSON.
pub(super) fn from_json<T: DeserializeOwned>(text: &str, column: &'static str) -> Result<T, Fault> {
    serde_json::from_str(text).map_err(|_| Fault::Unreadable(column))
}

/// A statement on its way to being run.
pub(super) type Statement<'q> = Query<'q, Sqlite, SqliteArguments>;

/// Binds `body, object, object_len`.
pub(super) fn bind_payload<'q>(statement: Statement<'q>, payload: Option<&'q Payload>) -> Statement<'q> {
    let (body, object, len) = match payload {
        None => (None, None, None),
        Some(Payload::Inline(bytes)) => (Some(&bytes[..]), None, None),
        Some(Payload::Object { key, len }) => {
            (None, Some(key), Some(i64::try_from(*len).unwrap_or(i64::MAX)))
        }
    };
    statement.bind(body).bind(object).bind(len)
}

/// Binds `input_tokens, cached_tokens, output_tokens, reasoning_tokens`.
pub(super) fn bind_usage<'q>(statement: Statement<'q>, usage: Option<Usage>) -> Statement<'q> {
    statement
        .bind(usage.map(|usage| usage.input_tokens))
        .bind(usage.map(|usage| usage.cached_tokens))
        .bind(usage.map(|usage| usage.output_tokens))
        .bind(usage.map(|usage| usage.reasoning_tokens))
}

/// The columns that [`task`] reads, and where they come from.
macro_rules! select_task {
    ($rest:literal) => {
        select_task!("", $rest)
    };
    ($more:literal, $rest:literal) => {
        concat!(
            "select t.id, t.project, t.batch, t.started_by, t.created_at, t.ready_at, t.started_at, t.finished_at, \
             t.expires_at, t.result_expires_at, t.last_seq, t.line, t.attempt, t.failures, t.crashes, \
             t.max_attempts, t.priority, t.state, t.queue, t.relay, t.endpoint, t.model, p.custom_id, p.metadata, \
             r.status, r.error, r.input_tokens, r.cached_tokens, r.output_tokens, r.reasoning_tokens ",
            $more,
            " from tasks t left join payloads p on p.task = t.id left join results r on r.task = t.id ",
            $rest
        )
    };
}
pub(super) use select_task;

pub(super) fn task(row: &SqliteRow) -> Result<Task, Fault> {
    let state = state(row)?;
    let ready_at = UnixMs(row.try_get("ready_at")?);
    let error: Option<&str> = row.try_get("error")?;
    Ok(Task {
        id: TaskId(row.try_get("id")?),
        project: ProjectId(row.try_get("project")?),
        queue: queue(row)?,
        priority: row.try_get("priority")?,
        state,
        endpoint: text(row, "endpoint")?,
        model: text(row, "model")?,
        relay: relay(row)?,
        attempt: row.try_get("attempt")?,
        failures: row.try_get("failures")?,
        crashes: row.try_get("crashes")?,
        max_attempts: row.try_get("max_attempts")?,
        last_seq: row.try_get("last_seq")?,
        created_at: UnixMs(row.try_get("created_at")?),
        run_at: (state == State::Scheduled).then_some(ready_at),
        started_at: moment(row, "started_at")?,
        finished_at: moment(row, "finished_at")?,
        expires_at: UnixMs(row.try_get("expires_at")?),
        result_expires_at: moment(row, "result_expires_at")?,
        worker: row.try_get::<Option<Uuid>, _>("started_by")?.map(WorkerId),
        batch: batch_line(row)?,
        metadata: row.try_get::<Option<&str>, _>("metadata")?.map(Arc::from),
        error: error.map(|text| from_json::<TaskError>(text, "error")).transpose()?,
        usage: usage(row)?,
        answer_status: row.try_get("status")?,
    })
}

/// From `id, project, batch, attempt, last_seq, state, started_at, finished_at`.
pub(super) fn change(row: &SqliteRow) -> Result<Change, Fault> {
    let state = state(row)?;
    let started_at = row.try_get::<Option<i64>, _>("started_at")?.filter(|_| state == State::InProgress);
    let at = row.try_get::<Option<i64>, _>("finished_at")?.or(started_at).map(UnixMs);
    Ok(Change {
        task: TaskId(row.try_get("id")?),
        project: ProjectId(row.try_get("project")?),
        batch: batch_id(row)?,
        attempt: row.try_get("attempt")?,
        seq: row.try_get("last_seq")?,
        state,
        at,
    })
}

/// `id` and `attempt` of each row.
pub(super) fn fences(rows: &[SqliteRow]) -> Result<Vec<(TaskId, u32)>, Fault> {
    rows.iter().map(|row| Ok((TaskId(row.try_get("id")?), row.try_get("attempt")?))).collect()
}

/// From `id, project, queue, priority, crashes`.
pub(super) fn bell(row: &SqliteRow) -> Result<Bell, Fault> {
    Ok(Bell {
        task: TaskId(row.try_get("id")?),
        project: ProjectId(row.try_get("project")?),
        queue: queue(row)?,
        priority: row.try_get("priority")?,
        orphan: row.try_get::<u32, _>("crashes")? > 0,
    })
}

pub(super) fn claimed(row: &SqliteRow, now: UnixMs) -> Result<Claimed, Fault> {
    Ok(Claimed {
        task: TaskId(row.try_get("id")?),
        project: ProjectId(row.try_get("project")?),
        batch: batch_id(row)?,
        attempt: row.try_get("attempt")?,
        failures: row.try_get("failures")?,
        crashes: row.try_get("crashes")?,
        max_attempts: row.try_get("max_attempts")?,
        queue: queue(row)?,
        endpoint: text(row, "endpoint")?,
        model: text(row, "model")?,
        relay: relay(row)?,
        payload: payload(row)?.ok_or(Fault::Unreadable("body"))?,
        last_seq: row.try_get("last_seq")?,
        floor_unknown: row.try_get("floor_unknown")?,
        started_at: UnixMs(row.try_get("started_at")?),
        time_left: duration(row.try_get::<i64, _>("expires_at")? - now.0),
        execution_timeout: duration(row.try_get("execution_timeout_ms")?),
        backoff: Backoff {
            base: duration(row.try_get("backoff_base_ms")?),
            max: duration(row.try_get("backoff_max_ms")?),
        },
        waited: duration(now.0 - row.try_get::<i64, _>("ready_at")?),
        reserved: row
            .try_get::<Option<&str>, _>("reserved")?
            .map(|text| from_json(text, "reserved"))
            .transpose()?,
        moderation: row
            .try_get::<Option<&str>, _>("moderation")?
            .map(|text| from_json(text, "moderation"))
            .transpose()?
            .unwrap_or_default(),
    })
}

/// From `body, object, object_len`; `None` if there is neither.
pub(super) fn payload(row: &SqliteRow) -> Result<Option<Payload>, Fault> {
    if let Some(key) = row.try_get::<Option<String>, _>("object")? {
        let len = u64::try_from(row.try_get::<i64, _>("object_len")?)
            .map_err(|_| Fault::Unreadable("object_len"))?;
        return Ok(Some(Payload::Object { key, len }));
    }
    Ok(row.try_get::<Option<Vec<u8>>, _>("body")?.map(|bytes| Payload::Inline(bytes.into())))
}

/// From `content_type, request_id, body, object, object_len`, the latter the length of whichever there is.
pub(super) fn kept(row: &SqliteRow, status: u16) -> Result<Kept, Fault> {
    Ok(Kept {
        status,
        content_type: row.try_get("content_type")?,
        request_id: row.try_get("request_id")?,
        len: u64::try_from(row.try_get::<i64, _>("object_len")?)
            .map_err(|_| Fault::Unreadable("object_len"))?,
        body: payload(row)?,
    })
}

pub(super) fn answer(row: &SqliteRow) -> Result<Answer, Fault> {
    Ok(Answer {
        status: row.try_get("status")?,
        content_type: row.try_get("content_type")?,
        request_id: row.try_get("request_id")?,
        body: payload(row)?.ok_or(Fault::Unreadable("body"))?,
    })
}

pub(super) fn batch(row: &SqliteRow) -> Result<Batch, Fault> {
    let word: &str = row.try_get("state")?;
    Ok(Batch {
        id: BatchId(row.try_get("id")?),
        project: ProjectId(row.try_get("project")?),
        state: BatchState::ALL
            .into_iter()
            .find(|state| state.as_str() == word)
            .ok_or(Fault::Unreadable("batches.state"))?,
        endpoint: text(row, "endpoint")?,
        completion_window: row.try_get("completion_window")?,
        model: row.try_get::<Option<&str>, _>("model")?.map(Arc::from),
        metadata: row.try_get::<Option<&str>, _>("metadata")?.map(Arc::from),
        errors: row.try_get("errors")?,
        created_at: UnixMs(row.try_get("created_at")?),
        expires_at: UnixMs(row.try_get("expires_at")?),
        in_progress_at: moment(row, "in_progress_at")?,
        finalizing_at: moment(row, "finalizing_at")?,
        cancelling_at: moment(row, "cancelling_at")?,
        finished_at: moment(row, "finished_at")?,
        total: count(row, "total")?,
        completed: count(row, "completed")?,
        failed: count(row, "failed")?,
        usage: usage(row)?.unwrap_or_default(),
    })
}

pub(super) fn queue(row: &SqliteRow) -> Result<QueueName, Fault> {
    QueueName::new(row.try_get("queue")?).ok_or(Fault::Unreadable("queue"))
}

pub(super) fn state(row: &SqliteRow) -> Result<State, Fault> {
    row.try_get::<&str, _>("state")?.parse().map_err(|_| Fault::Unreadable("state"))
}

pub(super) fn count(row: &SqliteRow, column: &'static str) -> Result<u64, Fault> {
    u64::try_from(row.try_get::<i64, _>(column)?).map_err(|_| Fault::Unreadable(column))
}

fn relay(row: &SqliteRow) -> Result<Relay, Fault> {
    let word: &str = row.try_get("relay")?;
    [Relay::Lifecycle, Relay::Deltas]
        .into_iter()
        .find(|relay| relay.as_str() == word)
        .ok_or(Fault::Unreadable("relay"))
}

fn batch_id(row: &SqliteRow) -> Result<Option<BatchId>, Fault> {
    Ok(row.try_get::<Option<Uuid>, _>("batch")?.map(BatchId))
}

fn batch_line(row: &SqliteRow) -> Result<Option<BatchLine>, Fault> {
    let Some(batch) = batch_id(row)? else { return Ok(None) };
    Ok(Some(BatchLine { batch, line: row.try_get("line")?, custom_id: text(row, "custom_id")? }))
}

fn usage(row: &SqliteRow) -> Result<Option<Usage>, Fault> {
    let Some(input_tokens) = row.try_get("input_tokens")? else { return Ok(None) };
    Ok(Some(Usage {
        input_tokens,
        cached_tokens: row.try_get("cached_tokens")?,
        output_tokens: row.try_get("output_tokens")?,
        reasoning_tokens: row.try_get("reasoning_tokens")?,
    }))
}

fn text(row: &SqliteRow, column: &'static str) -> Result<Arc<str>, Fault> {
    Ok(row.try_get::<&str, _>(column)?.into())
}

fn moment(row: &SqliteRow, column: &'static str) -> Result<Option<UnixMs>, Fault> {
    Ok(row.try_get::<Option<i64>, _>(column)?.map(UnixMs))
}
