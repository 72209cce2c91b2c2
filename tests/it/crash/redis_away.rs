//! Redis that freezes, dies, forgets its scripts or takes no writes: no worker ends, no call is cut, and claims go on.

use super::{fresh_name, history, load, task, watch};
use crate::journey::both_transports;
use anyhow::Context;
use harness::{App, History, Mode, Redis, Seen, report, size, within};
use serde_json::json;
use std::time::{Duration, Instant};
use tokio::{task::JoinSet, time::sleep};

both_transports!(
    forgotten_ids_are_rung_again,
    no_worker_ends_and_no_call_is_cut,
    processes_start_without_it_and_find_it_later,
);

fn redis(app: &mut App) -> anyhow::Result<&mut Redis> {
    app.redis.as_mut().context("a distributed app has a Redis")
}

/// Both kinds of processes are started while it is away; it comes back at the same address.
async fn processes_start_without_it_and_find_it_later(mode: Mode) -> anyhow::Result<()> {
    let mut app = App::with(mode).workers(0).start().await?;
    redis(&mut app)?.process.kill_9()?;
    app.add_api().await?;
    app.add_worker()?;
    let client = app.apis[1].clone();
    let id = client.ask("while it is away", json!({})).await?;
    assert_eq!(client.ended(&id).await?["status"], "completed");
    for said in [app.api_process(1).said()?, app.workers[0].said()?] {
        assert_eq!(said.matches("started without it").count(), 1, "{said}");
    }
    redis(&mut app)?.restart().await?;
    redis(&mut app)?.config("maxmemory-policy", "allkeys-lru").await?;
    let id = client.ask("when it is back", json!({"itl_ms": 50, "tokens": 60})).await?;
    // Deltas come by it alone.
    client.events(&id, None, 4).await?;
    assert_eq!(client.ended(&id).await?["status"], "completed");
    app.add_api().await?;
    let said = app.api_process(2).said()?;
    assert!(said.contains("allkeys-lru") && said.contains("noeviction"), "{said}");
    Ok(())
}

/// `FLUSHALL` while a backlog is worked off.
async fn forgotten_ids_are_rung_again(mode: Mode) -> anyhow::Result<()> {
    let (tasks, flushes) = size((2_000, 1), (20_000, 10));
    let mut app = App::with(mode).workers(2).slots(16).quick().start().await?;
    let history = history(&app).await?;
    let mut clients = JoinSet::new();
    clients.spawn(load(&app, &history, "flush").run(tasks, |n| task(n, json!({"ttft_ms": 60}))));
    let (mut slowest, mut watchers) = (Duration::ZERO, JoinSet::new());
    for flush in 1..=flushes {
        let share = tasks * flush / (flushes + 1);
        within(Duration::from_secs(120), "the next part is done", async || {
            Ok((app.model.calls() >= share).then_some(()))
        })
        .await?;
        // Ahead of the backlog.
        let mut body = task(flush, json!({"ttft_ms": 60, "itl_ms": 30, "tokens": 60}));
        body["queue"] = json!("interactive");
        let stream = app.client().submit(&body).await?;
        history.note(&Seen::Accepted { task: stream.clone(), key: None });
        watchers.spawn(watch(app.client().clone(), history.clone(), stream.clone()));
        // Into its deltas.
        app.client().events(&stream, None, 4).await?;
        redis(&mut app)?.flush().await?;
        let (calls, begun) = (app.model.calls(), Instant::now());
        // More than were on their way when it forgot.
        within(Duration::from_secs(6), "the queue is filled again", async || {
            Ok((app.model.calls() > calls + 64 || app.unfinished().await? == 0).then_some(()))
        })
        .await?;
        slowest = slowest.max(begun.elapsed());
    }
    while let Some(done) = clients.join_next().await {
        done??;
    }
    while let Some(watched) = watchers.join_next().await {
        watched??;
    }
    app.judge(&history, Duration::from_secs(120)).await?;
    report(
        "6",
        "FLUSHALL under load",
        &json!({"mode": mode.name(), "tasks": tasks, "flushes": flushes, "lost": 0, "slowest refill, s": slowest.as_secs_f64()}),
    )
}

async fn no_worker_ends_and_no_call_is_cut(mode: Mode) -> anyhow::Result<()> {
    let freezes: &[f64] = size(&[0.6, 3.0], &[0.6, 5.0, 60.0]);
    let mut app = App::with(mode).workers(2).slots(16).quick().start().await?;
    let history = history(&app).await?;
    let mut slowest = Duration::ZERO;
    for &seconds in freezes {
        let running = under_way(&app, &history).await?;
        redis(&mut app)?.freeze().await?;
        sleep(Duration::from_secs_f64(seconds)).await;
        redis(&mut app)?.thaw()?;
        slowest = slowest.max(goes_on(&mut app, &history, running).await?);
    }
    let running = under_way(&app, &history).await?;
    redis(&mut app)?.process.kill_9()?;
    slowest = slowest.max(goes_on(&mut app, &history, running).await?);
    let running = under_way(&app, &history).await?;
    redis(&mut app)?.restart().await?;
    slowest = slowest.max(goes_on(&mut app, &history, running).await?);
    let running = under_way(&app, &history).await?;
    redis(&mut app)?.script_flush().await?;
    slowest = slowest.max(goes_on(&mut app, &history, running).await?);
    // As after a failover: a replica takes no writes.
    let running = under_way(&app, &history).await?;
    let mut connection = redis(&mut app)?.connection().await?;
    redis::cmd("REPLICAOF").arg("127.0.0.1").arg("1").exec_async(&mut connection).await?;
    slowest = slowest.max(goes_on(&mut app, &history, running).await?);
    redis::cmd("REPLICAOF").arg("NO").arg("ONE").exec_async(&mut connection).await?;
    let seen = app.judge(&history, Duration::from_secs(60)).await?;
    let cut = seen.iter().filter(|seen| matches!(seen, Seen::Call { how, .. } if how != "finished")).count();
    assert_eq!(cut, 0, "no call of the model was cut");
    report(
        "7",
        "Redis frozen, killed, restarted, without scripts, read-only",
        &json!({"mode": mode.name(), "freezes, s": freezes, "worker exits": 0, "cut calls": cut,
                "slowest claim afterwards, s": slowest.as_secs_f64()}),
    )
}

/// Calls under way, which must survive.
async fn under_way(app: &App, history: &History) -> anyhow::Result<usize> {
    let calls = app.model.calls();
    load(app, history, &fresh_name()).run(8, |n| task(n, json!({"ttft_ms": 1_500}))).await?;
    within(Duration::from_secs(10), "eight calls are under way", async || {
        Ok((app.model.calls() >= calls + 8).then_some(()))
    })
    .await?;
    Ok(app.model.calls())
}

/// New tasks are accepted and claimed, and no worker has ended. The time that the first one took.
async fn goes_on(app: &mut App, history: &History, calls: usize) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    let met = load(app, history, &fresh_name()).run(4, |n| task(n, json!({}))).await?;
    assert_eq!((met.turned_away, met.broken), (0, 0), "submits do not need Redis");
    within(Duration::from_secs(10), "claims go on", async || Ok((app.model.calls() > calls).then_some(())))
        .await?;
    for worker in &mut app.workers {
        worker.must_run()?;
    }
    Ok(begun.elapsed())
}
