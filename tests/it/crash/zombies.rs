//! A worker that is frozen for longer than its lease, and then wakes up: it changes nothing, in rows or in streams.

use super::{history, load, task, watch};
use crate::journey::both_transports;
use harness::{App, History, Mode, report, size, within};
use serde_json::json;
use std::time::Duration;
use tokio::{task::JoinSet, time::sleep};

both_transports!(it_changes_nothing);

async fn it_changes_nothing(mode: Mode) -> anyhow::Result<()> {
    let (pauses, tasks, frozen) = size((3_u32, 60_u32, 2_u32), (100, 2_500, 6));
    let mut app = App::with(mode).workers(2).slots(16).quick().start().await?;
    let history = history(&app).await?;
    let mut clients = JoinSet::new();
    // Streams that last for as long as a lease.
    let stream = |n| task(n, json!({"ttft_ms": 60, "itl_ms": 25, "tokens": 40}));
    let paced = load(&app, &history, "zombies").paced(f64::from(tasks) / f64::from(pauses * (frozen + 1)));
    clients.spawn(paced.run(tasks as usize, stream));
    let mut watchers = JoinSet::new();
    for pause in 0..pauses {
        watch_new(&app, &history, &mut watchers).await?;
        let worker = &mut app.workers[pause as usize % 2];
        let incarnations = worker.said()?.matches("registered").count();
        worker.signal("STOP")?;
        sleep(Duration::from_secs(frozen.into())).await;
        worker.signal("CONT")?;
        within(Duration::from_secs(10), "it has a new incarnation", async || {
            Ok((worker.said()?.matches("registered").count() > incarnations).then_some(()))
        })
        .await?;
        worker.must_run()?;
    }
    while let Some(done) = clients.join_next().await {
        done??;
    }
    while let Some(watched) = watchers.join_next().await {
        watched??;
    }
    app.judge(&history, Duration::from_secs(120)).await?;
    let fenced: usize = app.workers.iter().map(|worker| fenced(&worker.said().unwrap_or_default())).sum();
    assert!(fenced > 0, "no frozen worker noticed that its attempts were no longer its own");
    report(
        "2",
        "frozen workers that wake up",
        &json!({"mode": mode.name(), "pauses": pauses, "tasks": tasks, "stale results": 0, "stale events": 0, "stopped or fenced": fenced}),
    )
}

/// Attempts that were stopped, or whose end was refused, because they were no longer the worker's own.
fn fenced(said: &str) -> usize {
    let lines = said.lines().filter(|line| {
        line.contains("the task had moved on")
            || line.contains("the lease was lost")
            || line.contains("no longer this worker's")
    });
    lines.count()
}

/// Watches the newest tasks to their end.
async fn watch_new(
    app: &App,
    history: &History,
    watchers: &mut JoinSet<anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let newest = app.client().get("/v1/tasks?limit=5").await?.expect(200)?;
    for task in newest["data"].as_array().into_iter().flatten() {
        let id = task["id"].as_str().unwrap_or_default().to_owned();
        watchers.spawn(watch(app.client().clone(), history.clone(), id));
    }
    Ok(())
}
