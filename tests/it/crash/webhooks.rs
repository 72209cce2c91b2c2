//! A worker that dies between a webhook and its note: the receiver is told again, with the same id.

use super::task;
use anyhow::Context;
use harness::{App, Mode, Receiver, eventually, within};
use serde_json::json;
use sqlx::{Connection, PgConnection};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_sent_again_with_the_same_id() -> anyhow::Result<()> {
    if !harness::failpoints() {
        return Ok(());
    }
    harness::journey(Mode::Distributed, async |mode| {
        let network = ("LONGHAUL_WEBHOOKS__PRIVATE_NETWORKS", "127.0.0.0/8");
        let mut app = App::with(mode).workers(0).quick().env(network.0, network.1).start().await?;
        let (client, receiver) = (app.client().clone(), Receiver::start([200]).await?);
        let wanted = json!({"name": "", "url": receiver.url(), "event_types": ["task.completed"]});
        let endpoint = client.post("/v1/webhook_endpoints", &wanted).await?.expect(200)?;
        app.add_worker_with(&[("FAILPOINTS", "webhook_sent=return")])?;
        let id = client.submit(&task(0, json!({}))).await?;
        eventually("the worker is dead", async || Ok(app.workers[0].ended()?.map(drop))).await?;
        let path = "/v1/webhook_deliveries?status=pending";
        assert_eq!(client.get(path).await?.expect(200)?["data"][0]["attempts"], 1, "nobody has noted it");
        // The claim runs out: a minute has passed.
        let url = app.database.as_deref().context("a distributed app has a database")?;
        let mut db = PgConnection::connect(url).await?;
        let aged =
            sqlx::query("update webhook_deliveries set due_at = due_at - 60000").execute(&mut db).await?;
        assert_eq!(aged.rows_affected(), 1);
        app.add_worker()?;
        let told = receiver.has(2).await?;
        let secret = endpoint["signing_secret"].as_str().unwrap_or_default();
        for one in &told {
            assert_eq!((one.id(), &one.verified(secret)?["data"]["id"]), (told[0].id(), &json!(id)));
        }
        within(Duration::from_secs(10), "it is noted", async || {
            let list = client.get("/v1/webhook_deliveries?status=delivered").await?.expect(200)?;
            Ok((list["data"][0]["attempts"] == 2).then_some(()))
        })
        .await
    })
    .await
}
