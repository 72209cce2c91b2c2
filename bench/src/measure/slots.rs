//! How much of a model's capacity is used: 64 slots, 200 ms a call.

use super::{CONNECTIONS, Figures, Load, Model, USUAL, all_done, cost::Cost, now_ms, warm_up};
use crate::{
    load::submit::{Pace, send},
    system::{Running, Wish},
};
use anyhow::ensure;

const CALL_MS: u32 = 200;

pub(super) async fn run(load: Load) -> anyhow::Result<Figures> {
    let model = Model { first_ms: CALL_MS, ..USUAL.model };
    let running = Running::start(load.system, Wish { model, ..USUAL }).await?;
    warm_up(&running, 2 * USUAL.slots, true).await?;
    let mut figures = Figures::new();
    let count = load.count(40 * USUAL.slots);
    let (cost, since) = (Cost::begin(&running).await?, now_ms());
    send(running.api, &running.submit, (count, CONNECTIONS), Pace::Closed, &[202]).await?;
    all_done(&running).await?;
    cost.end(&running, count as usize, &mut figures).await?;
    let lives = running.rows.done(since).await?;
    ensure!(lives.len() == count as usize, "{} of {count} tasks were completed", lives.len());
    let last = lives.iter().map(|life| life.finished).fold(since, f64::max);
    let per_s = f64::from(count) / (last - since) * 1e3;
    figures.insert("done_per_s".into(), per_s);
    figures.insert("slot_use".into(), per_s * f64::from(CALL_MS) / 1e3 / f64::from(USUAL.slots));
    running.stop().await?;
    Ok(figures)
}
