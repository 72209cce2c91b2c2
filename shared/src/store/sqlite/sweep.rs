//! What the sweep finds and puts right. Verbs without input: they read what is due and write it, in one transaction.

use super::{
    super::{Bell, Forgotten, START_GAP, SUSPECT_CRASHES, Served},
    finish::{Recur, Stop, recur, stop},
    owner::remove,
    rows::{self, Fault, id_list, millis},
    upstreams::{self, capped, served},
};
use crate::{
    clock::UnixMs,
    task::{Change, ErrorCode, ProjectId, QueueName, State, TaskError, TaskId},
};
use sqlx::{Row, SqliteConnection, SqliteExecutor, SqlitePool};
use std::time::Duration;
use uuid::Uuid;

/// How long a reaped worker's row is kept for people to see.
const REAPED_KEPT: Duration = Duration::from_secs(60 * 60);

const CRASHED: &str = "The worker died while it ran the task.";

/// See [`super::super::Store::due`].
pub(super) async fn due(
    db: &mut SqliteConnection,
    now: UnixMs,
    limit: u32,
) -> Result<Vec<(Change, Bell)>, Fault> {
    // The queue timeout bounds the wait for the first attempt only.
    let sql = "update tasks set state = 'queued', last_seq = last_seq + 1, wake_at = min(expires_at, ifnull(ready_at + \
                 iif(attempt = 0, (select queue_timeout_ms from payloads where task = id), null), expires_at)) \
               where id in (select id from tasks where wake_at <= ?1 and state = 'scheduled' and expires_at > ?1 \
                 order by wake_at limit ?2) \
               returning id, project, batch, attempt, last_seq, state, started_at, finished_at, queue, priority, crashes";
    let found = sqlx::query(sql).bind(now.0).bind(limit).fetch_all(db).await?;
    found.iter().map(|row| Ok((rows::change(row)?, rows::bell(row)?))).collect()
}

/// The projects with tasks in queue ?1, and null.
macro_rules! tenants {
    () => {
        "tenants (project) as (
           select min(project) from tasks where state = 'queued' and queue = ?1
           union all
           select (select min(t.project) from tasks t
             where t.state = 'queued' and t.queue = ?1 and t.project > tenants.project)
           from tenants where tenants.project is not null
         )"
    };
}
pub(super) use tenants;

/// Up to ?2 tasks of queue ?1 that no deadline or timeout has caught at ?3 and that are served (?4, ?5),
/// but of no project in ?6, in this order; `turn` is a task's place in its project.
///
/// The projects are found by hopping over the index (SQLite has no skip scan of its own without statistics), and of each no
/// more than ?2 rows are read, so that the cost does not grow with the backlog.
macro_rules! select_ready {
    ($order:literal) => {
        concat!(
            "with recursive ",
            tenants!(),
            ", best as (
               select t.id, t.project, t.queue, t.priority, t.crashes,
                 row_number() over (partition by t.project order by t.priority desc, t.id) as turn
               from tenants cross join tasks t
               where t.wake_at > ?3 and tenants.project not in (select unhex(value) from json_each(?6)) and t.id in (select c.id from (
                 select id, priority, endpoint, model from tasks
                 where state = 'queued' and queue = ?1 and project = tenants.project
                 order by priority desc, id limit 50000) c where ",
            served!("c", "?4", "?5"),
            "
                 order by c.priority desc, c.id limit ?2)
             )
             select id, project, queue, priority, crashes from best order by ",
            $order,
            " limit ?2"
        )
    };
}
pub(super) use select_ready;

/// See [`super::super::Store::ready`].
pub(super) async fn ready(
    db: impl SqliteExecutor<'_>,
    queue: &QueueName,
    limit: u32,
    served: &Served,
) -> Result<Vec<Bell>, Fault> {
    if served.capped.usual.is_some() {
        return Ok(Vec::new());
    }
    // One after the other from each project: equal shares.
    let sql = select_ready!("turn, priority desc, id");
    let (endpoints, except) = upstreams::lists(served);
    let query = sqlx::query(sql).bind(queue.as_str()).bind(limit).bind(0).bind(endpoints).bind(except);
    let found = query.bind(capped(served)).fetch_all(db).await?;
    found.iter().map(rows::bell).collect()
}

/// How many more of project ?1 may run, of ?2 in all. The plus keeps the index of all its tasks out: few of them run.
pub(super) const ROOM: &str =
    "select max(?2 - count(*), 0) from tasks where started_by is not null and +project = ?1";

/// See [`super::super::Store::ready_capped`].
pub(super) async fn ready_capped(
    db: &SqlitePool,
    queues: &[QueueName],
    limit: u32,
    served: &Served,
) -> Result<Vec<Bell>, Fault> {
    const TENANTS: &str =
        concat!("with recursive ", tenants!(), " select project from tenants where project is not null");
    const SQL: &str = concat!(
        "select id, project, queue, priority, crashes from (
           select id, project, queue, priority, crashes, endpoint, model from tasks
           where state = 'queued' and queue = ?1 and project = ?2 order by priority desc, id limit 50000) c
         where c.crashes < ?5 and ",
        served!("c", "?3", "?4"),
        " order by c.priority desc, c.id limit ?6"
    );
    let (endpoints, except) = upstreams::lists(served);
    let mut bells = Vec::new();
    for queue in queues {
        let tenants: Vec<Uuid> = sqlx::query_scalar(TENANTS).bind(queue.as_str()).fetch_all(db).await?;
        for project in tenants {
            let Some(cap) = served.capped.of(ProjectId(project)) else { continue };
            let room: i64 = sqlx::query_scalar(ROOM).bind(project).bind(cap).fetch_one(db).await?;
            let query = sqlx::query(SQL).bind(queue.as_str()).bind(project).bind(&endpoints).bind(&except);
            let found = query.bind(SUSPECT_CRASHES).bind(room.min(limit.into())).fetch_all(db).await?;
            bells.extend(found.iter().map(rows::bell).collect::<Result<Vec<_>, Fault>>()?);
        }
    }
    Ok(bells)
}

/// See [`super::super::Store::expire`].
pub(super) async fn expire(db: &mut SqliteConnection, now: UnixMs, limit: u32) -> Result<Vec<Change>, Fault> {
    // A scheduled task wakes for its time as well, which is `due`'s business.
    let sql = "select id, attempt, expires_at <= ?1 as late from tasks \
               where wake_at <= ?1 and (state <> 'scheduled' or expires_at <= ?1) order by wake_at limit ?2";
    let found = sqlx::query(sql).bind(now.0).bind(limit).fetch_all(&mut *db).await?;
    let mut expired = Vec::with_capacity(found.len());
    for row in found {
        let (code, message) = if row.try_get("late")? {
            (ErrorCode::DeadlineExceeded, "The deadline passed before the task was done.")
        } else {
            (ErrorCode::QueueTimeout, "The task waited in its queue for longer than its queue timeout.")
        };
        let over = Stop { state: State::Expired, code, message, crashes: 0 };
        expired.extend(stop(db, now, TaskId(row.try_get("id")?), row.try_get("attempt")?, &over).await?);
    }
    Ok(expired)
}

/// See [`super::super::Store::reap`].
pub(super) async fn reap(
    db: &mut SqliteConnection,
    now: UnixMs,
    limit: u32,
    spread: Duration,
    crashes_max: u32,
) -> Result<Vec<Change>, Fault> {
    let sql = "update workers set reaped = 1 where not reaped and lease_until <= ?1";
    sqlx::query(sql).bind(now.0).execute(&mut *db).await?;
    // To blame is who was alone, or, of suspects, who has seen nobody start later or about when it did.
    let sql = "select id, attempt, blamed + not exists (select 1 from tasks o \
                 where o.state = 'in_progress' and o.started_by is t.started_by and o.id <> t.id \
                   and (t.crashes < ?2 or o.started_at > t.started_at - ?3)) as blamed \
               from tasks t where state = 'in_progress' \
                 and (started_by is null or started_by not in (select id from workers where not reaped)) \
               order by crashes desc limit ?1";
    let query = sqlx::query(sql).bind(limit).bind(SUSPECT_CRASHES).bind(millis(START_GAP));
    let found = query.fetch_all(&mut *db).await?;
    let mut taken = Vec::with_capacity(found.len());
    for row in found {
        let (task, attempt) = (TaskId(row.try_get("id")?), row.try_get("attempt")?);
        let blamed = row.try_get::<u32, _>("blamed")?;
        let sql = "update tasks set blamed = ?2 where id = ?1";
        sqlx::query(sql).bind(task.0).bind(blamed).execute(&mut *db).await?;
        taken.extend(if blamed >= crashes_max {
            let last =
                Stop { state: State::Failed, code: ErrorCode::WorkerCrashed, message: CRASHED, crashes: 1 };
            stop(db, now, task, attempt, &last).await?
        } else {
            let ready_at = UnixMs(now.0 + fastrand::i64(0..=millis(spread)));
            crashed(db, now, task, attempt, ready_at).await?
        });
    }
    Ok(taken)
}

async fn crashed(
    db: &mut SqliteConnection,
    now: UnixMs,
    task: TaskId,
    attempt: u32,
    ready_at: UnixMs,
) -> Result<Option<Change>, Fault> {
    let error = TaskError {
        code: ErrorCode::WorkerCrashed,
        message: CRASHED.into(),
        retryable: true,
        attempt,
        upstream_status: None,
        upstream_code: None,
        upstream_message: None,
    };
    let next = Recur {
        task,
        attempt,
        ready_at,
        failures: 0,
        crashes: 1,
        floor: 0,
        error: &error,
        usage: None,
        upstream: None,
    };
    recur(db, now, &next).await
}

/// See [`super::super::Store::forget`]. Old keys, workers and batches go with it.
pub(super) async fn forget(db: &mut SqliteConnection, now: UnixMs, limit: u32) -> Result<Forgotten, Fault> {
    let sql = "select id from tasks where result_expires_at <= ?1 order by result_expires_at limit ?2";
    let ids: Vec<Uuid> = sqlx::query_scalar(sql).bind(now.0).bind(limit).fetch_all(&mut *db).await?;
    let objects = if ids.is_empty() { Vec::new() } else { remove(db, &id_list(ids.iter().copied())).await? };
    let sql = "delete from idempotency where (project, key) in \
                 (select project, key from idempotency where expires_at <= ?1 order by expires_at limit ?2); \
               delete from workers where reaped and seen_at <= ?3; \
               delete from upstream_pauses where until <= ?3; \
               delete from batches where id in (select b.id from batches b where b.result_expires_at <= ?1 \
                 and not exists (select 1 from tasks where batch = b.id) order by b.result_expires_at limit 8) \
               returning id";
    let kept = now.0 - millis(REAPED_KEPT);
    let gone = sqlx::query(sql).bind(now.0).bind(limit).bind(kept).fetch_all(&mut *db).await?;
    for row in gone {
        let id: Uuid = row.try_get("id")?;
        sqlx::query("delete from batch_counts where batch = ?1").bind(id).execute(&mut *db).await?;
    }
    Ok(Forgotten { tasks: ids.len() as u64, objects })
}
