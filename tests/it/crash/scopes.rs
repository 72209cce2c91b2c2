//! A limit is felt by what it is of: a request, a model, or an upstream. What a server says of itself is not charged to tasks.

use super::{history, load, task};
use crate::journey::both_modes;
use harness::{App, Mode, Outage, report, size, within};
use serde_json::{Value, json};
use std::time::Duration;

both_modes!(
    a_models_limit_is_felt_by_that_model_alone,
    a_request_that_is_always_throttled_ends_and_nobody_waits,
    a_refused_key_is_waited_for,
    a_refusal_of_one_request_is_its_own,
    a_model_that_loads_is_waited_for,
);

/// Another model of the simulated server, which has a list of its own limits.
const OTHER: &str = "sim-embed";

fn hurried(mode: Mode) -> harness::Builder {
    let wishes = App::with(mode).slots(8).quick();
    wishes.env("LONGHAUL_WORKER__PROBE_PERIOD", "100ms").env("LONGHAUL_TASK__BACKOFF_BASE", "20ms")
}

async fn outage(app: &App, fault: Value, model: &str) -> anyhow::Result<()> {
    let outage = Outage::parse(&json!({"fault": fault, "model": model})).map_err(anyhow::Error::msg)?;
    app.model.outage(Some(outage)).await;
    Ok(())
}

fn of(model: &str, queue: &str, mut task: Value) -> Value {
    task["body"]["model"] = json!(model);
    task["queue"] = json!(queue);
    task
}

/// Milliseconds from the submission of so many tasks of the other model until each was called, sorted.
async fn starts(app: &App, tasks: usize) -> anyhow::Result<Vec<i64>> {
    let mut waits = Vec::new();
    for n in 0..tasks {
        let sent = shared::clock::UnixMs::now().0;
        let id = app.client().submit(&of(OTHER, "interactive", task(n, json!({})))).await?;
        let ended = app.client().ended(&id).await?;
        anyhow::ensure!(ended["status"] == "completed", "{ended}");
        waits.push(app.model.ledger(Some(&id))[0].started_at.0 - sent);
    }
    waits.sort_unstable();
    Ok(waits)
}

/// Lines of a model that asks for 20 s, beside single tasks of another one.
async fn a_models_limit_is_felt_by_that_model_alone(mode: Mode) -> anyhow::Result<()> {
    let (lines, tasks) = size((100, 30), (1_000, 300));
    let app = hurried(mode).start().await?;
    let history = history(&app).await?;
    let idle = starts(&app, tasks).await?;
    outage(&app, json!({"status": 429, "retry_after_s": 20}), "sim-chat").await?;
    load(&app, &history, "hot").run(lines, |n| of("sim-chat", "batch", task(n, json!({})))).await?;
    within(Duration::from_secs(10), "the model is paused", async || {
        Ok(app.workers[0].said()?.contains("asked for fewer requests: paused").then_some(()))
    })
    .await?;
    let called = app.model.calls();
    let beside = starts(&app, tasks).await?;
    let hot = app.model.calls() - called - tasks;
    assert!(hot <= 16, "{hot} calls of a model that has asked for 20 s");
    assert!(beside.last().is_some_and(|wait| *wait < 10_000), "somebody waited for the pause: {beside:?}");
    let p99 = |waits: &[i64]| waits[(waits.len() - 1) * 99 / 100];
    app.model.outage(None).await;
    app.judge(&history, Duration::from_secs(60)).await?;
    report(
        "fairness of pauses",
        "start of single tasks beside a throttled model",
        &json!({"mode": mode.name(), "hot lines": lines, "idle p99, ms": p99(&idle), "beside p99, ms": p99(&beside)}),
    )
}

/// Runs one task of the model after the other until this one has ended; gives it and how many the others were.
async fn beside(app: &App, id: &str) -> anyhow::Result<(Value, usize)> {
    for n in 0.. {
        let ended = app.client().task(id).await?;
        if !ended["finished_at"].is_null() {
            return Ok((ended, n));
        }
        let other = app.client().submit(&task(n, json!({}))).await?;
        let good = app.client().ended(&other).await?;
        assert_eq!(
            (&good["status"], app.model.ledger(Some(&other)).len()),
            (&json!("completed"), 1),
            "{good}"
        );
        anyhow::ensure!(n < 20_000, "it does not end: {ended}");
    }
    unreachable!("the range has no end")
}

async fn a_request_that_is_always_throttled_ends_and_nobody_waits(mode: Mode) -> anyhow::Result<()> {
    let app = hurried(mode).start().await?;
    let mut large = task(0, json!({"status": 429}));
    large["policy"] = json!({"max_attempts": 2});
    let id = app.client().submit(&large).await?;
    let (ended, _) = beside(&app, &id).await?;
    assert_eq!((&ended["status"], &ended["error"]["code"]), (&json!("failed"), &json!("upstream_throttled")));
    let calls = app.model.ledger(Some(&id)).len();
    assert!((6..=20).contains(&calls), "four for nothing and two that are charged, not {calls}");
    assert!(!app.workers[0].said()?.contains("paused"), "nobody else was to wait");
    Ok(())
}

async fn a_refused_key_is_waited_for(mode: Mode) -> anyhow::Result<()> {
    let tasks = size(30, 300);
    for status in [401, 403] {
        let app = hurried(mode).start().await?;
        let history = history(&app).await?;
        outage(&app, json!({"status": status}), "sim-chat").await?;
        load(&app, &history, "refused").run(tasks, |n| task(n, json!({}))).await?;
        let said = "refuses the operator's key";
        within(Duration::from_secs(10), said, async || {
            Ok(app.workers[0].said()?.contains(said).then_some(()))
        })
        .await?;
        let called = app.model.calls();
        within(Duration::from_secs(20), "it is tried", async || {
            Ok((app.model.calls() >= called + 3).then_some(()))
        })
        .await?;
        assert_eq!(app.workers[0].said()?.matches(said).count(), 1, "once per change");
        app.model.outage(None).await;
        app.judge(&history, Duration::from_secs(60)).await?;
        for id in history.accepted()?.values() {
            let task = app.client().task(id).await?;
            assert_eq!((&task["status"], &task["failures"]), (&json!("completed"), &json!(0)), "{task}");
        }
    }
    Ok(())
}

async fn a_refusal_of_one_request_is_its_own(mode: Mode) -> anyhow::Result<()> {
    let app = hurried(mode).start().await?;
    let id = app.client().submit(&task(0, json!({"status": 403}))).await?;
    let (ended, _) = beside(&app, &id).await?;
    assert_eq!((&ended["status"], &ended["error"]["code"]), (&json!("failed"), &json!("upstream_rejected")));
    assert!(app.model.ledger(Some(&id)).len() >= 3, "it is believed when others were answered twice");
    Ok(())
}

async fn a_model_that_loads_is_waited_for(mode: Mode) -> anyhow::Result<()> {
    let app = hurried(mode).start().await?;
    outage(&app, json!({"status": 503}), "sim-chat").await?;
    let mut lone = task(0, json!({}));
    lone["policy"] = json!({"max_attempts": 1});
    let id = app.client().submit(&lone).await?;
    within(Duration::from_secs(10), "it is called again and again", async || {
        Ok((app.model.ledger(Some(&id)).len() >= 5).then_some(()))
    })
    .await?;
    // Another model of the same server works.
    starts(&app, 1).await?;
    app.model.outage(None).await;
    let ended = app.client().ended(&id).await?;
    assert_eq!((&ended["status"], &ended["failures"]), (&json!("completed"), &json!(0)), "{ended}");
    Ok(())
}
