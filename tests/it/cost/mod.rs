//! What a task may cost: statements, rows, WAL, commands, plans. Counted by the servers themselves, so that no clock and no
//! other load on the machine can spoil it.

mod plans;

use anyhow::Context;
use harness::{App, Client, Mode, chat};
use serde_json::json;
use sqlx::{Connection, Executor, PgConnection, Row};
use std::{collections::BTreeMap, sync::Arc};
use tokio::{sync::Semaphore, task::JoinSet};

/// Tasks of one count, and connections that submit them.
const TASKS: usize = 2_000;
const AT_ONCE: usize = 64;

/// A quiet app: nothing that repeats by the clock is counted.
async fn quiet() -> anyhow::Result<App> {
    let app = App::with(Mode::Distributed).slots(64).env("LONGHAUL_SWEEP__PERIOD", "60s");
    app.env("LONGHAUL_LEASE__HEARTBEAT", "60s").env("LONGHAUL_LEASE__TTL", "300s").start().await
}

/// Submits tasks that are not streamed and waits until all have ended.
async fn work_off(app: &App, tasks: usize) -> anyhow::Result<()> {
    let (mut clients, places) = (JoinSet::new(), Arc::new(Semaphore::new(AT_ONCE)));
    for n in 0..tasks {
        let (place, client) = (places.clone().acquire_owned().await?, app.client().clone());
        clients.spawn(async move {
            let id = submit(&client, n).await?;
            drop(place);
            let task = client.ended(&id).await?;
            anyhow::ensure!(task["status"] == "completed", "{task}");
            anyhow::Ok(())
        });
    }
    while let Some(ended) = clients.join_next().await {
        ended??;
    }
    Ok(())
}

async fn submit(client: &Client, n: usize) -> anyhow::Result<String> {
    let body = chat(&format!("What does task {n} cost? {}", "It has to be said. ".repeat(10)), json!({}));
    let task = json!({"endpoint": "/v1/chat/completions", "policy": {"events": "lifecycle"}, "body": body});
    client.submit(&task).await
}

async fn database(app: &App) -> anyhow::Result<PgConnection> {
    Ok(PgConnection::connect(app.database.as_deref().context("a distributed app has a database")?).await?)
}

/// What Postgres has counted in one database.
#[derive(Debug)]
struct Counts {
    statements: f64,
    wal_bytes: f64,
    rows_written: f64,
}

async fn counts(db: &mut PgConnection) -> anyhow::Result<Counts> {
    // Pages that are written whole, because a checkpoint came in between, are not the tasks' doing.
    let said = sqlx::query(
        "select sum(calls)::float8, sum(wal_bytes - wal_fpi * 8192)::float8 from pg_stat_statements s
         join pg_database d on d.oid = s.dbid where d.datname = current_database()
           and query ~ '^\\s*(with|update|insert|delete)|pg_logical_emit_message' and query !~ 'upstream_models|workers set|into workers'",
    )
    .fetch_one(&mut *db)
    .await?;
    let written = "select sum(n_tup_ins + n_tup_upd + n_tup_del)::float8 from pg_stat_user_tables
      where relname not in ('workers', 'upstream_models', '_sqlx_migrations')";
    Ok(Counts {
        statements: said.try_get::<Option<f64>, _>(0)?.unwrap_or_default(),
        wal_bytes: said.try_get::<Option<f64>, _>(1)?.unwrap_or_default(),
        rows_written: sqlx::query_scalar::<_, Option<f64>>(written).fetch_one(db).await?.unwrap_or_default(),
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_alone_takes_four_statements() -> anyhow::Result<()> {
    harness::journey(Mode::Distributed, async |_| {
        let app = quiet().await?;
        let mut db = database(&app).await?;
        db.execute("create extension if not exists pg_stat_statements").await?;
        let before = counts(&mut db).await?;
        for n in 0..20 {
            let id = submit(app.client(), n).await?;
            app.client().ended(&id).await?;
        }
        let statements = counts(&mut db).await?.statements - before.statements;
        assert_eq!(
            statements, 80.0,
            "submit, its way to the disk, claim and finish of 20 tasks, one after the other"
        );
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_tasks_share_statements_and_write_little() -> anyhow::Result<()> {
    harness::journey(Mode::Distributed, async |_| {
        let app = quiet().await?;
        let mut db = database(&app).await?;
        db.execute("create extension if not exists pg_stat_statements").await?;
        let (before, redis) = (counts(&mut db).await?, commands(&app).await?);
        work_off(&app, TASKS).await?;
        let (after, tasks) = (counts(&mut db).await?, TASKS as f64);
        let each = |after: f64, before: f64| (after - before) / tasks;
        let statements = each(after.statements, before.statements);
        assert!(statements < 1.0, "{statements} statements a task: they are no longer gathered");
        let wal = each(after.wal_bytes, before.wal_bytes);
        assert!((1_000.0..3_500.0).contains(&wal), "{wal} bytes of WAL a task");

        let more = commands(&app).await?;
        let called: BTreeMap<_, f64> = more
            .iter()
            .map(|(name, calls)| (name.as_str(), each(*calls, *redis.get(name).unwrap_or(&0.0))))
            .filter(|(_, calls)| *calls > 0.01)
            .collect();
        let sum: f64 = called.values().sum();
        assert!((5.0..16.0).contains(&sum), "{sum} Redis commands a task: {called:#?}");

        // Three tables get a row each, and the task's is updated twice. Backends report within a second or so.
        harness::eventually("Postgres has counted the rows", async || {
            let rows = each(counts(&mut db).await?.rows_written, before.rows_written);
            anyhow::ensure!(rows < 5.05, "{rows} rows written a task");
            Ok((rows > 4.95).then_some(()))
        })
        .await
    })
    .await
}

/// A log is kept for whoever may come: two commands a token inside of one script call for all that a worker gathers in 25 ms.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_nobody_watches_costs_little() -> anyhow::Result<()> {
    const STREAMS: usize = 10;
    const TOKENS: usize = 100;
    harness::journey(Mode::Distributed, async |_| {
        let app = quiet().await?;
        let redis = commands(&app).await?;
        let sim = json!({"ttft_ms": 100, "itl_ms": 5, "tokens": TOKENS});
        let mut ids = Vec::new();
        for n in 0..STREAMS {
            ids.push(app.client().ask(&format!("stream {n}"), sim.clone()).await?);
        }
        for id in &ids {
            app.client().reaches(id, "completed").await?;
        }
        let more = commands(&app).await?;
        let called = |name: &str| more.get(name).unwrap_or(&0.0) - redis.get(name).unwrap_or(&0.0);
        let tokens = (STREAMS * TOKENS) as f64;
        for name in ["xadd", "publish"] {
            let each = called(name) / tokens;
            assert!((1.0..1.3).contains(&each), "{each} {name} a token");
        }
        let scripts = called("evalsha") / STREAMS as f64;
        assert!((3.0..40.0).contains(&scripts), "{scripts} script calls for an answer of 600 ms");
        assert_eq!(called("subscribe"), 0.0, "nobody watches");
        Ok(())
    })
    .await
}

/// Calls by command, those in scripts included.
async fn commands(app: &App) -> anyhow::Result<BTreeMap<String, f64>> {
    let redis = app.redis.as_ref().context("a distributed app has a Redis")?;
    let mut connection = redis::Client::open(redis.url.as_str())?.get_multiplexed_async_connection().await?;
    let said: String = redis::cmd("INFO").arg("commandstats").query_async(&mut connection).await?;
    let call = |line: &str| {
        let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        Some((name.to_owned(), rest.split(',').next()?.parse().ok()?))
    };
    Ok(said.lines().filter_map(call).collect())
}
