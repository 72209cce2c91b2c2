//! Batches: their state, and counts that are summed when asked for.

use super::{
    super::{Batch, Page},
    finish::{Stop, stop},
    rows::{self, Fault},
    webhooks,
};
use crate::{
    clock::UnixMs,
    task::{BatchId, Change, ErrorCode, ProjectId, State},
};
use sqlx::{Row, SqliteConnection, SqliteExecutor};
use uuid::Uuid;

/// Batches with exact counts. The page is cut first, so that only its counts are summed.
macro_rules! select_batches {
    ($page:literal) => {
        concat!(
            "with page as (select * from batches where ",
            $page,
            ") select page.*, ifnull(sum(c.completed), 0) as completed, ifnull(sum(c.failed), 0) as failed, \
             sum(c.input_tokens) as input_tokens, sum(c.cached_tokens) as cached_tokens, \
             sum(c.output_tokens) as output_tokens, sum(c.reasoning_tokens) as reasoning_tokens \
             from page left join batch_counts c on c.batch = page.id group by page.id order by page.id desc"
        )
    };
}

/// See [`super::super::Store::batch`].
pub(super) async fn batch(
    db: impl SqliteExecutor<'_>,
    project: ProjectId,
    id: BatchId,
) -> Result<Option<Batch>, Fault> {
    let sql = select_batches!("id = ?1 and project = ?2");
    let row = sqlx::query(sql).bind(id.0).bind(project.0).fetch_optional(db).await?;
    row.as_ref().map(rows::batch).transpose()
}

/// See [`super::super::Store::batches`].
pub(super) async fn batches(
    db: impl SqliteExecutor<'_>,
    project: ProjectId,
    after: Option<BatchId>,
    limit: u32,
) -> Result<Page<Batch>, Fault> {
    let limit = limit.clamp(1, 100) as usize;
    let sql = select_batches!("project = ?1 and id < ?2 order by id desc limit ?3");
    let below = after.map_or(Uuid::max(), |id| id.0);
    let found = sqlx::query(sql).bind(project.0).bind(below).bind(limit as i64 + 1).fetch_all(db).await?;
    let items = found.iter().take(limit).map(rows::batch).collect::<Result<_, _>>()?;
    Ok(Page { items, has_more: found.len() > limit })
}

/// See [`super::super::Store::cancel_batch`].
pub(super) async fn cancel_batch(
    db: &mut SqliteConnection,
    now: UnixMs,
    project: ProjectId,
    id: BatchId,
) -> Result<Option<Batch>, Fault> {
    let sql = "update batches set state = 'cancelling', cancelling_at = ?3 \
               where id = ?1 and project = ?2 and state in ('validating', 'in_progress')";
    sqlx::query(sql).bind(id.0).bind(project.0).bind(now.0).execute(&mut *db).await?;
    batch(db, project, id).await
}

/// See [`super::super::Store::cancel_batch_tasks`].
pub(super) async fn cancel_batch_tasks(
    db: &mut SqliteConnection,
    now: UnixMs,
    limit: u32,
) -> Result<Vec<Change>, Fault> {
    let sql = "select t.id, t.attempt from batches b cross join tasks t on t.batch = b.id and t.wake_at is not null \
               where b.state = 'cancelling' and b.finished_at is null limit ?1";
    let found = sqlx::query(sql).bind(limit).fetch_all(&mut *db).await?;
    let message = "The batch was cancelled.";
    let cancelled = Stop { state: State::Cancelled, code: ErrorCode::Cancelled, message, crashes: 0 };
    let mut changes = Vec::with_capacity(found.len());
    for (task, attempt) in rows::fences(&found)? {
        changes.extend(stop(db, now, task, attempt, &cancelled).await?);
    }
    Ok(changes)
}

/// See [`super::super::Store::close_batches`].
pub(super) async fn close_batches(
    db: &mut SqliteConnection,
    now: UnixMs,
    limit: u32,
) -> Result<Vec<BatchId>, Fault> {
    let sql = "update batches set finalizing_at = ?1, finished_at = ?1, result_expires_at = ?1 + result_ttl_ms, \
                 state = case when state = 'cancelling' then 'cancelled' \
                   when expires_at <= ?1 and exists (select 1 from tasks t where t.batch = batches.id and t.state = 'expired') \
                   then 'expired' else 'completed' end \
               where id in (select b.id from batches b \
                 where b.finished_at is null and b.state in ('in_progress', 'cancelling') \
                 and not exists (select 1 from tasks t where t.batch = b.id and t.wake_at is not null) limit ?2) \
               returning id, project, state";
    let closed = sqlx::query(sql).bind(now.0).bind(limit).fetch_all(&mut *db).await?;
    let mut ids = Vec::with_capacity(closed.len());
    for row in closed {
        let (id, project): (Uuid, Uuid) = (row.try_get("id")?, row.try_get("project")?);
        let event_type = format!("batch.{}", row.try_get::<&str, _>("state")?);
        webhooks::tell(db, now, ProjectId(project), &event_type, id).await?;
        ids.push(BatchId(id));
    }
    Ok(ids)
}
