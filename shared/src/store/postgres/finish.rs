//! finish and again: fenced writes over arrays, one statement each.
//!
//! The guard is the attempt: a row takes the write of the attempt it runs, and of no other. Inputs it did not take are read
//! back once, to tell a repeat from a lost race. Usage is kept whatever the guard said: in `results` of the attempt that won,
//! in `attempts` of any other.

use super::{
    super::codec::{self, int},
    read,
    rows::{self, change_columns},
    webhooks::told,
};
use crate::{
    clock::ms,
    store::{Again, Finish, Finished, Result},
    task::{Change, State, TaskError, TaskId, Usage},
};
use sqlx::{PgConnection, Postgres, postgres::PgArguments, query::Query};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

/// What both kinds of input have in common, bound as `$1` to `$9`.
struct End<'a> {
    task: TaskId,
    attempt: u32,
    floor: i64,
    upstream: Option<&'a Arc<str>>,
    error: Option<&'a TaskError>,
    usage: Option<Usage>,
}

/// An attempt that did not win, from rows `i`.
macro_rules! note {
    () => {
        "insert into attempts (task, attempt, ended_at, upstream, error,
           input_tokens, cached_tokens, output_tokens, reasoning_tokens)
         select i.id, i.attempt, now_ms(), i.upstream, i.error, i.input, i.cached, i.output, i.reasoning from "
    };
}

/// Inputs that took no row: their usage is kept, unless it is in the result (a repeat) or the task is no more. A statement of its
/// own, because one that waited for a row sees the rest as it was before the wait: not the result that was written meanwhile.
const SPENT: &str = concat!(
    note!(),
    "unnest($1::uuid[], $2::int[], $3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[])
       as i(id, attempt, upstream, error, input, cached, output, reasoning)
     where exists (select from tasks where id = i.id) and not exists (
       select from results r where r.task = i.id and r.attempt = i.attempt and r.input_tokens is not null)
     on conflict do nothing"
);

/// The columns of [`End`], then the kind's own.
macro_rules! input {
    ($types:literal, $names:literal) => {
        concat!(
            "unnest($1::uuid[], $2::int[], $3::bigint[], $4::text[], $5::text[],
               $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[], ",
            $types,
            ") as i(id, attempt, floor, upstream, error, input, cached, output, reasoning, ",
            $names,
            ") "
        )
    };
}

/// What a taken row hands on to the inserts beside it, so that nothing has to be joined again.
macro_rules! handed_on {
    () => {
        ", i.upstream, i.error, i.input, i.cached, i.output, i.reasoning "
    };
}

const FINISH: &str = concat!(
    "with done as (
       update tasks t set state = i.state, finished_at = (select now_ms()), wake_at = null, started_by = null,
         result_expires_at = (select now_ms()) + p.result_ttl_ms, last_seq = greatest(t.last_seq + 1, i.floor),
         failures = t.failures + (i.state = 'failed')::int
       from ",
    input!(
        "$10::text[], $11::smallint[], $12::text[], $13::text[], $14::bytea[], $15::text[], $16::bigint[]",
        "state, status, content_type, request_id, body, object, object_len"
    ),
    "join payloads p on p.task = i.id
       where t.id = i.id and t.attempt = i.attempt and t.state = 'in_progress'
       returning",
    change_columns!(),
    handed_on!(),
    ", i.status, i.content_type, i.request_id, i.body, i.object, i.object_len, p.webhook
     ), kept as (
       insert into results (task, attempt, upstream, error, input_tokens, cached_tokens, output_tokens, reasoning_tokens,
         status, content_type, request_id, body, object, object_len)
       select id, attempt, upstream, error, input, cached, output, reasoning,
         status, content_type, request_id, body, object, object_len
       from done
       on conflict (task) do update set attempt = excluded.attempt, upstream = excluded.upstream, error = excluded.error,
         input_tokens = excluded.input_tokens, cached_tokens = excluded.cached_tokens,
         output_tokens = excluded.output_tokens, reasoning_tokens = excluded.reasoning_tokens,
         status = excluded.status, content_type = excluded.content_type, request_id = excluded.request_id,
         body = excluded.body, object = excluded.object, object_len = excluded.object_len
     ), counted as (
       insert into batch_counts (batch, task, attempt, completed, failed,
         input_tokens, cached_tokens, output_tokens, reasoning_tokens)
       select batch, id, attempt, (state = 'completed')::int, (state <> 'completed')::int,
         coalesce(input, 0), coalesce(cached, 0), coalesce(output, 0), coalesce(reasoning, 0)
       from done where batch is not null
     ), ",
    told!("done"),
    "select id, project, batch, attempt, last_seq, state, changed_at from done"
);

const AGAIN: &str = concat!(
    "with done as (
       update tasks t set state = 'scheduled', started_by = null, ready_at = (select now_ms()) + i.delay,
         wake_at = least((select now_ms()) + i.delay, t.expires_at), failures = t.failures + i.charged::int,
         last_seq = greatest(t.last_seq + 1, i.floor)
       from ",
    input!("$10::bigint[], $11::bool[]", "delay, charged"),
    "where t.id = i.id and t.attempt = i.attempt and t.state = 'in_progress'
       returning",
    change_columns!(),
    handed_on!(),
    "), kept as (
       insert into results (task, attempt, upstream, error)
       select id, attempt, upstream, error from done
       on conflict (task) do update set attempt = excluded.attempt, upstream = excluded.upstream, error = excluded.error
     ), noted as (",
    note!(),
    "done i on conflict do nothing)
     select id, project, batch, attempt, last_seq, state, changed_at from done"
);

fn all<'e, 'a, T>(ends: &'e [End<'a>], column: impl Fn(&'e End<'a>) -> T) -> Vec<T> {
    ends.iter().map(column).collect()
}

fn bind<'q>(query: Query<'q, Postgres, PgArguments>, ends: &[End<'_>]) -> Query<'q, Postgres, PgArguments> {
    let query = query.bind(all(ends, |end| end.task.0)).bind(all(ends, |end| int(end.attempt)));
    account(query.bind(all(ends, |end| end.floor)), ends)
}

/// Who was called, what went wrong and what it cost: the last columns of [`End`].
fn account<'q>(
    query: Query<'q, Postgres, PgArguments>,
    ends: &[End<'_>],
) -> Query<'q, Postgres, PgArguments> {
    query
        .bind(all(ends, |end| end.upstream.map(|name| &**name)))
        .bind(all(ends, |end| end.error.map(codec::json)))
        .bind(all(ends, |end| end.usage.map(|usage| usage.input_tokens)))
        .bind(all(ends, |end| end.usage.map(|usage| usage.cached_tokens)))
        .bind(all(ends, |end| end.usage.map(|usage| usage.output_tokens)))
        .bind(all(ends, |end| end.usage.map(|usage| usage.reasoning_tokens)))
}

/// One input per task and attempt (the first), in the order of the ids, in which every writer takes its rows.
fn distinct<T>(inputs: &[T], key: impl Fn(&T) -> (TaskId, u32)) -> Vec<&T> {
    let mut seen = HashSet::new();
    let mut distinct: Vec<&T> = inputs.iter().filter(|input| seen.insert(key(input))).collect();
    distinct.sort_unstable_by_key(|input| key(input));
    distinct
}

pub(super) async fn finish(db: &mut PgConnection, ends: &[Finish]) -> Result<Vec<Finished>> {
    if ends.is_empty() {
        return Ok(Vec::new());
    }
    let inputs = distinct(ends, |end| (end.task, end.attempt));
    let shared: Vec<End<'_>> = inputs
        .iter()
        .map(|end| End {
            task: end.task,
            attempt: end.attempt,
            floor: end.floor,
            upstream: end.upstream.as_ref(),
            error: end.ending.error.as_ref(),
            usage: end.ending.usage,
        })
        .collect();
    let answers: Vec<_> = inputs.iter().map(|end| end.ending.answer.as_ref()).collect();
    let bodies: Vec<_> = answers
        .iter()
        .map(|answer| answer.map_or((None, None, None), |answer| rows::columns(&answer.body)))
        .collect();
    let each = |answer: &Option<&crate::task::Answer>| {
        answer.map(|answer| i16::try_from(answer.status).unwrap_or(i16::MAX))
    };
    let query = bind(sqlx::query(FINISH), &shared)
        .bind(inputs.iter().map(|end| end.ending.state.as_str()).collect::<Vec<_>>())
        .bind(answers.iter().map(each).collect::<Vec<_>>())
        .bind(answers.iter().map(|answer| answer.map(|answer| &*answer.content_type)).collect::<Vec<_>>())
        .bind(
            answers
                .iter()
                .map(|answer| answer.and_then(|answer| answer.request_id.as_deref()))
                .collect::<Vec<_>>(),
        )
        .bind(bodies.iter().map(|body| body.0).collect::<Vec<_>>())
        .bind(bodies.iter().map(|body| body.1).collect::<Vec<_>>())
        .bind(bodies.iter().map(|body| body.2).collect::<Vec<_>>());
    let done = rows::changes(&query.fetch_all(&mut *db).await?)?;
    let asked = ends.iter().map(|end| (end.task, end.attempt));
    // A repeat finds its own state under its own attempt.
    told(db, asked, done, shared, |index, change| change.state == ends[index].ending.state).await
}

pub(super) async fn again(db: &mut PgConnection, agains: &[Again]) -> Result<Vec<Finished>> {
    if agains.is_empty() {
        return Ok(Vec::new());
    }
    let inputs = distinct(agains, |again| (again.task, again.attempt));
    let shared: Vec<End<'_>> = inputs
        .iter()
        .map(|again| End {
            task: again.task,
            attempt: again.attempt,
            floor: again.floor,
            upstream: again.upstream.as_ref(),
            error: Some(&again.error),
            usage: again.usage,
        })
        .collect();
    let query = bind(sqlx::query(AGAIN), &shared)
        .bind(inputs.iter().map(|again| ms(again.delay)).collect::<Vec<_>>())
        .bind(inputs.iter().map(|again| again.charged).collect::<Vec<_>>());
    let done = rows::changes(&query.fetch_all(&mut *db).await?)?;
    let asked = agains.iter().map(|again| (again.task, again.attempt));
    // A repeat finds the row waiting for its time, or queued again already, before any newer attempt.
    told(db, asked, done, shared, |_, change| matches!(change.state, State::Scheduled | State::Queued)).await
}

/// One answer per input: the change that was just made, or how the task stands. `repeats` tells whether the state it stands
/// in, under the same attempt, is what the input (by its index) asked for.
async fn told(
    db: &mut PgConnection,
    asked: impl Iterator<Item = (TaskId, u32)> + Clone,
    done: Vec<Change>,
    ends: Vec<End<'_>>,
    repeats: impl Fn(usize, &Change) -> bool,
) -> Result<Vec<Finished>> {
    let done: HashMap<(TaskId, u32), Change> =
        done.into_iter().map(|change| ((change.task, change.attempt), change)).collect();
    let missed = |end: &End<'_>| end.usage.is_some() && !done.contains_key(&(end.task, end.attempt));
    let spent: Vec<End<'_>> = ends.into_iter().filter(missed).collect();
    if !spent.is_empty() {
        let query = sqlx::query(SPENT).bind(all(&spent, |end| end.task.0));
        account(query.bind(all(&spent, |end| int(end.attempt))), &spent).execute(&mut *db).await?;
    }
    let open: Vec<TaskId> =
        asked.clone().filter(|key| !done.contains_key(key)).map(|(task, _)| task).collect();
    let stands: HashMap<TaskId, Change> =
        read::glance(db, &open).await?.into_iter().map(|change| (change.task, change)).collect();
    let answer = |(index, (task, attempt)): (usize, (TaskId, u32))| {
        let change = done.get(&(task, attempt)).or_else(|| stands.get(&task));
        match change.cloned() {
            None => Finished::Gone,
            Some(change) if change.attempt == attempt && repeats(index, &change) => Finished::Applied(change),
            Some(change) => Finished::Lost(change),
        }
    };
    Ok(asked.enumerate().map(answer).collect())
}
