//! Whether a long queue costs more than a short one: 200,000 tasks wait when the worker starts.
//!
//! In the same run and database before that: the rate through an empty queue, and the time of an accept meanwhile. The drain is
//! measured with 20,000 more tasks that come in over as many connections.

use super::{CONNECTIONS, Figures, Load, USUAL, all_done, cost::Cost, now_ms, percentiles, warm_up};
use crate::{
    load::submit::{Pace, send},
    system::{Running, Wish},
};
use anyhow::ensure;

const WAITING: u32 = 200_000;
const MEANWHILE: u32 = 20_000;

pub(super) async fn run(load: Load) -> anyhow::Result<Figures> {
    let mut running = Running::start(load.system, Wish { slots: 256, ..USUAL }).await?;
    warm_up(&running, 1_000, true).await?;
    let mut figures = Figures::new();

    let (meanwhile, through) = (load.count(MEANWHILE), load.count(80_000));
    let since = now_ms();
    let sent = send(running.api, &running.submit, (through, CONNECTIONS), Pace::Closed, &[202]).await?;
    percentiles(&mut figures, "empty_accept", sent.took_ms);
    all_done(&running).await?;
    let empty = done_per_s(&running, since, through).await?;

    running.stop_workers().await?;
    let (waiting, since) = (load.count(WAITING), now_ms());
    send(running.api, &running.submit, (waiting, CONNECTIONS), Pace::Closed, &[202]).await?;
    running.rows.settle().await?;
    running.add_worker().await?;
    let cost = Cost::begin(&running).await?;
    let sent = send(running.api, &running.submit, (meanwhile, CONNECTIONS), Pace::Closed, &[202]).await?;
    percentiles(&mut figures, "drain_accept", sent.took_ms);
    all_done(&running).await?;
    let all = waiting + meanwhile;
    cost.end(&running, all as usize, &mut figures).await?;
    let drained = done_per_s(&running, since, all).await?;

    figures.insert("empty_done_per_s".into(), empty);
    figures.insert("drain_done_per_s".into(), drained);
    running.stop().await?;
    Ok(figures)
}

/// From the first start to the last end of the tasks accepted since.
async fn done_per_s(running: &Running, since: f64, count: u32) -> anyhow::Result<f64> {
    let lives = running.rows.done(since).await?;
    ensure!(lives.len() == count as usize, "{} of {count} tasks were completed", lives.len());
    let first = lives.iter().map(|life| life.started).fold(f64::MAX, f64::min);
    let last = lives.iter().map(|life| life.finished).fold(0.0, f64::max);
    Ok(f64::from(count) / (last - first) * 1e3)
}
