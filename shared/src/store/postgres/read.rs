//! Reads. Every one that serves a client carries its project.

use super::{
    super::codec,
    rows::{self, change_columns, get as column, names, task_columns, task_tables},
};
use crate::{
    clock::UnixMs,
    store::{Error, Kept, ListQuery, Page, QueueFigures, Result, SHORT_BYTES, TaskPage, Worker},
    task::{Answer, Change, Payload, ProjectId, QueueName, Task, TaskId, WorkerId},
};
use sqlx::{PgConnection, PgPool, postgres::PgRow};

/// Beyond this many tasks ahead per project, a position is only a bound.
const AHEAD_MAX: i64 = 10_000;

pub(super) async fn get(db: &mut PgConnection, project: ProjectId, id: TaskId) -> Result<Option<Task>> {
    const SQL: &str =
        concat!("select", task_columns!(), "from", task_tables!(), "where t.project = $1 and t.id = $2");
    let row = sqlx::query(SQL).bind(project.0).bind(id.0).fetch_optional(db).await?;
    row.as_ref().map(rows::task).transpose()
}

pub(super) async fn whole(
    db: &mut PgConnection,
    project: ProjectId,
    id: TaskId,
) -> Result<Option<(Task, Option<Kept>)>> {
    const SQL: &str = concat!(
        "select",
        task_columns!(),
        ", r.content_type, r.request_id, case when octet_length(r.body) <= $3 then r.body end as body, r.object,
           coalesce(r.object_len, octet_length(r.body)) as object_len from",
        task_tables!(),
        "where t.project = $1 and t.id = $2"
    );
    let query = sqlx::query(SQL).bind(project.0).bind(id.0).bind(i64::from(SHORT_BYTES));
    let row = query.fetch_optional(db).await?;
    let read = |row: &PgRow| {
        let task = rows::task(row)?;
        let kept = task.answer_status.map(|status| read_kept(row, status)).transpose()?;
        Ok((task, kept))
    };
    row.as_ref().map(read).transpose()
}

/// Tasks of any project: for repeats of a submit.
pub(super) async fn many(db: &mut PgConnection, ids: &[TaskId]) -> Result<Vec<Task>> {
    const SQL: &str = concat!("select", task_columns!(), "from", task_tables!(), "where t.id = any($1)");
    let found = sqlx::query(SQL).bind(rows::uuids(ids)).fetch_all(db).await?;
    found.iter().map(rows::task).collect()
}

/// Filters that are null vanish when the statement is planned, which happens for each call.
macro_rules! list {
    ($beyond:literal, $order:literal, $within:literal) => {
        concat!(
            "select",
            task_columns!(),
            "from",
            task_tables!(),
            "where t.project = $1
               and ($2::text[] is null or t.state = any($2))
               and ($3::text is null or t.queue = $3)
               and ($4::text is null or t.model = $4)
               and ($5::uuid is null or t.batch = $5)
               and ($6::bigint is null or t.created_at >= $6)
               and ($7::bigint is null or t.created_at <= $7)
               and ($8::text is null or case when p.metadata not like '%\\u0000%' then p.metadata::jsonb @> $8::jsonb end)
               and ($9::uuid is null or t.id ",
            $beyond,
            " $9) and ($11::uuid is null or t.id ",
            $within,
            " $11) order by t.id ",
            $order,
            " limit $10"
        )
    };
}

/// The last of so many rows after a cursor, in the order of ids alone, if there are as many.
async fn bound(pool: &PgPool, project: ProjectId, query: &ListQuery) -> Result<Option<TaskId>> {
    let Some(rows) = query.looks_at() else { return Ok(None) };
    let sql = match query.ascending {
        true => {
            "select id from tasks where project = $1 and ($2::uuid is null or id > $2) order by id offset $3 limit 1"
        }
        false => {
            "select id from tasks where project = $1 and ($2::uuid is null or id < $2) order by id desc offset $3 limit 1"
        }
    };
    let row =
        sqlx::query_scalar(sql).bind(project.0).bind(query.after.map(|id| id.0)).bind(i64::from(rows) - 1);
    Ok(row.fetch_optional(pool).await?.map(TaskId))
}

pub(super) async fn list(pool: &PgPool, project: ProjectId, query: &ListQuery) -> Result<TaskPage> {
    let sql = if query.ascending { list!(">", "asc", "<=") } else { list!("<", "desc", ">=") };
    let bound = bound(pool, project, query).await?;
    let states: Vec<&str> = query.states.iter().map(|state| state.as_str()).collect();
    let pairs: serde_json::Map<String, serde_json::Value> = query
        .metadata
        .iter()
        .map(|(key, value)| (codec::printable(key), codec::printable(value).into()))
        .collect();
    let found = sqlx::query(sql)
        .bind(project.0)
        .bind((!states.is_empty()).then_some(states))
        .bind(query.queue.as_ref().map(|queue| queue.as_str()))
        .bind(query.model.as_deref().map(codec::printable))
        .bind(query.batch.map(|batch| batch.0))
        .bind(query.created_after.map(|at| at.0))
        .bind(query.created_before.map(|at| at.0))
        .bind((!pairs.is_empty()).then(|| codec::json(&pairs)))
        .bind(query.after.map(|id| id.0))
        .bind(i64::from(query.limit) + 1)
        .bind(bound.map(|id| id.0))
        .fetch_all(pool)
        .await?;
    let found = found.iter().map(rows::task).collect::<Result<_>>()?;
    Ok(query.page(found, bound))
}

/// A page of `limit`, from rows of which one more was asked for.
pub(super) fn page<T>(found: &[PgRow], limit: u32, read: impl Fn(&PgRow) -> Result<T>) -> Result<Page<T>> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let items = found.iter().take(limit).map(read).collect::<Result<_>>()?;
    Ok(Page { items, has_more: found.len() > limit })
}

pub(super) async fn payload(
    db: &mut PgConnection,
    project: ProjectId,
    id: TaskId,
) -> Result<Option<Payload>> {
    let sql = "select p.body, p.object, p.object_len from tasks t join payloads p on p.task = t.id
      where t.project = $1 and t.id = $2";
    let row = sqlx::query(sql).bind(project.0).bind(id.0).fetch_optional(db).await?;
    row.as_ref().map(rows::payload).transpose()
}

pub(super) async fn answer(db: &mut PgConnection, project: ProjectId, id: TaskId) -> Result<Option<Answer>> {
    let sql = "select r.status, r.content_type, r.request_id, r.body, r.object, r.object_len
      from tasks t join results r on r.task = t.id
      where t.project = $1 and t.id = $2 and r.status is not null";
    let row = sqlx::query(sql).bind(project.0).bind(id.0).fetch_optional(db).await?;
    row.as_ref().map(read_answer).transpose()
}

fn read_kept(row: &PgRow, status: u16) -> Result<Kept> {
    let len =
        codec::count(column::<Option<i64>>(row, "object_len")?.ok_or(Error::Unreadable { column: "body" })?);
    let body = match column::<Option<String>>(row, "object")? {
        Some(key) => Some(Payload::Object { key, len }),
        None => column::<Option<Vec<u8>>>(row, "body")?.map(|body| Payload::Inline(body.into())),
    };
    Ok(Kept {
        status,
        content_type: column(row, "content_type")?,
        request_id: column(row, "request_id")?,
        len,
        body,
    })
}

fn read_answer(row: &PgRow) -> Result<Answer> {
    let status = column::<i16>(row, "status")?.try_into();
    Ok(Answer {
        status: status.map_err(|_| Error::Unreadable { column: "status" })?,
        content_type: column(row, "content_type")?,
        request_id: column(row, "request_id")?,
        body: rows::payload(row)?,
    })
}

pub(super) async fn glance(db: &mut PgConnection, ids: &[TaskId]) -> Result<Vec<Change>> {
    const SQL: &str = concat!("select", change_columns!(), "from tasks t where t.id = any($1)");
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    rows::changes(&sqlx::query(SQL).bind(rows::uuids(ids)).fetch_all(db).await?)
}

/// The projects that have ready tasks in a queue, hopping from one to the next on `tasks_ready`: the backlog's size does not
/// matter. Queue and project are compared as one pair, because `tasks_page` has projects in their order too: where a planner takes all
/// tasks for such of this queue, that index looks as good, and is read as a whole for a queue in which nobody waits. Ends with a null.
macro_rules! tenants {
    ($queue:literal) => {
        concat!(
            "tenants as (
               (select project from tasks where state = 'queued' and (queue, project) between (",
            $queue,
            ", '00000000-0000-0000-0000-000000000000'::uuid) and (",
            $queue,
            ", 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid)
               order by queue, project limit 1)
               union all
               select (select t.project from tasks t where t.state = 'queued' and (t.queue, t.project) > (",
            $queue,
            ", tenants.project) and (t.queue, t.project) <= (",
            $queue,
            ", 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid)
                 order by t.queue, t.project limit 1)
               from tenants where tenants.project is not null
             ) "
        )
    };
}
pub(super) use tenants;

pub(super) async fn position(pool: &PgPool, project: ProjectId, id: TaskId) -> Result<Option<u64>> {
    const SQL: &str = concat!(
        "with recursive me as (
           select id, queue, priority from tasks where project = $1 and id = $2 and state = 'queued'
         ), ",
        tenants!("(select queue from me)"),
        "select sum(a.higher + a.older)::bigint as ahead from me, tenants, lateral (select
           (select count(*) from (select from tasks t where t.state = 'queued' and t.queue = me.queue
             and t.project = tenants.project and t.priority > me.priority limit $3) h) as higher,
           (select count(*) from (select from tasks t where t.state = 'queued' and t.queue = me.queue
             and t.project = tenants.project and t.priority = me.priority and t.id < me.id limit $3) o) as older) a"
    );
    let query = sqlx::query_scalar(SQL).bind(project.0).bind(id.0).bind(AHEAD_MAX);
    let ahead: Option<i64> = query.fetch_one(pool).await?;
    Ok(ahead.map(codec::count))
}

pub(super) async fn waiting(
    pool: &PgPool,
    project: ProjectId,
    queues: &[QueueName],
    most: u32,
) -> Result<u32> {
    let sql = "select count(*) from (
        (select from unnest($2::text[]) as lanes(name), lateral (
           select from tasks where state = 'queued' and queue = lanes.name and project = $1 limit $3) q)
        union all (select from tasks where state = 'scheduled' and project = $1 limit $3)
        limit $3) waiting";
    let query = sqlx::query_scalar(sql).bind(project.0).bind(names(queues)).bind(i64::from(most));
    let waiting: i64 = query.fetch_one(pool).await?;
    Ok(u32::try_from(waiting).unwrap_or(u32::MAX))
}

pub(super) async fn queues(pool: &PgPool, project: Option<ProjectId>) -> Result<Vec<QueueFigures>> {
    // `wake_at` is set while a task is unfinished: the backlog is read, what is kept after the end is not.
    let sql = "select queue, count(*) filter (where state = 'queued') as queued,
        count(*) filter (where state = 'scheduled') as scheduled,
        count(*) filter (where state = 'in_progress') as in_progress,
        now_ms() - min(ready_at) filter (where state = 'queued') as oldest
      from tasks where wake_at is not null and ($1::uuid is null or project = $1) group by queue order by queue";
    let found = sqlx::query(sql).bind(project.map(|project| project.0)).fetch_all(pool).await?;
    let read = |row: &PgRow| {
        Ok(QueueFigures {
            queue: codec::queue(column(row, "queue")?)?,
            queued: codec::count(column(row, "queued")?),
            scheduled: codec::count(column(row, "scheduled")?),
            in_progress: codec::count(column(row, "in_progress")?),
            oldest: column::<Option<i64>>(row, "oldest")?.map(codec::span),
        })
    };
    found.iter().map(read).collect()
}

pub(super) async fn workers(pool: &PgPool) -> Result<Vec<Worker>> {
    let sql = "select id, name, slots, running, queues, seen_at from workers
      where not reaped and lease_until > now_ms() order by id";
    let found = sqlx::query(sql).fetch_all(pool).await?;
    let read = |row: &PgRow| {
        Ok(Worker {
            id: WorkerId(column(row, "id")?),
            name: column(row, "name")?,
            slots: codec::small(column(row, "slots")?),
            running: codec::small(column(row, "running")?),
            queues: codec::from_json(column(row, "queues")?, "queues")?.unwrap_or_default(),
            seen_at: UnixMs(column(row, "seen_at")?),
        })
    };
    found.iter().map(read).collect()
}

pub(super) async fn now(db: &mut PgConnection) -> Result<UnixMs> {
    Ok(UnixMs(sqlx::query_scalar("select now_ms()").fetch_one(db).await?))
}
