//! How many tasks a second go all the way: accepted, worked on by a model that answers at once, and kept.

use super::{CONNECTIONS, Figures, Load, USUAL, all_done, cost::Cost, now_ms, percentiles, warm_up};
use crate::{
    load::{
        follow::News,
        submit::{Pace, send},
    },
    system::Running,
};
use anyhow::ensure;
use tokio::task::JoinSet;

pub(super) async fn run(load: Load, followed: bool) -> anyhow::Result<Figures> {
    let running = Running::start(load.system, USUAL).await?;
    warm_up(&running, 1_000, true).await?;
    let mut figures = Figures::new();
    let (count, mut followers) = (load.share(80_000), JoinSet::new());
    if followed {
        followers.spawn(follow(running.follow.open().await?, count));
    }
    let (cost, since) = (Cost::begin(&running).await?, now_ms());
    let sent = send(running.api, &running.submit, (count, CONNECTIONS), Pace::Closed, 202).await?;
    all_done(&running).await?;
    followers.join_all().await.into_iter().collect::<anyhow::Result<()>>()?;
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

/// Counts the news of completed tasks.
async fn follow(mut news: News, count: u32) -> anyhow::Result<()> {
    for _ in 0..count {
        news.completed().await?;
    }
    Ok(())
}
