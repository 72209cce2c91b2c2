//! An upstream that is away, or fails every call: it is left alone, and no task fails for it.

use super::{history, load, task};
use crate::journey::both_modes;
use harness::{App, Mode, Outage, report, size, within};
use serde_json::json;
use std::time::{Duration, Instant};
use tokio::time::sleep;

both_modes!(
    no_task_fails_for_an_outage,
    failures_are_not_repeated_without_end,
    requests_that_always_fail_do_not_keep_others_waiting,
    a_list_of_models_is_no_proof,
);

/// The times of a day, shortened: trials every 100 ms instead of 5 s.
fn hurried(mode: Mode) -> harness::Builder {
    let wishes = App::with(mode).slots(16).quick();
    wishes.env("LONGHAUL_WORKER__PROBE_PERIOD", "100ms").env("LONGHAUL_TASK__BACKOFF_BASE", "50ms")
}

/// Nobody listens at the only upstream for as long as 120 trials: ten minutes of the usual ones.
async fn no_task_fails_for_an_outage(mode: Mode) -> anyhow::Result<()> {
    let trials = size(30, 120);
    let app = hurried(mode).start().await?;
    let history = history(&app).await?;
    load(&app, &history, "before").run(20, |n| task(n, json!({"ttft_ms": 200}))).await?;
    let away = Duration::from_millis(100 * trials);
    app.model
        .outage(Some(
            Outage::parse(&json!({"refuse": true, "for_ms": away.as_millis() as u64}))
                .map_err(anyhow::Error::msg)?,
        ))
        .await;
    let begun = Instant::now();
    load(&app, &history, "during").run(20, |n| task(n, json!({}))).await?;
    sleep(away.saturating_sub(begun.elapsed())).await;
    let healed = Instant::now();
    let seen = app.judge(&history, Duration::from_secs(60)).await?;
    let served = healed.elapsed();
    for id in history.accepted()?.values() {
        let task = app.client().task(id).await?;
        assert_eq!(task["status"], "completed", "{task}");
    }
    drop(seen);
    report(
        "outage",
        "the only upstream is away for so many trials",
        &json!({"mode": mode.name(), "trials": trials, "tasks": 40, "failed": 0, "all done after the heal, s": served.as_secs_f64()}),
    )
}

/// Every call is answered with 500.
async fn failures_are_not_repeated_without_end(mode: Mode) -> anyhow::Result<()> {
    let (tasks, lasts) = size((200, 3), (4_000, 600));
    let app = hurried(mode)
        .env("LONGHAUL_WORKER__PROBE_PERIOD", if lasts > 60 { "5s" } else { "100ms" })
        .start()
        .await?;
    let history = history(&app).await?;
    app.model
        .outage(Some(Outage::parse(&json!({"fault": {"status": 500}})).map_err(anyhow::Error::msg)?))
        .await;
    load(&app, &history, "broken").run(tasks, |n| task(n, json!({"ttft_ms": 20}))).await?;
    sleep(Duration::from_secs(lasts)).await;
    let calls = app.model.calls();
    let probes = if lasts > 60 { lasts / 5 } else { lasts * 10 };
    // Five in a row, whoever was under way by then, and the trials.
    let allowed = usize::try_from(5 + 16 + probes + 10)?;
    assert!(calls <= allowed, "{calls} calls of an upstream that only fails, {allowed} are enough");
    app.model.outage(None).await;
    let healed = Instant::now();
    within(Duration::from_secs(30), "it works at full speed again", async || {
        Ok((app.model.calls() > calls + tasks / 2).then_some(()))
    })
    .await?;
    let back = healed.elapsed();
    app.judge(&history, Duration::from_secs(120)).await?;
    let failed = app.client().get("/v1/tasks?status=failed").await?.expect(200)?;
    assert_eq!(failed["data"], json!([]), "no task is charged for the upstream's failures until it gives up");
    report(
        "22",
        "an upstream that answers every call with 500",
        &json!({"mode": mode.name(), "offered": tasks, "lasts, s": lasts, "calls": calls, "calls allowed": allowed, "failed": 0,
                "half of the backlog done after the heal, s": back.as_secs_f64()}),
    )
}

/// Some requests fail wherever they are sent. They are the oldest, they have the upstream paused, and it is well.
async fn requests_that_always_fail_do_not_keep_others_waiting(mode: Mode) -> anyhow::Result<()> {
    let app = hurried(mode).start().await?;
    let history = history(&app).await?;
    let hopeless = |n| {
        let mut task = task(n, json!({"status": 500}));
        task["policy"] = json!({"ttl_s": 8});
        task
    };
    load(&app, &history, "hopeless").run(8, hopeless).await?;
    within(Duration::from_secs(10), "the upstream is paused", async || {
        Ok((app.model.calls() >= 8).then_some(()))
    })
    .await?;
    load(&app, &history, "good").run(20, |n| task(n, json!({}))).await?;
    for (key, id) in history.accepted()? {
        let ended = app.client().ended(&id).await?;
        let good = key.starts_with("good");
        assert_eq!(ended["status"] == "completed", good, "{key}: {ended}");
    }
    app.judge(&history, Duration::from_secs(20)).await.map(drop)
}

/// While nobody waits for it, an upstream that lists its models is tried with the next task, which is not charged if it fails.
async fn a_list_of_models_is_no_proof(mode: Mode) -> anyhow::Result<()> {
    let app = hurried(mode).start().await?;
    let once = |n| {
        let mut task = task(n, json!({}));
        task["policy"] = json!({"max_attempts": 1});
        task
    };
    app.model
        .outage(Some(Outage::parse(&json!({"fault": {"status": 500}})).map_err(anyhow::Error::msg)?))
        .await;
    for n in 0..4 {
        let id = app.client().submit(&once(n)).await?;
        assert_eq!(app.client().ended(&id).await?["status"], "failed", "its only attempt failed");
    }
    // The fifth has it paused. Nobody else waits for it.
    let fifth = app.client().submit(&once(5)).await?;
    let said = async |what: &str| {
        within(Duration::from_secs(10), what, async || {
            Ok(app.workers[0].said()?.contains(what).then_some(()))
        })
        .await
    };
    said("the upstream fails again and again").await?;
    app.client().post(&format!("/v1/tasks/{fifth}/cancel"), &json!({})).await?.expect(200)?;
    said("the upstream answers again").await?;
    let calls = app.model.calls();
    let id = app.client().submit(&once(6)).await?;
    within(Duration::from_secs(10), "it is called", async || Ok((app.model.calls() > calls).then_some(())))
        .await?;
    app.model.outage(None).await;
    assert_eq!(app.client().ended(&id).await?["status"], "completed");
    Ok(())
}
