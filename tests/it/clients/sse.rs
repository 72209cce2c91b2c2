//! OpenAI's own decoder reads our event streams, keep-alives included.
//!
//! It makes an event of every blank line once it has seen an `id`, and its users read the data of each: a keep-alive that ends
//! with one would end them.

use anyhow::Context;
use harness::{App, Mode, chat};
use serde_json::{Value, json};
use std::process::Command;

const SCRIPT: &str = include_str!("sse.py");
/// Longer than the 15 s of silence after which the line shows that it is alive.
const SILENCE_MS: u64 = 16_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keep_alives_are_no_events() -> anyhow::Result<()> {
    let Some(program) = harness::foreign("python3") else { return Ok(()) };
    let app = App::start(Mode::Embedded).await?;
    let sim = json!({"text": "one two three", "ttft_ms": 100, "itl_ms": 40, "hang_ms": SILENCE_MS});
    let task = json!({"endpoint": "/v1/chat/completions", "body": chat("Think hard", sim)}).to_string();
    let mut python = Command::new(program);
    python.env_clear().args(["-c", SCRIPT, app.client().base(), &task]);
    let done = tokio::task::spawn_blocking(move || python.output()).await??;
    anyhow::ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let read: Value = serde_json::from_slice(&done.stdout)?;
    let frames = read["frames"].as_array().context("frames")?;
    let lines: Vec<&str> = read["lines"].as_str().context("lines")?.lines().collect();
    assert_eq!(lines.iter().filter(|line| line.is_empty()).count(), 1, "one in the silence");
    let lines = lines.into_iter().filter(|line| !line.is_empty()).map(serde_json::from_str);
    let lines: Vec<Value> = lines.collect::<Result<_, _>>()?;
    // Each stream may have looked at the row at another moment.
    let timeless = |event: &Value| (event["seq"].clone(), event["type"].clone(), event["data"].clone());
    assert_eq!(
        frames.iter().map(timeless).collect::<Vec<_>>(),
        lines.iter().map(timeless).collect::<Vec<_>>()
    );
    assert_eq!(frames.last().map(|event| &event["type"]), Some(&json!("task.completed")));
    Ok(())
}
