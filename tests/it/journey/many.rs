//! A backlog far larger than the queue's window: every task is worked on, and Redis holds no more than the window.

use super::both_transports;
use anyhow::Context;
use harness::{App, Client, Mode, chat, within};
use redis::AsyncCommands;
use serde_json::json;
use std::{sync::Arc, time::Duration};
use tokio::{sync::Semaphore, task::JoinSet};

const TASKS: usize = 20_000;
const WINDOW: usize = 1_000;

both_transports!(a_backlog_beyond_the_window_is_worked_off);

async fn a_backlog_beyond_the_window_is_worked_off(mode: Mode) -> anyhow::Result<()> {
    let wishes = App::with(mode).workers(0).env("LONGHAUL_QUEUE__WINDOW", &WINDOW.to_string());
    let mut app = wishes.start().await?;
    submit_all(app.client()).await?;
    assert_eq!(figures(app.client()).await?, (TASKS as u64, 0));
    for _ in 0..3 {
        app.add_worker()?;
    }
    let redis = app.redis.as_ref().context("a distributed app has a Redis")?;
    let mut redis = redis::Client::open(redis.url.as_str())?.get_multiplexed_async_connection().await?;
    let mut most = 0;
    within(Duration::from_secs(240), "every task has ended", async || {
        most = most.max(longest_lane(&mut redis, mode).await?);
        Ok((figures(app.client()).await? == (0, 0)).then_some(()))
    })
    .await?;
    assert!((1..=WINDOW).contains(&most), "the window is {WINDOW}, a lane held {most}");

    let failed = app.client().get("/v1/tasks?status=failed").await?.expect(200)?;
    assert_eq!(failed["data"], json!([]));
    assert_eq!(app.model.ledger(None).len(), TASKS, "one call of the model each");
    Ok(())
}

async fn submit_all(client: &Client) -> anyhow::Result<()> {
    let (mut submits, connections) = (JoinSet::new(), Arc::new(Semaphore::new(128)));
    for n in 0..TASKS {
        let permit = connections.clone().acquire_owned().await?;
        let client = client.clone();
        submits.spawn(async move {
            let task =
                json!({"endpoint": "/v1/chat/completions", "body": chat(&format!("task {n}"), json!({}))});
            let id = client.submit(&task).await;
            drop(permit);
            id
        });
    }
    while let Some(id) = submits.join_next().await {
        id??;
    }
    Ok(())
}

/// Tasks that wait and tasks that run.
async fn figures(client: &Client) -> anyhow::Result<(u64, u64)> {
    let queues = client.get("/v1/queues").await?.expect(200)?;
    let sum = |key: &str| {
        queues["data"].as_array().into_iter().flatten().filter_map(|queue| queue[key].as_u64()).sum()
    };
    Ok((sum("queued"), sum("in_progress")))
}

/// Ids in the fullest lane.
async fn longest_lane(redis: &mut redis::aio::MultiplexedConnection, mode: Mode) -> anyhow::Result<usize> {
    let mut longest = 0;
    for lane in ["interactive", "default", "batch"] {
        longest = longest.max(match mode {
            Mode::Apalis => redis.llen(format!("lh:{{queue}}:apalis:{lane}:active")).await?,
            _ => redis.zcard(format!("lh:{{queue}}:ready:{lane}")).await?,
        });
    }
    Ok(longest)
}
