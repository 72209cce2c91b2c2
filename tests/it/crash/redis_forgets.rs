//! Redis loses everything, or goes away altogether.

use crate::journey::both_transports;
use anyhow::Context;
use harness::{App, Mode};
use serde_json::json;

both_transports!(what_was_accepted_is_still_worked_on, tasks_are_accepted_and_run_while_it_is_gone);

async fn what_was_accepted_is_still_worked_on(mode: Mode) -> anyhow::Result<()> {
    let mut app = App::with(mode).workers(0).start().await?;
    let before = ask(&app, 20).await?;
    empty(&app).await?;
    app.add_worker()?;
    all_complete(&app, &before).await?;
    // And again, with a worker that has been waiting all the while.
    empty(&app).await?;
    all_complete(&app, &ask(&app, 20).await?).await
}

async fn tasks_are_accepted_and_run_while_it_is_gone(mode: Mode) -> anyhow::Result<()> {
    let mut app = App::start(mode).await?;
    app.redis.as_mut().context("a distributed app has a Redis")?.process.kill_9()?;
    all_complete(&app, &ask(&app, 5).await?).await
}

async fn ask(app: &App, count: usize) -> anyhow::Result<Vec<String>> {
    let mut tasks = Vec::new();
    for n in 0..count {
        tasks.push(app.client().ask(&format!("task {n}"), json!({})).await?);
    }
    Ok(tasks)
}

async fn all_complete(app: &App, tasks: &[String]) -> anyhow::Result<()> {
    for id in tasks {
        assert_eq!(app.client().ended(id).await?["status"], "completed");
    }
    Ok(())
}

/// Redis loses everything, the scripts included.
async fn empty(app: &App) -> anyhow::Result<()> {
    let redis = app.redis.as_ref().context("a distributed app has a Redis")?;
    let mut connection = redis::Client::open(redis.url.as_str())?.get_multiplexed_async_connection().await?;
    redis::cmd("FLUSHALL").exec_async(&mut connection).await?;
    Ok(redis::cmd("SCRIPT").arg("FLUSH").exec_async(&mut connection).await?)
}
