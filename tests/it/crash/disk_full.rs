//! No space left: clients hear 507 or 503, reading works, and everything goes on when there is room again, without a restart.

use super::{history, load, task};
use anyhow::Context;
use harness::{App, History, Mode, report, size, within};
use serde_json::json;
use std::time::{Duration, Instant};
use tokio::{task::JoinSet, time::sleep};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_postgres() -> anyhow::Result<()> {
    harness::journey(Mode::Distributed, async |mode| {
        let app = App::with(mode).small_disk(256).slots(16).quick().start().await?;
        let history = history(&app).await?;
        let postgres = app.postgres.as_ref().context("this app has a Postgres of its own")?;
        filled(&app, &history, "Postgres", || postgres.fill_disk(), || postgres.free_disk()).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_sqlite() -> anyhow::Result<()> {
    harness::journey(Mode::Embedded, async |mode| {
        let app = App::with(mode).small_disk(64).slots(16).quick().start().await?;
        let history = History::new(app.folder())?;
        let disk = app.disk.as_ref().context("this app is on a small disk")?;
        filled(&app, &history, "SQLite", || disk.fill(), || disk.free()).await
    })
    .await
}

async fn filled(
    app: &App,
    history: &History,
    what: &str,
    fill: impl Fn() -> anyhow::Result<u64>,
    free: impl Fn() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let lasts = size(2, 60);
    // A body that takes room, so that the last pages are used up soon.
    let large = "x".repeat(100_000);
    let wanted = |n| task(n, json!({"ttft_ms": 300, "text": large}));
    load(app, history, "before").run(8, wanted).await?;
    fill()?;
    let statuses = statuses(app, &wanted(1), lasts).await?;
    assert!(statuses.iter().all(|status| matches!(status, 202 | 503 | 507)), "{statuses:?}");
    assert!(statuses.iter().any(|status| *status != 202), "the disk was not full");
    // Reading works.
    for id in history.accepted()?.values() {
        app.client().task(id).await?;
    }
    free()?;
    let freed = Instant::now();
    let mut clients = JoinSet::new();
    clients.spawn(load(app, history, "after").run(16, |n| task(n, json!({}))));
    while let Some(done) = clients.join_next().await {
        done??;
    }
    let served = freed.elapsed();
    assert!(served < Duration::from_secs(10), "served again only after {served:?}");
    // Whatever was accepted while the disk was full has to end as well.
    within(Duration::from_secs(60), "every task has ended", async || {
        let open = app
            .client()
            .get("/v1/tasks?status=queued&status=in_progress&status=scheduled")
            .await?
            .expect(200)?;
        Ok((open["data"] == json!([])).then_some(()))
    })
    .await?;
    for id in history.accepted()?.values() {
        assert_eq!(app.client().task(id).await?["status"], "completed", "{id}");
    }
    let mut answers = std::collections::BTreeMap::new();
    statuses.iter().for_each(|status| *answers.entry(status.to_string()).or_insert(0) += 1);
    report(
        "12",
        "the disk is full",
        &json!({"under": what, "lasts, s": lasts, "answers": answers, "lost": 0, "served after, s": served.as_secs_f64()}),
    )
}

/// What clients are answered meanwhile.
async fn statuses(app: &App, body: &serde_json::Value, seconds: u64) -> anyhow::Result<Vec<u16>> {
    let (begun, mut statuses) = (Instant::now(), Vec::new());
    while begun.elapsed() < Duration::from_secs(seconds) || statuses.len() < 20 {
        let asked = Instant::now();
        statuses.push(app.client().post("/v1/tasks", body).await?.status);
        anyhow::ensure!(asked.elapsed() < Duration::from_secs(3), "an answer took {:?}", asked.elapsed());
        sleep(Duration::from_millis(20)).await;
    }
    Ok(statuses)
}
