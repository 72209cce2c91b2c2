//! How many GETs of a finished task a second.

use super::{CONNECTIONS, Figures, Load, USUAL, all_done, cost::Cost, percentiles, warm_up};
use crate::{
    load::submit::{Pace, send},
    system::Running,
};
use anyhow::Context;

pub(super) async fn run(load: Load) -> anyhow::Result<Figures> {
    let running = Running::start(load.system, USUAL).await?;
    warm_up(&running, 1_000, true).await?;
    let sent = send(running.api, &running.submit, (1, 1), Pace::Closed, &[202]).await?;
    all_done(&running).await?;
    let task = sent.ids.first().context("no task")?;
    let get = running.get(task);
    let mut figures = Figures::new();
    let cost = Cost::begin(&running).await?;
    let read = send(running.api, &get, (load.share(160_000), CONNECTIONS), Pace::Closed, &[200]).await?;
    cost.end(&running, read.took_ms.len(), &mut figures).await?;
    figures.insert("gets_per_s".into(), read.per_s());
    percentiles(&mut figures, "get", read.took_ms);
    running.stop().await?;
    Ok(figures)
}
