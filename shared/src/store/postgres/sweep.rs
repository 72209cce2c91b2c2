//! The sweep's verbs. Each takes its rows with `skip locked`, so that any number of processes can sweep at once.
//!
//! Conditions compare with `now_ms()` itself, whose value the planner knows; `(select now_ms())`, computed once, is for values.

use super::{
    super::codec::{self, WORKER_TTL, sentence},
    owner::{end, ended, remains},
    read::tenants,
    rows::{self, change_columns, get, names},
    upstreams::{caps, served, uncapped},
    webhooks::told,
};
use crate::{
    clock::ms,
    store::{Bell, Forgotten, Result, START_GAP, SUSPECT_CRASHES, Served},
    task::{Change, ErrorCode, QueueName},
};
use sqlx::{PgConnection, PgPool};
use std::time::Duration;

pub(super) async fn due(pool: &PgPool, limit: u32) -> Result<Vec<(Change, Bell)>> {
    // The queue timeout bounds the wait for the first attempt only.
    const SQL: &str = concat!(
        "with picked as materialized (
           select id from tasks
           where state = 'scheduled' and wake_at <= (select now_ms()) and expires_at > (select now_ms())
           order by wake_at limit $1 for update skip locked
         )
         update tasks t set state = 'queued', last_seq = t.last_seq + 1,
           wake_at = least(t.expires_at, case when t.attempt = 0 then t.ready_at + p.queue_timeout_ms end)
         from picked join payloads p on p.task = picked.id
         where t.id = picked.id
         returning",
        change_columns!(),
        ", t.queue, t.priority, t.crashes"
    );
    let found = sqlx::query(SQL).bind(i64::from(limit)).fetch_all(pool).await?;
    found.iter().map(|row| Ok((rows::change(row)?, rows::bell(row)?))).collect()
}

/// Rows that `ready` looks at, at most, when a queue has very many projects: each then brings fewer than `limit`.
const LOOKED_AT_MAX: i64 = 40_000;

pub(super) async fn ready(
    pool: &PgPool,
    queue: &QueueName,
    limit: u32,
    served: &Served,
) -> Result<Vec<Bell>> {
    // What is not served is read past: so many rows of a project, and no more, because this runs every second.
    const SQL: &str = concat!(
        "with recursive ",
        tenants!("$1"),
        ", share as (
           select least($2, greatest($3 / greatest(count(project), 1), 1)) as rows from tenants
         )
         select r.id, tenants.project, $1 as queue, r.priority, r.crashes from tenants, lateral (
           select t.id, t.priority, t.crashes, row_number() over () as turn from (
             select id, priority, crashes from (
               select id, priority, crashes, endpoint, model from tasks
               where state = 'queued' and queue = $1 and project = tenants.project
               order by priority desc, id limit 50000) x
             where ",
        uncapped!("tenants.project", "$6"),
        " and ",
        served!("x", "$4", "$5"),
        "
             order by priority desc, id limit (select rows from share)) t) r
         order by r.turn, r.priority desc, r.id limit $2"
    );
    if served.capped.usual.is_some() {
        return Ok(Vec::new());
    }
    let (endpoints, except) = served.lists();
    let query = sqlx::query(SQL).bind(queue.as_str()).bind(i64::from(limit)).bind(LOOKED_AT_MAX);
    let query = query.bind(endpoints).bind(except).bind(caps(served).0);
    query.fetch_all(pool).await?.iter().map(rows::bell).collect()
}

/// To a planner that has seen few rows yet, `tasks_page` is as good as any index, and it holds every task of a project there is.
/// What runs is found by its worker alone, therefore, and counted after that (every worker's id is beyond the nil one, which says so
/// to the planner); and what waits is found by queue and project as one pair, which only `tasks_ready` begins with, and taken in the
/// order of that index to the end: a sort in between would read all that waits.
pub(super) async fn ready_capped(
    db: &mut PgConnection,
    queues: &[QueueName],
    limit: u32,
    served: &Served,
) -> Result<Vec<Bell>> {
    const SQL: &str = concat!(
        "with lanes as materialized (
           select queue from unnest($1::text[]) as u(queue)
         ), capped as materialized (
           select queue, o.project, o.tasks from lanes, unnest($5::uuid[], $6::int[]) as o(project, tasks)
           union all
           select queue, t.project, $8 from lanes, lateral (with recursive ",
        tenants!("lanes.queue"),
        "  select project from tenants where project is not null) t
           where $8::int is not null and ($5 is null or t.project <> all($5))
         ), held as materialized (
           select project from tasks where started_by > '00000000-0000-0000-0000-000000000000'
         ), running as materialized (
           select project, count(*) as tasks from held where $8 is not null or project = any($5) group by project
         ), room as materialized (
           select c.queue, c.project, least(c.tasks - coalesce(r.tasks, 0), $2) as tasks
           from capped c left join running r on r.project = c.project
         )
         select t.id, room.project, room.queue, t.priority, t.crashes from room, lateral (
           select id, priority, crashes from (
             select id, priority, crashes, endpoint, model, queue, project from tasks
             where state = 'queued' and (queue, project) between (room.queue, room.project) and (room.queue, room.project)
             order by queue, project, priority desc, id limit 50000) x
           where x.crashes < $7 and ",
        served!("x", "$3", "$4"),
        " order by x.queue, x.project, priority desc, id limit room.tasks) t
         where room.tasks > 0"
    );
    let (endpoints, except) = served.lists();
    let (projects, tasks, usual) = caps(served);
    let query = sqlx::query(SQL).bind(names(queues)).bind(i64::from(limit)).bind(endpoints).bind(except);
    let query = query.bind(projects).bind(tasks).bind(codec::int(SUSPECT_CRASHES)).bind(usual);
    query.fetch_all(db).await?.iter().map(rows::bell).collect()
}

pub(super) async fn expire(pool: &PgPool, limit: u32) -> Result<Vec<Change>> {
    // `wake_at` of a queued or running task is its queue timeout or deadline; of a scheduled one it may just be its time.
    const SQL: &str = concat!(
        "with picked as materialized (
           select id from tasks
           where wake_at <= now_ms() and (state <> 'scheduled' or expires_at <= now_ms())
           order by wake_at limit $1 for update skip locked
         ), ended as (
           update tasks t set state = 'expired',",
        end!(),
        "from picked join payloads p on p.task = picked.id
           where t.id = picked.id
           returning",
        change_columns!(),
        ", case when t.expires_at <= now_ms() then $2::text else $4::text end as code,
             case when t.expires_at <= now_ms() then $3::text else $5::text end as message, true as retryable, p.webhook
         ), ",
        ended!(),
        "select * from ended"
    );
    let mut query = sqlx::query(SQL).bind(i64::from(limit));
    for code in [ErrorCode::DeadlineExceeded, ErrorCode::QueueTimeout] {
        query = query.bind(code.as_str()).bind(sentence(code));
    }
    rows::changes(&query.fetch_all(pool).await?)
}

/// `owners` hops along `tasks_held` from worker to worker, so that healthy attempts are not looked at. A worker is dead by its
/// row's `reaped`, by having been marked just now, or by having no row: never by a lease read without its lock, which a
/// heartbeat may be extending.
///
/// A task is to blame if nobody else was there, or, for a suspect, nobody who started later or about when it did.
const REAP: &str = concat!(
    "with recursive marked as (
       update workers set reaped = true where not reaped and lease_until <= now_ms() returning id
     ), owners as (
       (select started_by from tasks where started_by is not null order by started_by limit 1)
       union all
       select (select t.started_by from tasks t where t.started_by > owners.started_by order by t.started_by limit 1)
       from owners where owners.started_by is not null
     ), dead as (
       select o.started_by as id from owners o left join workers w on w.id = o.started_by
       where o.started_by is not null and (w.id is null or w.reaped or w.id in (select id from marked))
     ), picked as materialized (
       select t.id, (random() * $2::bigint)::bigint as jitter,
         t.blamed + (not exists (select from tasks o where o.started_by = t.started_by and o.id <> t.id
           and o.state = 'in_progress' and (t.crashes < $6 or o.started_at > t.started_at - $7)))::int as blamed
       from dead join tasks t on t.started_by = dead.id
       where t.state = 'in_progress' order by t.crashes desc limit $1 for update of t skip locked
     ), taken as (
       update tasks t set crashes = least(t.crashes + 1, 32767), blamed = picked.blamed, started_by = null, last_seq = t.last_seq + 1, floor_unknown = true,
         state = case when picked.blamed >= $3 then 'failed' else 'scheduled' end,
         ready_at = case when picked.blamed >= $3 then t.ready_at else now_ms() + picked.jitter end,
         wake_at = case when picked.blamed >= $3 then null else least(now_ms() + picked.jitter, t.expires_at) end,
         finished_at = case when picked.blamed >= $3 then now_ms() end,
         result_expires_at = case when picked.blamed >= $3 then now_ms() + p.result_ttl_ms end
       from picked join payloads p on p.task = picked.id
       where t.id = picked.id
       returning",
    change_columns!(),
    ", json_build_object('code', $4::text, 'message', $5::text, 'retryable', true, 'attempt', t.attempt,
           'upstream_status', null)::text as error, p.webhook
     ), noted as (
       insert into attempts (task, attempt, ended_at, error) select id, attempt, now_ms(), error from taken
       on conflict do nothing
     ), errors as (
       insert into results (task, attempt, error) select id, attempt, error from taken
       on conflict (task) do update set attempt = excluded.attempt, error = excluded.error
     ), counted as (
       insert into batch_counts (batch, task, attempt, completed, failed,
         input_tokens, cached_tokens, output_tokens, reasoning_tokens)
       select batch, id, attempt, 0, 1, 0, 0, 0, 0 from taken where batch is not null and state = 'failed'
     ), ",
    told!("(select * from taken where state = 'failed')"),
    "select * from taken"
);

pub(super) async fn reap(
    pool: &PgPool,
    limit: u32,
    spread: Duration,
    crashes_max: u32,
) -> Result<Vec<Change>> {
    let code = ErrorCode::WorkerCrashed;
    let query = sqlx::query(REAP).bind(i64::from(limit)).bind(ms(spread)).bind(codec::int(crashes_max));
    let query = query.bind(code.as_str()).bind(sentence(code));
    let query = query.bind(codec::int(SUSPECT_CRASHES)).bind(ms(START_GAP));
    rows::changes(&query.fetch_all(pool).await?)
}

pub(super) async fn forget(pool: &PgPool, limit: u32) -> Result<Forgotten> {
    const SQL: &str = concat!(
        "with picked as materialized (
           select id from tasks where started_by is null and result_expires_at <= now_ms()
           limit $1 for update skip locked
         ), gone as (
           delete from tasks t using picked where t.id = picked.id returning t.id
         ), ",
        remains!(),
        ", batches_picked as materialized (
           select b.id from batches b where b.result_expires_at <= now_ms() limit $1 for update skip locked
         ), batches_gone as (
           delete from batches b using batches_picked where b.id = batches_picked.id
         ), counts_gone as (
           delete from batch_counts c using batches_picked where c.batch = batches_picked.id
         ), keys_gone as (
           delete from idempotency where (project, key) in (
             select project, key from idempotency where expires_at <= now_ms() limit $1 for update skip locked)
         ), workers_gone as (
           delete from workers where reaped and seen_at <= now_ms() - $2
         ), pauses_gone as (
           delete from upstream_pauses where until <= now_ms() - $2
         )
         select (select count(*) from gone) as tasks, keys from objects"
    );
    let row = sqlx::query(SQL).bind(i64::from(limit)).bind(ms(WORKER_TTL)).fetch_one(pool).await?;
    Ok(Forgotten { tasks: codec::count(get(&row, "tasks")?), objects: get(&row, "keys")? })
}
