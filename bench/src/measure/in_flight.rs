//! How many calls one worker holds open at once: 4,000 slots, a second a call.

use super::{CONNECTIONS, Figures, Load, Model, USUAL, all_done, cost::Cost, now_ms, warm_up};
use crate::{
    gauge::tree,
    load::submit::{Pace, send},
    system::{Running, Wish},
};
use anyhow::ensure;
use std::time::Duration;
use tokio::time::interval;

const SLOTS: u32 = 4_000;
const CALL_MS: u32 = 1_000;
const LOOK: Duration = Duration::from_millis(250);

pub(super) async fn run(load: Load) -> anyhow::Result<Figures> {
    let model = Model { first_ms: CALL_MS, ..USUAL.model };
    let running = Running::start(load.system, Wish { slots: SLOTS, model, ..USUAL }).await?;
    warm_up(&running, 128, true).await?;
    let count = load.count(10 * SLOTS);
    let mut figures = Figures::new();
    let (cost, since) = (Cost::begin(&running).await?, now_ms());
    let work = async {
        send(running.api, &running.submit, (count, CONNECTIONS), Pace::Closed, &[202]).await?;
        all_done(&running).await
    };
    let mut work = Box::pin(work);
    let (classes, mut looks) = (running.classes().await?, interval(LOOK));
    let (mut calls, mut memory) = (0, 0.0_f64);
    loop {
        tokio::select! {
            done = &mut work => break done?,
            _ = looks.tick() => {}
        }
        calls = calls.max(running.rows.running().await?);
        let pss = tree::pss_mb(&classes);
        // An embedded process has its worker inside.
        memory = memory.max(pss.get("worker").or(pss.get("api")).copied().unwrap_or_default());
    }
    drop(work);
    cost.end(&running, count as usize, &mut figures).await?;
    let lives = running.rows.done(since).await?;
    ensure!(lives.len() == count as usize, "{} of {count} tasks were completed", lives.len());
    let last = lives.iter().map(|life| life.finished).fold(since, f64::max);
    figures.insert("done_per_s".into(), f64::from(count) / (last - since) * 1e3);
    figures.insert("calls_in_flight".into(), calls as f64);
    figures.insert("pss_mb_worker_max".into(), memory);
    running.stop().await?;
    Ok(figures)
}
