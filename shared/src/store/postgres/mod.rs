//! The store of the distributed mode: Postgres.
//!
//! Every verb is one statement that carries its own guards, so there is no transaction to leave half open: a caller that
//! goes away, or a lost reply, leaves all of a verb or nothing of it. Sweeps lock with `skip locked`, everything else takes
//! its rows in the order of their ids. The moment is `now_ms()`, the database's, in all of them.

mod batches;
mod connections;
mod durable;
mod finish;
mod owner;
mod read;
mod registry;
mod rows;
mod submit;
mod sweep;
mod upstreams;
mod webhooks;
mod worker;

use super::{
    Again, Batch, BatchCreated, Bell, Cancelled, Cause, Claimed, Deleted, Early, Error, Finish, Finished,
    Forgotten, Kept, ListQuery, NewBatch, NewWorker, Page, Pause, QueueFigures, Rerun, Result, Retried,
    Scope, Served, Store, Submitted, TaskPage, UpstreamModels, Worker, codec,
};
use crate::{
    clock::UnixMs,
    task::{
        Answer, BatchId, Change, Fingerprint, NewTask, Payload, ProjectId, QueueName, Task, TaskId, WorkerId,
    },
};
use async_trait::async_trait;
use connections::Connections;
use sqlx::{
    Connection, PgConnection, PgPool,
    migrate::MigrateError,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use std::{future::Future, time::Duration};
use tokio::time::timeout;

/// Number, name and text of every migration, in order.
const MIGRATIONS: [(i64, &str, &str); 13] = [
    (1, "tasks", include_str!("../../../../migrations/postgres/0001_tasks.sql")),
    (2, "pauses", include_str!("../../../../migrations/postgres/0002_pauses.sql")),
    (3, "identity", include_str!("../../../../migrations/postgres/0003_identity.sql")),
    (4, "suspects", include_str!("../../../../migrations/postgres/0004_suspects.sql")),
    (5, "limits", include_str!("../../../../migrations/postgres/0005_limits.sql")),
    (6, "guards", include_str!("../../../../migrations/postgres/0006_guards.sql")),
    (7, "running", include_str!("../../../../migrations/postgres/0007_running.sql")),
    (8, "webhooks", include_str!("../../../../migrations/postgres/0008_webhooks.sql")),
    (9, "tickets", include_str!("../../../../migrations/postgres/0009_tickets.sql")),
    (10, "floor", include_str!("../../../../migrations/postgres/0010_floor.sql")),
    (11, "pauses_of_models", include_str!("../../../../migrations/postgres/0011_pauses_of_models.sql")),
    (12, "blame", include_str!("../../../../migrations/postgres/0012_blame.sql")),
    (13, "readiness", include_str!("../../../../migrations/postgres/0013_readiness.sql")),
];

/// The first connection, to tell at once whether the database is there.
const CONNECT: Duration = Duration::from_secs(4);
/// A free connection of the pool.
const ACQUIRE: Duration = Duration::from_secs(2);
/// One verb, from the caller's side: beyond the server's own limit on the statement, so that this one only cuts dead wires.
const VERB: Duration = Duration::from_secs(40);
/// A connection that has rested for longer is tried before it is used.
const RESTED: Duration = Duration::from_secs(1);

/// Settings of every connection.
const BOUNDS: [(&str, &str); 4] = [
    ("jit", "off"),
    // What is wanted is a few rows by their ids or in their order: a merge reads a whole index to begin with.
    ("enable_mergejoin", "off"),
    ("statement_timeout", "30s"),
    ("idle_in_transaction_session_timeout", "5s"),
];
/// A plan made while a table was empty scans it for ever: each statement is planned for its own arrays and filters.
const PLANNED: [(&str, &str); 1] = [("plan_cache_mode", "force_custom_plan")];
/// The statements of a task's way are planned once per connection: planning would be a third of their cost. All of them look
/// rows up by their ids or walk an index, so that nothing is left to decide once scans and joins of whole tables are out.
const PINNED: [(&str, &str); 4] = [
    ("plan_cache_mode", "force_generic_plan"),
    ("enable_seqscan", "off"),
    ("enable_bitmapscan", "off"),
    ("enable_hashjoin", "off"),
];

/// [`Store`] on Postgres. Cheap to clone.
#[derive(Clone)]
pub struct PostgresStore {
    pool: PgPool,
    /// For statements that look rows up by their ids.
    pinned: Connections,
}

impl PostgresStore {
    /// Connects to `url` with up to `connections` connections, within 4 s.
    ///
    /// # Errors
    /// [`Error::Broken`] if the URL makes no sense, [`Error::Unavailable`] with the cause if nothing answers there.
    pub async fn open(url: &str, connections: u32) -> Result<Self> {
        let options = url.parse::<PgConnectOptions>()?.application_name("longhaul").options(BOUNDS);
        // The pool would hide why: it tries again until its time is up.
        let first = within(CONNECT, async { Ok(PgConnection::connect_with(&options).await?.close().await?) });
        first.await?;
        // Heartbeats are among them: a slow list must not take the only one.
        let planned = (connections / 4).max(3).min(connections.saturating_sub(1)).max(1);
        Ok(Self {
            pool: pool(options.clone().options(PLANNED), planned),
            pinned: Connections::new(options.options(PINNED), connections.saturating_sub(planned)),
        })
    }

    async fn migrate(&self) -> Result<()> {
        let mut connection = self.pool.acquire().await?.detach();
        // Waiting for another process that migrates, or rewriting a large table, may take its time.
        sqlx::raw_sql("set statement_timeout = 0").execute(&mut connection).await?;
        let done = codec::migrator(&MIGRATIONS).run_direct(None, &mut connection, false).await;
        connection.close().await?;
        done.map_err(|error| match error {
            MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => error.into(),
            other => Error::Schema(other.to_string()),
        })
    }

    async fn check(&self) -> Result<()> {
        let sql = "select coalesce(max(version), 0) from _sqlx_migrations where success";
        let applied: i64 = match sqlx::query_scalar(sql).fetch_one(&self.pool).await {
            Ok(version) => version,
            Err(sqlx::Error::Database(cause)) if cause.code().as_deref() == Some("42P01") => 0,
            Err(error) => return Err(error.into()),
        };
        let needed = MIGRATIONS.map(|(version, ..)| version).into_iter().max().unwrap_or(0);
        let cure = match applied.cmp(&needed) {
            std::cmp::Ordering::Equal => return Ok(()),
            std::cmp::Ordering::Less => "run `longhaul migrate`",
            std::cmp::Ordering::Greater => "install the newer program",
        };
        Err(Error::Schema(format!(
            "the database schema is at {applied}, this program needs {needed}: {cure}"
        )))
    }
}

fn pool(options: PgConnectOptions, connections: u32) -> PgPool {
    PgPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(ACQUIRE)
        .test_before_acquire(false)
        .before_acquire(|connection, rest| {
            Box::pin(async move {
                if rest.idle_for > RESTED {
                    connection.ping().await?;
                }
                Ok(true)
            })
        })
        .connect_lazy_with(options)
}

/// A deadline for what waits on the network.
async fn within<T>(limit: Duration, verb: impl Future<Output = Result<T>>) -> Result<T> {
    timeout(limit, verb).await.unwrap_or(Err(Error::Unavailable(sqlx::Error::PoolTimedOut)))
}

/// A verb whose statements look rows up by their ids, on a connection that is kept for such.
macro_rules! by_ids {
    ($store:ident, |$db:ident| $verb:expr) => {
        within(VERB, async {
            let mut lent = $store.pinned.lend().await?;
            let $db = lent.connection();
            let came = $verb.await;
            lent.back(came)
        })
        .await
    };
}

/// # Cancel safety
/// A dropped verb has happened as a whole or not at all; which of the two is not known.
#[async_trait]
impl Store for PostgresStore {
    async fn migrate(&self) -> Result<()> {
        self.migrate().await
    }
    async fn check(&self) -> Result<()> {
        within(VERB, self.check()).await
    }
    async fn check_writing(&self) -> Result<()> {
        let sql = "insert into readiness (id, at) values (1, now_ms()) on conflict (id) do update set at = excluded.at";
        within(VERB, async { Ok(sqlx::query(sql).execute(&self.pool).await.map(drop)?) }).await
    }

    async fn submit_early(&self, tasks: &[NewTask], early: Early<'_>) -> Result<Vec<Submitted>> {
        by_ids!(self, |db| submit::submit(db, tasks, early))
    }
    async fn create_batch(&self, batch: &NewBatch, tasks: &[NewTask]) -> Result<BatchCreated> {
        within(VERB, batches::create(&self.pool, batch, tasks)).await
    }

    async fn get(&self, project: ProjectId, id: TaskId) -> Result<Option<Task>> {
        by_ids!(self, |db| read::get(db, project, id))
    }
    async fn whole(&self, project: ProjectId, id: TaskId) -> Result<Option<(Task, Option<Kept>)>> {
        by_ids!(self, |db| read::whole(db, project, id))
    }
    async fn list(&self, project: ProjectId, query: &ListQuery) -> Result<TaskPage> {
        within(VERB, read::list(&self.pool, project, query)).await
    }
    async fn payload(&self, project: ProjectId, id: TaskId) -> Result<Option<Payload>> {
        by_ids!(self, |db| read::payload(db, project, id))
    }
    async fn answer(&self, project: ProjectId, id: TaskId) -> Result<Option<Answer>> {
        by_ids!(self, |db| read::answer(db, project, id))
    }
    async fn glance(&self, ids: &[TaskId]) -> Result<Vec<Change>> {
        by_ids!(self, |db| read::glance(db, ids))
    }
    async fn position(&self, project: ProjectId, id: TaskId) -> Result<Option<u64>> {
        within(VERB, read::position(&self.pool, project, id)).await
    }
    async fn batch(&self, project: ProjectId, id: BatchId) -> Result<Option<Batch>> {
        within(VERB, batches::get(&self.pool, project, id)).await
    }
    async fn batches(&self, project: ProjectId, after: Option<BatchId>, limit: u32) -> Result<Page<Batch>> {
        within(VERB, batches::list(&self.pool, project, after, limit)).await
    }
    async fn queues(&self, project: Option<ProjectId>) -> Result<Vec<QueueFigures>> {
        within(VERB, read::queues(&self.pool, project)).await
    }

    async fn keyed(&self, project: ProjectId, key: &str) -> Result<Option<(TaskId, Fingerprint)>> {
        within(VERB, submit::keyed(&self.pool, project, key)).await
    }

    async fn waiting(&self, project: ProjectId, queues: &[QueueName], most: u32) -> Result<u32> {
        within(VERB, read::waiting(&self.pool, project, queues, most)).await
    }

    async fn cancel(&self, project: ProjectId, id: TaskId, reason: &str) -> Result<Option<Cancelled>> {
        within(VERB, owner::cancel(&self.pool, project, id, reason)).await
    }
    async fn retry(&self, project: ProjectId, id: TaskId, rerun: &Rerun) -> Result<Option<Retried>> {
        within(VERB, owner::retry(&self.pool, project, id, rerun)).await
    }
    async fn delete(&self, project: ProjectId, id: TaskId, force: bool) -> Result<Option<Deleted>> {
        within(VERB, owner::delete(&self.pool, project, id, force)).await
    }
    async fn cancel_batch(&self, project: ProjectId, id: BatchId) -> Result<Option<Batch>> {
        within(VERB, batches::cancel(&self.pool, project, id)).await
    }
    async fn cancel_batch_tasks(&self, limit: u32) -> Result<Vec<Change>> {
        within(VERB, batches::cancel_tasks(&self.pool, limit)).await
    }

    async fn register(&self, worker: &NewWorker) -> Result<()> {
        within(VERB, worker::register(&self.pool, worker)).await
    }
    async fn heartbeat(
        &self,
        id: WorkerId,
        ttl: Duration,
        running: u32,
    ) -> Result<Option<Vec<(TaskId, u32)>>> {
        within(VERB, worker::heartbeat(&self.pool, id, ttl, running)).await
    }
    async fn retire(&self, worker: WorkerId) -> Result<()> {
        within(VERB, worker::retire(&self.pool, worker)).await
    }
    async fn claim(&self, worker: WorkerId, ids: &[TaskId], served: &Served) -> Result<Vec<Claimed>> {
        by_ids!(self, |db| worker::claim(db, worker, ids, served))
    }
    async fn claim_capped(&self, worker: WorkerId, ids: &[TaskId], served: &Served) -> Result<Vec<Claimed>> {
        by_ids!(self, |db| worker::claim_capped(db, worker, ids, served))
    }
    async fn has_suspects(&self, queues: &[QueueName], served: &Served) -> Result<bool> {
        within(VERB, worker::has_suspects(&self.pool, queues, served)).await
    }
    async fn claim_suspect(
        &self,
        worker: WorkerId,
        queues: &[QueueName],
        served: &Served,
    ) -> Result<Option<Claimed>> {
        within(VERB, worker::claim_suspect(&self.pool, worker, queues, served)).await
    }
    async fn claim_ready(
        &self,
        worker: WorkerId,
        queues: &[QueueName],
        limit: u32,
        served: &Served,
    ) -> Result<Vec<Claimed>> {
        within(VERB, worker::claim_ready(&self.pool, worker, queues, limit, served)).await
    }
    async fn finish(&self, ends: &[Finish]) -> Result<Vec<Finished>> {
        by_ids!(self, |db| finish::finish(db, ends))
    }
    async fn again(&self, agains: &[Again]) -> Result<Vec<Finished>> {
        by_ids!(self, |db| finish::again(db, agains))
    }
    async fn release(&self, worker: WorkerId, claims: &[(TaskId, u32)]) -> Result<Vec<Change>> {
        within(VERB, worker::release(&self.pool, worker, claims)).await
    }

    async fn due(&self, limit: u32) -> Result<Vec<(Change, Bell)>> {
        within(VERB, sweep::due(&self.pool, limit)).await
    }
    async fn ready(&self, queue: &QueueName, limit: u32, served: &Served) -> Result<Vec<Bell>> {
        within(VERB, sweep::ready(&self.pool, queue, limit, served)).await
    }
    async fn ready_capped(&self, queues: &[QueueName], limit: u32, served: &Served) -> Result<Vec<Bell>> {
        by_ids!(self, |db| sweep::ready_capped(db, queues, limit, served))
    }
    async fn expire(&self, limit: u32) -> Result<Vec<Change>> {
        within(VERB, sweep::expire(&self.pool, limit)).await
    }
    async fn reap(&self, limit: u32, spread: Duration, crashes_max: u32) -> Result<Vec<Change>> {
        within(VERB, sweep::reap(&self.pool, limit, spread, crashes_max)).await
    }
    async fn close_batches(&self, limit: u32) -> Result<Vec<BatchId>> {
        within(VERB, batches::close(&self.pool, limit)).await
    }
    async fn forget(&self, limit: u32) -> Result<Forgotten> {
        within(VERB, sweep::forget(&self.pool, limit)).await
    }

    async fn put_models(&self, upstream: &str, models: Option<&[String]>) -> Result<()> {
        within(VERB, upstreams::put_models(&self.pool, upstream, models)).await
    }
    async fn models(&self, age: Duration) -> Result<Vec<UpstreamModels>> {
        within(VERB, upstreams::models(&self.pool, age)).await
    }
    async fn pause(&self, scope: &Scope, wait: Duration, cause: Cause) -> Result<()> {
        within(VERB, upstreams::pause(&self.pool, scope, wait, cause)).await
    }
    async fn resume(&self, scope: &Scope) -> Result<()> {
        within(VERB, upstreams::resume(&self.pool, scope)).await
    }
    async fn probe(&self, scope: &Scope, wait: Duration) -> Result<bool> {
        within(VERB, upstreams::probe(&self.pool, scope, wait)).await
    }
    async fn pauses(&self) -> Result<Vec<Pause>> {
        within(VERB, upstreams::pauses(&self.pool)).await
    }
    async fn workers(&self) -> Result<Vec<Worker>> {
        within(VERB, read::workers(&self.pool)).await
    }
    async fn now(&self) -> Result<UnixMs> {
        // Asked while slow reads may have the other connections.
        by_ids!(self, |db| read::now(db))
    }
}
