//! `kill -9` of workers in the middle of their work.

use super::{history, load, task};
use crate::journey::both_transports;
use harness::{App, Mode, Seen, eventually, extra_calls, report, size};
use serde_json::json;
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};
use tokio::{task::JoinSet, time::sleep};

both_transports!(
    its_tasks_are_run_again_and_end_once,
    its_tasks_go_before_the_backlog,
    many_kills_lose_nothing
);

async fn its_tasks_are_run_again_and_end_once(mode: Mode) -> anyhow::Result<()> {
    let mut app = App::with(mode).slots(16).quick().start().await?;
    let mut tasks = Vec::new();
    for n in 0..16 {
        // Long enough to be caught in the middle, short enough to be done twice.
        tasks.push(app.client().ask(&format!("task {n}"), json!({"ttft_ms": 3_000})).await?);
    }
    let all_run = async || Ok((app.model.ledger(None).len() == 16).then_some(()));
    eventually("the worker runs all of them", all_run).await?;
    app.workers[0].kill_9()?;
    app.add_worker()?;

    for id in &tasks {
        let ended = app.client().ended(id).await?;
        assert_eq!((&ended["status"], &ended["attempt"]), (&json!("completed"), &json!(2)), "{ended}");
        assert_eq!(app.executions(id), ["client_closed", "finished"]);
    }
    Ok(())
}

/// It was their turn already: a backlog of half a minute is no reason to wait once more.
async fn its_tasks_go_before_the_backlog(mode: Mode) -> anyhow::Result<()> {
    let mut app = App::with(mode).slots(4).quick().start().await?;
    let mut first = Vec::new();
    for n in 0..4 {
        first.push(app.client().ask(&format!("first {n}"), json!({"ttft_ms": 1_000})).await?);
    }
    let all_run = async || Ok((app.model.running() == 4).then_some(()));
    eventually("the worker runs all of them", all_run).await?;
    let history = history(&app).await?;
    load(&app, &history, "backlog").run(400, |n| task(n, json!({"ttft_ms": 300}))).await?;
    app.replace_worker(0, &[])?;
    for id in &first {
        let ended = app.client().ended(id).await?;
        assert_eq!((&ended["status"], &ended["attempt"]), (&json!("completed"), &json!(2)), "{ended}");
    }
    let left = app.unfinished().await?;
    assert!(left > 200, "only {left} of 400 are left: they went first");
    Ok(())
}

/// Four workers of 16 slots, up to three quarters of them busy, of which a random one is killed and replaced again and again.
async fn many_kills_lose_nothing(mode: Mode) -> anyhow::Result<()> {
    const SLOTS: u64 = 16;
    // In the small size the box is shared with other tests: with half the load there is no backlog to wait behind.
    let (tasks, kills, rate, ttft) = size((2_000, 20, 100.0, 150), (20_000, 200, 160.0, 300));
    let mut app = App::with(mode).workers(4).slots(16).quick().start().await?;
    let history = history(&app).await?;
    let mut clients = JoinSet::new();
    let load = load(&app, &history, "kills");
    clients.spawn(load.paced(rate).run(tasks, move |n| task(n, json!({"ttft_ms": ttft}))));
    let mut killed = 0;
    while killed < kills {
        sleep(Duration::from_millis(fastrand::u64(200..700))).await;
        let one = fastrand::usize(..app.workers.len());
        app.workers[one].kill_9()?;
        app.replace_worker(one, &[])?;
        history.note(&Seen::Killed { slots: SLOTS });
        killed += 1;
    }
    while let Some(done) = clients.join_next().await {
        done??;
    }
    let seen = app.judge(&history, Duration::from_secs(120)).await?;
    let (extra, slowest) = (extra_calls(&seen), slowest_restart(&seen));
    assert!(extra <= kills * SLOTS, "{extra} extra calls of the model after {kills} kills of {SLOTS} slots");
    assert!(slowest <= 5.0, "an orphan waited {slowest:.1} s");
    report(
        "1",
        "workers killed at random",
        &json!({"mode": mode.name(), "tasks": tasks, "kills": kills, "lost": 0, "ended twice": 0, "extra calls": extra,
                "extra calls allowed": kills * SLOTS, "slowest restart, s": slowest}),
    )
}

/// Longest time from a call that was cut to the task's next call, seconds.
fn slowest_restart(seen: &[Seen]) -> f64 {
    let mut calls: BTreeMap<(&str, u32), (f64, f64)> = BTreeMap::new();
    for seen in seen {
        if let Seen::Call { task, attempt, started, ended, .. } = seen {
            calls.insert((task, *attempt), (*started, *ended));
        }
    }
    let waits = calls.iter().filter_map(|((task, attempt), (started, _))| {
        let (_, ended) = calls.get(&(*task, attempt.checked_sub(1)?))?;
        Some(started - ended)
    });
    waits.fold(0.0, f64::max)
}

/// A large load, one worker of two killed in the middle: nothing missing, nothing double, and soon as fast as before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_load_goes_on() -> anyhow::Result<()> {
    harness::journey(Mode::Distributed, async |mode| {
        const SLOTS: u64 = 32;
        // In the small size the box is shared with other tests.
        let (tasks, share) = size((4_000, 0.5), (20_000, 0.9));
        let mut app = App::with(mode).workers(2).slots(32).quick().start().await?;
        let history = history(&app).await?;
        let run = load(&app, &history, "large").run(tasks, |n| task(n, json!({"ttft_ms": 100}))).await?;
        assert_eq!((run.broken, run.turned_away), (0, 0));
        let calls = async || Ok((app.model.ledger(None).len() > tasks / 3).then_some(()));
        eventually("a third is done", calls).await?;
        let before = rate(&app, Duration::from_secs(2)).await;
        app.workers[0].kill_9()?;
        let killed = Instant::now();
        app.replace_worker(0, &[])?;
        let mut back = None;
        while killed.elapsed() < Duration::from_secs(10) && app.unfinished().await? > 0 {
            if rate(&app, Duration::from_millis(500)).await >= share * before {
                back = Some(killed.elapsed().as_secs_f64());
                break;
            }
        }
        let seen = app.judge(&history, Duration::from_secs(300)).await?;
        let extra = extra_calls(&seen);
        assert!(extra <= SLOTS, "{extra} extra calls after one kill of {SLOTS} slots");
        assert!(back.is_some(), "not back at {before:.0} calls/s within 10 s");
        report(
            "kthena",
            "a worker killed under a large load",
            &json!({"tasks": tasks, "missing": 0, "double": 0, "calls/s before": before.round(),
                    "share of it": share, "back at that share after, s": back, "extra calls": extra, "extra calls allowed": SLOTS}),
        )
    })
    .await
}

/// Calls of the model per second that begin now.
async fn rate(app: &App, time: Duration) -> f64 {
    let (calls, begun) = (app.model.calls(), Instant::now());
    sleep(time).await;
    (app.model.calls() - calls) as f64 / begun.elapsed().as_secs_f64()
}
