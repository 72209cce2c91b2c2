//! How many tasks a second are accepted, each committed before its 202.

use super::{CONNECTIONS, Figures, Load, Model, USUAL, cost::Cost, percentiles, warm_up};
use crate::{
    load::submit::{Pace, send},
    system::{Running, Wish},
};

pub(super) async fn run(load: Load) -> anyhow::Result<Figures> {
    // An embedded process works all the same: on one task, which takes longer than this.
    let silent = Model { first_ms: 3_600_000, ..USUAL.model };
    let running = Running::start(load.system, Wish { worker: false, model: silent, ..USUAL }).await?;
    warm_up(&running, 1_000, false).await?;
    let mut figures = Figures::new();
    let cost = Cost::begin(&running).await?;
    let count = load.share(120_000);
    let sent = send(running.api, &running.submit, (count, CONNECTIONS), Pace::Closed, &[202]).await?;
    cost.end(&running, sent.took_ms.len(), &mut figures).await?;
    figures.insert("accepts_per_s".into(), sent.per_s());
    percentiles(&mut figures, "accept", sent.took_ms);
    running.stop().await?;
    Ok(figures)
}
