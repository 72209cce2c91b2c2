//! Limits hold: slots, time limits, deadlines, large bodies, keys.

use super::both_modes;
use harness::{App, Client, Mode, chat, eventually};
use reqwest::Method;
use serde_json::{Value, json};
use shared::clock::UnixMs;
use std::path::Path;

both_modes!(
    a_worker_runs_no_more_than_its_slots,
    an_attempt_that_takes_too_long_is_ended,
    a_task_expires_at_its_deadline,
    a_large_body_comes_back_whole,
    a_key_is_asked_for,
);

async fn a_worker_runs_no_more_than_its_slots(mode: Mode) -> anyhow::Result<()> {
    let app = App::with(mode).slots(3).start().await?;
    let client = app.client();
    let mut tasks = Vec::new();
    for n in 0..12 {
        tasks.push(client.ask(&format!("task {n}"), json!({"ttft_ms": 100})).await?);
    }
    for id in &tasks {
        assert_eq!(client.ended(id).await?["status"], "completed");
    }
    let calls = app.model.ledger(None);
    let ended = |at: Option<UnixMs>| at.unwrap_or(UnixMs(i64::MAX));
    let most = calls.iter().map(|call| {
        let at_its_start = |other: &&simulator::Entry| {
            other.started_at <= call.started_at && call.started_at < ended(other.ended_at)
        };
        calls.iter().filter(at_its_start).count()
    });
    assert_eq!((calls.len(), most.max()), (12, Some(3)));
    Ok(())
}

async fn an_attempt_that_takes_too_long_is_ended(mode: Mode) -> anyhow::Result<()> {
    let app = App::start(mode).await?;
    let task = json!({
        "endpoint": "/v1/chat/completions",
        "body": chat("slow", json!({"ttft_ms": 60_000})),
        "policy": {"execution_timeout_s": 1, "max_attempts": 1},
    });
    let id = app.client().submit(&task).await?;
    let ended = app.client().ended(&id).await?;
    assert_eq!((&ended["status"], &ended["error"]["code"]), (&json!("failed"), &json!("upstream_timeout")));
    Ok(())
}

async fn a_task_expires_at_its_deadline(mode: Mode) -> anyhow::Result<()> {
    let app = App::with(mode).slots(1).start().await?;
    let client = app.client();
    let task = |policy: Value| {
        let body = chat("slow", json!({"ttft_ms": 60_000}));
        json!({"endpoint": "/v1/chat/completions", "body": body, "policy": policy})
    };
    let running = client.submit(&task(json!({"ttl_s": 3}))).await?;
    client.reaches(&running, "in_progress").await?;
    let waiting = client.submit(&task(json!({"queue_timeout_s": 1}))).await?;

    let ended = client.ended(&waiting).await?;
    assert_eq!((&ended["status"], &ended["error"]["code"]), (&json!("expired"), &json!("queue_timeout")));
    let ended = client.ended(&running).await?;
    assert_eq!((&ended["status"], &ended["error"]["code"]), (&json!("expired"), &json!("deadline_exceeded")));
    Ok(())
}

async fn a_large_body_comes_back_whole(mode: Mode) -> anyhow::Result<()> {
    relay_a_large_body(&App::start(mode).await?).await.map(drop)
}

/// One process keeps it, another one opens it, and with the task it goes away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_bodies_are_objects_that_all_processes_share() -> anyhow::Result<()> {
    harness::journey(Mode::Distributed, async |mode| {
        let folder = tempfile::tempdir()?;
        let url = format!("file://{}", folder.path().display());
        let app = App::with(mode).env("LONGHAUL_OBJECTS__URL", &url).start().await?;
        let id = relay_a_large_body(&app).await?;
        assert_eq!(objects(folder.path())?, 2, "request and answer");
        app.client().delete(&format!("/v1/tasks/{id}")).await?.expect(200)?;
        let gone = async || Ok((objects(folder.path())? == 0).then_some(()));
        eventually("the objects of a deleted task are removed", gone).await
    })
    .await
}

/// Files below a folder.
fn objects(folder: &Path) -> anyhow::Result<usize> {
    let mut files = 0;
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        files += if path.is_dir() { objects(&path)? } else { 1 };
    }
    Ok(files)
}

/// A megabyte there and back; the task's id.
async fn relay_a_large_body(app: &App) -> anyhow::Result<String> {
    let client = app.client();
    let text = "long road ".repeat(100_000);
    let body = chat(&text, json!({"echo": true}));
    let task = json!({"endpoint": "/v1/chat/completions", "body": body, "policy": {"events": "lifecycle"}});
    let id = client.submit(&task).await?;
    assert_eq!(client.ended(&id).await?["status"], "completed");
    let answer = client.get(&format!("/v1/tasks/{id}/result")).await?.expect(200)?;
    let echoed = answer["choices"][0]["message"]["content"].as_str().unwrap_or_default();
    assert!(echoed.contains(text.trim()), "{} characters came back", echoed.len());
    let input = client.get(&format!("/v1/tasks/{id}?include=input")).await?.expect(200)?;
    assert!(input.to_string().contains(text.trim()), "the request is still there");
    Ok(id)
}

async fn a_key_is_asked_for(mode: Mode) -> anyhow::Result<()> {
    let app = App::with(mode).env("LONGHAUL_API__KEY", "open-sesame").start().await?;
    let client = app.client();
    assert_eq!(client.get("/v1/tasks").await?.status, 401);
    for (key, status) in [("open-sesame", 200), ("open-sesam", 401)] {
        let request = client.request(Method::GET, "/v1/tasks").bearer_auth(key);
        assert_eq!(Client::send(request).await?.status, status, "{key}");
    }
    assert_eq!(client.get("/readyz").await?.status, 200, "health needs no key");
    Ok(())
}
