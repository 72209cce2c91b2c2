//! Tokens through the whole of Longhaul: from the model to a WebSocket, for many streams at once. First at the model's pace, then, as
//! `saturated_…`, as fast as they go: the model sends whenever it can.

use super::{Figures, Load, Model, USUAL, all, cost::Cost, sockets, warm_up};
use crate::{
    load::{
        connection::{Connection, id},
        socket::Socket,
    },
    system::{Running, Wish, longhaul},
};
use anyhow::{Context, ensure};
use harness::{Client, Watch};
use serde_json::json;
use tokio::{task::JoinSet, time::Instant};

const STREAMS: u32 = 128;
const TOKENS: u32 = 500;
const BETWEEN_MS: u32 = 5;

/// Tokens of each stream when the model does not wait.
const TOKENS_AT_ONCE: u32 = 3_000;
/// Time for all streams to be followed, and for Longhaul to keep their logs.
const AHEAD_MS: u32 = 1_000;

pub(super) async fn run(load: Load) -> anyhow::Result<Figures> {
    let model = Model { first_ms: 5, between_ms: BETWEEN_MS, tokens: TOKENS };
    let wish = Wish { slots: STREAMS, model, deltas: true, ..USUAL };
    let running = Running::start(load.system, wish).await?;
    warm_up(&running, STREAMS, true).await?;
    let mut figures = Figures::new();
    paced(load, &running, &mut figures).await?;
    saturated(load, &running, &mut figures).await?;
    running.stop().await?;
    Ok(figures)
}

async fn paced(load: Load, running: &Running, figures: &mut Figures) -> anyhow::Result<()> {
    let mut watchers = JoinSet::new();
    let client = Client::new(format!("http://{}", running.api))?;
    let mut connection = Connection::open(running.api).await?;
    let (cost, began) = (Cost::begin(running).await?, Instant::now());
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
    cost.end(running, tokens, figures).await?;
    figures.insert("tokens_per_s".into(), tokens as f64 / seconds);
    Ok(())
}

async fn saturated(load: Load, running: &Running, figures: &mut Figures) -> anyhow::Result<()> {
    let tokens = load.count(TOKENS_AT_ONCE);
    let task = longhaul::streamed(Model { first_ms: AHEAD_MS, between_ms: 0, tokens });
    let begin = async |mut socket: Socket, task: String| {
        let id = socket.create(&task).await?;
        socket.subscribe(&id).await?;
        Ok(socket)
    };
    let began = Instant::now();
    let sockets = sockets(running, STREAMS).await?.into_iter();
    let sockets = all(sockets.map(|socket| begin(socket, task.clone()))).await?;
    ensure!(began.elapsed().as_millis() < AHEAD_MS.into(), "the watchers came too late");
    let cost = Cost::begin(running).await?;
    let follow = |mut socket: Socket| async move {
        let mut first = None;
        let followed = socket.follow(|_| first = first.or_else(|| Some(Instant::now()))).await?;
        ensure!(followed.tokens == tokens as usize, "{} of {tokens} tokens came", followed.tokens);
        first.context("no token")
    };
    let firsts = all(sockets.into_iter().map(follow)).await?;
    let first = firsts.iter().min().context("no stream")?;
    let (count, seconds) = ((STREAMS * tokens) as usize, first.elapsed().as_secs_f64());
    cost.end_per_1000(running, count, "saturated", figures).await?;
    figures.insert("saturated_tokens_per_s".into(), count as f64 / seconds);
    Ok(())
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
