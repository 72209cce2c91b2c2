//! submit: one statement for all inputs that come first for their id and key; what it leaves is looked up.
//!
//! Keys are taken before tasks are written: `won` holds the inputs whose key was free or had run out, and only they (and
//! inputs without a key) become rows. A rival that takes the same key at the same time waits in `won` for the commit and then
//! finds the key taken. Inputs that did not become rows are repeats of an id, or replays or reuses of a key: both are looked up.
//!
//! A task that comes alone can be claimed before it is on the disk: its worker has no reason to wait for that. Its client has, and so
//! has whoever finds a row that another connection may not have kept yet.

use super::{
    super::codec::{self, KEY_TTL},
    durable::{early, flush, kept},
    read,
    rows::{self, get},
};
use crate::{
    clock::{UnixMs, ms},
    store::{Early, Result, Submitted},
    task::{Fingerprint, NewTask, ProjectId, Task, TaskId},
};
use sqlx::{PgConnection, PgPool, Postgres, postgres::PgArguments, query::Query};
use std::collections::{HashMap, HashSet};
use uuid::Uuid;

pub(super) async fn submit(
    db: &mut PgConnection,
    tasks: &[NewTask],
    early: Early<'_>,
) -> Result<Vec<Submitted>> {
    let inputs: Vec<&NewTask> = tasks.iter().collect();
    let mut answers = vec![None; tasks.len()];
    let is_alone = tasks.len() == 1;
    match insert(db, &firsts(&inputs), is_alone).await {
        Ok(born) => settle(&inputs, &mut answers, born),
        // One of them is bad: each is tried on its own below.
        Err(error) if codec::is_bad_data(&error) => {}
        Err(error) => return Err(error),
    }
    let open: Vec<&NewTask> = still(&inputs, &answers);
    if open.is_empty() {
        let answers: Vec<Submitted> = answers.into_iter().flatten().collect();
        early(&answers);
        if is_alone {
            flush(db).await?;
        }
        return Ok(answers);
    }
    if open.len() > 1 {
        match known(db, &open).await {
            Ok(found) => fill(&mut answers, found),
            Err(error) if codec::is_bad_data(&error) => {}
            Err(error) => return Err(error),
        }
    }
    for (input, answer) in inputs.iter().zip(&mut answers) {
        if answer.is_none() {
            *answer = Some(alone(db, input).await?);
        }
    }
    let answers: Vec<Submitted> = answers.into_iter().flatten().collect();
    flush(db).await?;
    early(&answers);
    Ok(answers)
}

/// One input on its own: stored, known, or refused.
async fn alone(db: &mut PgConnection, input: &NewTask) -> Result<Submitted> {
    let mut answers = vec![None];
    let tried = match insert(db, &[input], false).await {
        Ok(born) => {
            settle(&[input], &mut answers, born);
            if answers[0].is_none() {
                known(db, &[input]).await.map(|found| fill(&mut answers, found))
            } else {
                Ok(())
            }
        }
        Err(error) => Err(error),
    };
    match tried {
        Err(error) if !codec::is_bad_data(&error) => Err(error),
        _ => Ok(answers.pop().flatten().unwrap_or_else(|| Submitted::Refused(codec::BAD_DATA.into()))),
    }
}

/// The inputs that come first for their id and for their key: of the others at most an earlier one is stored.
fn firsts<'t>(inputs: &[&'t NewTask]) -> Vec<&'t NewTask> {
    let (mut ids, mut keys) = (HashSet::new(), HashSet::new());
    let mut first = |task: &'t NewTask| {
        let key = task.idempotency.as_ref().map(|key| (task.project, key.key.as_str()));
        ids.insert(task.id) && key.is_none_or(|key| keys.insert(key))
    };
    inputs.iter().copied().filter(|task| first(task)).collect()
}

fn still<'t>(inputs: &[&'t NewTask], answers: &[Option<Submitted>]) -> Vec<&'t NewTask> {
    inputs.iter().zip(answers).filter(|(_, answer)| answer.is_none()).map(|(input, _)| *input).collect()
}

/// Puts answers, in order, where there is none yet.
fn fill(answers: &mut [Option<Submitted>], found: Vec<Option<Submitted>>) {
    answers
        .iter_mut()
        .filter(|answer| answer.is_none())
        .zip(found)
        .for_each(|(answer, found)| *answer = found);
}

/// Answers the inputs that became rows just now.
fn settle(inputs: &[&NewTask], answers: &mut [Option<Submitted>], mut born: HashMap<TaskId, Born>) {
    for (input, answer) in inputs.iter().zip(answers) {
        if let Some(born) = born.remove(&input.id) {
            *answer = Some(Submitted::Accepted(Box::new(stored(input, &born))));
        }
    }
}

/// What the database decided for a new row.
struct Born {
    state: String,
    created_at: i64,
    ready_at: i64,
    expires_at: i64,
}

fn stored(input: &NewTask, born: &Born) -> Task {
    let waits = born.state == crate::task::State::Scheduled.as_str();
    Task {
        id: input.id,
        project: input.project,
        queue: input.queue.clone(),
        priority: input.priority,
        state: if waits { crate::task::State::Scheduled } else { crate::task::State::Queued },
        endpoint: input.endpoint.clone(),
        model: input.model.clone(),
        relay: input.relay,
        attempt: 0,
        failures: 0,
        crashes: 0,
        max_attempts: input.policy.max_attempts,
        last_seq: 0,
        created_at: UnixMs(born.created_at),
        run_at: waits.then_some(UnixMs(born.ready_at)),
        started_at: None,
        finished_at: None,
        expires_at: UnixMs(born.expires_at),
        result_expires_at: None,
        worker: None,
        batch: input.batch.clone(),
        metadata: input.metadata.clone(),
        error: None,
        usage: None,
        answer_status: None,
    }
}

/// New rows of `tasks`, of the inputs that `$where` lets through. Their arrays are `$1` to `$12`, `$16` and `$18`.
macro_rules! fresh {
    ($where:literal) => {
        concat!(
            "n as materialized (
               select now_ms() as now
             ), input as (
               select i.*, n.now, greatest(n.now, coalesce(i.run_at, n.now + i.delay)) as ready_at, n.now + i.ttl as expires_at
               from n, unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::int[], $5::text[],
                 $6::smallint[], $7::text[], $8::text[], $9::text[], $10::bigint[], $11::bigint[], $12::smallint[],
                 $16::bigint[], $18::bigint[], $24::bool[])
                 as i(id, project, batch, line, queue, priority, endpoint, model, relay, delay, run_at, max_attempts,
                   queue_timeout, ttl, keyed)
             ), fresh as (
               insert into tasks (id, project, batch, line, queue, priority, endpoint, model, relay, max_attempts,
                 created_at, ready_at, expires_at, wake_at, state, last_seq)
               select id, project, batch, line, queue, priority, endpoint, model, relay, max_attempts, now, ready_at, expires_at,
                 case when ready_at > now then least(ready_at, expires_at) else least(expires_at, ready_at + queue_timeout) end,
                 case when ready_at > now then 'scheduled' else 'queued' end, 0
               from input where ",
            $where,
            " on conflict (id) do nothing
               returning id, state, created_at, ready_at, expires_at
             ), bodies as (
               insert into payloads (task, body, object, object_len, queue_timeout_ms, execution_timeout_ms, ttl_ms,
                 backoff_base_ms, backoff_max_ms, result_ttl_ms, custom_id, metadata, reserved, moderation, webhook)
               select id, body, object, object_len, queue_timeout, execution_timeout, ttl, base, max, result_ttl, custom_id,
                 metadata, reserved, moderation, webhook
               from unnest($1::uuid[], $13::bytea[], $14::text[], $15::bigint[], $16::bigint[], $17::bigint[], $18::bigint[],
                 $19::bigint[], $20::bigint[], $21::bigint[], $22::text[], $23::text[], $24::bool[], $25::text[], $26::text[],
                 $27::text[])
                 as i(id, body, object, object_len, queue_timeout, execution_timeout, ttl, base, max, result_ttl, custom_id,
                   metadata, keyed, reserved, moderation, webhook)
               where ",
            $where,
            " on conflict (task) do nothing
             ) "
        )
    };
}
pub(super) use fresh;

const INSERT: &str = concat!("with ", fresh!("true"), "select *,", early!("$28"), "from fresh");

const INSERT_KEYED: &str = concat!(
    "with won as (
       insert into idempotency (project, key, fingerprint, task, expires_at)
       select project, key, fingerprint, id, (select now_ms()) + $30
       from unnest($1::uuid[], $2::uuid[], $28::text[], $29::bytea[]) as i(id, project, key, fingerprint)
       where key is not null order by project, key
       on conflict (project, key) do update
         set fingerprint = excluded.fingerprint, task = excluded.task, expires_at = excluded.expires_at
         where idempotency.expires_at <= now_ms()
       returning task
     ), ",
    fresh!("not keyed or id in (select task from won)"),
    "select *,",
    early!("$31"),
    "from fresh"
);

async fn insert(db: &mut PgConnection, inputs: &[&NewTask], early: bool) -> Result<HashMap<TaskId, Born>> {
    let key = |task: &&'_ NewTask| task.idempotency.as_ref().map(|key| key.key.clone());
    let print = |task: &&'_ NewTask| task.idempotency.as_ref().map(|key| key.fingerprint.to_vec());
    let query = match inputs.iter().any(|task| task.idempotency.is_some()) {
        true => bind(sqlx::query(INSERT_KEYED), inputs)
            .bind(inputs.iter().map(key).collect::<Vec<_>>())
            .bind(inputs.iter().map(print).collect::<Vec<_>>())
            .bind(ms(KEY_TTL)),
        // To open the table of keys for nothing would be a twentieth of the work.
        false => bind(sqlx::query(INSERT), inputs),
    };
    let rows = query.bind(early).fetch_all(&mut *db).await?;
    let born = |row| {
        let born = Born {
            state: get(row, "state")?,
            created_at: get(row, "created_at")?,
            ready_at: get(row, "ready_at")?,
            expires_at: get(row, "expires_at")?,
        };
        Ok((TaskId(get(row, "id")?), born))
    };
    rows.iter().map(born).collect()
}

/// Binds `$1` to `$27`: one array per column.
pub(super) fn bind<'q>(
    query: Query<'q, Postgres, PgArguments>,
    tasks: &[&NewTask],
) -> Query<'q, Postgres, PgArguments> {
    fn all<'t, T>(tasks: &[&'t NewTask], column: impl Fn(&'t NewTask) -> T) -> Vec<T> {
        tasks.iter().map(|task| column(task)).collect()
    }
    query
        .bind(all(tasks, |task| task.id.0))
        .bind(all(tasks, |task| task.project.0))
        .bind(all(tasks, |task| task.batch.as_ref().map(|line| line.batch.0)))
        .bind(all(tasks, |task| task.batch.as_ref().map(|line| codec::int(line.line))))
        .bind(all(tasks, |task| task.queue.as_str()))
        .bind(all(tasks, |task| task.priority))
        .bind(all(tasks, |task| &*task.endpoint))
        .bind(all(tasks, |task| &*task.model))
        .bind(all(tasks, |task| task.relay.as_str()))
        .bind(all(tasks, |task| ms(task.delay)))
        .bind(all(tasks, |task| task.run_at.map(|at| at.0)))
        .bind(all(tasks, |task| codec::short(task.policy.max_attempts)))
        .bind(all(tasks, |task| rows::columns(&task.payload).0))
        .bind(all(tasks, |task| rows::columns(&task.payload).1))
        .bind(all(tasks, |task| rows::columns(&task.payload).2))
        .bind(all(tasks, |task| task.policy.queue_timeout.map(ms)))
        .bind(all(tasks, |task| ms(task.policy.execution_timeout)))
        .bind(all(tasks, |task| ms(task.policy.ttl)))
        .bind(all(tasks, |task| ms(task.policy.backoff.base)))
        .bind(all(tasks, |task| ms(task.policy.backoff.max)))
        .bind(all(tasks, |task| ms(task.policy.result_ttl)))
        .bind(all(tasks, |task| task.batch.as_ref().map(|line| &*line.custom_id)))
        .bind(all(tasks, |task| task.metadata.as_deref()))
        .bind(all(tasks, |task| task.idempotency.is_some()))
        .bind(all(tasks, |task| task.reserved.as_deref()))
        .bind(all(tasks, |task| (!task.moderation.is_empty()).then(|| codec::json(&task.moderation))))
        .bind(all(tasks, |task| task.webhook.as_deref()))
}

const KEYS: &str = "select i.id, k.task, k.fingerprint
  from unnest($1::uuid[], $2::uuid[], $3::text[]) as i(id, project, key)
  join idempotency k on k.project = i.project and k.key = i.key";

pub(super) async fn keyed(
    pool: &PgPool,
    project: ProjectId,
    key: &str,
) -> Result<Option<(TaskId, Fingerprint)>> {
    const SQL: &str = concat!(
        "select task, fingerprint,",
        kept!(),
        "from idempotency where project = $1 and key = $2 and expires_at > now_ms()"
    );
    let row = sqlx::query(SQL).bind(project.0).bind(key).fetch_optional(pool).await?;
    row.map(|row| Ok((TaskId(get(&row, "task")?), codec::digest(get(&row, "fingerprint")?)?))).transpose()
}

/// What earlier submits made of these inputs: the task with the same id, or the one that the key stands for.
async fn known(db: &mut PgConnection, inputs: &[&NewTask]) -> Result<Vec<Option<Submitted>>> {
    let ids: Vec<TaskId> = inputs.iter().map(|task| task.id).collect();
    let tasks: HashMap<TaskId, Task> =
        read::many(db, &ids).await?.into_iter().map(|task| (task.id, task)).collect();
    let keyed = inputs.iter().filter_map(|task| Some((task, task.idempotency.as_ref()?)));
    let (mut by, mut projects, mut keys) = (Vec::new(), Vec::new(), Vec::new());
    for (task, key) in keyed {
        by.push(task.id.0);
        projects.push(task.project.0);
        keys.push(key.key.as_str());
    }
    let mut holders = HashMap::new();
    if !keys.is_empty() {
        let rows = sqlx::query(KEYS).bind(by).bind(projects).bind(keys).fetch_all(&mut *db).await?;
        for row in &rows {
            let holder: (Uuid, Vec<u8>) = (get(row, "task")?, get(row, "fingerprint")?);
            holders.insert(TaskId(get(row, "id")?), holder);
        }
    }
    let answer = |input: &&NewTask| {
        if let Some(task) = tasks.get(&input.id).filter(|task| task.project == input.project) {
            return Some(Submitted::Accepted(Box::new(task.clone())));
        }
        let ((holder, print), key) = (holders.get(&input.id)?, input.idempotency.as_ref()?);
        let same = *print == key.fingerprint;
        Some(if same { Submitted::Replayed(TaskId(*holder)) } else { Submitted::KeyReused })
    };
    Ok(inputs.iter().map(answer).collect())
}
