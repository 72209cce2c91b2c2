//! What is noted of upstreams, and their pauses.

use super::{super::codec, rows::get};
use crate::{
    clock::ms,
    store::{Capped, Cause, Pause, Result, Scope, Served, UpstreamModels},
};
use sqlx::{PgPool, postgres::PgRow};
use std::time::Duration;
use uuid::Uuid;

/// Whether a task is served: see [`crate::store::Served`]. A name that differs is looked up, and of prefixes there are few.
macro_rules! served {
    ($task:literal, $prefixes:literal, $except:literal) => {
        concat!(
            "(",
            $prefixes,
            "::text[] is null or ((select count(*) from unnest(",
            $prefixes,
            "::text[]) as u(prefix) where starts_with(",
            $task,
            ".endpoint || ' ' || ",
            $task,
            ".model, u.prefix)) % 2 = 1) <> (",
            $task,
            ".endpoint || ' ' || ",
            $task,
            ".model = any(",
            $except,
            "::text[])))"
        )
    };
}
pub(super) use served;

/// Whether a project (a column, and never null) has no cap; the list is null where none has.
macro_rules! uncapped {
    ($project:literal, $capped:literal) => {
        concat!("(", $capped, "::uuid[] is null or ", $project, " <> all(", $capped, "))")
    };
}
pub(super) use uncapped;

/// Projects with caps of their own and these caps, no lists where there is none; and the usual cap.
pub(super) fn caps(served: &Served) -> (Option<Vec<Uuid>>, Option<Vec<i32>>, Option<i32>) {
    let Capped { own, usual } = &served.capped;
    let (projects, tasks): (Vec<_>, Vec<_>) =
        own.iter().map(|cap| (cap.project.0, codec::int(cap.tasks))).unzip();
    let some = !own.is_empty();
    (some.then_some(projects), some.then_some(tasks), usual.map(codec::int))
}

pub(super) async fn put_models(pool: &PgPool, upstream: &str, models: Option<&[String]>) -> Result<()> {
    let sql = "insert into upstream_models (upstream, models, noted_at) values ($1, $2, now_ms())
      on conflict (upstream) do update set models = excluded.models, noted_at = excluded.noted_at";
    sqlx::query(sql).bind(upstream).bind(models.map(codec::json)).execute(pool).await?;
    Ok(())
}

pub(super) async fn models(pool: &PgPool, age: Duration) -> Result<Vec<UpstreamModels>> {
    let sql = "select upstream, models from upstream_models where noted_at > now_ms() - $1 order by upstream";
    let found = sqlx::query(sql).bind(ms(age)).fetch_all(pool).await?;
    let read = |row: &PgRow| {
        let models = codec::from_json(get(row, "models")?, "models")?;
        Ok(UpstreamModels { upstream: get(row, "upstream")?, models })
    };
    found.iter().map(read).collect()
}

pub(super) async fn pause(pool: &PgPool, scope: &Scope, wait: Duration, cause: Cause) -> Result<()> {
    let sql =
        "insert into upstream_pauses as p (upstream, model, until, cause) values ($1, $2, now_ms() + $3, $4)
      on conflict (upstream, model) do update set until = greatest(p.until, excluded.until),
        cause = case excluded.cause when 'throttled' then p.cause else excluded.cause end";
    let query = sqlx::query(sql).bind(&scope.upstream).bind(scope.model_column());
    query.bind(ms(wait)).bind(cause.as_str()).execute(pool).await?;
    Ok(())
}

pub(super) async fn resume(pool: &PgPool, scope: &Scope) -> Result<()> {
    let sql = "delete from upstream_pauses where upstream = $1 and model = $2";
    sqlx::query(sql).bind(&scope.upstream).bind(scope.model_column()).execute(pool).await?;
    Ok(())
}

pub(super) async fn probe(pool: &PgPool, scope: &Scope, wait: Duration) -> Result<bool> {
    let sql = "update upstream_pauses set until = now_ms() + $3
      where upstream = $1 and model = $2 and cause <> 'throttled' and until <= now_ms()";
    let query = sqlx::query(sql).bind(&scope.upstream).bind(scope.model_column());
    let asked = query.bind(ms(wait)).execute(pool).await?;
    Ok(asked.rows_affected() > 0)
}

pub(super) async fn pauses(pool: &PgPool) -> Result<Vec<Pause>> {
    let sql = "select upstream, model, greatest(until - now_ms(), 0) as left_ms, cause from upstream_pauses
      where cause <> 'throttled' or until > now_ms()";
    let read = |row: &PgRow| {
        let (left, cause): (i64, String) = (get(row, "left_ms")?, get(row, "cause")?);
        let scope = Scope::from_columns(get(row, "upstream")?, get(row, "model")?);
        Ok(Pause { scope, left: codec::span(left), cause: Cause::read(&cause) })
    };
    sqlx::query(sql).fetch_all(pool).await?.iter().map(read).collect()
}
