//! What the rows went through: a trigger in the app's own database writes every change of a task's state or attempt beside it.
//! And how everything stands at the end.

use crate::{App, Seen, within};
use anyhow::Context;
use shared::task::TaskId;
use sqlx::{
    AssertSqlSafe, Connection, Executor, PgConnection, Row, SqliteConnection, sqlite::SqliteConnectOptions,
};
use std::time::Duration;
use uuid::Uuid;

const POSTGRES: &str = "
  create table audit (number bigserial primary key, task uuid, attempt integer, was text, now text);
  create function note_change() returns trigger language plpgsql as $$ begin
    insert into audit (task, attempt, was, now) values (new.id, new.attempt, old.state, new.state); return null; end $$;
  create trigger audit after update on tasks for each row
    when (old.state <> new.state or old.attempt <> new.attempt) execute function note_change();";

const SQLITE: &str = "
  create table audit (number integer primary key, task blob, attempt integer, was text, now text);
  create trigger audit after update on tasks when old.state <> new.state or old.attempt <> new.attempt
    begin insert into audit (task, attempt, was, now) values (new.id, new.attempt, old.state, new.state); end;";

const ROWS: &str = "select task, attempt, was, now from audit order by number";
const STANDS: &str = "select t.id, t.state, t.attempt, r.status is not null as has_result, r.output_tokens
  from tasks t left join results r on r.task = t.id order by t.id";
const OPEN: &str = "select count(*) from tasks where finished_at is null";
const HELD: &str = "select count(*) from tasks where started_by is not null";
/// Transactions that somebody has left open, on this database.
const IDLE: &str = "select count(*) from pg_stat_activity where datname = current_database()
  and state like 'idle in transaction%' and state_change < now() - interval '1 second'";

/// The app's database, whichever it is.
#[derive(Debug)]
enum Db {
    Postgres(PgConnection),
    Sqlite(SqliteConnection),
}

macro_rules! on {
    ($db:expr, $connection:ident => $work:expr) => {
        match $db {
            Db::Postgres($connection) => $work,
            Db::Sqlite($connection) => $work,
        }
    };
}

async fn connect(app: &App) -> anyhow::Result<Db> {
    Ok(match &app.database {
        Some(url) => Db::Postgres(PgConnection::connect(url).await?),
        None => {
            let file = app.data().join("longhaul.db");
            let options = SqliteConnectOptions::new().filename(file).busy_timeout(Duration::from_secs(10));
            Db::Sqlite(SqliteConnection::connect_with(&options).await?)
        }
    })
}

async fn count(db: &mut Db, sql: &'static str) -> anyhow::Result<i64> {
    Ok(on!(db, connection => sqlx::query_scalar(sql).fetch_one(connection).await?))
}

impl App {
    /// Begins to write down every change of a task's state. Once, at the start of a run.
    ///
    /// # Errors
    /// The database is away.
    pub async fn audit(&self) -> anyhow::Result<()> {
        let sql = if self.database.is_some() { POSTGRES } else { SQLITE };
        on!(&mut connect(self).await?, connection => { connection.execute(AssertSqlSafe(sql)).await?; });
        Ok(())
    }

    /// Unfinished tasks, as the rows know them.
    ///
    /// # Errors
    /// The database is away.
    pub async fn unfinished(&self) -> anyhow::Result<i64> {
        count(&mut connect(self).await?, OPEN).await
    }

    /// Runs a statement on the app's own database; how many rows it has changed.
    ///
    /// # Errors
    /// The database is away, or does not understand it.
    pub async fn change(&self, sql: &'static str) -> anyhow::Result<u64> {
        let mut db = connect(self).await?;
        Ok(on!(&mut db, connection => sqlx::query(sql).execute(connection).await?.rows_affected()))
    }

    /// The rows that a statement gives, all of whose columns are `bigint`s.
    ///
    /// # Errors
    /// As [`App::change`], or another column.
    pub async fn numbers(&self, sql: &'static str) -> anyhow::Result<Vec<Vec<i64>>> {
        let mut db = connect(self).await?;
        on!(&mut db, connection => {
            let rows = sqlx::query(sql).fetch_all(connection).await?;
            rows.iter().map(|row| (0..row.len()).map(|n| Ok(row.try_get(n)?)).collect()).collect()
        })
    }

    /// Waits until every task has ended, then adds to the history what rows and model know, and judges it.
    ///
    /// # Errors
    /// A task has not ended within `patience`, or a promise was broken: each is named.
    pub async fn judge(&self, history: &crate::History, patience: Duration) -> anyhow::Result<Vec<Seen>> {
        let mut last = Ok(0);
        within(patience, "every task has ended", async || {
            // The database may be on its way back.
            last = self.unfinished().await;
            Ok(last.as_ref().ok().filter(|open| **open == 0).map(drop))
        })
        .await
        .with_context(|| format!("unfinished: {last:?}"))?;
        // Ends of attempts that lost, and their calls, come in a moment later.
        within(patience, "the model is left alone", async || {
            let running = self.model.ledger(None).iter().any(|entry| entry.ended_at.is_none());
            Ok((!running).then_some(()))
        })
        .await?;
        let mut db = connect(self).await?;
        rows(&mut db, history).await?;
        for entry in self.model.ledger(None) {
            let seconds = |at: shared::clock::UnixMs| at.0 as f64 / 1000.0;
            let (Some(task), Some(attempt)) = (&entry.task, entry.attempt) else { continue };
            history.note(&Seen::Call {
                task: task.to_string(),
                attempt: u32::try_from(attempt)?,
                how: entry.how.to_owned(),
                started: seconds(entry.started_at),
                ended: seconds(entry.ended_at.unwrap_or_else(shared::clock::UnixMs::now)),
                tokens: entry.tokens,
            });
        }
        history.note(&Seen::Left { thing: "held rows".into(), count: count(&mut db, HELD).await? });
        if let Db::Postgres(_) = db {
            let idle = count(&mut db, IDLE).await?;
            history.note(&Seen::Left { thing: "transactions without an owner".into(), count: idle });
        }
        let seen = history.read()?;
        let completed =
            seen.iter().any(|seen| matches!(seen, Seen::Stands { state, .. } if state == "completed"));
        let called = seen.iter().any(|seen| matches!(seen, Seen::Call { .. }));
        anyhow::ensure!(
            seen.iter().any(|seen| matches!(seen, Seen::Accepted { .. })),
            "nothing was accepted"
        );
        anyhow::ensure!(called || !completed, "tasks completed, and the model knows of no call");
        let faults = crate::check(&seen);
        anyhow::ensure!(faults.is_empty(), "{} broken promises:\n{}", faults.len(), faults.join("\n"));
        Ok(seen)
    }
}

async fn rows(db: &mut Db, history: &crate::History) -> anyhow::Result<()> {
    on!(db, connection => {
        for row in sqlx::query(ROWS).fetch_all(&mut *connection).await? {
            history.note(&Seen::Row {
                task: TaskId(row.try_get::<Uuid, _>("task")?).to_string(),
                attempt: u32::try_from(row.try_get::<i32, _>("attempt")?)?,
                from: row.try_get("was")?,
                to: row.try_get("now")?,
            });
        }
        for row in sqlx::query(STANDS).fetch_all(connection).await? {
            history.note(&Seen::Stands {
                task: TaskId(row.try_get::<Uuid, _>("id")?).to_string(),
                state: row.try_get("state")?,
                attempt: u32::try_from(row.try_get::<i32, _>("attempt")?)?,
                result: row.try_get("has_result")?,
                tokens: row.try_get::<Option<i64>, _>("output_tokens")?.and_then(|tokens| u64::try_from(tokens).ok()),
            });
        }
    });
    Ok(())
}

/// Calls of the model beyond one per task: what crashes cost.
#[must_use]
pub fn extra_calls(history: &[Seen]) -> u64 {
    let calls = history.iter().filter(|seen| matches!(seen, Seen::Call { .. })).count();
    let tasks: std::collections::BTreeSet<&str> = history
        .iter()
        .filter_map(|seen| if let Seen::Call { task, .. } = seen { Some(task.as_str()) } else { None })
        .collect();
    (calls - tasks.len()) as u64
}

/// Whether the mode has an integrity check of its own, and what it says: `ok`.
///
/// # Errors
/// The file is not readable.
pub async fn integrity(app: &App) -> anyhow::Result<String> {
    match connect(app).await? {
        Db::Sqlite(mut connection) => {
            Ok(sqlx::query_scalar("pragma integrity_check").fetch_one(&mut connection).await?)
        }
        Db::Postgres(_) => anyhow::bail!("only SQLite has an integrity_check"),
    }
}
