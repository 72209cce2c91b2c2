//! Redis loses everything, or goes away altogether.

use anyhow::Context;
use harness::{App, Mode};
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_accepted_is_still_worked_on() -> anyhow::Result<()> {
    harness::journey(Mode::Distributed, async |mode| {
        let mut app = App::with(mode).workers(0).start().await?;
        let mut tasks = Vec::new();
        for n in 0..20 {
            tasks.push(app.client().ask(&format!("task {n}"), json!({})).await?);
        }
        let redis = app.redis.as_ref().context("a distributed app has a Redis")?;
        let mut connection =
            redis::Client::open(redis.url.as_str())?.get_multiplexed_async_connection().await?;
        redis::cmd("FLUSHALL").exec_async(&mut connection).await?;
        app.add_worker()?;
        for id in &tasks {
            assert_eq!(app.client().ended(id).await?["status"], "completed");
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_are_accepted_and_run_while_it_is_gone() -> anyhow::Result<()> {
    harness::journey(Mode::Distributed, async |mode| {
        let mut app = App::start(mode).await?;
        app.redis.as_mut().context("a distributed app has a Redis")?.process.kill_9()?;
        let mut tasks = Vec::new();
        for n in 0..5 {
            tasks.push(app.client().ask(&format!("task {n}"), json!({})).await?);
        }
        for id in &tasks {
            assert_eq!(app.client().ended(id).await?["status"], "completed");
        }
        Ok(())
    })
    .await
}
