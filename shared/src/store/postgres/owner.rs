//! The owner's verbs on one task.

use super::{
    super::codec,
    rows::{self, change_columns, get},
};
use crate::{
    store::{Cancelled, Deleted, Rerun, Result, Retried},
    task::{ErrorCode, ProjectId, State, TaskId},
};
use sqlx::{PgPool, Row};

/// What goes with a terminal state that no worker wrote. Reads a table `ended` with the columns of a change, `code`, `message`,
/// `retryable` and `webhook`: the error becomes the result, a line of a batch is counted, and receivers are told.
macro_rules! ended {
    () => {
        concat!(
            "errors as (
           insert into results (task, attempt, error)
           select id, attempt, json_build_object('code', code, 'message', message, 'retryable', retryable, 'attempt', attempt,
             'upstream_status', null)::text
           from ended
           on conflict (task) do update set attempt = excluded.attempt, error = excluded.error
         ), counted as (
           insert into batch_counts (batch, task, attempt, completed, failed,
             input_tokens, cached_tokens, output_tokens, reasoning_tokens)
           select batch, id, attempt, 0, 1, 0, 0, 0, 0 from ended where batch is not null
         ), ",
            crate::store::postgres::webhooks::told!("ended")
        )
    };
}
pub(super) use ended;

/// What a task's row becomes at such an end; the table `p` is its payload.
macro_rules! end {
    () => {
        " finished_at = (select now_ms()), result_expires_at = (select now_ms()) + p.result_ttl_ms, wake_at = null,
          started_by = null, last_seq = t.last_seq + 1, floor_unknown = t.floor_unknown or t.state = 'in_progress' "
    };
}
pub(super) use end;

/// How often a verb looks again when the task moved between its two looks.
const LOOKS: usize = 3;

pub(super) async fn cancel(
    pool: &PgPool,
    project: ProjectId,
    id: TaskId,
    reason: &str,
) -> Result<Option<Cancelled>> {
    const SQL: &str = concat!(
        "with ended as (
           update tasks t set state = 'cancelled',",
        end!(),
        "from payloads p
           where t.project = $1 and t.id = $2 and p.task = t.id and t.state in ('scheduled', 'queued', 'in_progress')
           returning",
        change_columns!(),
        ", $3::text as code, $4::text as message, false as retryable, p.webhook
         ), ",
        ended!(),
        "select * from ended"
    );
    let mut stands = None;
    for _ in 0..LOOKS {
        let query = sqlx::query(SQL).bind(project.0).bind(id.0);
        let query = query.bind(ErrorCode::Cancelled.as_str()).bind(codec::printable(reason));
        if let Some(row) = query.fetch_optional(pool).await? {
            return Ok(Some(Cancelled::Applied(rows::change(&row)?)));
        }
        stands = state(pool, project, id).await?;
        if stands.is_none_or(|(state, _)| state.is_terminal()) {
            break;
        }
    }
    Ok(stands.map(|(state, _)| Cancelled::Terminal(state)))
}

/// Where the task stands, and whether its batch, if it has one, still takes answers.
async fn state(pool: &PgPool, project: ProjectId, id: TaskId) -> Result<Option<(State, bool)>> {
    let sql = "select t.state, t.batch is null or coalesce(b.state = 'in_progress', false) as open
      from tasks t left join batches b on b.id = t.batch where t.project = $1 and t.id = $2";
    let row = sqlx::query(sql).bind(project.0).bind(id.0).fetch_optional(pool).await?;
    row.map(|row| Ok((codec::state(get(&row, "state")?)?, get(&row, "open")?))).transpose()
}

/// The batch's row is locked for the length of the statement, so that it is not closed meanwhile. Spent usage moves to
/// `attempts`, and stays in the batch's sum: only the line is taken back. What was reserved for the run that is over was settled with it.
const RETRY: &str = concat!(
    "with open as (
       select b.id from batches b where b.id = (select batch from tasks where project = $1 and id = $2)
         and b.state = 'in_progress' for share
     ), started as (
       update tasks t set state = 'queued', failures = 0, crashes = 0, blamed = 0, ready_at = now_ms(), expires_at = now_ms() + p.ttl_ms,
         wake_at = now_ms() + least(p.ttl_ms, p.queue_timeout_ms), finished_at = null, result_expires_at = null,
         last_seq = t.last_seq + 1
       from payloads p
       where t.project = $1 and t.id = $2 and p.task = t.id and t.state in ('failed', 'cancelled', 'expired')
         and (t.batch is null or t.batch in (select id from open))
       returning",
    change_columns!(),
    ", t.queue, t.priority, t.crashes
     ), spent as (
       insert into attempts (task, attempt, ended_at, upstream, error,
         input_tokens, cached_tokens, output_tokens, reasoning_tokens)
       select r.task, r.attempt, now_ms(), r.upstream, r.error,
         r.input_tokens, r.cached_tokens, r.output_tokens, r.reasoning_tokens
       from started join results r on r.task = started.id where r.input_tokens is not null
       on conflict do nothing
     ), afresh as (
       update payloads p set reserved = $3, moderation = $4 from started where p.task = started.id
     ), cleared as (
       delete from results r using started where r.task = started.id
     ), counted as (
       insert into batch_counts (batch, task, attempt, completed, failed,
         input_tokens, cached_tokens, output_tokens, reasoning_tokens)
       select batch, id, attempt, 0, -1, 0, 0, 0, 0 from started where batch is not null
     )
     select * from started"
);

pub(super) async fn retry(
    pool: &PgPool,
    project: ProjectId,
    id: TaskId,
    rerun: &Rerun,
) -> Result<Option<Retried>> {
    let started = sqlx::query(RETRY).bind(project.0).bind(id.0).bind(rerun.reserved.as_deref());
    let moderation = (!rerun.moderation.is_empty()).then(|| codec::json(&rerun.moderation));
    let started = started.bind(moderation).fetch_optional(pool).await?;
    if let Some(row) = started {
        return Ok(Some(Retried::Applied(rows::change(&row)?, rows::bell(&row)?)));
    }
    Ok(state(pool, project, id).await?.map(|(state, open)| match state {
        State::Failed | State::Cancelled | State::Expired if !open => Retried::BatchClosed,
        state => Retried::Refused(state),
    }))
}

/// Everything of the tasks in `gone`, and the objects they referred to.
macro_rules! remains {
    () => {
        "bodies as (
           delete from payloads p using gone where p.task = gone.id returning p.object
         ), answers as (
           delete from results r using gone where r.task = gone.id returning r.object
         ), attempts_gone as (
           delete from attempts a using gone where a.task = gone.id
         ), objects as (
           select array(select object from bodies where object is not null
             union all select object from answers where object is not null) as keys
         ) "
    };
}
pub(super) use remains;

pub(super) async fn delete(
    pool: &PgPool,
    project: ProjectId,
    id: TaskId,
    force: bool,
) -> Result<Option<Deleted>> {
    // A line that is removed before its end will have none: its batch counts it as failed, or it would never close.
    const SQL: &str = concat!(
        "with gone as (
           delete from tasks t where t.project = $1 and t.id = $2 and ($3 or t.finished_at is not null)
           returning t.id, t.batch, t.attempt, t.finished_at
         ), counted as (
           insert into batch_counts (batch, task, attempt, completed, failed,
             input_tokens, cached_tokens, output_tokens, reasoning_tokens)
           select batch, id, attempt, 0, 1, 0, 0, 0, 0 from gone where batch is not null and finished_at is null
         ), ",
        remains!(),
        "select keys from gone, objects"
    );
    for _ in 0..LOOKS {
        let row = sqlx::query(SQL).bind(project.0).bind(id.0).bind(force).fetch_optional(pool).await?;
        if let Some(row) = row {
            return Ok(Some(Deleted::Applied(row.try_get("keys")?)));
        }
        match state(pool, project, id).await? {
            None => return Ok(None),
            Some((state, _)) if !state.is_terminal() => return Ok(Some(Deleted::Active(state))),
            Some(_) => {}
        }
    }
    Ok(None)
}
