//! How many tasks a second go all the way: accepted, worked on by a model that answers at once, and kept.

use super::{CONNECTIONS, Figures, Load, USUAL, all_done, cost::Cost, now_ms, percentiles, warm_up};
use crate::{
    load::submit::{Pace, send},
    system::{Running, Wish},
};
use anyhow::ensure;

/// How the tasks come.
#[derive(Debug, Clone, Copy)]
pub(super) enum Way {
    /// As fast as they are accepted.
    Flood,
    /// 200 a second for ten seconds, which every system can bear.
    Steady,
}

pub(super) async fn run(load: Load, way: Way) -> anyhow::Result<Figures> {
    // Each system as it does best with a model that takes no time: peers gain nothing above 64.
    let slots = if load.system.is_longhaul() { 256 } else { USUAL.slots };
    let running = Running::start(load.system, Wish { slots, ..USUAL }).await?;
    warm_up(&running, 1_000, true).await?;
    let mut figures = Figures::new();
    let (count, pace) = match way {
        Way::Steady => (load.count(2_000), Pace::PerSecond(200.0)),
        Way::Flood => (load.share(80_000), Pace::Closed),
    };
    let (cost, since) = (Cost::begin(&running).await?, now_ms());
    let sent = send(running.api, &running.submit, (count, CONNECTIONS), pace, &[202]).await?;
    all_done(&running).await?;
    cost.end(&running, sent.took_ms.len(), &mut figures).await?;
    let lives = running.rows.done(since).await?;
    ensure!(lives.len() == count as usize, "{} of {count} tasks were completed", lives.len());
    let last = lives.iter().map(|life| life.finished).fold(since, f64::max);
    figures.insert("done_per_s".into(), f64::from(count) / (last - since) * 1e3);
    figures.insert("accepts_per_s".into(), sent.per_s());
    percentiles(&mut figures, "accept", sent.took_ms);
    percentiles(&mut figures, "pick_up", lives.iter().map(|life| life.started - life.created).collect());
    percentiles(&mut figures, "done", lives.iter().map(|life| life.finished - life.created).collect());
    running.stop().await?;
    Ok(figures)
}
