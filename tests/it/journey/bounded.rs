//! What clients are sent is bounded and fits into their frames and lines, however long or strange the answers are.

use super::both_modes;
use harness::{App, Client, Mode, Watch, chat};
use reqwest::{Method, header};
use serde_json::{Value, json};

both_modes!(
    long_answers_stay_out_of_events,
    long_chunks_stay_out_of_events,
    who_follows_the_life_of_tasks_gets_no_answers,
    lines_hold_what_other_readers_take_for_an_end,
);

/// Longest end of a run.
const END_MAX: usize = 64 << 10;
/// Longest frame that clients' libraries take by default.
const FRAME_MAX: usize = 1 << 20;
const STRANGE: &str = "a\u{2028}b\u{2029}c\u{85}d\u{1F600}é";

async fn raw(client: &Client, raw: &str, sim: Value) -> anyhow::Result<String> {
    let mut body = chat("Tell", json!({"raw": raw, "content_type": "application/json"}));
    sim.as_object().into_iter().flatten().for_each(|(key, value)| body["sim"][key] = value.clone());
    client
        .submit(&json!({"endpoint": "/v1/chat/completions", "body": body, "policy": {"events": "lifecycle"}}))
        .await
}

/// A completion with this text, as an upstream may write it.
fn completion(text: &str) -> String {
    let message = json!({"role": "assistant", "content": text});
    json!({"id": "c", "object": "chat.completion", "created": 1, "model": "sim-chat",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})
    .to_string()
}

async fn lines(client: &Client, id: &str) -> anyhow::Result<String> {
    let request = client.request(Method::GET, &format!("/v1/tasks/{id}/events"));
    let reply = Client::send(request.header(header::ACCEPT, "application/x-ndjson")).await?;
    Ok(String::from_utf8(reply.body.into())?)
}

/// The events of a task's topic.
async fn watched(client: &Client, id: &str, events: Option<&str>) -> anyhow::Result<Vec<Value>> {
    let (mut watch, topic): (Watch, _) = (client.watch().await?, format!("task:{id}"));
    let mut wish = json!({"type": "subscribe", "id": "1", "topics": [topic]});
    if let Some(events) = events {
        wish["events"] = json!([events]);
    }
    watch.subscribe(&wish).await?;
    watch.until_end(&topic).await
}

async fn long_answers_stay_out_of_events(mode: Mode) -> anyhow::Result<()> {
    let app = App::start(mode).await?;
    let client = app.client();
    for (unit, count, fits) in
        [("x", 40_000, true), ("x", END_MAX, false), ("\u{2028}", 15_000, false), ("x", 3 << 20, false)]
    {
        let body = completion(&unit.repeat(count));
        // Live: the end is told while it is listened to.
        let id = raw(client, &body, json!({"ttft_ms": 300})).await?;
        let (live, live_lines) = tokio::join!(watched(client, &id, None), lines(client, &id));
        let again = watched(client, &id, None).await?;
        let streamed = client.events(&id, None, usize::MAX).await?;
        let told = [live?, again, streamed.into_iter().map(|event| event.data).collect()];
        for events in told {
            let end = events.last().expect("an end");
            assert_eq!(end["type"], "task.completed");
            let result = &end["data"]["task"]["result"];
            assert_eq!(
                (result["body"].is_object(), result["omitted"] == true),
                (fits, !fits),
                "{unit:?} × {count}"
            );
            assert!(serde_json::to_string(end)?.len() <= END_MAX);
        }
        let text = live_lines?;
        assert!(text.lines().all(|line| line.len() <= END_MAX));
        let result = client.get(&format!("/v1/tasks/{id}/result")).await?;
        assert_eq!(result.header("content-length"), body.len().to_string());
        assert!(result.body == body.as_bytes());
    }
    Ok(())
}

async fn long_chunks_stay_out_of_events(mode: Mode) -> anyhow::Result<()> {
    let app = App::start(mode).await?;
    let mut body = chat("Tell", json!({"tokens": 3, "ttft_ms": 150, "itl_ms": 50, "echo_fields": true}));
    body["padding"] = json!("x".repeat(600_000));
    let task = json!({"endpoint": "/v1/chat/completions", "body": body});
    let id = app.client().submit(&task).await?;
    let (live, streamed) = tokio::join!(watched(app.client(), &id, None), lines(app.client(), &id));
    let again = watched(app.client(), &id, None).await?;
    for events in [&live?, &again] {
        let deltas = events.iter().filter(|event| event["type"] == "task.output.delta");
        assert!(
            deltas.clone().count() > 1
                && deltas.clone().all(|event| event["data"] == json!({"omitted": true}))
        );
        assert!(events.iter().all(|event| event.to_string().len() < FRAME_MAX));
    }
    assert!(streamed?.lines().all(|line| line.len() < FRAME_MAX));
    Ok(())
}

async fn who_follows_the_life_of_tasks_gets_no_answers(mode: Mode) -> anyhow::Result<()> {
    let app = App::start(mode).await?;
    let client = app.client();
    let mut project = client.watch().await?;
    let wish = json!({"type": "subscribe", "id": "1", "topics": ["project:me"], "events": ["lifecycle"]});
    project.subscribe(&wish).await?;
    let id = raw(client, &completion("short"), json!({"ttft_ms": 200})).await?;
    let own = watched(client, &id, Some("lifecycle")).await?;
    let mut ends = vec![own.last().expect("an end").clone()];
    while ends.len() < 2 {
        let message = project.next().await?;
        ends.extend((message["event"]["type"] == "task.completed").then(|| message["event"].clone()));
    }
    for end in ends {
        let result = &end["data"]["task"]["result"];
        assert_eq!(
            (&result["body"], &result["omitted"], &result["status_code"]),
            (&Value::Null, &json!(true), &json!(200))
        );
    }
    Ok(())
}

async fn lines_hold_what_other_readers_take_for_an_end(mode: Mode) -> anyhow::Result<()> {
    let app = App::start(mode).await?;
    let client = app.client();
    let body = completion(STRANGE);
    assert!(body.contains(['\u{2028}', '\u{85}']), "the upstream sends them as they are");
    let id = raw(client, &body, json!({"ttft_ms": 100})).await?;
    let spoken = client.ask("say", json!({"text": STRANGE, "ttft_ms": 100, "itl_ms": 10})).await?;
    let (first, second) = (lines(client, &id).await?, lines(client, &spoken).await?);
    let line = json!({"custom_id": "a", "method": "POST", "url": "/v1/chat/completions",
        "body": chat("Tell", json!({"raw": body, "content_type": "application/json"}))});
    let batch = json!({"endpoint": "/v1/chat/completions", "completion_window": "24h", "requests": [line]});
    let batch = client.post("/v1/batches", &batch).await?.expect(200)?;
    let batch = batch["id"].as_str().unwrap_or_default();
    harness::eventually("the batch is done", async || {
        let found = client.get(&format!("/v1/batches/{batch}")).await?.expect(200)?;
        Ok((found["status"] == "completed").then_some(()))
    })
    .await?;
    let results = client.get(&format!("/v1/batches/{batch}/results")).await?;
    let results = String::from_utf8(results.body.into())?;
    for text in [&first, &second, &results] {
        assert!(!text.contains(['\u{85}', '\u{2028}', '\u{2029}']), "{text}");
        for line in text.lines().filter(|line| !line.is_empty()) {
            serde_json::from_str::<Value>(line)?;
        }
    }
    let told: Value = serde_json::from_str(results.trim())?;
    assert_eq!(told["response"]["body"]["choices"][0]["message"]["content"], STRANGE);
    assert!(client.get(&format!("/v1/tasks/{id}/result")).await?.body == body.as_bytes());
    Ok(())
}
