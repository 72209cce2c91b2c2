//! A process that cannot write is not ready, and says so, and is ready again when it can.

use anyhow::Context;
use harness::{App, Mode, eventually};
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgres_that_takes_no_writes_is_not_ready() -> anyhow::Result<()> {
    harness::journey(Mode::Distributed, async |mode| {
        let app = App::with(mode).own_postgres().start().await?;
        let postgres = app.postgres.as_ref().context("this app has a Postgres of its own")?;
        let mut operator = postgres.admin().await?;
        sqlx::raw_sql("set default_transaction_read_only = off").execute(&mut operator).await?;
        for (setting, status, said) in [("on", 503, "unavailable"), ("off", 200, "ok")] {
            let alter = format!("alter system set default_transaction_read_only = {setting}");
            sqlx::raw_sql(sqlx::AssertSqlSafe(alter)).execute(&mut operator).await?;
            sqlx::raw_sql("select pg_reload_conf()").execute(&mut operator).await?;
            eventually("readyz says so", async || {
                let reply = app.client().get("/readyz").await?;
                Ok((reply.status == status && reply.json()?["status"] == said).then_some(()))
            })
            .await?;
            assert_eq!(app.client().get("/livez").await?.status, 200);
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_not_ready() -> anyhow::Result<()> {
    harness::journey(Mode::Embedded, async |mode| {
        let app = App::with(mode).small_disk(64).start().await?;
        let disk = app.disk.as_ref().context("this app is on a small disk")?;
        disk.fill()?;
        let large = json!({"endpoint": "/v1/chat/completions", "body": harness::chat(&"x".repeat(100_000), json!({}))});
        eventually("readyz says so", async || {
            app.client().post("/v1/tasks", &large).await?;
            Ok((app.client().get("/readyz").await?.status == 503).then_some(()))
        })
        .await?;
        disk.free()?;
        eventually("it is ready again", async || {
            Ok((app.client().get("/readyz").await?.status == 200).then_some(()))
        })
        .await
    })
    .await
}
