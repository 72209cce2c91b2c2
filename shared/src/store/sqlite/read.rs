//! What clients ask for: tasks, bodies, places in a queue. One statement each; every one names the project.

use super::{
    super::{Kept, ListQuery, QueueFigures, SHORT_BYTES, TaskPage},
    rows::{self, Fault, id_list, json, select_task},
};
use crate::clock::UnixMs;
use crate::task::{Answer, Change, Fingerprint, Payload, ProjectId, QueueName, State, Task, TaskId};
use sqlx::{QueryBuilder, Row, Sqlite, SqliteExecutor, SqlitePool};

/// See [`super::super::Store::get`].
pub(super) async fn get(
    db: impl SqliteExecutor<'_>,
    project: ProjectId,
    id: TaskId,
) -> Result<Option<Task>, Fault> {
    let sql = select_task!("where t.id = ?1 and t.project = ?2");
    let row = sqlx::query(sql).bind(id.0).bind(project.0).fetch_optional(db).await?;
    row.as_ref().map(rows::task).transpose()
}

/// See [`super::super::Store::whole`].
pub(super) async fn whole(
    db: impl SqliteExecutor<'_>,
    project: ProjectId,
    id: TaskId,
) -> Result<Option<(Task, Option<Kept>)>, Fault> {
    let sql = select_task!(
        ", r.content_type, r.request_id, iif(length(r.body) <= ?3, r.body, null) as body, r.object, \
         coalesce(r.object_len, length(r.body)) as object_len",
        "where t.id = ?1 and t.project = ?2"
    );
    let query = sqlx::query(sql).bind(id.0).bind(project.0).bind(SHORT_BYTES);
    let Some(row) = query.fetch_optional(db).await? else { return Ok(None) };
    let task = rows::task(&row)?;
    let kept = task.answer_status.map(|status| rows::kept(&row, status)).transpose()?;
    Ok(Some((task, kept)))
}

/// See [`super::super::Store::list`].
pub(super) async fn list(db: &SqlitePool, project: ProjectId, query: &ListQuery) -> Result<TaskPage, Fault> {
    let bound = bound(db, project, query).await?;
    let mut sql = filtered(project, query);
    if let Some(bound) = bound {
        sql.push(if query.ascending { " and t.id <= " } else { " and t.id >= " }).push_bind(bound.0);
    }
    sql.push(if query.ascending { " order by t.id" } else { " order by t.id desc" });
    sql.push(" limit ").push_bind(i64::from(query.limit) + 1);
    let found = sql.build().fetch_all(db).await?;
    let found = found.iter().map(rows::task).collect::<Result<_, _>>()?;
    Ok(query.page(found, bound))
}

/// The last of so many rows after a cursor, in the order of ids alone, if there are as many.
async fn bound(db: &SqlitePool, project: ProjectId, query: &ListQuery) -> Result<Option<TaskId>, Fault> {
    let Some(rows) = query.looks_at() else { return Ok(None) };
    let sql = match query.ascending {
        true => {
            "select id from tasks where project = ?1 and (?2 is null or id > ?2) order by id limit 1 offset ?3"
        }
        false => {
            "select id from tasks where project = ?1 and (?2 is null or id < ?2) order by id desc limit 1 offset ?3"
        }
    };
    let row =
        sqlx::query_scalar(sql).bind(project.0).bind(query.after.map(|id| id.0)).bind(i64::from(rows) - 1);
    Ok(row.fetch_optional(db).await?.map(TaskId))
}

fn filtered(project: ProjectId, query: &ListQuery) -> QueryBuilder<Sqlite> {
    let mut sql = QueryBuilder::new(select_task!("where t.project = "));
    sql.push_bind(project.0);
    if !query.states.is_empty() {
        sql.push(" and t.state in (");
        let mut states = sql.separated(", ");
        query.states.iter().for_each(|state| {
            states.push_bind(state.as_str());
        });
        sql.push(")");
    }
    if let Some(queue) = &query.queue {
        sql.push(" and t.queue = ").push_bind(queue.as_str());
    }
    if let Some(model) = &query.model {
        sql.push(" and t.model = ").push_bind(model);
    }
    if let Some(batch) = query.batch {
        sql.push(" and t.batch = ").push_bind(batch.0);
    }
    for (key, value) in &query.metadata {
        // Not `->>`: a key that starts with `$` would be taken for a path.
        sql.push(" and exists (select 1 from json_each(p.metadata) pair where pair.key = ").push_bind(key);
        sql.push(" and pair.value = ").push_bind(value).push(")");
    }
    if let Some(moment) = query.created_after {
        sql.push(" and t.created_at >= ").push_bind(moment.0);
    }
    if let Some(moment) = query.created_before {
        sql.push(" and t.created_at <= ").push_bind(moment.0);
    }
    if let Some(after) = query.after {
        sql.push(if query.ascending { " and t.id > " } else { " and t.id < " }).push_bind(after.0);
    }
    sql
}

/// See [`super::super::Store::payload`].
pub(super) async fn payload(
    db: impl SqliteExecutor<'_>,
    project: ProjectId,
    id: TaskId,
) -> Result<Option<Payload>, Fault> {
    let sql = "select p.body, p.object, p.object_len from tasks t join payloads p on p.task = t.id \
               where t.id = ?1 and t.project = ?2";
    let row = sqlx::query(sql).bind(id.0).bind(project.0).fetch_optional(db).await?;
    Ok(row.as_ref().map(rows::payload).transpose()?.flatten())
}

/// See [`super::super::Store::answer`].
pub(super) async fn answer(
    db: impl SqliteExecutor<'_>,
    project: ProjectId,
    id: TaskId,
) -> Result<Option<Answer>, Fault> {
    let sql = "select r.status, r.content_type, r.request_id, r.body, r.object, r.object_len \
               from tasks t join results r on r.task = t.id \
               where t.id = ?1 and t.project = ?2 and r.status is not null";
    let row = sqlx::query(sql).bind(id.0).bind(project.0).fetch_optional(db).await?;
    row.as_ref().map(rows::answer).transpose()
}

/// See [`super::super::Store::glance`].
pub(super) async fn glance(db: impl SqliteExecutor<'_>, ids: &[TaskId]) -> Result<Vec<Change>, Fault> {
    let sql = "select id, project, batch, attempt, last_seq, state, started_at, finished_at from tasks \
               where id in (select unhex(value) from json_each(?1))";
    let found = sqlx::query(sql).bind(id_list(ids.iter().map(|id| id.0))).fetch_all(db).await?;
    found.iter().map(rows::change).collect()
}

/// See [`super::super::Store::position`].
pub(super) async fn position(
    db: impl SqliteExecutor<'_>,
    project: ProjectId,
    id: TaskId,
) -> Result<Option<u64>, Fault> {
    let sql = "select (select count(*) from tasks t where t.queue = me.queue and t.state = 'queued' \
                 and (t.priority, me.id) > (me.priority, t.id)) as ahead \
               from tasks me where me.id = ?1 and me.project = ?2 and me.state = 'queued'";
    let row = sqlx::query(sql).bind(id.0).bind(project.0).fetch_optional(db).await?;
    row.as_ref().map(|row| rows::count(row, "ahead")).transpose()
}

/// See [`super::super::Store::keyed`].
pub(super) async fn keyed(
    db: impl SqliteExecutor<'_>,
    now: UnixMs,
    project: ProjectId,
    key: &str,
) -> Result<Option<(TaskId, Fingerprint)>, Fault> {
    let sql = "select task, fingerprint from idempotency where project = ?1 and key = ?2 and expires_at > ?3";
    let row = sqlx::query(sql).bind(project.0).bind(key).bind(now.0).fetch_optional(db).await?;
    let Some(row) = row else { return Ok(None) };
    let print = Fingerprint::try_from(row.try_get::<&[u8], _>("fingerprint")?);
    Ok(Some((TaskId(row.try_get("task")?), print.map_err(|_| Fault::Unreadable("fingerprint"))?)))
}

/// See [`super::super::Store::waiting`].
pub(super) async fn waiting(
    db: impl SqliteExecutor<'_>,
    project: ProjectId,
    queues: &[QueueName],
    most: u32,
) -> Result<u32, Fault> {
    let sql = "select count(*) from ( \
                 select 1 from tasks where state = 'queued' and queue in (select value from json_each(?2)) and project = ?1 \
                 union all select 1 from tasks where state = 'scheduled' and project = ?1 \
                 limit ?3)";
    let query = sqlx::query_scalar(sql).bind(project.0).bind(json(&queues)).bind(most);
    Ok(query.fetch_one(db).await?)
}

/// See [`super::super::Store::queues`].
pub(super) async fn queues(
    db: impl SqliteExecutor<'_>,
    project: Option<ProjectId>,
) -> Result<Vec<QueueFigures>, Fault> {
    // Three parts, so that each has its own partial index.
    let sql = "select queue, 'queued' as state, count(*) as tasks, \
                 cast(unixepoch('subsec') * 1000 as integer) - min(ready_at) as age \
               from tasks where state = 'queued' and (?1 is null or project = ?1) group by queue \
               union all select queue, 'scheduled', count(*), null \
               from tasks where state = 'scheduled' and (?1 is null or project = ?1) group by queue \
               union all select queue, 'in_progress', count(*), null \
               from tasks where state = 'in_progress' and (?1 is null or project = ?1) group by queue order by queue";
    let mut figures: Vec<QueueFigures> = Vec::new();
    for row in sqlx::query(sql).bind(project.map(|project| project.0)).fetch_all(db).await? {
        let queue = rows::queue(&row)?;
        if figures.last().is_none_or(|last| last.queue != queue) {
            figures.push(QueueFigures { queue, queued: 0, scheduled: 0, in_progress: 0, oldest: None });
        }
        let Some(last) = figures.last_mut() else { continue };
        let tasks = rows::count(&row, "tasks")?;
        match rows::state(&row)? {
            State::Queued => {
                last.queued = tasks;
                last.oldest = row.try_get::<Option<i64>, _>("age")?.map(rows::duration);
            }
            State::Scheduled => last.scheduled = tasks,
            _ => last.in_progress = tasks,
        }
    }
    Ok(figures)
}
