//! An app whose ways are proxied, whose Postgres is its own and whose processes come back.

use anyhow::Context;
use harness::{App, Fault, Mode, can_mount, eventually};
use serde_json::json;

async fn completes(app: &App, prompt: &str) -> anyhow::Result<()> {
    let id = app.client().ask(prompt, json!({})).await?;
    assert_eq!(app.client().ended(&id).await?["status"], "completed");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_way_of_a_distributed_app_is_proxied() -> anyhow::Result<()> {
    harness::journey(Mode::Distributed, async |mode| {
        let mut app = App::with(mode).quick().proxied().own_postgres().start().await?;
        completes(&app, "through all of them").await?;
        let edges = &app.edges;
        let all = [
            &edges.api_database,
            &edges.worker_database,
            &edges.api_redis,
            &edges.worker_redis,
            &edges.upstream,
        ];
        for (n, edge) in all.into_iter().enumerate() {
            assert!(edge.connections() > 0, "way {n} leads past its proxy");
        }

        // The model is out of reach until the proxy lets the worker through.
        app.edges.upstream.set(Fault::Refuse).await?;
        let id = app.client().ask("wait", json!({})).await?;
        app.edges.upstream.set(Fault::Pass).await?;
        assert_eq!(app.client().ended(&id).await?["status"], "completed");

        app.api_process(0).kill_9()?;
        assert!(app.client().get("/readyz").await.is_err());
        let base = app.client().base().to_owned();
        app.restart_api(0, &[]).await?;
        assert_eq!(app.client().base(), base);
        assert_eq!(app.client().task(&id).await?["status"], "completed");

        app.postgres.as_mut().context("it has its own")?.kill_9().await?;
        assert!(app.client().ask("nobody keeps this", json!({})).await.is_err());
        app.postgres.as_mut().context("it has its own")?.restart().await?;
        let again = async || Ok(completes(&app, "again").await.ok());
        eventually("tasks are accepted again", again).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_of_one_process_reach_it_alone() -> anyhow::Result<()> {
    harness::journey(Mode::Distributed, async |mode| {
        let mut app = App::with(mode).start().await?;
        app.add_api_with(&[("LONGHAUL_API__BODY_BYTES_MAX", "1KiB")]).await?;
        let long = harness::chat(&"long ".repeat(1_000), json!({}));
        let task = json!({"endpoint": "/v1/chat/completions", "body": long});
        let statuses =
            [app.apis[0].post("/v1/tasks", &task).await?, app.apis[1].post("/v1/tasks", &task).await?];
        assert_eq!(statuses.map(|reply| reply.status), [202, 413]);
        app.add_worker_with(&[("LONGHAUL_WORKER__SLOTS", "none")])?;
        let status = app.workers[1].wait_end(harness::PATIENCE).await?;
        assert!(!status.success(), "that is no number of slots");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_embedded_app_comes_back_on_its_small_disk() -> anyhow::Result<()> {
    if !can_mount() {
        return Ok(());
    }
    harness::journey(Mode::Embedded, async |mode| {
        let mut app = App::with(mode).quick().proxied().small_disk(64).start().await?;
        let id = app.client().ask("keep this", json!({})).await?;
        assert_eq!(app.client().ended(&id).await?["status"], "completed");
        assert!(app.edges.upstream.connections() > 0);
        let disk = app.disk.as_ref().context("it has its own")?;
        assert!(std::fs::read_dir(disk.seen().join("data"))?.count() > 0, "its data is on the disk");
        app.restart_api(0, &[("LONGHAUL_API__BODY_BYTES_MAX", "1KiB")]).await?;
        assert_eq!(app.client().task(&id).await?["status"], "completed");
        let long = app.client().ask(&"long ".repeat(1_000), json!({})).await;
        assert!(long.is_err(), "it has the new setting");
        completes(&app, "and goes on").await
    })
    .await
}
