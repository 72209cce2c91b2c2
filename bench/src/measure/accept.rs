//! How many tasks a second are accepted, each committed before its 202; and what an accept costs at a given rate.
//!
//! In a closed loop whoever is slower gathers fewer requests for each statement, and pays for that too: costs are comparable at one rate.

use super::{CONNECTIONS, Figures, Load, Model, USUAL, cost::Cost, percentiles, warm_up};
use crate::{
    load::submit::{Pace, send},
    system::{Running, Wish},
};

/// Tasks a second in the open loop: about half of what there could be.
const PACED: u32 = 10_000;

pub(super) async fn paced(load: Load) -> anyhow::Result<Figures> {
    run(load, Pace::PerSecond(f64::from(PACED))).await
}

pub(super) async fn run(load: Load, pace: Pace) -> anyhow::Result<Figures> {
    // An embedded process works all the same: on one task, which takes longer than this.
    let silent = Model { first_ms: 3_600_000, ..USUAL.model };
    let running = Running::start(load.system, Wish { worker: false, model: silent, ..USUAL }).await?;
    warm_up(&running, 1_000, false).await?;
    let mut figures = Figures::new();
    let cost = Cost::begin(&running).await?;
    let count = load.share(120_000);
    let sent = send(running.api, &running.submit, (count, CONNECTIONS), pace, &[202]).await?;
    cost.end(&running, sent.took_ms.len(), &mut figures).await?;
    figures.insert("accepts_per_s".into(), sent.per_s());
    percentiles(&mut figures, "accept", sent.took_ms);
    running.stop().await?;
    Ok(figures)
}
