//! Tasks on their way in.

use super::{
    super::{BatchCreated, Error, NewBatch, Submitted},
    SqliteStore, read,
    rows::{Fault, bind_payload, is_of_the_row, json, millis},
};
use crate::{
    clock::UnixMs,
    task::{BatchId, Idempotency, NewTask, ProjectId, State, Task, TaskId},
};
use futures_util::FutureExt;
use sqlx::{Row, SqliteConnection};
use std::time::Duration;
use uuid::Uuid;

/// How long an idempotency key stands for its task.
const KEY_KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// All rows in one transaction. If one of them cannot be stored, each gets its own, so that it fails alone.
pub(super) async fn submit(store: &SqliteStore, tasks: &[NewTask]) -> Result<Vec<Submitted>, Error> {
    let together = tasks.to_vec();
    match store.write(move |db, now| all(db, now, together).boxed()).await {
        Err(Error::Broken(error)) if is_of_the_row(&error) => {}
        done => return done,
    }
    let mut answers = Vec::with_capacity(tasks.len());
    for task in tasks {
        let alone = task.clone();
        answers.push(match store.write(move |db, now| one(db, now, alone).boxed()).await {
            Err(Error::Broken(error)) if is_of_the_row(&error) => {
                tracing::warn!(task = %task.id, %error, "the task cannot be stored");
                Submitted::Refused("the database cannot store this task".into())
            }
            done => done?,
        });
    }
    Ok(answers)
}

async fn all(db: &mut SqliteConnection, now: UnixMs, tasks: Vec<NewTask>) -> Result<Vec<Submitted>, Fault> {
    let mut answers = Vec::with_capacity(tasks.len());
    for task in tasks {
        answers.push(one(db, now, task).await?);
    }
    Ok(answers)
}

async fn one(db: &mut SqliteConnection, now: UnixMs, task: NewTask) -> Result<Submitted, Fault> {
    if let Some(idempotency) = &task.idempotency
        && let Some((holder, same)) = reserve(db, now, task.project, task.id.0, idempotency).await?
    {
        return Ok(if same { Submitted::Replayed(TaskId(holder)) } else { Submitted::KeyReused });
    }
    if insert(db, now, &task).await? {
        return Ok(Submitted::Accepted(Box::new(accepted(now, task))));
    }
    Ok(match read::get(&mut *db, task.project, task.id).await? {
        Some(stored) => Submitted::Accepted(Box::new(stored)),
        None => Submitted::Refused("the id is taken".into()),
    })
}

/// Notes the key for this task or batch. If it stands for another one: which, and whether its request was the same.
async fn reserve(
    db: &mut SqliteConnection,
    now: UnixMs,
    project: ProjectId,
    id: Uuid,
    idempotency: &Idempotency,
) -> Result<Option<(Uuid, bool)>, Fault> {
    // An unexpired key keeps its row: the update rewrites each column by itself.
    let sql = "insert into idempotency (project, key, fingerprint, task, expires_at) values (?1, ?2, ?3, ?4, ?5) \
               on conflict (project, key) do update set \
               fingerprint = iif(expires_at <= ?6, excluded.fingerprint, fingerprint), \
               task = iif(expires_at <= ?6, excluded.task, task), \
               expires_at = iif(expires_at <= ?6, excluded.expires_at, expires_at) \
               returning task, fingerprint = ?3 as same";
    let row = sqlx::query(sql)
        .bind(project.0)
        .bind(&idempotency.key)
        .bind(&idempotency.fingerprint[..])
        .bind(id)
        .bind(now.plus(KEY_KEPT).0)
        .bind(now.0)
        .fetch_one(db)
        .await?;
    let (holder, same) = (row.try_get("task")?, row.try_get("same")?);
    Ok(Some((holder, same)).filter(|(holder, _)| *holder != id))
}

/// When a new task is ready, must be done, and next matters to the sweep.
struct Times {
    state: State,
    ready_at: UnixMs,
    wake_at: UnixMs,
    expires_at: UnixMs,
}

/// The deadline counts from acceptance: waiting for a start is part of the time to live.
fn times(now: UnixMs, task: &NewTask) -> Times {
    let after = |from: UnixMs, wait: Duration| UnixMs(from.0 + millis(wait));
    let horizon = after(now, Duration::MAX);
    let ready_at = task.run_at.map_or(after(now, task.delay), |run_at| run_at.clamp(now, horizon));
    let expires_at = after(now, task.policy.ttl);
    let patience = task.policy.queue_timeout.map_or(expires_at, |wait| after(ready_at, wait));
    let (state, wake_at) =
        if ready_at > now { (State::Scheduled, ready_at) } else { (State::Queued, patience) };
    Times { state, ready_at, wake_at: wake_at.min(expires_at), expires_at }
}

/// Row and payload, in one round trip to the connection's thread. `false`: the id is there already, and nothing is changed.
async fn insert(db: &mut SqliteConnection, now: UnixMs, task: &NewTask) -> Result<bool, Fault> {
    let sql = "insert into tasks (id, project, batch, created_at, ready_at, wake_at, expires_at, last_seq, line, \
               max_attempts, priority, state, queue, relay, endpoint, model) \
               values (?1, ?2, ?3, ?4, ?5, ?6, ?7, 0, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15) on conflict do nothing; \
               insert into payloads (task, queue_timeout_ms, execution_timeout_ms, ttl_ms, backoff_base_ms, \
               backoff_max_ms, result_ttl_ms, custom_id, metadata, reserved, moderation, webhook, body, object, object_len) \
               values (?1, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24, ?25, ?26, ?27, ?28, ?29) on conflict do nothing";
    let times = times(now, task);
    let policy = &task.policy;
    let statement = sqlx::query(sql)
        .bind(task.id.0)
        .bind(task.project.0)
        .bind(task.batch.as_ref().map(|line| line.batch.0))
        .bind(now.0)
        .bind(times.ready_at.0)
        .bind(times.wake_at.0)
        .bind(times.expires_at.0)
        .bind(task.batch.as_ref().map(|line| line.line))
        .bind(policy.max_attempts)
        .bind(task.priority)
        .bind(times.state.as_str())
        .bind(task.queue.as_str())
        .bind(task.relay.as_str())
        .bind(&*task.endpoint)
        .bind(&*task.model)
        .bind(policy.queue_timeout.map(millis))
        .bind(millis(policy.execution_timeout))
        .bind(millis(policy.ttl))
        .bind(millis(policy.backoff.base))
        .bind(millis(policy.backoff.max))
        .bind(millis(policy.result_ttl))
        .bind(task.batch.as_ref().map(|line| &*line.custom_id))
        .bind(task.metadata.as_deref())
        .bind(task.reserved.as_deref())
        .bind((!task.moderation.is_empty()).then(|| json(&task.moderation)))
        .bind(task.webhook.as_deref());
    let done = bind_payload(statement, Some(&task.payload)).execute(db).await?;
    Ok(done.rows_affected() > 0)
}

/// The task as its new row would be read.
fn accepted(now: UnixMs, task: NewTask) -> Task {
    let times = times(now, &task);
    Task {
        id: task.id,
        project: task.project,
        queue: task.queue,
        priority: task.priority,
        state: times.state,
        endpoint: task.endpoint,
        model: task.model,
        relay: task.relay,
        attempt: 0,
        failures: 0,
        crashes: 0,
        max_attempts: task.policy.max_attempts,
        last_seq: 0,
        created_at: now,
        run_at: (times.state == State::Scheduled).then_some(times.ready_at),
        started_at: None,
        finished_at: None,
        expires_at: times.expires_at,
        result_expires_at: None,
        worker: None,
        batch: task.batch,
        metadata: task.metadata,
        error: None,
        usage: None,
        answer_status: None,
    }
}

/// See [`super::super::Store::create_batch`].
pub(super) async fn create_batch(
    db: &mut SqliteConnection,
    now: UnixMs,
    batch: NewBatch,
    tasks: Vec<NewTask>,
) -> Result<BatchCreated, Fault> {
    if let Some(idempotency) = &batch.idempotency
        && let Some((holder, same)) = reserve(db, now, batch.project, batch.id.0, idempotency).await?
    {
        return Ok(if same { BatchCreated::Replayed(BatchId(holder)) } else { BatchCreated::KeyReused });
    }
    let sql = "insert into batches (id, project, state, endpoint, completion_window, model, metadata, errors, total, \
               created_at, expires_at, in_progress_at, finished_at, result_expires_at, result_ttl_ms) \
               values (?1, ?2, iif(?7 is null, 'in_progress', 'failed'), ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?9 + ?10, \
               iif(?7 is null, ?9, null), iif(?7 is null, null, ?9), iif(?7 is null, null, ?9 + ?11), ?11) \
               on conflict do nothing";
    let done = sqlx::query(sql)
        .bind(batch.id.0)
        .bind(batch.project.0)
        .bind(&*batch.endpoint)
        .bind(&batch.completion_window)
        .bind(batch.model.as_deref())
        .bind(batch.metadata.as_deref())
        .bind(&batch.errors)
        .bind(i64::try_from(tasks.len()).unwrap_or(i64::MAX))
        .bind(now.0)
        .bind(millis(batch.window))
        .bind(millis(batch.result_ttl))
        .execute(&mut *db)
        .await?;
    if done.rows_affected() == 0 {
        return Ok(BatchCreated::Stored);
    }
    for task in &tasks {
        insert(db, now, task).await?;
    }
    Ok(BatchCreated::Stored)
}
