//! What the project has: tasks that end in every way, watched in every way, and batches.

use super::{Heard, House, Words, task};
use anyhow::Context;
use harness::{Client, chat};
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Ids of what there is.
pub(super) struct Estate {
    /// A task that is completed.
    pub(super) task: String,
    /// One that may be deleted.
    pub(super) doomed: String,
    /// One that failed for good, with an answer of the model server.
    pub(super) failed: String,
    /// A batch that is completed.
    pub(super) batch: String,
    /// Another one.
    pub(super) stopped: String,
    /// Who is told by webhook, at an address that is not called; somebody will remove it.
    pub(super) endpoint: String,
    /// What it should have been told.
    pub(super) delivery: String,
    /// One that runs until somebody stops it.
    running: String,
}

/// What the model server is asked to do.
fn wishes(words: &Words) -> Vec<Value> {
    let Words { prompt, answer, .. } = words;
    let error =
        json!({"error": {"message": prompt, "type": prompt, "code": prompt, "param": prompt}}).to_string();
    let stream = "text/event-stream";
    vec![
        json!({"text": answer}),
        json!({"text": answer}),
        json!({"status": 422, "raw": error}),
        json!({"text": format!("{answer} ").repeat(200)}),
        json!({"text": answer, "fail_first": 1}),
        json!({"text": answer, "fail_first": 1, "reset": true}),
        json!({"text": answer, "fail_first": 1, "status": 503, "retry_after_s": 0.05}),
        json!({"status": 500, "raw": error}),
        json!({"status": 500, "error_code": prompt}),
        json!({"status": 502, "headers": {"retry-after": prompt, "x-request-id": "1"}, "raw": prompt}),
        json!({"status": 429, "error_code": "insufficient_quota"}),
        json!({"raw": error, "content_type": "application/json"}),
        json!({"raw": format!("{{\"{prompt}"), "content_type": "application/json"}),
        json!({"raw": format!("data: {{\"{prompt}\n\n"), "content_type": stream}),
        json!({"raw": format!("data: {error}\n\ndata: [DONE]\n\n"), "content_type": stream}),
        json!({"text": answer, "cut_after": 1}),
        json!({"text": answer, "error_after": 1, "error_code": prompt}),
        json!({"text": answer, "reset": true}),
        json!({"text": answer, "hang_ms": 5_000}),
        json!({"text": answer, "hang_ms": 5_000, "hang_at": "head"}),
        json!({"echo": true, "no_such_wish": prompt}),
    ]
}

impl Estate {
    /// Makes it, and waits for its end.
    pub(super) async fn make(house: &House, heard: &mut Heard) -> anyhow::Result<Self> {
        let (client, words) = (&house.mine.client, &house.words);
        let url = format!("https://localhost:9/{}", house.app.plant("URL of a webhook"));
        let wanted = json!({"name": "", "url": url, "event_types": ["task.completed"]});
        let kept = client.post("/v1/webhook_endpoints", &wanted).await?.expect(200)?;
        let secret = kept["signing_secret"].as_str().context("a secret")?;
        house.app.secret("secret of webhooks", secret);
        let endpoint = client.post("/v1/webhook_endpoints", &wanted).await?.expect(200)?;
        let (mut ids, mut ends) = (Vec::new(), BTreeMap::<String, Vec<String>>::new());
        for (n, sim) in wishes(words).into_iter().enumerate() {
            let mut wanted = task(words);
            let prompt = if n == 1 { format!("{} ", words.prompt).repeat(200) } else { words.prompt.clone() };
            wanted["body"] = chat(&prompt, sim);
            for relay in ["deltas", "lifecycle"] {
                wanted["policy"] = json!({"events": relay});
                ids.push(client.submit(&wanted).await?);
            }
        }
        for id in ids {
            let end = client.ended(&id).await?["status"].as_str().unwrap_or_default().to_owned();
            heard.own("a result", client.get(&format!("/v1/tasks/{id}/result")).await?);
            ends.entry(end).or_default().push(id);
        }
        let [completed, failed] = ["completed", "failed"].map(|end| ends.remove(end).unwrap_or_default());
        let (good, bad) = (completed.len(), failed.len());
        assert!(ends.is_empty() && good > 10 && bad > 20, "{good} completed, {bad} failed, and {ends:?}");
        let running = json!({"endpoint": "/v1/chat/completions",
            "body": chat(&words.prompt, json!({"text": words.answer, "ttft_ms": 300_000}))});
        let deliveries = client.get("/v1/webhook_deliveries").await?.expect(200)?;
        let id = |value: &Value| value["id"].as_str().unwrap_or_default().to_owned();
        Ok(Self {
            endpoint: id(&endpoint),
            delivery: id(&deliveries["data"][0]),
            task: completed[0].clone(),
            doomed: completed[1].clone(),
            failed: failed[0].clone(),
            batch: batch(house, true).await?,
            stopped: batch(house, false).await?,
            running: client.submit(&running).await?,
        })
    }

    /// Reads and watches, by the stream and by the socket, and submits by the socket.
    pub(super) async fn watch(&self, house: &House, heard: &mut Heard) -> anyhow::Result<()> {
        let (client, words) = (&house.mine.client, &house.words);
        client.events(&self.task, None, usize::MAX).await?;
        client.events(&self.failed, None, usize::MAX).await?;
        client.get(&format!("/v1/tasks/{}?include=input", self.task)).await?.expect(200)?;
        client.get(&format!("/v1/batches/{}/results", self.batch)).await?;
        let refused = house.other.client.open_events(&self.task, None).await?;
        assert_eq!(refused.status(), 404);

        let mut socket = house.app.client().with_key(&house.token).watch().await?;
        let create = json!({"type": "task.create", "id": "1", "task": task(words),
                            "idempotency_key": words.idempotency_key});
        assert_eq!(socket.subscribe(&create).await?["type"], "ack");
        let mut refused = Vec::new();
        for frame in [
            json!({"type": words.field}),
            json!({"type": "subscribe", "topics": words.field}),
            json!({"type": "subscribe", "topics": [], "after": {"x": words.field}}),
            json!({"type": "task.create", "id": "2", "task": words.field}),
            json!({"type": "task.create", "id": "2", "task": {"endpoint": "/v1/chat/completions", "body": words.prompt}}),
            json!({"type": "task.cancel", "id": "3", "task_id": self.running, "reason": {"x": words.field}}),
            json!(words.field),
        ] {
            let said = socket.subscribe(&frame).await?;
            assert_eq!(said["type"], "error", "{frame}: {said}");
            refused.push(said.to_string());
        }
        heard.own("over the socket", text(400, refused.join("\n")));
        let topic = format!("task:{}", self.running);
        let asked = json!({"type": "subscribe", "topics": [topic]});
        assert_eq!(socket.subscribe(&asked).await?["type"], "ack");
        let stop = json!({"type": "task.cancel", "id": "4", "task_id": self.running, "reason": words.reason});
        socket.send(&stop).await?;
        let stopped = client.ended(&self.running).await?;
        assert_eq!(stopped["status"], "cancelled", "{stopped}");
        for (key, status) in [(&words.idempotency_key, 202), (&words.idempotency_key, 422)] {
            let mut wanted = task(words);
            wanted["priority"] = json!(if status == 202 { 0 } else { 7 });
            let request = client.request(Method::POST, "/v1/tasks").header("idempotency-key", key);
            let reply = Client::send(request.json(&wanted)).await?;
            assert!(matches!(reply.status, 200 | 202 | 422), "{reply:?}");
            heard.own("an Idempotency-Key again", reply);
        }
        Ok(())
    }
}

/// An answer in which words are looked for as in others.
fn text(status: u16, body: String) -> harness::Reply {
    harness::Reply { status, headers: Default::default(), body: body.into() }
}

/// A batch, run to its end or stopped.
async fn batch(house: &House, run: bool) -> anyhow::Result<String> {
    let (client, words) = (&house.mine.client, &house.words);
    let line = |n: usize, sim: Value| {
        json!({"custom_id": format!("{}-{n}", words.custom_id), "method": "POST", "url": "/v1/chat/completions",
               "body": chat(&words.prompt, sim)})
    };
    let lines = match run {
        true => vec![
            line(1, json!({"text": words.answer})),
            line(2, json!({"status": 400, "error_code": words.prompt})),
        ],
        false => vec![line(1, json!({"text": words.answer, "ttft_ms": 300_000}))],
    };
    let wanted = json!({"endpoint": "/v1/chat/completions", "completion_window": "24h", "requests": lines,
                        "metadata": {"word": words.metadata}});
    let made = client.post("/v1/batches", &wanted).await?.expect(200)?;
    let id = made["id"].as_str().context("a batch without an id")?.to_owned();
    if !run {
        client.post(&format!("/v1/batches/{id}/cancel"), &json!({})).await?.expect(200)?;
    }
    harness::eventually("the batch is over", async || {
        let batch = client.get(&format!("/v1/batches/{id}")).await?.expect(200)?;
        Ok(matches!(batch["status"].as_str(), Some("completed" | "cancelled")).then_some(()))
    })
    .await?;
    Ok(id)
}
