//! The rows of a system under test: when each task was accepted, started and done, and what that cost the database.

use anyhow::{Context, bail};
use shared::task::TaskId;
use sqlx::{
    AssertSqlSafe, Connection, Executor, PgConnection, PgPool, Row, SqlitePool,
    postgres::PgPoolOptions,
    sqlite::{SqliteConnectOptions, SqlitePoolOptions},
};
use std::{
    collections::HashMap,
    fs,
    path::Path,
    sync::atomic::{AtomicU32, Ordering},
};
use uuid::Uuid;

/// A system's tasks.
#[derive(Debug)]
pub(crate) enum Rows {
    /// In a database of its own on the shared Postgres.
    Postgres(PgPool, &'static Words),
    /// In a file.
    Sqlite(SqlitePool),
}

/// How a schema says what all of them know.
#[derive(Debug)]
pub(crate) struct Words {
    /// Whether any task has not ended.
    open: &'static str,
    /// Tasks now at the model.
    running: &'static str,
    /// Three moments in milliseconds of every completed task accepted at or after `$1`.
    done: &'static str,
}

const LONGHAUL: Words = Words {
    open: "select exists(select 1 from tasks where wake_at is not null)",
    running: "select count(*) from tasks where state = 'in_progress'",
    done: "select cast(created_at as double precision), cast(started_at as double precision),
             cast(finished_at as double precision)
           from tasks where created_at >= $1 and state = 'completed'",
};

const PEER: Words = Words {
    open: "select exists(select 1 from tasks where state in ('queued', 'in_progress'))",
    running: "select count(*) from tasks where state = 'in_progress'",
    done: "select (extract(epoch from created_at) * 1000)::float8, (extract(epoch from started_at) * 1000)::float8,
             (extract(epoch from finished_at) * 1000)::float8
           from tasks where created_at >= to_timestamp($1 / 1000) and state = 'completed'",
};

/// When a task was accepted, taken up and done: milliseconds since the epoch, by the database's clock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Life {
    pub(crate) created: f64,
    pub(crate) started: f64,
    pub(crate) finished: f64,
}

/// What a database has written so far.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Written {
    /// Bytes of WAL, of the whole server.
    pub(crate) wal: f64,
    /// Updates of `tasks` rows.
    pub(crate) updates: f64,
    /// Those that touched no index (heap-only tuples).
    pub(crate) hot: f64,
}

#[expect(clippy::disallowed_methods, reason = "the benchmark is told of its services by scripts/bench")]
fn server() -> anyhow::Result<String> {
    std::env::var("LONGHAUL_TEST_DATABASE_URL").context("no Postgres: start the benchmark by scripts/bench")
}

/// A new database with this schema; gives its URL.
pub(crate) async fn create(schema: &str) -> anyhow::Result<String> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = format!("peer_{}", COUNT.fetch_add(1, Ordering::Relaxed));
    let server = server()?;
    let mut connection = PgConnection::connect(&server).await?;
    connection.execute(AssertSqlSafe(format!("drop database if exists {name} with (force)"))).await?;
    connection.execute(AssertSqlSafe(format!("create database {name}"))).await?;
    let url = format!("{}/{name}", server.rsplit_once('/').context("no database in the server's URL")?.0);
    PgConnection::connect(&url).await?.execute(AssertSqlSafe(schema.to_owned())).await?;
    Ok(url)
}

impl Rows {
    /// Longhaul's, distributed.
    pub(crate) async fn longhaul(url: &str) -> anyhow::Result<Self> {
        Ok(Self::Postgres(PgPoolOptions::new().max_connections(2).connect(url).await?, &LONGHAUL))
    }

    /// Longhaul's, embedded.
    pub(crate) async fn embedded(file: &Path) -> anyhow::Result<Self> {
        let options = SqliteConnectOptions::new().filename(file).read_only(true);
        Ok(Self::Sqlite(SqlitePoolOptions::new().max_connections(1).connect_with(options).await?))
    }

    /// A peer's.
    pub(crate) async fn peer(url: &str) -> anyhow::Result<Self> {
        Ok(Self::Postgres(PgPoolOptions::new().max_connections(2).connect(url).await?, &PEER))
    }

    /// The database, if it is Postgres.
    pub(crate) fn postgres(&self) -> Option<&PgPool> {
        match self {
            Self::Postgres(pool, _) => Some(pool),
            Self::Sqlite(_) => None,
        }
    }

    /// Whether they are in a file.
    pub(crate) fn is_embedded(&self) -> bool {
        matches!(self, Self::Sqlite(_))
    }

    /// Whether any task has not ended.
    pub(crate) async fn open(&self) -> anyhow::Result<bool> {
        Ok(match self {
            Self::Postgres(pool, words) => sqlx::query_scalar(words.open).fetch_one(pool).await?,
            Self::Sqlite(pool) => sqlx::query_scalar(LONGHAUL.open).fetch_one(pool).await?,
        })
    }

    /// Tasks now at the model.
    pub(crate) async fn running(&self) -> anyhow::Result<i64> {
        Ok(match self {
            Self::Postgres(pool, words) => sqlx::query_scalar(words.running).fetch_one(pool).await?,
            Self::Sqlite(pool) => sqlx::query_scalar(LONGHAUL.running).fetch_one(pool).await?,
        })
    }

    /// The lives of the completed tasks that were accepted at `since` (ms) or later.
    pub(crate) async fn done(&self, since: f64) -> anyhow::Result<Vec<Life>> {
        let life = |row: (f64, f64, f64)| Life { created: row.0, started: row.1, finished: row.2 };
        let rows: Vec<(f64, f64, f64)> = match self {
            Self::Postgres(pool, words) => sqlx::query_as(words.done).bind(since).fetch_all(pool).await?,
            Self::Sqlite(pool) => sqlx::query_as(LONGHAUL.done).bind(since).fetch_all(pool).await?,
        };
        Ok(rows.into_iter().map(life).collect())
    }

    /// When a project's tasks that were accepted at `since` or later were accepted and started, ms.
    pub(crate) async fn started(
        &self,
        since: f64,
        project: &str,
    ) -> anyhow::Result<HashMap<TaskId, (f64, f64)>> {
        let Self::Postgres(pool, _) = self else { bail!("only where there are projects") };
        let sql = "select t.id, t.created_at::float8, t.started_at::float8
          from tasks t join projects p on p.id = t.project where t.created_at >= $1 and t.started_at is not null and p.name = $2";
        let rows: Vec<(Uuid, f64, f64)> =
            sqlx::query_as(sql).bind(since).bind(project).fetch_all(pool).await?;
        Ok(rows.into_iter().map(|(id, created, started)| (TaskId(id), (created, started))).collect())
    }

    /// WAL and kinds of updates so far; nothing of SQLite.
    pub(crate) async fn written(&self) -> anyhow::Result<Option<Written>> {
        let Self::Postgres(pool, _) = self else { return Ok(None) };
        let row = sqlx::query(
            "select (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::float8, n_tup_upd::float8, n_tup_hot_upd::float8
             from pg_stat_user_tables where relname = 'tasks'",
        )
        .fetch_one(pool)
        .await?;
        Ok(Some(Written { wal: row.try_get(0)?, updates: row.try_get(1)?, hot: row.try_get(2)? }))
    }

    /// Writes out what the server holds back, so that no earlier run's pages are written during the next.
    pub(crate) async fn settle(&self) -> anyhow::Result<()> {
        if let Self::Postgres(pool, _) = self {
            sqlx::query("checkpoint").execute(pool).await?;
        }
        Ok(())
    }

    /// The pid of the Postgres server: the parent of any of its backends.
    pub(crate) async fn server_pid(&self) -> anyhow::Result<Option<u32>> {
        let Self::Postgres(pool, _) = self else { return Ok(None) };
        let backend: i32 = sqlx::query_scalar("select pg_backend_pid()").fetch_one(pool).await?;
        let status = fs::read_to_string(format!("/proc/{backend}/status"))?;
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"));
        Ok(Some(parent.context("a backend without a parent")?.trim().parse()?))
    }
}
