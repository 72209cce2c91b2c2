//! Streams of one HTTP/2 connection over long answers, of which nothing is taken: the kernel sees a connection that is alive. They are
//! ended in time, the API stays small meanwhile, and whoever else uses the connection notices nothing.

use super::slow_readers::resident;
use crate::journey::both_modes;
use harness::{App, Client, Mode, chat, report, within};
use serde_json::json;
use std::time::Duration;
use tokio::task::JoinSet;

both_modes!(streams_that_nobody_takes_are_ended);

const STREAMS: usize = 40;
const ANSWER_BYTES: usize = 8 << 20;
/// What the process may grow by: without a bound it were as many answers as there are streams, some of them twice.
const GROWTH_MAX_KB: u64 = 160 << 10;
const GONE: Duration = Duration::from_secs(30);

async fn streams_that_nobody_takes_are_ended(mode: Mode) -> anyhow::Result<()> {
    let mut app = App::with(mode).env("LONGHAUL_API__WRITE_TIMEOUT", "2s").start().await?;
    let pid = app.api_process(0).pid();
    let client = app.client().clone();
    let message = json!({"role": "assistant", "content": "x".repeat(ANSWER_BYTES)});
    let raw = json!({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}).to_string();
    let body = chat("long", json!({"raw": raw, "content_type": "application/json"}));
    let policy = json!({"events": "lifecycle"});
    let id =
        client.submit(&json!({"endpoint": "/v1/chat/completions", "body": body, "policy": policy})).await?;
    assert_eq!(client.ended(&id).await?["status"], "completed");
    let before = resident(pid)?;
    let mut told = 0;
    for (path, window) in [("/result", 1), ("/result", 65_535), ("", 65_535)] {
        let url = format!("{}/v1/tasks/{id}{path}", client.base());
        let http = reqwest::Client::builder()
            .http2_prior_knowledge()
            .http2_initial_stream_window_size(window)
            .build()?;
        let mut opening = JoinSet::new();
        for _ in 0..STREAMS {
            opening.spawn(http.get(&url).send());
        }
        // What has begun is held, and nothing of it is read.
        let (mut held, mut refused, mut most) = (Vec::new(), 0, 0);
        while let Some(opened) = opening.join_next().await {
            let answer = opened??;
            match answer.status().as_u16() {
                200 => held.push(answer),
                429 => refused += 1,
                other => panic!("{other}"),
            }
            most = most.max(resident(pid)?);
        }
        assert!(!held.is_empty());
        assert_eq!(http.get(format!("{}/livez", client.base())).send().await?.status().as_u16(), 200);
        let growth = most.saturating_sub(before);
        let name = mode.name();
        assert!(growth <= GROWTH_MAX_KB, "{name}: {growth} kB more for {} streams of {path:?}", held.len());
        let streams = held.len();
        told += streams;
        within(GONE, "they are ended", async || Ok((ended(&client).await? >= told).then_some(()))).await?;
        for answer in held {
            assert!(answer.bytes().await.is_err(), "it was ended before its end");
        }
        report(
            "19",
            "streams of one connection take nothing",
            &json!({"mode": name, "path": path, "window": window, "streams": streams, "refused": refused, "API grew by, MB": growth >> 10}),
        )?;
    }
    Ok(())
}

/// Readers that were shown out.
async fn ended(client: &Client) -> anyhow::Result<usize> {
    let metrics = client.get("/metrics").await?;
    let text = String::from_utf8_lossy(&metrics.body).into_owned();
    let ended = text.lines().find_map(|line| line.strip_prefix("longhaul_slow_readers_total "));
    Ok(ended.unwrap_or("0").parse::<f64>()? as usize)
}
