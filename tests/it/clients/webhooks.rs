//! OpenAI's own client manages endpoints, and takes what they are told.

use crate::journey::both_modes;
use anyhow::Context;
use harness::{App, Mode, Received, Receiver, chat};
use serde_json::{Value, json};
use std::{collections::BTreeMap, path::Path, process::Command};

both_modes!(the_official_client_manages_and_unwraps);

const SCRIPT: &str = include_str!("webhooks.py");

/// Runs the script; what it prints.
async fn run(program: &Path, args: &[&str]) -> anyhow::Result<Value> {
    let mut python = Command::new(program);
    python.env_clear().args(["-c", SCRIPT]).args(args);
    let done = tokio::task::spawn_blocking(move || python.output()).await??;
    anyhow::ensure!(done.status.success(), "{args:?}: {}", String::from_utf8_lossy(&done.stderr));
    Ok(serde_json::from_slice(&done.stdout)?)
}

/// What it makes of one webhook, with each of these secrets.
async fn unwrapped(program: &Path, told: &Received, secrets: &[&str]) -> anyhow::Result<Value> {
    let headers: BTreeMap<&str, &str> = ["webhook-id", "webhook-timestamp", "webhook-signature"]
        .into_iter()
        .map(|name| (name, told.header(name)))
        .collect();
    let file = tempfile::NamedTempFile::new()?;
    let text = json!({"headers": headers, "body": String::from_utf8(told.body.clone())?}).to_string();
    std::fs::write(file.path(), text)?;
    let path = file.path().display().to_string();
    run(program, &[&["unwrap", &path], secrets].concat()).await
}

async fn the_official_client_manages_and_unwraps(mode: Mode) -> anyhow::Result<()> {
    let Some(program) = harness::foreign("python3") else { return Ok(()) };
    let app = App::with(mode).env("LONGHAUL_WEBHOOKS__PRIVATE_NETWORKS", "127.0.0.0/8").start().await?;
    let (tenant, receiver) =
        (app.tenant("acme", "submit,read,batch,webhooks").await?, Receiver::start([204]).await?);
    let made = run(&program, &["manage", app.client().base(), &tenant.key, &receiver.url()]).await?;
    let secrets: Vec<&str> = made.as_array().context("secrets")?.iter().filter_map(Value::as_str).collect();
    let tested = receiver.has(1).await?.remove(0);
    assert_eq!(unwrapped(&program, &tested, &secrets[..1]).await?[0][1], "batch.completed");
    let line = json!({"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": chat("a", json!({}))});
    let batch = json!({"endpoint": "/v1/chat/completions", "completion_window": "24h", "requests": [line]});
    let batch = tenant.client.post("/v1/batches", &batch).await?.json()?;
    let told = receiver.has(2).await?.remove(1);
    let event = json!([told.id(), "batch.completed", batch["id"]]);
    assert_eq!(unwrapped(&program, &told, &secrets).await?, json!([event, event]), "both secrets verify");
    let task = tenant.client.ask("Tell me", json!({})).await?;
    let told = receiver.has(3).await?.remove(2);
    assert_eq!(unwrapped(&program, &told, &secrets[1..]).await?[0][2], json!(task));
    Ok(())
}
