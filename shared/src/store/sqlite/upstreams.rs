//! What is noted of upstreams, and their pauses.

use super::{
    super::{Cause, Pause, Scope, Served, UpstreamModels},
    rows::{Fault, from_json, id_list, json, millis},
};
use crate::clock::UnixMs;
use sqlx::{Row, SqliteConnection, SqliteExecutor};
use std::time::Duration;

/// Whether a task is served: see [`crate::store::Served`]. The lists are JSON arrays.
macro_rules! served {
    ($task:literal, $prefixes:literal, $except:literal) => {
        concat!(
            "(",
            $prefixes,
            " is null or ((select count(*) from json_each(",
            $prefixes,
            ") where substr(",
            $task,
            ".endpoint || ' ' || ",
            $task,
            ".model, 1, length(value)) = value) % 2 = 1) <> (",
            $task,
            ".endpoint || ' ' || ",
            $task,
            ".model in (select value from json_each(",
            $except,
            "))))"
        )
    };
}
pub(super) use served;

/// The two lists of [`Served`] as JSON.
pub(super) fn lists(served: &Served) -> (Option<String>, Option<String>) {
    let (endpoints, except) = served.lists();
    (endpoints.map(|list| json(&list)), except.map(|list| json(&list)))
}

/// Projects with caps of their own, as [`id_list`] has them.
pub(super) fn capped(served: &Served) -> String {
    id_list(served.capped.own.iter().map(|cap| cap.project.0))
}

/// See [`super::super::Store::put_models`].
pub(super) async fn put_models(
    db: &mut SqliteConnection,
    now: UnixMs,
    upstream: String,
    models: Option<Vec<String>>,
) -> Result<(), Fault> {
    let sql = "replace into upstream_models (upstream, models, noted_at) values (?1, ?2, ?3)";
    sqlx::query(sql).bind(upstream).bind(models.as_ref().map(json)).bind(now.0).execute(db).await?;
    Ok(())
}

/// See [`super::super::Store::models`].
pub(super) async fn models(
    db: impl SqliteExecutor<'_>,
    within: Duration,
) -> Result<Vec<UpstreamModels>, Fault> {
    let sql = "select upstream, models from upstream_models \
               where noted_at >= cast(unixepoch('subsec') * 1000 as integer) - ?1 order by upstream";
    let found = sqlx::query(sql).bind(millis(within)).fetch_all(db).await?;
    let noted = found.iter().map(|row| {
        let models: Option<&str> = row.try_get("models")?;
        let models = models.map(|text| from_json(text, "upstream_models.models")).transpose()?;
        Ok(UpstreamModels { upstream: row.try_get("upstream")?, models })
    });
    noted.collect()
}

/// See [`super::super::Store::pause`].
pub(super) async fn pause(
    db: &mut SqliteConnection,
    now: UnixMs,
    scope: Scope,
    wait: Duration,
    cause: Cause,
) -> Result<(), Fault> {
    let sql = "insert into upstream_pauses (upstream, model, until, cause) values (?1, ?2, ?3, ?4) \
               on conflict (upstream, model) do update set until = max(until, excluded.until), \
                 cause = case excluded.cause when 'throttled' then cause else excluded.cause end";
    let query = sqlx::query(sql).bind(&scope.upstream).bind(scope.model_column());
    query.bind(now.0 + millis(wait)).bind(cause.as_str()).execute(db).await?;
    Ok(())
}

/// See [`super::super::Store::resume`].
pub(super) async fn resume(db: &mut SqliteConnection, _now: UnixMs, scope: Scope) -> Result<(), Fault> {
    let sql = "delete from upstream_pauses where upstream = ?1 and model = ?2";
    sqlx::query(sql).bind(&scope.upstream).bind(scope.model_column()).execute(db).await?;
    Ok(())
}

/// See [`super::super::Store::probe`].
pub(super) async fn probe(
    db: &mut SqliteConnection,
    now: UnixMs,
    scope: Scope,
    wait: Duration,
) -> Result<bool, Fault> {
    let sql = "update upstream_pauses set until = ?4 \
               where upstream = ?1 and model = ?2 and cause <> 'throttled' and until <= ?3";
    let query = sqlx::query(sql).bind(&scope.upstream).bind(scope.model_column());
    let asked = query.bind(now.0).bind(now.0 + millis(wait)).execute(db).await?;
    Ok(asked.rows_affected() > 0)
}

/// See [`super::super::Store::pauses`].
pub(super) async fn pauses(db: impl SqliteExecutor<'_>) -> Result<Vec<Pause>, Fault> {
    let sql = "select upstream, model, max(until - now, 0) as left_ms, cause \
               from upstream_pauses, (select cast(unixepoch('subsec') * 1000 as integer) as now) \
               where cause <> 'throttled' or until > now";
    let read = |row: &sqlx::sqlite::SqliteRow| {
        let left = Duration::from_millis(row.try_get::<i64, _>("left_ms")?.unsigned_abs());
        let scope = Scope::from_columns(row.try_get("upstream")?, row.try_get("model")?);
        Ok(Pause { scope, left, cause: Cause::read(row.try_get("cause")?) })
    };
    sqlx::query(sql).fetch_all(db).await?.iter().map(read).collect()
}
