//! How runs and attempts end. Every terminal state of a task is written by [`end`], and every attempt that is followed by
//! another one ends in [`recur`]; the verbs of owner, worker and sweep decide and come here.
//!
//! Both are one string of several statements, which is one round trip to the connection's thread. The later ones ask
//! `changes() > 0`: they happen only if the guarded update before them hit its row.

use super::{
    super::{Again, Finish, Finished},
    rows::{self, Fault, bind_payload, bind_usage, json, millis},
    webhooks,
};
use crate::{
    clock::UnixMs,
    task::{Answer, Change, ErrorCode, State, TaskError, TaskId, Usage},
};
use sqlx::SqliteConnection;

/// A terminal write.
pub(super) struct End<'a> {
    pub(super) task: TaskId,
    pub(super) attempt: u32,
    /// Only if this attempt still runs; otherwise from any state that is not terminal.
    pub(super) running: bool,
    pub(super) state: State,
    pub(super) floor: i64,
    pub(super) crashes: u32,
    pub(super) answer: Option<&'a Answer>,
    pub(super) error: Option<&'a TaskError>,
    pub(super) usage: Option<Usage>,
    pub(super) upstream: Option<&'a str>,
}

/// Writes state, result, batch count and what receivers are told. `None`: the guard did not hold, nothing is written.
pub(super) async fn end(
    db: &mut SqliteConnection,
    now: UnixMs,
    end: &End<'_>,
) -> Result<Option<Change>, Fault> {
    let sql = "update tasks set state = ?3, finished_at = ?4, wake_at = null, started_by = null, \
                 last_seq = max(last_seq + 1, ?5), crashes = crashes + ?6, \
                 failures = failures + (?3 = 'failed'), \
                 floor_unknown = floor_unknown or (state = 'in_progress' and not ?7), \
                 result_expires_at = ?4 + (select result_ttl_ms from payloads where task = ?1) \
               where id = ?1 and attempt = ?2 and wake_at is not null and (state = 'in_progress' or not ?7) \
               returning id, project, batch, attempt, last_seq, state, started_at, finished_at; \
               replace into results (task, attempt, status, content_type, request_id, upstream, error, \
                 input_tokens, cached_tokens, output_tokens, reasoning_tokens, body, object, object_len) \
               select ?1, ?2, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19 where changes() > 0; \
               insert into batch_counts (batch, task, attempt, completed, failed, \
                 input_tokens, cached_tokens, output_tokens, reasoning_tokens) \
               select batch, ?1, ?2, ?3 = 'completed', ?3 <> 'completed', \
                 ifnull(?13, 0), ifnull(?14, 0), ifnull(?15, 0), ifnull(?16, 0) \
               from tasks where id = ?1 and batch is not null and changes() > 0";
    let statement = sqlx::query(sql)
        .bind(end.task.0)
        .bind(end.attempt)
        .bind(end.state.as_str())
        .bind(now.0)
        .bind(end.floor)
        .bind(end.crashes)
        .bind(end.running)
        .bind(end.answer.map(|answer| answer.status))
        .bind(end.answer.map(|answer| &answer.content_type))
        .bind(end.answer.and_then(|answer| answer.request_id.as_ref()))
        .bind(end.upstream)
        .bind(end.error.map(json));
    let statement = bind_payload(bind_usage(statement, end.usage), end.answer.map(|answer| &answer.body));
    // All rows, not the first: the statements behind it must run too.
    let rows = statement.fetch_all(&mut *db).await?;
    let change = rows.first().map(rows::change).transpose()?;
    if let Some(change) = change.as_ref().filter(|change| change.batch.is_none()) {
        let event_type = format!("task.{}", change.state);
        webhooks::tell(db, now, change.project, &event_type, change.task.0).await?;
    }
    Ok(change)
}

/// The end of an attempt that another one follows.
pub(super) struct Recur<'a> {
    pub(super) task: TaskId,
    pub(super) attempt: u32,
    pub(super) ready_at: UnixMs,
    pub(super) failures: u32,
    pub(super) crashes: u32,
    pub(super) floor: i64,
    pub(super) error: &'a TaskError,
    pub(super) usage: Option<Usage>,
    pub(super) upstream: Option<&'a str>,
}

/// Schedules the next attempt. `None`: the attempt does not run any more, nothing is written.
pub(super) async fn recur(
    db: &mut SqliteConnection,
    now: UnixMs,
    recur: &Recur<'_>,
) -> Result<Option<Change>, Fault> {
    let sql = "update tasks set state = 'scheduled', ready_at = ?3, wake_at = min(?3, expires_at), started_by = null, \
                 failures = failures + ?4, crashes = crashes + ?5, last_seq = max(last_seq + 1, ?6), \
                 floor_unknown = floor_unknown or ?5 > 0 \
               where id = ?1 and attempt = ?2 and state = 'in_progress' \
               returning id, project, batch, attempt, last_seq, state, started_at, finished_at; \
               replace into results (task, attempt, upstream, error) select ?1, ?2, ?8, ?9 where changes() > 0; \
               replace into attempts (task, attempt, ended_at, upstream, error, \
                 input_tokens, cached_tokens, output_tokens, reasoning_tokens) \
               select ?1, ?2, ?7, ?8, ?9, ?10, ?11, ?12, ?13 where changes() > 0";
    let statement = sqlx::query(sql)
        .bind(recur.task.0)
        .bind(recur.attempt)
        .bind(recur.ready_at.0)
        .bind(recur.failures)
        .bind(recur.crashes)
        .bind(recur.floor)
        .bind(now.0)
        .bind(recur.upstream)
        .bind(json(recur.error));
    let rows = bind_usage(statement, recur.usage).fetch_all(db).await?;
    rows.first().map(rows::change).transpose()
}

/// See [`super::super::Store::finish`].
pub(super) async fn finish(
    db: &mut SqliteConnection,
    now: UnixMs,
    ends: Vec<Finish>,
) -> Result<Vec<Finished>, Fault> {
    let mut met = Vec::with_capacity(ends.len());
    for finish in &ends {
        let ending = &finish.ending;
        let spoken = End {
            task: finish.task,
            attempt: finish.attempt,
            running: true,
            state: ending.state,
            floor: finish.floor,
            crashes: 0,
            answer: ending.answer.as_ref(),
            error: ending.error.as_ref(),
            usage: ending.usage,
            upstream: finish.upstream.as_deref(),
        };
        met.push(match end(db, now, &spoken).await? {
            Some(change) => Finished::Applied(change),
            None => {
                let late = Late {
                    task: finish.task,
                    attempt: finish.attempt,
                    wanted: &[ending.state],
                    usage: ending.usage,
                    upstream: finish.upstream.as_deref(),
                };
                late.met(db, now).await?
            }
        });
    }
    Ok(met)
}

/// See [`super::super::Store::again`].
pub(super) async fn again(
    db: &mut SqliteConnection,
    now: UnixMs,
    agains: Vec<Again>,
) -> Result<Vec<Finished>, Fault> {
    let mut met = Vec::with_capacity(agains.len());
    for again in &agains {
        let spoken = Recur {
            task: again.task,
            attempt: again.attempt,
            ready_at: UnixMs(now.0 + millis(again.delay)),
            failures: u32::from(again.charged),
            crashes: 0,
            floor: again.floor,
            error: &again.error,
            usage: again.usage,
            upstream: again.upstream.as_deref(),
        };
        met.push(match recur(db, now, &spoken).await? {
            Some(change) => Finished::Applied(change),
            None => {
                let late = Late {
                    task: again.task,
                    attempt: again.attempt,
                    // Its time may have come since.
                    wanted: &[State::Scheduled, State::Queued],
                    usage: again.usage,
                    upstream: again.upstream.as_deref(),
                };
                late.met(db, now).await?
            }
        });
    }
    Ok(met)
}

/// A fenced write that changed nothing.
struct Late<'a> {
    task: TaskId,
    attempt: u32,
    /// What a repeat finds.
    wanted: &'a [State],
    usage: Option<Usage>,
    upstream: Option<&'a str>,
}

impl Late<'_> {
    /// A repeat, or a lost race, whose tokens were spent all the same.
    async fn met(&self, db: &mut SqliteConnection, now: UnixMs) -> Result<Finished, Fault> {
        let sql = "select id, project, batch, attempt, last_seq, state, started_at, finished_at from tasks where id = ?1";
        let Some(row) = sqlx::query(sql).bind(self.task.0).fetch_optional(&mut *db).await? else {
            return Ok(Finished::Gone);
        };
        let change = rows::change(&row)?;
        if change.attempt == self.attempt && self.wanted.contains(&change.state) {
            return Ok(Finished::Applied(change));
        }
        if self.usage.is_some() {
            self.account(db, now).await?;
        }
        Ok(Finished::Lost(change))
    }

    async fn account(&self, db: &mut SqliteConnection, now: UnixMs) -> Result<(), Fault> {
        let sql = "insert into attempts (task, attempt, ended_at, upstream, \
                     input_tokens, cached_tokens, output_tokens, reasoning_tokens) \
                   values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) \
                   on conflict (task, attempt) do update set upstream = excluded.upstream, \
                     input_tokens = excluded.input_tokens, cached_tokens = excluded.cached_tokens, \
                     output_tokens = excluded.output_tokens, reasoning_tokens = excluded.reasoning_tokens";
        let statement = sqlx::query(sql).bind(self.task.0).bind(self.attempt).bind(now.0).bind(self.upstream);
        bind_usage(statement, self.usage).execute(db).await?;
        Ok(())
    }
}

/// What [`stop`] is to write over which task.
pub(super) struct Stop<'a> {
    pub(super) state: State,
    pub(super) code: ErrorCode,
    pub(super) message: &'a str,
    pub(super) crashes: u32,
}

/// Ends a task that is not terminal, whatever it is doing: for verbs that have read its row in this transaction.
pub(super) async fn stop(
    db: &mut SqliteConnection,
    now: UnixMs,
    task: TaskId,
    attempt: u32,
    stop: &Stop<'_>,
) -> Result<Option<Change>, Fault> {
    let error = TaskError {
        code: stop.code,
        message: stop.message.to_owned(),
        retryable: stop.code != ErrorCode::Cancelled,
        attempt,
        upstream_status: None,
        upstream_code: None,
        upstream_message: None,
    };
    let end_of_it = End {
        task,
        attempt,
        running: false,
        state: stop.state,
        floor: 0,
        crashes: stop.crashes,
        answer: None,
        error: Some(&error),
        usage: None,
        upstream: None,
    };
    end(db, now, &end_of_it).await
}
