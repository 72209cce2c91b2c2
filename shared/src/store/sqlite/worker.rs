//! Leases and claims.

use super::{
    super::{Claimed, NewWorker, SUSPECT_CRASHES, Served, Worker},
    rows::{self, Fault, from_json, id_list, json, millis},
    sweep::{ROOM, select_ready, tenants},
    upstreams::{self, capped, served},
};
use crate::{
    clock::UnixMs,
    task::{Change, ProjectId, QueueName, TaskId, WorkerId},
};
use sqlx::{Row, SqliteConnection, SqliteExecutor};
use std::time::Duration;
use uuid::Uuid;

/// See [`super::super::Store::register`].
pub(super) async fn register(db: &mut SqliteConnection, now: UnixMs, worker: NewWorker) -> Result<(), Fault> {
    let sql = "insert into workers (id, name, slots, queues, seen_at, lease_until) values (?1, ?2, ?3, ?4, ?5, ?6) \
               on conflict do nothing";
    sqlx::query(sql)
        .bind(worker.id.0)
        .bind(&worker.name)
        .bind(worker.slots)
        .bind(json(&worker.queues))
        .bind(now.0)
        .bind(now.0 + millis(worker.ttl))
        .execute(db)
        .await?;
    Ok(())
}

/// See [`super::super::Store::heartbeat`].
pub(super) async fn heartbeat(
    db: &mut SqliteConnection,
    now: UnixMs,
    worker: WorkerId,
    ttl: Duration,
    running: u32,
) -> Result<Option<Vec<(TaskId, u32)>>, Fault> {
    let sql = "update workers set seen_at = ?2, lease_until = ?3, running = ?4 where id = ?1 and not reaped";
    let beat = sqlx::query(sql).bind(worker.0).bind(now.0).bind(now.0 + millis(ttl)).bind(running);
    if beat.execute(&mut *db).await?.rows_affected() == 0 {
        return Ok(None);
    }
    let sql = "select id, attempt from tasks where started_by = ?1 and state = 'in_progress'";
    let held = sqlx::query(sql).bind(worker.0).fetch_all(db).await?;
    Ok(Some(rows::fences(&held)?))
}

/// See [`super::super::Store::retire`].
pub(super) async fn retire(db: &mut SqliteConnection, _now: UnixMs, worker: WorkerId) -> Result<(), Fault> {
    sqlx::query("delete from workers where id = ?1").bind(worker.0).execute(db).await?;
    Ok(())
}

/// See [`super::super::Store::claim`]. A task past its deadline or queue timeout is left to the sweep.
pub(super) async fn claim(
    db: &mut SqliteConnection,
    now: UnixMs,
    worker: WorkerId,
    ids: Vec<TaskId>,
    served: Served,
) -> Result<Vec<Claimed>, Fault> {
    if served.capped.usual.is_some() {
        return Ok(Vec::new());
    }
    let capped = capped(&served);
    start(db, now, worker, ids, &served, Some(capped), 0..SUSPECT_CRASHES).await
}

/// See [`super::super::Store::claim_capped`]. Nobody else writes meanwhile.
pub(super) async fn claim_capped(
    db: &mut SqliteConnection,
    now: UnixMs,
    worker: WorkerId,
    ids: Vec<TaskId>,
    served: Served,
) -> Result<Vec<Claimed>, Fault> {
    let sql = "select id, project from tasks where id in (select unhex(value) from json_each(?1)) \
                 and state = 'queued' and wake_at > ?2 and crashes < ?3 order by project, priority desc, id";
    let wanted = id_list(ids.iter().map(|id| id.0));
    let query = sqlx::query_as(sql).bind(wanted).bind(now.0).bind(SUSPECT_CRASHES);
    let wanted: Vec<(Uuid, Uuid)> = query.fetch_all(&mut *db).await?;
    let mut may = Vec::new();
    for tasks in wanted.chunk_by(|(_, one), (_, next)| one == next) {
        let project = tasks[0].1;
        let Some(cap) = served.capped.of(ProjectId(project)) else { continue };
        let room: i64 = sqlx::query_scalar(ROOM).bind(project).bind(cap).fetch_one(&mut *db).await?;
        may.extend(tasks.iter().take(usize::try_from(room).unwrap_or(0)).map(|(id, _)| TaskId(*id)));
    }
    start(db, now, worker, may, &served, None, 0..SUSPECT_CRASHES).await
}

/// See [`super::super::Store::has_suspects`].
pub(super) async fn has_suspects(
    db: impl SqliteExecutor<'_>,
    now: UnixMs,
    queues: &[QueueName],
    served: &Served,
) -> Result<bool, Fault> {
    Ok(first_suspect(db, now, queues, served).await?.is_some())
}

/// See [`super::super::Store::claim_suspect`].
pub(super) async fn claim_suspect(
    db: &mut SqliteConnection,
    now: UnixMs,
    worker: WorkerId,
    queues: Vec<QueueName>,
    served: Served,
) -> Result<Option<Claimed>, Fault> {
    let Some(id) = first_suspect(&mut *db, now, &queues, &served).await? else { return Ok(None) };
    Ok(start(db, now, worker, vec![id], &served, None, SUSPECT_CRASHES..u32::MAX).await?.pop())
}

/// Who has waited longest. The literal is that of the index `tasks_suspect`.
async fn first_suspect(
    db: impl SqliteExecutor<'_>,
    now: UnixMs,
    queues: &[QueueName],
    served: &Served,
) -> Result<Option<TaskId>, Fault> {
    const SQL: &str = concat!(
        "select id from tasks where crashes >= 2 and finished_at is null and state = 'queued' \
           and queue in (select value from json_each(?1)) and wake_at > ?2 and ",
        served!("tasks", "?3", "?4"),
        " order by ready_at limit 1"
    );
    const { assert!(SUSPECT_CRASHES == 2) };
    let (endpoints, except) = upstreams::lists(served);
    let query = sqlx::query(SQL).bind(json(&queues)).bind(now.0).bind(endpoints).bind(except);
    let found = query.fetch_optional(db).await?;
    found.map(|row| Ok(TaskId(row.try_get("id")?))).transpose()
}

/// Starts those that crashed so many times and are of no project in `capped`.
async fn start(
    db: &mut SqliteConnection,
    now: UnixMs,
    worker: WorkerId,
    ids: Vec<TaskId>,
    served: &Served,
    capped: Option<String>,
    crashes: std::ops::Range<u32>,
) -> Result<Vec<Claimed>, Fault> {
    const SQL: &str = concat!(
        "update tasks set attempt = attempt + 1, state = 'in_progress', started_by = ?1, started_at = ?2, \
                 last_seq = last_seq + 1, wake_at = expires_at \
               where id in (select unhex(value) from json_each(?3)) and state = 'queued' and wake_at > ?2 \
                 and exists (select 1 from workers where id = ?1 and not reaped and lease_until > ?2) and ",
        served!("tasks", "?4", "?5"),
        " and crashes >= ?6 and crashes < ?7 \
           and (?8 is null or project not in (select unhex(value) from json_each(?8))) returning id, attempt"
    );
    let wanted = id_list(ids.iter().map(|id| id.0));
    let (endpoints, except) = upstreams::lists(served);
    let query = sqlx::query(SQL).bind(worker.0).bind(now.0).bind(wanted).bind(endpoints).bind(except);
    let query = query.bind(crashes.start).bind(crashes.end).bind(capped);
    let started = query.fetch_all(&mut *db).await?;
    if started.is_empty() {
        return Ok(Vec::new());
    }
    // In the order of the list.
    let sql = "select t.id, t.project, t.batch, t.attempt, t.failures, t.crashes, t.max_attempts, t.queue, t.endpoint, \
                 t.model, t.relay, t.last_seq, t.floor_unknown, t.started_at, t.expires_at, t.ready_at, p.execution_timeout_ms, p.backoff_base_ms, \
                 p.backoff_max_ms, p.reserved, p.moderation, p.body, p.object, p.object_len \
               from json_each(?1) as list join tasks t on t.id = unhex(list.value) join payloads p on p.task = t.id \
               order by list.key";
    let mut started: Vec<TaskId> = rows::fences(&started)?.into_iter().map(|(id, _)| id).collect();
    started.sort_unstable();
    let mut mine: Vec<TaskId> = ids.into_iter().filter(|id| started.binary_search(id).is_ok()).collect();
    let mut seen = std::collections::HashSet::new();
    mine.retain(|id| seen.insert(*id));
    let found = sqlx::query(sql).bind(id_list(mine.iter().map(|id| id.0))).fetch_all(db).await?;
    found.iter().map(|row| rows::claimed(row, now)).collect()
}

/// See [`super::super::Store::claim_ready`]. Queue after queue as listed, in each by priority, then age.
pub(super) async fn claim_ready(
    db: &mut SqliteConnection,
    now: UnixMs,
    worker: WorkerId,
    queues: Vec<QueueName>,
    limit: u32,
    served: Served,
) -> Result<Vec<Claimed>, Fault> {
    if served.capped.usual.is_some() {
        return Ok(Vec::new());
    }
    let sql = select_ready!("priority desc, id");
    let mut ids = Vec::new();
    for queue in &queues {
        let left = i64::from(limit) - ids.len() as i64;
        if left <= 0 {
            break;
        }
        let (endpoints, except) = upstreams::lists(&served);
        let query = sqlx::query(sql).bind(queue.as_str()).bind(left).bind(now.0).bind(endpoints).bind(except);
        let found = query.bind(capped(&served)).fetch_all(&mut *db).await?;
        for row in &found {
            ids.push(TaskId(row.try_get("id")?));
        }
    }
    claim(db, now, worker, ids, served).await
}

/// See [`super::super::Store::release`]. What counted as the wait for the first attempt is over: only the deadline remains.
pub(super) async fn release(
    db: &mut SqliteConnection,
    now: UnixMs,
    worker: WorkerId,
    claims: Vec<(TaskId, u32)>,
) -> Result<Vec<Change>, Fault> {
    let sql = "update tasks set state = 'queued', started_by = null, ready_at = ?4, wake_at = expires_at, \
                 last_seq = last_seq + 1, floor_unknown = true \
               where id = ?1 and attempt = ?2 and started_by = ?3 and state = 'in_progress' \
               returning id, project, batch, attempt, last_seq, state, started_at, finished_at";
    let mut released = Vec::with_capacity(claims.len());
    for (task, attempt) in claims {
        let row =
            sqlx::query(sql).bind(task.0).bind(attempt).bind(worker.0).bind(now.0).fetch_optional(&mut *db);
        if let Some(row) = row.await? {
            released.push(rows::change(&row)?);
        }
    }
    Ok(released)
}

/// See [`super::super::Store::workers`].
pub(super) async fn workers(db: impl SqliteExecutor<'_>) -> Result<Vec<Worker>, Fault> {
    let sql = "select id, name, slots, running, queues, seen_at from workers \
               where not reaped and lease_until > cast(unixepoch('subsec') * 1000 as integer) order by id";
    let found = sqlx::query(sql).fetch_all(db).await?;
    let live = found.iter().map(|row| {
        Ok(Worker {
            id: WorkerId(row.try_get("id")?),
            name: row.try_get("name")?,
            slots: row.try_get("slots")?,
            running: row.try_get("running")?,
            queues: from_json(row.try_get("queues")?, "workers.queues")?,
            seen_at: UnixMs(row.try_get("seen_at")?),
        })
    });
    live.collect()
}
