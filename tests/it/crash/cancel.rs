//! Cancels against completions: one winner, for good, and the model is left alone at once; the lost signal included.

use super::{history, load, task};
use crate::journey::{both_modes, both_transports};
use anyhow::Context;
use harness::{App, Client, History, Mode, Seen, report, size, within};
use reqwest::Method;
use serde_json::json;
use shared::clock::UnixMs;
use std::time::{Duration, Instant};
use tokio::{task::JoinSet, time::sleep};

both_modes!(one_of_the_two_wins, the_model_is_left_alone_at_once);
both_transports!(a_lost_signal_is_caught_by_the_heartbeat);

/// Unix seconds, of the clock that the model's ledger reads.
fn now() -> f64 {
    UnixMs::now().0 as f64 / 1000.0
}

async fn one_of_the_two_wins(mode: Mode) -> anyhow::Result<()> {
    let races = size(1_000, 10_000);
    let app = App::with(mode).apis(2).slots(64).quick().start().await?;
    let history = history(&app).await?;
    let mut racing = JoinSet::new();
    for n in 0..races {
        let (api, other) = (app.apis[n % app.apis.len()].clone(), app.apis[(n + 1) % app.apis.len()].clone());
        racing.spawn(race(api, other, history.clone(), n));
        if racing.len() >= 48 {
            racing.join_next().await.context("one is running")???;
        }
    }
    while let Some(done) = racing.join_next().await {
        done??;
    }
    let seen = app.judge(&history, Duration::from_secs(60)).await?;
    let cancelled = seen.iter().filter(|seen| matches!(seen, Seen::Cancelled { .. })).count();
    assert!(
        cancelled > races / 20 && cancelled < races,
        "{cancelled} of {races} cancels won: that is no race"
    );
    report(
        "13",
        "cancels raced against completions",
        &json!({"mode": mode.name(), "races": races, "cancels won": cancelled, "two winners": 0, "changed afterwards": 0}),
    )
}

/// Submits by one API and cancels by the other, about when the model is done.
async fn race(api: Client, other: Client, history: History, n: usize) -> anyhow::Result<()> {
    let id = api.submit(&task(n, json!({"ttft_ms": 10, "itl_ms": 0}))).await?;
    history.note(&Seen::Accepted { task: id.clone(), key: None });
    sleep(Duration::from_millis(fastrand::u64(0..40))).await;
    let cancelled = other.post(&format!("/v1/tasks/{id}/cancel"), &json!({})).await?.expect(200)?;
    let at = now();
    let state = cancelled["status"].as_str().unwrap_or_default().to_owned();
    anyhow::ensure!(matches!(&*state, "cancelled" | "completed"), "a cancel answered {cancelled}");
    if state == "cancelled" {
        history.note(&Seen::Cancelled { task: id.clone(), at });
    }
    for reader in [&api, &other] {
        history.note(&Seen::Read { task: id.clone(), state: state.clone() });
        let read = reader.task(&id).await?["status"].as_str().unwrap_or_default().to_owned();
        history.note(&Seen::Read { task: id.clone(), state: read });
    }
    Ok(())
}

/// From the answer of the cancel to the closed connection at the model.
async fn the_model_is_left_alone_at_once(mode: Mode) -> anyhow::Result<()> {
    let cancels = size(20, 300);
    let app = App::with(mode).apis(2).workers(2).slots(64).start().await?;
    let history = history(&app).await?;
    let mut waits = Vec::new();
    for n in 0..cancels {
        // Before the first token, and among the tokens.
        let sim = if n % 2 == 0 { json!({"ttft_ms": 30_000}) } else { json!({"itl_ms": 300, "tokens": 100}) };
        let id = app.client().submit(&task(n, sim)).await?;
        history.note(&Seen::Accepted { task: id.clone(), key: None });
        within(Duration::from_secs(10), "the model is called", async || {
            Ok((!app.executions(&id).is_empty()).then_some(()))
        })
        .await?;
        let api = &app.apis[n % app.apis.len()];
        let cancelled = api.post(&format!("/v1/tasks/{id}/cancel"), &json!({})).await?.expect(200)?;
        let at = now();
        assert_eq!(cancelled["status"], "cancelled");
        history.note(&Seen::Cancelled { task: id.clone(), at });
        // Far below the heartbeat of two seconds: it was the signal.
        let ended = within(Duration::from_millis(1_500), "the call is closed", async || {
            Ok(app.model.ledger(Some(&id)).first().and_then(|call| call.ended_at))
        })
        .await?;
        waits.push((ended.0 as f64 / 1000.0 - at).max(0.0) * 1000.0);
    }
    app.judge(&history, Duration::from_secs(30)).await?;
    waits.sort_by(f64::total_cmp);
    let quantile = |share: f64| waits[((waits.len() - 1) as f64 * share) as usize];
    report(
        "cancel",
        "from the answer of a cancel to the closed call",
        &json!({"mode": mode.name(), "cancels": cancels, "p50, ms": quantile(0.5), "p99, ms": quantile(0.99)}),
    )
}

/// Redis is away, and with it the signal.
async fn a_lost_signal_is_caught_by_the_heartbeat(mode: Mode) -> anyhow::Result<()> {
    let mut app = App::with(mode).slots(8).quick().start().await?;
    let history = history(&app).await?;
    load(&app, &history, "lost").run(4, |n| task(n, json!({"ttft_ms": 30_000}))).await?;
    within(Duration::from_secs(10), "the model is called", async || {
        Ok((app.model.calls() == 4).then_some(()))
    })
    .await?;
    app.redis.as_mut().context("a distributed app has a Redis")?.process.kill_9()?;
    let begun = Instant::now();
    for id in history.accepted()?.values() {
        let request = app.client().request(Method::POST, &format!("/v1/tasks/{id}/cancel"));
        Client::send(request).await?.expect(200)?;
        history.note(&Seen::Cancelled { task: id.clone(), at: now() });
    }
    app.judge(&history, Duration::from_secs(5)).await?;
    assert!(begun.elapsed() < Duration::from_secs(5));
    Ok(())
}
