//! Tokens through the whole of Longhaul: from the model to a WebSocket, for many streams at once.

use super::{Figures, Load, Model, USUAL, cost::Cost, warm_up};
use crate::{
    load::connection::{Connection, id},
    system::{Running, Wish},
};
use anyhow::{Context, ensure};
use harness::{Client, Watch};
use serde_json::json;
use tokio::{task::JoinSet, time::Instant};

const STREAMS: u32 = 128;
const TOKENS: u32 = 500;
const BETWEEN_MS: u32 = 5;

pub(super) async fn run(load: Load) -> anyhow::Result<Figures> {
    let model = Model { first_ms: 5, between_ms: BETWEEN_MS, tokens: TOKENS };
    let wish = Wish { slots: STREAMS, model, deltas: true, ..USUAL };
    let running = Running::start(load.system, wish).await?;
    warm_up(&running, STREAMS, true).await?;
    let (mut figures, mut watchers) = (Figures::new(), JoinSet::new());
    let client = Client::new(format!("http://{}", running.api))?;
    let mut connection = Connection::open(running.api).await?;
    let (cost, began) = (Cost::begin(&running).await?, Instant::now());
    for _ in 0..load.count(STREAMS) {
        let answer = connection.call(&running.submit).await?;
        let task = id(answer.body).context("an accepted task without an id")?;
        watchers.spawn(watch(client.watch().await?, task));
    }
    let mut tokens = 0;
    while let Some(seen) = watchers.join_next().await {
        tokens += seen??;
    }
    let seconds = began.elapsed().as_secs_f64();
    cost.end(&running, tokens, &mut figures).await?;
    figures.insert("tokens_per_s".into(), tokens as f64 / seconds);
    running.stop().await?;
    Ok(figures)
}

/// Follows one task to its end; gives how many chunks came.
async fn watch(mut watch: Watch, task: String) -> anyhow::Result<usize> {
    let topic = format!("task:{task}");
    let answer = watch.subscribe(&json!({"type": "subscribe", "id": "1", "topics": [topic]})).await?;
    ensure!(answer["type"] == "ack", "not subscribed: {answer}");
    let events = watch.until_end(&topic).await?;
    let last = events.last().context("no events")?;
    ensure!(last["type"] == "task.completed", "the stream ended with {last}");
    Ok(events.iter().filter(|event| event["type"] == "task.output.delta").count())
}
