//! What is noted of upstreams, and their pauses.

use super::{
    super::{Pause, Served, UpstreamModels},
    rows::{Fault, from_json, id_list, json, millis},
};
use crate::clock::UnixMs;
use sqlx::{Row, SqliteConnection, SqliteExecutor};
use std::time::Duration;

/// Whether a task is served: see [`crate::store::Served`]. The lists are JSON arrays.
macro_rules! served {
    ($task:literal, $endpoints:literal, $except:literal) => {
        concat!(
            "(",
            $endpoints,
            " is null or (",
            $task,
            ".endpoint in (select value from json_each(",
            $endpoints,
            "))) <> (",
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
    upstream: String,
    wait: Duration,
    failing: bool,
) -> Result<(), Fault> {
    let sql = "insert into pauses (upstream, until, failing) values (?1, ?2, ?3) on conflict (upstream) do update set \
                 until = max(until, excluded.until), failing = failing or excluded.failing";
    sqlx::query(sql).bind(upstream).bind(now.0 + millis(wait)).bind(failing).execute(db).await?;
    Ok(())
}

/// See [`super::super::Store::resume`].
pub(super) async fn resume(db: &mut SqliteConnection, _now: UnixMs, upstream: String) -> Result<(), Fault> {
    sqlx::query("delete from pauses where upstream = ?1").bind(upstream).execute(db).await?;
    Ok(())
}

/// See [`super::super::Store::probe`].
pub(super) async fn probe(
    db: &mut SqliteConnection,
    now: UnixMs,
    upstream: String,
    wait: Duration,
) -> Result<bool, Fault> {
    let sql = "update pauses set until = ?3 where upstream = ?1 and failing and until <= ?2";
    let asked = sqlx::query(sql).bind(upstream).bind(now.0).bind(now.0 + millis(wait)).execute(db).await?;
    Ok(asked.rows_affected() > 0)
}

/// See [`super::super::Store::pauses`].
pub(super) async fn pauses(db: impl SqliteExecutor<'_>) -> Result<Vec<Pause>, Fault> {
    let sql = "select upstream, max(until - now, 0) as left_ms, failing \
               from pauses, (select cast(unixepoch('subsec') * 1000 as integer) as now) where failing or until > now";
    let read = |row: &sqlx::sqlite::SqliteRow| {
        let left = Duration::from_millis(row.try_get::<i64, _>("left_ms")?.unsigned_abs());
        Ok(Pause { upstream: row.try_get("upstream")?, left, failing: row.try_get("failing")? })
    };
    sqlx::query(sql).fetch_all(db).await?.iter().map(read).collect()
}
