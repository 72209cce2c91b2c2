//! The worker's lease and claims.

use super::{
    super::codec,
    read::tenants,
    rows::{self, change_columns, claimed_columns, get, names},
    upstreams::{caps, served, uncapped},
};
use crate::{
    clock::ms,
    store::{Claimed, NewWorker, Result, SUSPECT_CRASHES, Served},
    task::{Change, QueueName, TaskId, WorkerId},
};
use sqlx::{PgConnection, PgPool};
use std::time::Duration;
use uuid::Uuid;

pub(super) async fn register(pool: &PgPool, worker: &NewWorker) -> Result<()> {
    let sql = "insert into workers (id, name, slots, queues, seen_at, lease_until)
      values ($1, $2, $3, $4, now_ms(), now_ms() + $5) on conflict (id) do nothing";
    sqlx::query(sql)
        .bind(worker.id.0)
        .bind(codec::printable(&worker.name))
        .bind(codec::int(worker.slots))
        .bind(codec::json(&worker.queues))
        .bind(ms(worker.ttl))
        .execute(pool)
        .await?;
    Ok(())
}

pub(super) async fn heartbeat(
    pool: &PgPool,
    worker: WorkerId,
    ttl: Duration,
    running: u32,
) -> Result<Option<Vec<(TaskId, u32)>>> {
    // One row with nulls for a worker that holds nothing, none for a reaped one.
    let sql = "with beat as (
        update workers set seen_at = now_ms(), lease_until = now_ms() + $2, running = $3
        where id = $1 and not reaped returning id
      )
      select t.id, t.attempt from beat left join tasks t on t.started_by = beat.id";
    let found =
        sqlx::query(sql).bind(worker.0).bind(ms(ttl)).bind(codec::int(running)).fetch_all(pool).await?;
    if found.is_empty() {
        return Ok(None);
    }
    let mut held = Vec::new();
    for row in &found {
        if let Some(id) = get::<Option<Uuid>>(row, "id")? {
            held.push((TaskId(id), codec::small(get(row, "attempt")?)));
        }
    }
    Ok(Some(held))
}

pub(super) async fn retire(pool: &PgPool, worker: WorkerId) -> Result<()> {
    sqlx::query("delete from workers where id = $1").bind(worker.0).execute(pool).await?;
    Ok(())
}

/// Starts the next attempt of queued rows for `$1`, if its lease is alive. A task past its deadline or queue timeout is left to
/// the sweep. State and `wake_at` are compared in a way that fits no index: on a table that was empty when the statement was
/// planned, reading all of a partial index would have looked as good as looking rows up by their ids.
macro_rules! start {
    ($which:expr, $endpoints:literal, $except:literal) => {
        concat!(
            "update tasks t set state = 'in_progress', attempt = t.attempt + 1, started_by = $1,
               started_at = (select now_ms()), wake_at = t.expires_at, last_seq = t.last_seq + 1
             from payloads p
             where p.task = t.id and t.state || '' = 'queued' and t.wake_at + 0 > (select now_ms())
               and exists (select from workers where id = $1 and not reaped and lease_until > now_ms()) and ",
            served!("t", $endpoints, $except),
            " and ",
            $which,
            " returning",
            claimed_columns!()
        )
    };
}

pub(super) async fn claim(
    db: &mut PgConnection,
    worker: WorkerId,
    ids: &[TaskId],
    served: &Served,
) -> Result<Vec<Claimed>> {
    const SQL: &str =
        start!(concat!("t.id = any($2) and t.crashes < $5 and ", uncapped!("t.project", "$6")), "$3", "$4");
    let mut ids = rows::uuids(ids);
    ids.sort_unstable();
    if ids.is_empty() || served.capped.usual.is_some() {
        return Ok(Vec::new());
    }
    let (endpoints, except) = served.lists();
    let query = sqlx::query(SQL).bind(worker.0).bind(ids).bind(endpoints).bind(except);
    let query = query.bind(codec::int(SUSPECT_CRASHES)).bind(caps(served).0);
    query.fetch_all(db).await?.iter().map(rows::claimed).collect()
}

/// `running()` locks a project before it counts, so that of several claims one after the other sees what is left.
pub(super) async fn claim_capped(
    db: &mut PgConnection,
    worker: WorkerId,
    ids: &[TaskId],
    served: &Served,
) -> Result<Vec<Claimed>> {
    const SQL: &str = concat!(
        "with wanted as materialized (
           select t.id, t.project, row_number() over (partition by t.project order by t.priority desc, t.id) as place
           from tasks t where t.id = any($2) and ($8::int is not null or t.project = any($6)) and t.crashes < $5 and t.state || '' = 'queued'
             and t.wake_at + 0 > (select now_ms()) and ",
        served!("t", "$3", "$4"),
        "), room as materialized (
           select c.project, c.tasks - running(c.project) as tasks from (
             select w.project, coalesce(o.tasks, $8) as tasks from (select distinct project from wanted) w
             left join unnest($6::uuid[], $7::int[]) as o(project, tasks) on o.project = w.project order by w.project) c
         ) ",
        start!(
            "t.id = any(array(select w.id from wanted w join room r on r.project = w.project where w.place <= r.tasks))",
            "$3",
            "$4"
        )
    );
    let (endpoints, except) = served.lists();
    let (projects, tasks, usual) = caps(served);
    let query = sqlx::query(SQL).bind(worker.0).bind(rows::uuids(ids)).bind(endpoints).bind(except);
    let query = query.bind(codec::int(SUSPECT_CRASHES)).bind(projects).bind(tasks).bind(usual);
    query.fetch_all(db).await?.iter().map(rows::claimed).collect()
}

/// The suspect that has waited longest in these queues. The literal is that of the index `tasks_suspect`; the state fits no other
/// index.
macro_rules! suspect {
    ($queues:literal, $endpoints:literal, $except:literal) => {
        concat!(
            "select t.id from tasks t where t.crashes >= 2 and t.finished_at is null and t.state || '' = 'queued'
               and t.queue = any(",
            $queues,
            ") and t.wake_at + 0 > (select now_ms()) and ",
            served!("t", $endpoints, $except),
            " order by t.ready_at limit 1"
        )
    };
}
const _: () = assert!(SUSPECT_CRASHES == 2);

pub(super) async fn has_suspects(pool: &PgPool, queues: &[QueueName], served: &Served) -> Result<bool> {
    const SQL: &str = suspect!("$1", "$2", "$3");
    let (endpoints, except) = served.lists();
    let query = sqlx::query(SQL).bind(names(queues)).bind(endpoints).bind(except);
    Ok(query.fetch_optional(pool).await?.is_some())
}

pub(super) async fn claim_suspect(
    pool: &PgPool,
    worker: WorkerId,
    queues: &[QueueName],
    served: &Served,
) -> Result<Option<Claimed>> {
    const SQL: &str = concat!(
        "with picked as materialized (",
        suspect!("$2", "$3", "$4"),
        " for update of t skip locked) ",
        start!("t.id = (select id from picked)", "$3", "$4")
    );
    let (endpoints, except) = served.lists();
    let query = sqlx::query(SQL).bind(worker.0).bind(names(queues)).bind(endpoints).bind(except);
    query.fetch_optional(pool).await?.as_ref().map(rows::claimed).transpose()
}

pub(super) async fn claim_ready(
    pool: &PgPool,
    worker: WorkerId,
    queues: &[QueueName],
    limit: u32,
    served: &Served,
) -> Result<Vec<Claimed>> {
    // Rivals see the same candidates first: a few more than wanted leave something to those who come second.
    const SQL: &str = concat!(
        "with lanes as (
           select queue from unnest($2::text[]) as u(queue)
         ), candidates as (
           select c.* from lanes, lateral (with recursive ",
        tenants!("lanes.queue"),
        "  select r.* from tenants, lateral (
             select t.id, t.priority, row_number() over () as turn from (
               select id, priority from (
                 select id, priority, endpoint, model, crashes from tasks
                 where state = 'queued' and queue = lanes.queue and project = tenants.project
                 order by priority desc, id limit 50000) x
               where x.crashes < $6 and ",
        uncapped!("tenants.project", "$7"),
        " and ",
        served!("x", "$4", "$5"),
        "
               order by priority desc, id limit $3 * 4) t) r
           order by r.turn, r.priority desc, r.id limit $3 * 4) c
         ), picked as materialized (
           select t.id from candidates c join tasks t on t.id = c.id where t.state = 'queued'
           order by c.turn, c.priority desc, c.id limit $3 for update of t skip locked
         ) ",
        start!("t.id = any(array(select id from picked))", "$4", "$5")
    );
    if served.capped.usual.is_some() {
        return Ok(Vec::new());
    }
    let (endpoints, except) = served.lists();
    let query = sqlx::query(SQL).bind(worker.0).bind(names(queues)).bind(i64::from(limit));
    let query = query.bind(endpoints).bind(except).bind(codec::int(SUSPECT_CRASHES)).bind(caps(served).0);
    let found = query.fetch_all(pool).await?;
    found.iter().map(rows::claimed).collect()
}

pub(super) async fn release(
    pool: &PgPool,
    worker: WorkerId,
    claims: &[(TaskId, u32)],
) -> Result<Vec<Change>> {
    const SQL: &str = concat!(
        "with mine as materialized (
           select t.id from unnest($2::uuid[], $3::int[]) as i(id, attempt) join tasks t on t.id = i.id
           where t.state = 'in_progress' and t.attempt = i.attempt and t.started_by = $1
           order by t.id for update of t
         )
         update tasks t set state = 'queued', started_by = null, wake_at = t.expires_at, last_seq = t.last_seq + 1,
           floor_unknown = true
         from mine where t.id = mine.id
         returning",
        change_columns!()
    );
    let (ids, attempts): (Vec<Uuid>, Vec<i32>) =
        claims.iter().map(|(id, attempt)| (id.0, codec::int(*attempt))).unzip();
    rows::changes(&sqlx::query(SQL).bind(worker.0).bind(ids).bind(attempts).fetch_all(pool).await?)
}
