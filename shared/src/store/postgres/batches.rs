//! Batches: a row beside its tasks, and counts that are only ever added to.

use super::{
    super::codec::{KEY_TTL, sentence},
    owner::{end, ended},
    read::page,
    rows::{self, batch_columns, batch_counts, change_columns, get as column},
    submit::{bind, fresh},
};
use crate::{
    clock::ms,
    store::{Batch, BatchCreated, NewBatch, Page, Result},
    task::{BatchId, Change, ErrorCode, Idempotency, NewTask, ProjectId},
};
use sqlx::PgPool;
use uuid::Uuid;

/// Tasks are written only with the batch's own row: a repeat finds that row and writes nothing.
const CREATE: &str = concat!(
    "with won as (
       insert into idempotency (project, key, fingerprint, task, expires_at)
       select $29, $38::text, $39::bytea, $28, now_ms() + $40 where $38 is not null
       on conflict (project, key) do update
         set fingerprint = excluded.fingerprint, task = excluded.task, expires_at = excluded.expires_at
         where idempotency.expires_at <= now_ms() or idempotency.task = excluded.task
       returning task
     ), born as (
       insert into batches (id, project, state, endpoint, completion_window, model, metadata, errors, total, created_at,
         expires_at, in_progress_at, finished_at, result_ttl_ms, result_expires_at)
       select $28, $29, case when $34::text is null then 'in_progress' else 'failed' end, $30, $31, $32, $33, $34, $35::int,
         now_ms(), now_ms() + $36, case when $34 is null then now_ms() end, case when $34 is not null then now_ms() end,
         $37, case when $34 is not null then now_ms() + $37 end
       where $38 is null or exists (select from won)
       on conflict (id) do nothing returning id
     ), ",
    fresh!("exists (select from born)"),
    "select (select count(*) from fresh) as tasks, $38 is null or exists (select from won) as won"
);

pub(super) async fn create(pool: &PgPool, batch: &NewBatch, tasks: &[NewTask]) -> Result<BatchCreated> {
    let key = batch.idempotency.as_ref();
    let row = bind(sqlx::query(CREATE), &tasks.iter().collect::<Vec<_>>())
        .bind(batch.id.0)
        .bind(batch.project.0)
        .bind(&*batch.endpoint)
        .bind(batch.completion_window.as_str())
        .bind(batch.model.as_deref())
        .bind(batch.metadata.as_deref())
        .bind(batch.errors.as_deref())
        .bind(i32::try_from(tasks.len()).unwrap_or(i32::MAX))
        .bind(ms(batch.window))
        .bind(ms(batch.result_ttl))
        .bind(key.map(|key| key.key.as_str()))
        .bind(key.map(|key| &key.fingerprint[..]))
        .bind(ms(KEY_TTL))
        .fetch_one(pool)
        .await?;
    match key {
        Some(key) if !column::<bool>(&row, "won")? => holder(pool, batch.project, key).await,
        _ => Ok(BatchCreated::Stored),
    }
}

/// What a key stands for that was taken by another request.
async fn holder(pool: &PgPool, project: ProjectId, key: &Idempotency) -> Result<BatchCreated> {
    let sql = "select task, fingerprint = $3 as same from idempotency where project = $1 and key = $2";
    let row =
        sqlx::query(sql).bind(project.0).bind(&key.key).bind(&key.fingerprint[..]).fetch_one(pool).await?;
    match column::<bool>(&row, "same")? {
        true => Ok(BatchCreated::Replayed(BatchId(column(&row, "task")?))),
        false => Ok(BatchCreated::KeyReused),
    }
}

pub(super) async fn get(pool: &PgPool, project: ProjectId, id: BatchId) -> Result<Option<Batch>> {
    const SQL: &str = concat!(
        "select",
        batch_columns!(),
        "from batches b",
        batch_counts!(),
        "where b.project = $1 and b.id = $2"
    );
    let row = sqlx::query(SQL).bind(project.0).bind(id.0).fetch_optional(pool).await?;
    row.as_ref().map(rows::batch).transpose()
}

pub(super) async fn list(
    pool: &PgPool,
    project: ProjectId,
    after: Option<BatchId>,
    limit: u32,
) -> Result<Page<Batch>> {
    const SQL: &str = concat!(
        "select",
        batch_columns!(),
        "from batches b",
        batch_counts!(),
        "where b.project = $1 and ($2::uuid is null or b.id < $2) order by b.id desc limit $3"
    );
    let query = sqlx::query(SQL).bind(project.0).bind(after.map(|id| id.0)).bind(i64::from(limit) + 1);
    page(&query.fetch_all(pool).await?, limit, rows::batch)
}

pub(super) async fn cancel(pool: &PgPool, project: ProjectId, id: BatchId) -> Result<Option<Batch>> {
    let sql = "update batches set state = 'cancelling', cancelling_at = now_ms()
      where project = $1 and id = $2 and state in ('validating', 'in_progress')";
    sqlx::query(sql).bind(project.0).bind(id.0).execute(pool).await?;
    get(pool, project, id).await
}

pub(super) async fn cancel_tasks(pool: &PgPool, limit: u32) -> Result<Vec<Change>> {
    const SQL: &str = concat!(
        "with picked as materialized (
           select t.id from batches b join tasks t on t.batch = b.id
           where b.finished_at is null and b.state = 'cancelling' and t.finished_at is null
           limit $1 for update of t skip locked
         ), ended as (
           update tasks t set state = 'cancelled',",
        end!(),
        "from picked join payloads p on p.task = picked.id
           where t.id = picked.id
           returning",
        change_columns!(),
        ", $2::text as code, $3::text as message, false as retryable, p.webhook
         ), ",
        ended!(),
        "select * from ended"
    );
    let code = ErrorCode::Cancelled;
    let query = sqlx::query(SQL).bind(i64::from(limit)).bind(code.as_str()).bind(sentence(code));
    rows::changes(&query.fetch_all(pool).await?)
}

/// Counts are folded first, for batches that have gathered some: what is summed at every look stays short.
const FOLD: &str = "with open as (
    select b.id from batches b
    where b.finished_at is null and (select count(*) from (select from batch_counts c where c.batch = b.id limit 100) n) >= 100
    for update of b skip locked
  ), taken as (
    delete from batch_counts c using open where c.batch = open.id returning c.*
  )
  insert into batch_counts (batch, task, attempt, completed, failed,
    input_tokens, cached_tokens, output_tokens, reasoning_tokens)
  select batch, '00000000-0000-0000-0000-000000000000', 0, sum(completed), sum(failed),
    sum(input_tokens), sum(cached_tokens), sum(output_tokens), sum(reasoning_tokens)
  from taken group by batch";

/// A batch whose counts are complete has no unfinished task; its tasks are only looked at then, to be sure. It is `expired`
/// if its window passed and took a line with it.
/// Receivers are told of it.
const CLOSE: &str = "with counted as materialized (
    select b.id from batches b
    where b.finished_at is null and b.state in ('in_progress', 'cancelling', 'finalizing')
      and b.total <= (select coalesce(sum(c.completed + c.failed), 0) from batch_counts c where c.batch = b.id)
    order by b.id limit $1 for update of b skip locked
  ), closed as (
  update batches b set finished_at = now_ms(), finalizing_at = coalesce(b.finalizing_at, now_ms()),
    result_expires_at = now_ms() + b.result_ttl_ms,
    state = case
      when b.state = 'cancelling' then 'cancelled'
      when b.expires_at <= now_ms() and exists (select from tasks t where t.batch = b.id and t.state = 'expired') then 'expired'
      else 'completed' end
  from counted
  where b.id = counted.id and not exists (select from tasks t where t.batch = b.id and t.finished_at is null)
  returning b.id, b.project, b.state
  ), told as (
    insert into webhook_deliveries (id, project, endpoint, target, event_type, subject, created_at, due_at)
    select uuid7(), c.project, e.id, e.id, 'batch.' || c.state, c.id, now_ms(), now_ms()
    from closed c join webhook_endpoints e on e.project = c.project
    where e.url is not null and e.disabled_at is null and position(' batch.' || c.state || ' ' in e.event_types) > 0
  )
  select id from closed";

pub(super) async fn close(pool: &PgPool, limit: u32) -> Result<Vec<BatchId>> {
    sqlx::query(FOLD).execute(pool).await?;
    let ids: Vec<Uuid> = sqlx::query_scalar(CLOSE).bind(i64::from(limit)).fetch_all(pool).await?;
    Ok(ids.into_iter().map(BatchId).collect())
}
