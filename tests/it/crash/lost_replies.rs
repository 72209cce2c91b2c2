//! The commit succeeds and the reply never comes: of a submit, a claim, an end, a cancel. Nothing is lost and nothing happens twice.

use super::{history, load, task};
use crate::journey::both_modes;
use harness::{App, Client, Mode, Seen, extra_calls, report, size, within};
use reqwest::Method;
use serde_json::json;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

both_modes!(what_was_committed_counts);

/// Every third reply is lost, for a while.
fn losing(point: &str) -> String {
    let turns: Vec<&str> = std::iter::repeat_n("2*off->1*return", 8).collect();
    format!("{point}={}->off", turns.join("->"))
}

async fn what_was_committed_counts(mode: Mode) -> anyhow::Result<()> {
    if !harness::failpoints() {
        return Ok(());
    }
    let api = [losing("submit_reply"), losing("cancel_reply")].join(";");
    let worker = [losing("claim_reply"), losing("finish_reply")].join(";");
    let all = [api.clone(), worker.clone()].join(";");
    let mut app = App::with(mode).workers(0).slots(16).quick().start().await?;
    let history = history(&app).await?;
    if mode == Mode::Embedded {
        app.restart_api(0, &[("FAILPOINTS", &all)]).await?;
    } else {
        app.restart_api(0, &[("FAILPOINTS", &api)]).await?;
        app.add_worker_with(&[("FAILPOINTS", &worker)])?;
    }
    let mut slow = load(&app, &history, "tasks");
    slow.clients = 4;
    slow.run(60, |n| task(n, json!({"ttft_ms": 50}))).await?;
    let stopped = app.client().submit(&task(99, json!({"ttft_ms": 20_000}))).await?;
    history.note(&Seen::Accepted { task: stopped.clone(), key: None });
    for _ in 0..3 {
        // A client that hears 503 asks again, and is told how it stands.
        let cancel = app.client().request(Method::POST, &format!("/v1/tasks/{stopped}/cancel"));
        let reply = Client::send(cancel).await?;
        assert!(matches!(reply.status, 200 | 503), "{reply:?}");
    }
    let state = app.client().task(&stopped).await?["status"].clone();
    assert_eq!(state, "cancelled");
    let seen = app.judge(&history, Duration::from_secs(60)).await?;
    assert_eq!(extra_calls(&seen), 0, "a claim whose reply was lost had called nobody");
    report(
        "lost replies",
        "replies to submit, claim, end and cancel lost",
        &json!({"mode": mode.name(), "tasks": 61, "lost": 0, "double calls": 0}),
    )
}

/// On the wire: the proxy before Postgres swallows a reply and cuts the connection, again and again, whatever it was the reply to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_the_statement() -> anyhow::Result<()> {
    harness::journey(Mode::Distributed, async |mode| {
        let (tasks, cuts) = size((400, 40), (4_000, 400));
        let app = App::with(mode).proxied().workers(2).slots(16).quick().start().await?;
        let history = history(&app).await?;
        let mut clients = JoinSet::new();
        let paced = load(&app, &history, "wire").paced(tasks as f64 / (f64::from(cuts) * 0.1));
        clients.spawn(paced.run(tasks, |n| task(n, json!({"ttft_ms": 50}))));
        let edges = &app.edges;
        let begun = Instant::now();
        for cut in 0..cuts {
            let wire = if cut % 2 == 0 { &edges.api_database } else { &edges.worker_database };
            let lost = wire.lost();
            wire.lose_next_reply();
            within(Duration::from_secs(10), "a reply is lost", async || Ok((wire.lost() > lost).then_some(()))).await?;
            tokio::time::sleep(Duration::from_millis(60)).await;
        }
        while let Some(done) = clients.join_next().await {
            let met = done??;
            assert_eq!(met.broken, 0, "the API itself never breaks off");
        }
        let seen = app.judge(&history, Duration::from_secs(60)).await?;
        report(
            "lost replies",
            "replies of Postgres swallowed and the connection cut",
            &json!({"cuts": cuts, "tasks": tasks, "lost": 0, "extra calls": extra_calls(&seen), "took, s": begun.elapsed().as_secs_f64()}),
        )
    })
    .await
}
