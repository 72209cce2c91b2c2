//! Postgres that dies, freezes, drops everybody or has no connections left; and wires that go dead. Clients hear 503 in time, what
//! the model has answered is kept and written when the database is back.

use super::{history, load, task};
use crate::journey::both_transports;
use anyhow::Context;
use harness::{App, Fault, Mode, Postgres, Seen, extra_calls, report, size, within};
use reqwest::Method;
use serde_json::json;
use sqlx::{Connection, PgConnection};
use std::time::{Duration, Instant};
use tokio::{task::JoinSet, time::sleep};

both_transports!(restarts_under_load_lose_nothing);

fn postgres(app: &mut App) -> anyhow::Result<&mut Postgres> {
    app.postgres.as_mut().context("this app has a Postgres of its own")
}

/// Killed with all of its processes, again and again, while clients submit and workers work.
async fn restarts_under_load_lose_nothing(mode: Mode) -> anyhow::Result<()> {
    let (restarts, tasks) = size((2, 300), (20, 4_000));
    // A lease outlives the outage: nobody is declared dead for it.
    let wishes = App::with(mode).own_postgres().apis(2).workers(2).slots(16);
    let mut app = wishes.env("LONGHAUL_SWEEP__PERIOD", "200ms").start().await?;
    let history = history(&app).await?;
    let mut clients = JoinSet::new();
    let paced = load(&app, &history, "restart").paced(tasks as f64 / (f64::from(restarts) * 5.0));
    clients.spawn(paced.run(tasks, |n| task(n, json!({"ttft_ms": 500}))));
    let mut slowest = Duration::ZERO;
    for _ in 0..restarts {
        sleep(Duration::from_secs(1)).await;
        postgres(&mut app)?.kill_9().await?;
        postgres(&mut app)?.restart().await?;
        let begun = Instant::now();
        within(Duration::from_secs(5), "the API serves again", async || {
            Ok(app.client().get("/readyz").await.ok().filter(|reply| reply.status == 200).map(drop))
        })
        .await?;
        slowest = slowest.max(begun.elapsed());
    }
    let mut met = Vec::new();
    while let Some(done) = clients.join_next().await {
        met.push(done??);
    }
    assert!(met.iter().all(|met| met.broken == 0), "503 and nothing else: {met:?}");
    let longest = met.iter().map(|met| met.slowest).max().unwrap_or_default();
    assert!(longest < Duration::from_millis(3_500), "a client waited {longest:?}");
    let seen = app.judge(&history, Duration::from_secs(60)).await?;
    let extra = extra_calls(&seen);
    assert_eq!(extra, 0, "answers are kept until they can be written");
    report(
        "9",
        "Postgres killed and restarted under load",
        &json!({"mode": mode.name(), "restarts": restarts, "tasks": tasks, "lost": 0, "answers other than 503": 0,
                "bought again": extra, "slowest return to service, s": slowest.as_secs_f64(),
                "longest wait of a client, s": longest.as_secs_f64()}),
    )
}

/// Every wire to Postgres and Redis goes dead for longer than any lease, and comes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_wires_heal() -> anyhow::Result<()> {
    harness::journey(Mode::Distributed, async |mode| {
        let dead = size(4, 60);
        let mut app = App::with(mode).proxied().workers(2).slots(16).quick().start().await?;
        let history = history(&app).await?;
        load(&app, &history, "before").run(32, |n| task(n, json!({"ttft_ms": 1_000}))).await?;
        let edges = &app.edges;
        let wires: [&harness::FaultProxy; 4] =
            [&edges.api_database, &edges.worker_database, &edges.api_redis, &edges.worker_redis];
        for wire in wires {
            wire.set(Fault::Blackhole).await?;
        }
        let asked = Instant::now();
        let request = app.client().request(Method::POST, "/v1/tasks").json(&task(0, json!({})));
        let reply = harness::Client::send(request).await?;
        assert_eq!((reply.status, reply.header("retry-after")), (503, "1"), "{reply:?}");
        assert!(asked.elapsed() < Duration::from_secs(3), "answered after {:?}", asked.elapsed());
        sleep(Duration::from_secs(dead)).await;
        for wire in wires {
            wire.set(Fault::Pass).await?;
        }
        let healed = Instant::now();
        load(&app, &history, "after").run(32, |n| task(n, json!({}))).await?;
        app.judge(&history, Duration::from_secs(20)).await?;
        let served = healed.elapsed();
        assert!(served < Duration::from_secs(10), "everything was done {served:?} after the heal");
        app.workers.iter_mut().try_for_each(|worker| worker.must_run())?;
        report(
            "11",
            "all wires to Postgres and Redis dead",
            &json!({"dead, s": dead, "restarts": 0, "full service after the heal, s": served.as_secs_f64()}),
        )
    })
    .await
}

/// Frozen, out of connections, everybody dropped: an answer in time, never a false one, and nothing is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_hear_of_it_in_time() -> anyhow::Result<()> {
    harness::journey(Mode::Distributed, async |mode| {
        let mut app = App::with(mode).own_postgres().quick().start().await?;
        let history = history(&app).await?;
        let kept = app.client().ask("kept", json!({"ttft_ms": 1_500})).await?;
        history.note(&Seen::Accepted { task: kept.clone(), key: None });
        within(Duration::from_secs(10), "the model is called", async || {
            Ok((app.model.calls() == 1).then_some(()))
        })
        .await?;
        postgres(&mut app)?.freeze().await?;
        for (method, path) in [
            (Method::POST, "/v1/tasks".to_owned()),
            (Method::GET, format!("/v1/tasks/{kept}")),
            (Method::GET, "/v1/tasks".to_owned()),
            (Method::POST, format!("/v1/tasks/{kept}/cancel")),
            (Method::GET, "/v1/queues".to_owned()),
            (Method::GET, "/readyz".to_owned()),
        ] {
            let asked = Instant::now();
            let mut request = app.client().request(method.clone(), &path);
            if path == "/v1/tasks" && method == Method::POST {
                request = request.json(&task(1, json!({})));
            }
            let reply = harness::Client::send(request).await?;
            assert_eq!(reply.status, 503, "{method} {path}: {reply:?}");
            assert!(asked.elapsed() < Duration::from_secs(3), "{method} {path} took {:?}", asked.elapsed());
        }
        postgres(&mut app)?.thaw()?;
        postgres(&mut app)?.terminate_backends().await?;
        load(&app, &history, "after").run(8, |n| task(n, json!({}))).await?;
        app.judge(&history, Duration::from_secs(30)).await?;
        Ok(())
    })
    .await
}

/// Who calls cannot be found out either, once what is known of the key is old.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_no_reason_to_wait() -> anyhow::Result<()> {
    harness::journey(Mode::Distributed, async |mode| {
        let mut app = App::with(mode).workers(0).own_postgres().start().await?;
        let tenant = app.tenant("acme", "read").await?;
        assert_eq!(tenant.client.get("/v1/tasks").await?.status, 200);
        postgres(&mut app)?.freeze().await?;
        let frozen = Instant::now();
        while frozen.elapsed() < Duration::from_secs(6) {
            let asked = Instant::now();
            assert_eq!(tenant.client.get("/v1/tasks").await?.status, 503);
            assert!(asked.elapsed() < Duration::from_secs(3), "answered after {:?}", asked.elapsed());
        }
        postgres(&mut app)?.thaw()?;
        within(Duration::from_secs(10), "the key is good again", async || {
            Ok((tenant.client.get("/v1/tasks").await?.status == 200).then_some(()))
        })
        .await
    })
    .await
}

/// Others have taken every connection that the server has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_connection_is_left() -> anyhow::Result<()> {
    harness::journey(Mode::Distributed, async |mode| {
        let mut app = App::with(mode).own_postgres().quick().start().await?;
        let history = history(&app).await?;
        load(&app, &history, "before").run(8, |n| task(n, json!({}))).await?;
        let url = app.database.clone().context("a distributed app has a database")?;
        let mut others = take_all(&url).await;
        let mut admin = postgres(&mut app)?.admin().await?;
        let ours =
            "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'longhaul'";
        sqlx::query(ours).execute(&mut admin).await?;
        // Whoever is quicker has what was set free.
        others.extend(take_all(&url).await);
        let turned_away = within(Duration::from_secs(20), "the API has no connection", async || {
            sqlx::query(ours).execute(&mut admin).await?;
            others.extend(take_all(&url).await);
            let asked = Instant::now();
            let reply = app.client().post("/v1/tasks", &task(0, json!({}))).await?;
            anyhow::ensure!(matches!(reply.status, 202 | 503), "{reply:?}");
            anyhow::ensure!(asked.elapsed() < Duration::from_secs(3), "answered after {:?}", asked.elapsed());
            Ok((reply.status == 503).then_some(reply))
        })
        .await?;
        assert_eq!(turned_away.header("retry-after"), "1");
        assert_eq!(app.client().get("/healthz").await?.status, 200, "it lives, and waits");
        drop(others);
        load(&app, &history, "after").run(8, |n| task(n, json!({}))).await?;
        app.judge(&history, Duration::from_secs(30)).await.map(drop)
    })
    .await
}

/// Connections, until there are no more.
async fn take_all(url: &str) -> Vec<PgConnection> {
    let mut taken = Vec::new();
    while let Ok(connection) = PgConnection::connect(url).await {
        taken.push(connection);
    }
    taken
}
