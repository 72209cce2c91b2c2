//! Many lines under one name: counted exactly, each line a task.

use super::both_modes;
use harness::{App, Mode, chat, eventually};
use serde_json::{Value, json};
use std::collections::BTreeSet;

both_modes!(a_batch_counts_every_line_once, a_cancelled_batch_ends);

fn batch(lines: u32, sim: impl Fn(u32) -> Value) -> Value {
    let line = |n: u32| {
        let body = chat(&format!("line {n}"), sim(n));
        json!({"custom_id": format!("line-{n}"), "method": "POST", "url": "/v1/chat/completions", "body": body})
    };
    let requests: Vec<Value> = (0..lines).map(line).collect();
    json!({"endpoint": "/v1/chat/completions", "completion_window": "24h", "requests": requests})
}

async fn a_batch_counts_every_line_once(mode: Mode) -> anyhow::Result<()> {
    let app = App::start(mode).await?;
    let client = app.client();
    // Every tenth line is refused by the model server.
    let wanted = batch(50, |n| if n % 10 == 9 { json!({"status": 400}) } else { json!({}) });
    let made = client.post("/v1/batches", &wanted).await?.expect(200)?;
    let id = made["id"].as_str().unwrap_or_default();
    assert!(id.starts_with("batch_"), "{made}");
    assert_eq!(made["object"], "batch");

    let path = format!("/v1/batches/{id}");
    let done = eventually("the batch is completed", async || {
        let batch = client.get(&path).await?.expect(200)?;
        Ok((batch["status"] == "completed").then_some(batch))
    })
    .await?;
    assert_eq!(done["request_counts"], json!({"total": 50, "completed": 45, "failed": 5}));
    assert_eq!(done["endpoint"], "/v1/chat/completions");

    let results = client.get(&format!("{path}/results")).await?;
    assert_eq!(results.status, 200);
    let mut lines = BTreeSet::new();
    for line in results.body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let line: Value = serde_json::from_slice(line)?;
        lines.insert(line["custom_id"].as_str().unwrap_or_default().to_owned());
    }
    assert_eq!(lines, (0..50).map(|n| format!("line-{n}")).collect());

    let tasks = client.get(&format!("/v1/tasks?batch_id={id}&limit=100")).await?.expect(200)?;
    assert_eq!(tasks["data"].as_array().map(Vec::len), Some(50));
    Ok(())
}

async fn a_cancelled_batch_ends(mode: Mode) -> anyhow::Result<()> {
    let app = App::with(mode).slots(2).start().await?;
    let client = app.client();
    let made = client.post("/v1/batches", &batch(10, |_| json!({"ttft_ms": 60_000}))).await?.expect(200)?;
    let path = format!("/v1/batches/{}", made["id"].as_str().unwrap_or_default());
    let asked = client.post(&format!("{path}/cancel"), &json!({})).await?.expect(200)?;
    assert!(asked["status"] == "cancelling" || asked["status"] == "cancelled", "{asked}");
    let done = eventually("the batch is cancelled", async || {
        let batch = client.get(&path).await?.expect(200)?;
        Ok((batch["status"] == "cancelled").then_some(batch))
    })
    .await?;
    assert_eq!(done["request_counts"], json!({"total": 10, "completed": 0, "failed": 10}));
    Ok(())
}
