//! Webhooks: signed, at least once, with the same id every time, and to nobody whom they must not reach.

use super::both_modes;
use harness::{App, Client, Mode, Receiver, chat, within};
use reqwest::Method;
use serde_json::{Value, json};
use std::time::Duration;

both_modes!(
    an_end_is_told_and_can_be_verified,
    a_task_has_a_webhook_of_its_own,
    a_failure_is_repeated_with_the_same_id,
    redirects_are_not_followed_and_410_is_the_last_word,
    a_secret_is_rotated_without_a_gap,
    private_addresses_are_not_called,
    a_receiver_that_hangs_delays_nobody,
);

/// An app that may call receivers on this machine.
async fn start(mode: Mode) -> anyhow::Result<App> {
    App::with(mode).env("LONGHAUL_WEBHOOKS__PRIVATE_NETWORKS", "127.0.0.0/8").start().await
}

async fn endpoint(client: &Client, url: &str, types: &[&str]) -> anyhow::Result<Value> {
    let wanted = json!({"name": "mine", "url": url, "event_types": types});
    client.post("/v1/webhook_endpoints", &wanted).await?.expect(200)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// What GET says of the task, the event says as well.
fn shows(event: &Value, task: &Value) {
    for field in
        ["id", "object", "status", "endpoint", "model", "queue", "attempt", "created_at", "finished_at"]
    {
        assert_eq!(event["data"][field], task[field], "{field}");
    }
    for field in ["metadata", "usage", "error"] {
        assert_eq!(event["data"][field], task[field], "{field}");
    }
}

/// The newest delivery, once it stands so.
async fn delivery(client: &Client, status: &str) -> anyhow::Result<Value> {
    within(Duration::from_secs(15), &format!("a delivery is {status}"), async || {
        let list = client.get(&format!("/v1/webhook_deliveries?status={status}")).await?.expect(200)?;
        Ok(list["data"].get(0).cloned())
    })
    .await
}

async fn an_end_is_told_and_can_be_verified(mode: Mode) -> anyhow::Result<()> {
    let app = start(mode).await?;
    let (receiver, other) = (Receiver::start([204]).await?, Receiver::start([200]).await?);
    let client = app.client();
    let made = endpoint(client, &receiver.url(), &["task.completed", "task.cancelled"]).await?;
    endpoint(client, &other.url(), &["task.failed"]).await?;
    let secret = text(&made["signing_secret"]);
    let shown = client.get(&format!("/v1/webhook_endpoints/{}", text(&made["id"]))).await?.expect(200)?;
    assert_eq!((shown.get("signing_secret"), &shown["name"]), (None, &json!("mine")), "it is shown once");
    let task = json!({"endpoint": "/v1/chat/completions", "metadata": {"run": "7"}, "body": chat("Tell me", json!({}))});
    let id = client.submit(&task).await?;
    let told = &receiver.has(1).await?[0];
    let event = told.verified(secret)?;
    let whole = client.task(&id).await?;
    assert_eq!((&event["type"], &event["object"]), (&json!("task.completed"), &json!("event")));
    assert_eq!((text(&event["id"]), text(&event["data"]["id"])), (told.id(), &*id));
    shows(&event, &whole);
    assert_eq!(event["data"]["result"]["body"], whole["result"]["body"]);
    assert!(told.body.len() < 20_000 && told.header("content-type") == "application/json");
    let delivered = delivery(client, "delivered").await?;
    assert_eq!((text(&delivered["id"]), text(&delivered["task_id"])), (told.id(), &*id));
    assert_eq!((&delivered["attempts"], &delivered["last_status_code"]), (&json!(1), &json!(204)));
    let long = client.ask("a long one", json!({"ttft_ms": 600_000})).await?;
    client.post(&format!("/v1/tasks/{long}/cancel"), &json!({})).await?.expect(200)?;
    let event = receiver.has(2).await?[1].verified(secret)?;
    assert_eq!(event["type"], "task.cancelled");
    shows(&event, &client.task(&long).await?);
    let path = format!("/v1/webhook_endpoints/{}/test", text(&made["id"]));
    let tried = client.post(&path, &json!({"event_type": "batch.completed"})).await?.expect(200)?;
    assert_eq!((&tried["success"], &tried["status_code"]), (&json!(true), &json!(204)));
    assert_eq!(receiver.has(3).await?[2].verified(secret)?["type"], "batch.completed");
    assert!(other.received()?.is_empty(), "nothing has failed");
    Ok(())
}

async fn a_task_has_a_webhook_of_its_own(mode: Mode) -> anyhow::Result<()> {
    let app = start(mode).await?;
    let (client, receiver) = (app.client(), Receiver::start([200]).await?);
    let task = |webhook: Value| json!({"endpoint": "/v1/chat/completions", "webhook": webhook, "body": chat("Tell", json!({}))});
    let refused = client.post("/v1/tasks", &task(json!({"url": receiver.url()}))).await?.expect(400)?;
    assert_eq!(refused["error"]["param"], "webhook", "there is no secret yet: {refused}");
    assert_eq!(client.get("/v1/webhook_secret").await?.status, 404);
    let made = client.post("/v1/webhook_secret/rotate", &json!({})).await?.expect(200)?;
    for bad in [json!({"url": "ftp://example.com/"}), json!({"url": "https://10.0.0.1/"})] {
        let refused = client.post("/v1/tasks", &task(bad)).await?.expect(400)?;
        assert_eq!(refused["error"]["param"], "webhook.url", "{refused}");
    }
    let only = json!({"url": receiver.url(), "event_types": ["task.failed"]});
    let quiet = client.submit(&task(only)).await?;
    client.ended(&quiet).await?;
    let id = client.submit(&task(json!({"url": receiver.url()}))).await?;
    let told = receiver.has(1).await?;
    let event = told[0].verified(text(&made["signing_secret"]))?;
    assert_eq!((told.len(), text(&event["data"]["id"])), (1, &*id));
    assert_eq!(delivery(client, "delivered").await?["endpoint_id"], Value::Null);
    // What no database can read back must not keep a task, or those that end with it, from their end.
    let odd = client.submit(&task(json!({"url": format!("{}\u{0}\u{e9}", receiver.url())}))).await?;
    assert_eq!(client.ended(&odd).await?["status"], "completed");
    receiver.has(2).await?;
    Ok(())
}

async fn a_failure_is_repeated_with_the_same_id(mode: Mode) -> anyhow::Result<()> {
    let app = start(mode).await?;
    let (client, receiver) = (app.client(), Receiver::start([500, 500, 200]).await?);
    let made = endpoint(client, &receiver.url(), &["task.completed"]).await?;
    client.ask("Tell me", json!({})).await?;
    receiver.has(1).await?;
    let path = format!("/v1/webhook_endpoints/{}", text(&made["id"]));
    let failing = within(Duration::from_secs(5), "it is said to fail", async || {
        let found = client.get(&path).await?.expect(200)?;
        Ok(Some(found).filter(|found| !found["failing_since"].is_null()))
    });
    assert_eq!(failing.await?["enabled"], true);
    // The second attempt comes by itself, after 4 to 6 s; the third one is asked for.
    receiver.has(2).await?;
    let waiting = within(Duration::from_secs(5), "it waits for the third", async || {
        let found = delivery(client, "pending").await?;
        Ok(Some(found).filter(|found| {
            found["attempts"] == 2 && found["last_error"] == "status 500 Internal Server Error"
        }))
    });
    let waiting = waiting.await?;
    client
        .post(&format!("/v1/webhook_deliveries/{}/redeliver", text(&waiting["id"])), &json!({}))
        .await?
        .expect(200)?;
    let told = receiver.has(3).await?;
    let mut stamps: Vec<&str> = told.iter().map(|told| told.header("webhook-timestamp")).collect();
    stamps.dedup();
    assert!(stamps.len() > 1, "each attempt has its own moment: {stamps:?}");
    for told in &told {
        assert_eq!(told.id(), text(&waiting["id"]));
        told.verified(text(&made["signing_secret"]))?;
    }
    assert_eq!(delivery(client, "delivered").await?["attempts"], 3);
    assert_eq!(client.get(&path).await?.expect(200)?["failing_since"], Value::Null);
    Ok(())
}

async fn redirects_are_not_followed_and_410_is_the_last_word(mode: Mode) -> anyhow::Result<()> {
    let app = start(mode).await?;
    let (client, trap) = (app.client(), Receiver::start([200]).await?);
    let location = format!("location: {}\r\n", trap.url());
    let answers = [302, 307, 308].map(|status| Receiver::answer(status, &location));
    let receiver = Receiver::answering(answers.into_iter().chain([Receiver::answer(410, "")])).await?;
    let made = endpoint(client, &receiver.url(), &["task.completed"]).await?;
    client.ask("Tell me", json!({})).await?;
    for attempts in 1..=3 {
        receiver.has(attempts).await?;
        let found = within(Duration::from_secs(5), "it has failed again", async || {
            let found = delivery(client, "pending").await?;
            Ok(Some(found).filter(|found| found["attempts"] == attempts && !found["last_error"].is_null()))
        })
        .await?;
        assert!(text(&found["last_error"]).contains("redirects are not followed"), "{found}");
        let path = format!("/v1/webhook_deliveries/{}/redeliver", text(&found["id"]));
        client.post(&path, &json!({})).await?.expect(200)?;
    }
    assert_eq!(delivery(client, "failed").await?["last_status_code"], 410);
    let path = format!("/v1/webhook_endpoints/{}", text(&made["id"]));
    assert_eq!(client.get(&path).await?.expect(200)?["enabled"], false);
    let id = client.ask("Nobody listens", json!({})).await?;
    client.ended(&id).await?;
    let all = client.get("/v1/webhook_deliveries").await?.expect(200)?;
    assert_eq!(all["data"].as_array().map(Vec::len), Some(1), "it is told of nothing more: {all}");
    assert!(trap.received()?.is_empty());
    let enabled = client.post(&path, &json!({"enabled": true})).await?.expect(200)?;
    assert_eq!(enabled["enabled"], true);
    Ok(())
}

async fn a_secret_is_rotated_without_a_gap(mode: Mode) -> anyhow::Result<()> {
    let app = start(mode).await?;
    let (client, receiver) = (app.client(), Receiver::start([200]).await?);
    let first = endpoint(client, &receiver.url(), &["task.completed"]).await?;
    let path = format!("/v1/webhook_endpoints/{}/rotate_secret", text(&first["id"]));
    let keep = json!({"keep_old_secret_active_for_24_hours": true});
    let second = client.post(&path, &keep).await?.expect(200)?;
    client.ask("Tell me", json!({})).await?;
    let told = receiver.has(1).await?.remove(0);
    for endpoint in [&first, &second] {
        told.verified(text(&endpoint["signing_secret"]))?;
    }
    let third = client.post(&path, &json!({})).await?.expect(200)?;
    client.ask("Tell me", json!({})).await?;
    let told = receiver.has(2).await?.remove(1);
    told.verified(text(&third["signing_secret"]))?;
    assert!(told.verified(text(&second["signing_secret"])).is_err(), "the old one is over at once");
    Ok(())
}

/// Nobody has named a private network: a trap on this machine hears nothing, whatever leads to it.
async fn private_addresses_are_not_called(mode: Mode) -> anyhow::Result<()> {
    let app = App::start(mode).await?;
    let (client, trap) = (app.client(), Receiver::start([200]).await?);
    let url = trap.url();
    let port = url.trim_start_matches("http://127.0.0.1:").trim_end_matches("/hook");
    for host in
        ["127.0.0.1", "2130706433", "0x7f.1", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "169.254.169.254"]
    {
        let wanted =
            json!({"name": "", "url": format!("https://{host}:{port}/"), "event_types": ["task.completed"]});
        let refused = client.post("/v1/webhook_endpoints", &wanted).await?.expect(400)?;
        assert_eq!(refused["error"]["param"], "url", "{host}: {refused}");
    }
    let plain = json!({"name": "", "url": url, "event_types": ["task.completed"]});
    assert_eq!(client.post("/v1/webhook_endpoints", &plain).await?.status, 400);
    // What a name leads to is seen when it is looked up.
    let made = endpoint(client, &format!("https://localhost:{port}/"), &["task.completed"]).await?;
    client.ask("Tell me", json!({})).await?;
    let found = within(Duration::from_secs(10), "the attempt is refused", async || {
        let found = delivery(client, "pending").await?;
        Ok(Some(found).filter(|found| !found["last_error"].is_null()))
    })
    .await?;
    assert_eq!(found["last_error"], "the URL is not called: its address is not public");
    let path = format!("/v1/webhook_endpoints/{}/test", text(&made["id"]));
    let tried = client.post(&path, &json!({"event_type": "task.completed"})).await?.expect(200)?;
    assert_eq!((&tried["success"], &tried["status_code"]), (&json!(false), &Value::Null));
    assert!(trap.received()?.is_empty());
    let request = client.request(Method::DELETE, &format!("/v1/webhook_endpoints/{}", text(&made["id"])));
    assert_eq!(Client::send(request).await?.expect(200)?["deleted"], true);
    Ok(())
}

async fn a_receiver_that_hangs_delays_nobody(mode: Mode) -> anyhow::Result<()> {
    let app = start(mode).await?;
    let (client, healthy) = (app.client(), Receiver::start([200]).await?);
    // It takes connections, and says nothing.
    let hangs = std::net::TcpListener::bind("127.0.0.1:0")?;
    endpoint(client, &format!("http://{}/", hangs.local_addr()?), &["task.completed"]).await?;
    endpoint(client, &healthy.url(), &["task.completed"]).await?;
    // More than a worker sends at once: a receiver without a bound of its own would have all of that.
    for _ in 0..400 {
        client.ask("Tell me", json!({})).await?;
    }
    healthy.has(400).await?;
    Ok(())
}
