//! How soon an answer is there when nobody else asks: submit, event, GET.
//!
//! Visible: the client holds the answer. Longhaul's last event carries it; of a peer it has to be fetched.

use super::{Figures, Load, USUAL, now_ms, percentiles, warm_up};
use crate::{
    load::connection::{Connection, id},
    system::Running,
};
use anyhow::{Context, ensure};
use std::time::Duration;
use tokio::time::{Instant, sleep};

pub(super) async fn run(load: Load) -> anyhow::Result<Figures> {
    let running = Running::start(load.system, USUAL).await?;
    warm_up(&running, 1_000, true).await?;
    let mut news = running.follow.open().await?;
    let mut connection = Connection::open(running.api).await?;
    let [mut accepts, mut visible, mut fetched] = [const { Vec::new() }; 3];
    let since = now_ms();
    for _ in 0..load.count(300) {
        let began = Instant::now();
        let ms = || began.elapsed().as_secs_f64() * 1e3;
        let answer = connection.call(&running.submit).await?;
        ensure!(answer.status == 202, "status {}", answer.status);
        let task = id(answer.body).context("an accepted task without an id")?;
        accepts.push(ms());
        let ended = news.completed().await?;
        ensure!(ended == task, "{ended} ended instead of {task}");
        let told = ms();
        let answer = connection.call(&running.get(&task)).await?;
        ensure!(shows(answer.body), "no answer in {}", String::from_utf8_lossy(answer.body));
        fetched.push(ms());
        visible.push(if load.system.is_longhaul() { told } else { ms() });
        // Longer than any linger, shorter than any clean-up.
        sleep(Duration::from_millis(5)).await;
    }
    let mut figures = Figures::new();
    let lives = running.rows.done(since).await?;
    percentiles(&mut figures, "accept", accepts);
    percentiles(&mut figures, "pick_up", lives.iter().map(|life| life.started - life.created).collect());
    percentiles(&mut figures, "visible", visible);
    percentiles(&mut figures, "fetched", fetched);
    running.stop().await?;
    Ok(figures)
}

/// Whether a task's JSON has the model's answer.
fn shows(json: &[u8]) -> bool {
    json.windows(9).any(|word| word == b"completed") && json.windows(7).any(|word| word == b"choices")
}
