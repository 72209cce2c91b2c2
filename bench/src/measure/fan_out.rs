//! From the worker's receipt of a token to the client's: one task with a thousand watchers, and a thousand tasks with one each.
//!
//! The worker writes down in whole milliseconds when it got a token (the event's `ts`), and the client reads the same clock.

use super::{Figures, Load, Model, USUAL, all, cost::Cost, percentiles, sockets, warm_up};
use crate::{
    load::{
        connection::{Connection, id},
        socket::{Followed, Socket, number},
    },
    system::{Running, Wish, longhaul},
};
use anyhow::{Context, ensure};
use shared::clock::UnixMs;
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, sleep_until};

const WATCHERS: u32 = 1_000;
/// Time for all watchers to subscribe before the first token.
const AHEAD_MS: u32 = 5_000;
/// Twenty tokens a second, for twelve seconds.
const ONE: Model = Model { first_ms: AHEAD_MS, between_ms: 50, tokens: 241 };
/// Four a second.
const EACH: Model = Model { first_ms: AHEAD_MS, between_ms: 250, tokens: 49 };
/// New tasks a second, so that their tokens do not come in step.
const PER_S: f64 = 500.0;

pub(super) async fn run(load: Load) -> anyhow::Result<Figures> {
    let running = Running::start(load.system, Wish { slots: WATCHERS + 24, ..USUAL }).await?;
    warm_up(&running, 1_000, true).await?;
    let (mut figures, watchers) = (Figures::new(), load.count(WATCHERS));
    one_task(&running, watchers, &mut figures).await?;
    many_tasks(&running, watchers, "many_tasks", &mut figures).await?;
    running.stop().await?;
    Ok(figures)
}

async fn one_task(running: &Running, watchers: u32, figures: &mut Figures) -> anyhow::Result<()> {
    let sockets = sockets(running, watchers).await?;
    let submit = running.submit_task(&longhaul::streamed(ONE));
    let began = Instant::now();
    let mut connection = Connection::open(running.api).await?;
    let task = id(connection.call(&submit).await?.body).context("an accepted task without an id")?;
    let subscribe = async |mut socket: Socket, task: String| {
        socket.subscribe(&task).await?;
        Ok(socket)
    };
    let sockets = all(sockets.into_iter().map(|socket| subscribe(socket, task.clone()))).await?;
    ensure!(began.elapsed().as_millis() < AHEAD_MS.into(), "the watchers came too late");
    heard(running, sockets, ONE, "one_task", figures).await
}

/// A task for each of so many sockets, all running at once.
pub(super) async fn many_tasks(
    running: &Running,
    streams: u32,
    name: &str,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let sockets = sockets(running, streams).await?;
    let (task, began): (Arc<str>, _) = (longhaul::streamed(EACH).into(), Instant::now());
    let begin = |mut socket: Socket, place: u32, task: Arc<str>| async move {
        sleep_until(began + Duration::from_secs_f64(f64::from(place) / PER_S)).await;
        let id = socket.create(&task).await?;
        socket.subscribe(&id).await?;
        Ok(socket)
    };
    let sockets = sockets.into_iter().zip(0..).map(|(socket, place)| begin(socket, place, task.clone()));
    let sockets = all(sockets).await?;
    ensure!(began.elapsed().as_millis() < AHEAD_MS.into(), "the tasks came too late");
    heard(running, sockets, EACH, name, figures).await
}

/// What came of one socket.
struct Heard {
    followed: Followed,
    /// Milliseconds from receipt to receipt of each token.
    late: Vec<f64>,
    /// When the first and the last of them came.
    first: i64,
    last: i64,
}

/// Follows what the sockets have subscribed to; every token must come.
async fn heard(
    running: &Running,
    sockets: Vec<Socket>,
    model: Model,
    name: &str,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let cost = Cost::begin(running).await?;
    let all = all(sockets.into_iter().map(listen)).await?;
    let events: usize = all.iter().map(|heard| heard.followed.events).sum();
    cost.end_per_1000(running, events, name, figures).await?;
    for heard in &all {
        let tokens = heard.followed.tokens;
        ensure!(tokens == model.tokens as usize, "{tokens} of {} tokens came", model.tokens);
    }
    let first = all.iter().map(|heard| heard.first).min().unwrap_or_default();
    let last = all.iter().map(|heard| heard.last).max().unwrap_or_default();
    let tokens: usize = all.iter().map(|heard| heard.followed.tokens).sum();
    figures.insert(format!("{name}_messages_per_s"), tokens as f64 / (last - first) as f64 * 1e3);
    let late: Vec<f64> = all.into_iter().flat_map(|heard| heard.late).collect();
    let most = late.iter().copied().fold(0.0, f64::max);
    figures.insert(format!("{name}_token_max_ms"), most);
    percentiles(figures, &format!("{name}_token"), late);
    Ok(())
}

async fn listen(mut socket: Socket) -> anyhow::Result<Heard> {
    let (mut late, mut first, mut last) = (Vec::new(), i64::MAX, 0);
    let followed = socket.follow(|frame| {
        let now = UnixMs::now().0;
        (first, last) = (first.min(now), now);
        late.extend(number(frame, r#""ts":"#).map(|ts| now as f64 - (ts * 1e3).round()));
    });
    let followed = followed.await?;
    ensure!(late.len() == followed.tokens, "a token without its time");
    Ok(Heard { followed, late, first, last })
}
