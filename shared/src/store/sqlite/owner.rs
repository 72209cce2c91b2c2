//! What the owner of a task can do to it.

use super::{
    super::{Bell, Cancelled, Deleted, Rerun, Retried},
    finish::{Stop, stop},
    rows::{self, Fault, id_list, json},
};
use crate::{
    clock::UnixMs,
    task::{ErrorCode, ProjectId, State, Step, TaskId},
};
use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};
use uuid::Uuid;

/// Where the task stands, as these verbs judge it.
async fn standing(
    db: &mut SqliteConnection,
    project: ProjectId,
    id: TaskId,
) -> Result<Option<(State, SqliteRow)>, Fault> {
    let sql = "select state, attempt, batch from tasks where id = ?1 and project = ?2";
    let row = sqlx::query(sql).bind(id.0).bind(project.0).fetch_optional(db).await?;
    row.map(|row| Ok((rows::state(&row)?, row))).transpose()
}

/// See [`super::super::Store::cancel`].
pub(super) async fn cancel(
    db: &mut SqliteConnection,
    now: UnixMs,
    project: ProjectId,
    id: TaskId,
    reason: String,
) -> Result<Option<Cancelled>, Fault> {
    let Some((state, row)) = standing(db, project, id).await? else { return Ok(None) };
    let cancelled =
        Stop { state: State::Cancelled, code: ErrorCode::Cancelled, message: &reason, crashes: 0 };
    let change = stop(db, now, id, row.try_get("attempt")?, &cancelled).await?;
    Ok(Some(change.map_or(Cancelled::Terminal(state), Cancelled::Applied)))
}

/// See [`super::super::Store::retry`].
pub(super) async fn retry(
    db: &mut SqliteConnection,
    now: UnixMs,
    project: ProjectId,
    id: TaskId,
    rerun: Rerun,
) -> Result<Option<Retried>, Fault> {
    let Some((state, row)) = standing(db, project, id).await? else { return Ok(None) };
    if state.next(Step::Retry).is_none() {
        return Ok(Some(Retried::Refused(state)));
    }
    if let Some(batch) = row.try_get::<Option<Uuid>, _>("batch")? {
        let sql = "select state = 'in_progress' from batches where id = ?1";
        if sqlx::query_scalar(sql).bind(batch).fetch_optional(&mut *db).await? != Some(true) {
            return Ok(Some(Retried::BatchClosed));
        }
    }
    // The run that is over moves out of the way: its line is taken back, the tokens it spent stay accounted, its result goes.
    let sql = "insert into batch_counts select batch, task, max(attempt), -sum(completed), -sum(failed), 0, 0, 0, 0 \
               from batch_counts where task = ?1 and batch = (select batch from tasks where id = ?1) \
               group by batch, task; \
               insert into attempts select task, attempt, ?2, upstream, error, \
                 input_tokens, cached_tokens, output_tokens, reasoning_tokens \
               from results where task = ?1 on conflict do nothing; \
               delete from results where task = ?1; \
               update payloads set reserved = ?3, moderation = ?4 where task = ?1; \
               update tasks set state = 'queued', ready_at = ?2, finished_at = null, result_expires_at = null, \
                 failures = 0, crashes = 0, blamed = 0, last_seq = last_seq + 1, expires_at = ?2 + p.ttl_ms, \
                 wake_at = ?2 + min(p.ttl_ms, ifnull(p.queue_timeout_ms, p.ttl_ms)) \
               from payloads p where tasks.id = ?1 and p.task = ?1 \
               returning id, project, batch, attempt, last_seq, state, started_at, finished_at, queue, priority, crashes";
    let moderation = (!rerun.moderation.is_empty()).then(|| json(&rerun.moderation));
    let query = sqlx::query(sql).bind(id.0).bind(now.0).bind(rerun.reserved.as_deref()).bind(moderation);
    let found = query.fetch_all(db).await?;
    let Some(row) = found.first() else { return Err(Fault::Unreadable("payloads.task")) };
    let bell: Bell = rows::bell(row)?;
    Ok(Some(Retried::Applied(rows::change(row)?, bell)))
}

/// See [`super::super::Store::delete`].
pub(super) async fn delete(
    db: &mut SqliteConnection,
    _now: UnixMs,
    project: ProjectId,
    id: TaskId,
    force: bool,
) -> Result<Option<Deleted>, Fault> {
    let Some((state, _)) = standing(db, project, id).await? else { return Ok(None) };
    if !state.is_terminal() && !force {
        return Ok(Some(Deleted::Active(state)));
    }
    // A line that is removed before its end will have none: it counts as failed, so that its batch adds up.
    let sql = "insert into batch_counts select batch, id, attempt, 0, 1, 0, 0, 0, 0 from tasks \
               where id = ?1 and batch is not null and wake_at is not null";
    sqlx::query(sql).bind(id.0).execute(&mut *db).await?;
    Ok(Some(Deleted::Applied(remove(db, &id_list([id.0].into_iter())).await?)))
}

/// Removes every trace of these tasks ([`id_list`]) but their batch counts; returns the objects that held their bodies.
pub(super) async fn remove(db: &mut SqliteConnection, ids: &str) -> Result<Vec<String>, Fault> {
    let sql = "select object from payloads where object is not null and task in (select unhex(value) from json_each(?1)) \
               union all \
               select object from results where object is not null and task in (select unhex(value) from json_each(?1)); \
               delete from payloads where task in (select unhex(value) from json_each(?1)); \
               delete from results where task in (select unhex(value) from json_each(?1)); \
               delete from attempts where task in (select unhex(value) from json_each(?1)); \
               delete from idempotency where task in (select unhex(value) from json_each(?1)); \
               delete from tasks where id in (select unhex(value) from json_each(?1))";
    let found = sqlx::query(sql).bind(ids).fetch_all(db).await?;
    found.iter().map(|row| Ok(row.try_get("object")?)).collect()
}
