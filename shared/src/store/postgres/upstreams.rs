//! What is noted of upstreams, and their pauses.

use super::{super::codec, rows::get};
use crate::{
    clock::ms,
    store::{Capped, Pause, Result, Served, UpstreamModels},
};
use sqlx::{PgPool, postgres::PgRow};
use std::time::Duration;
use uuid::Uuid;

/// Whether a task is served: see [`crate::store::Served`].
macro_rules! served {
    ($task:literal, $endpoints:literal, $except:literal) => {
        concat!(
            "(",
            $endpoints,
            "::text[] is null or (",
            $task,
            ".endpoint = any(",
            $endpoints,
            ")) <> (",
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

pub(super) async fn pause(pool: &PgPool, upstream: &str, wait: Duration, failing: bool) -> Result<()> {
    let sql = "insert into pauses as p (upstream, until, failing) values ($1, now_ms() + $2, $3)
      on conflict (upstream) do update set until = greatest(p.until, excluded.until), failing = p.failing or excluded.failing";
    sqlx::query(sql).bind(upstream).bind(ms(wait)).bind(failing).execute(pool).await?;
    Ok(())
}

pub(super) async fn resume(pool: &PgPool, upstream: &str) -> Result<()> {
    sqlx::query("delete from pauses where upstream = $1").bind(upstream).execute(pool).await?;
    Ok(())
}

pub(super) async fn probe(pool: &PgPool, upstream: &str, wait: Duration) -> Result<bool> {
    let sql = "update pauses set until = now_ms() + $2 where upstream = $1 and failing and until <= now_ms()";
    let asked = sqlx::query(sql).bind(upstream).bind(ms(wait)).execute(pool).await?;
    Ok(asked.rows_affected() > 0)
}

pub(super) async fn pauses(pool: &PgPool) -> Result<Vec<Pause>> {
    let sql = "select upstream, greatest(until - now_ms(), 0) as left_ms, failing from pauses where failing or until > now_ms()";
    let read = |row: &PgRow| {
        let left = codec::span(get(row, "left_ms")?);
        Ok(Pause { upstream: get(row, "upstream")?, left, failing: get(row, "failing")? })
    };
    sqlx::query(sql).fetch_all(pool).await?.iter().map(read).collect()
}
