//! The database file: one process, one writer, a few readers.
//!
//! Every write is one `begin immediate … commit` in a task of its own: a caller that goes away (a client that hangs up drops
//! its handler) cannot leave a transaction half-way. Within it there is one moment, read once, and nobody else writes, so a
//! verb may read first and then write what it decided.

use super::{super::Error, rows::Fault};
use crate::clock::UnixMs;
use futures_util::future::BoxFuture;
use sqlx::{
    ConnectOptions, Connection, SqlSafeStr, SqliteConnection, SqlitePool,
    migrate::{MigrateError, Migration, MigrationType, Migrator},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use std::{fs::File, future::Future, io, path::Path, sync::Arc, time::Duration};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

/// Opening, and waiting for a connection or a lock.
const PATIENCE: Duration = Duration::from_secs(5);

/// Longest time that a caller waits for a verb. The verb itself is not stopped by it.
const DEADLINE: Duration = Duration::from_secs(30);

const READERS: u32 = 4;

const MIGRATIONS: [(i64, &str, &str); 13] = [
    (1, "tasks", include_str!("../../../../migrations/sqlite/0001_tasks.sql")),
    (2, "pauses", include_str!("../../../../migrations/sqlite/0002_pauses.sql")),
    (3, "identity", include_str!("../../../../migrations/sqlite/0003_identity.sql")),
    (4, "suspects", include_str!("../../../../migrations/sqlite/0004_suspects.sql")),
    (5, "limits", include_str!("../../../../migrations/sqlite/0005_limits.sql")),
    (6, "guards", include_str!("../../../../migrations/sqlite/0006_guards.sql")),
    (7, "running", include_str!("../../../../migrations/sqlite/0007_running.sql")),
    (8, "webhooks", include_str!("../../../../migrations/sqlite/0008_webhooks.sql")),
    (9, "tickets", include_str!("../../../../migrations/sqlite/0009_tickets.sql")),
    (10, "floor", include_str!("../../../../migrations/sqlite/0010_floor.sql")),
    (11, "pauses_of_models", include_str!("../../../../migrations/sqlite/0011_pauses_of_models.sql")),
    (12, "blame", include_str!("../../../../migrations/sqlite/0012_blame.sql")),
    (13, "readiness", include_str!("../../../../migrations/sqlite/0013_readiness.sql")),
];

/// The truth in one file, for one process.
pub struct SqliteStore {
    writer: SqlitePool,
    readers: SqlitePool,
    /// Writes under way; they outlive their callers.
    writes: TaskTracker,
    /// Held until the last write is done, so that the next process starts after it.
    lock: Arc<Option<File>>,
}

impl SqliteStore {
    /// Opens (or makes) the database file. Its folder must exist; a lock file beside it keeps other processes out.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if another process holds the folder or the file cannot be opened; [`Error::Broken`] if it is no
    /// database. Always within seconds.
    pub async fn open(path: &Path) -> Result<Self, Error> {
        let lock =
            lock(&path.with_file_name("longhaul.lock")).map_err(|error| Error::Unavailable(error.into()))?;
        Self::with(path, Some(lock)).await
    }

    /// As [`SqliteStore::open`], beside the process that holds the folder: for a command that writes little.
    ///
    /// # Errors
    /// As there.
    pub async fn beside(path: &Path) -> Result<Self, Error> {
        Self::with(path, None).await
    }

    async fn with(path: &Path, lock: Option<File>) -> Result<Self, Error> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(PATIENCE)
            .foreign_keys(false)
            .pragma("temp_store", "memory")
            .pragma("journal_size_limit", "67108864")
            .disable_statement_logging();
        // The pools never let go of a connection and ask it nothing before use: it is a thread of this process.
        let pool = || {
            let pool = SqlitePoolOptions::new().acquire_timeout(PATIENCE).test_before_acquire(false);
            pool.idle_timeout(None).max_lifetime(None)
        };
        let first = pool().max_connections(1).connect_with(options.clone().create_if_missing(true));
        let writer =
            timeout(PATIENCE, first).await.unwrap_or(Err(sqlx::Error::PoolTimedOut)).map_err(Fault::from)?;
        let readers = pool().max_connections(READERS).connect_lazy_with(options.read_only(true));
        Ok(Self { writer, readers, writes: TaskTracker::new(), lock: Arc::new(lock) })
    }

    /// Copies everything that is committed at this moment into a file that is there and empty, while others go on writing.
    ///
    /// # Errors
    /// The database cannot be read, or the file not written.
    pub async fn copy_to(&self, file: &Path) -> Result<(), Error> {
        let unreadable = || io::Error::new(io::ErrorKind::InvalidInput, "the file's name is no Unicode");
        let file = file.to_str().ok_or_else(|| Error::Unavailable(unreadable().into()))?;
        // Readers wait for nobody, and nobody waits for them.
        sqlx::query("vacuum into ?1").bind(file).execute(&self.readers).await.map_err(Fault::from)?;
        Ok(())
    }

    /// See [`super::super::Store::close`].
    pub(super) async fn checkpoint(&self) -> Result<(), Error> {
        self.writes.close();
        self.writes.wait().await;
        self.readers.close().await;
        sqlx::query("pragma wal_checkpoint(truncate)").execute(&self.writer).await.map_err(Fault::from)?;
        self.writer.close().await;
        Ok(())
    }

    /// Runs `verb` in a transaction of its own, at one moment.
    ///
    /// # Cancel safety
    /// The transaction ends by itself, committed or not, when the future is dropped.
    pub(super) async fn write<T, V>(&self, verb: V) -> Result<T, Error>
    where
        T: Send + 'static,
        V: for<'t> FnOnce(&'t mut SqliteConnection, UnixMs) -> BoxFuture<'t, Result<T, Fault>>
            + Send
            + 'static,
    {
        let writer = self.writer.clone();
        self.owned(async move { Ok(transact(&writer, verb).await?) }).await
    }

    /// Runs `read` on the readers.
    pub(super) async fn read<'s, T, R>(&'s self, read: impl FnOnce(&'s SqlitePool) -> R) -> Result<T, Error>
    where
        R: Future<Output = Result<T, Fault>> + 's,
    {
        let done = timeout(DEADLINE, read(&self.readers)).await;
        Ok(done.unwrap_or(Err(Fault::Sql(sqlx::Error::PoolTimedOut)))?)
    }

    /// See [`super::super::Store::migrate`].
    pub(super) async fn apply_migrations(&self) -> Result<(), Error> {
        let writer = self.writer.clone();
        self.owned(async move {
            migrator().run(&writer).await.map_err(|error| match error {
                MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => {
                    Fault::from(error).into()
                }
                other => Error::Schema(format!("the database cannot be migrated: {other}")),
            })
        })
        .await
    }

    /// See [`super::super::Store::check`].
    pub(super) async fn check_schema(&self) -> Result<(), Error> {
        let newest = "select max(version) from _sqlx_migrations where success";
        let found = sqlx::query_scalar::<_, Option<i64>>(newest).fetch_one(&self.readers).await;
        let wanted = MIGRATIONS.map(|(version, ..)| version).into_iter().max();
        match found {
            Ok(found) if found == wanted => Ok(()),
            Ok(found) if found > wanted => {
                Err(Error::Schema("the database was made by a newer version".into()))
            }
            Ok(_) => Err(Error::Schema("the database is not migrated: run `longhaul migrate`".into())),
            Err(error) if error.to_string().contains("no such table") => {
                Err(Error::Schema("the database is empty: run `longhaul migrate`".into()))
            }
            Err(error) => Err(Fault::from(error).into()),
        }
    }

    async fn owned<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        let lock = Arc::clone(&self.lock);
        let task = self.writes.spawn(async move {
            let done = work.await;
            drop(lock);
            done
        });
        match timeout(DEADLINE, task).await {
            Ok(Ok(done)) => done,
            Ok(Err(broken)) if broken.is_panic() => std::panic::resume_unwind(broken.into_panic()),
            // The runtime is shutting down.
            Ok(Err(_)) => Err(Error::Unavailable(sqlx::Error::PoolClosed)),
            Err(_) => Err(Error::Unavailable(sqlx::Error::PoolTimedOut)),
        }
    }
}

async fn transact<T, V>(writer: &SqlitePool, verb: V) -> Result<T, Fault>
where
    V: for<'t> FnOnce(&'t mut SqliteConnection, UnixMs) -> BoxFuture<'t, Result<T, Fault>>,
{
    let mut connection = writer.acquire().await?;
    let done = async {
        let mut transaction = connection.begin_with("begin immediate").await?;
        let now = now(&mut *transaction).await?;
        let value = verb(&mut transaction, now).await?;
        transaction.commit().await?;
        Ok(value)
    }
    .await;
    if done.is_err() {
        // After an I/O error or a full disk SQLite has rolled back on its own account, and sqlx would count a transaction that
        // is not there for ever. A fresh connection knows better.
        if let Err(error) = connection.close().await {
            tracing::warn!(%error, "the database connection did not close cleanly");
        }
    }
    done
}

/// This machine's clock, as SQLite reads it.
pub(super) async fn now(db: impl sqlx::SqliteExecutor<'_>) -> Result<UnixMs, Fault> {
    let now = sqlx::query_scalar("select cast(unixepoch('subsec') * 1000 as integer)").fetch_one(db).await?;
    Ok(UnixMs(now))
}

fn lock(path: &Path) -> io::Result<File> {
    let file = File::options().create(true).truncate(false).write(true).open(path)?;
    file.try_lock().map_err(|error| match error {
        std::fs::TryLockError::WouldBlock => io::Error::new(
            io::ErrorKind::WouldBlock,
            "another Longhaul process uses this folder (it holds longhaul.lock): stop it, or choose another folder",
        ),
        std::fs::TryLockError::Error(error) => error,
    })?;
    Ok(file)
}

fn migrator() -> Migrator {
    let migration = |(version, name, sql): (i64, &'static str, &'static str)| {
        Migration::new(version, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
    };
    Migrator::with_migrations(MIGRATIONS.map(migration).into())
}
