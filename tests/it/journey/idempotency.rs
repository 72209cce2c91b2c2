//! A client that repeats itself: one task per key, whatever it meets on the way.

use super::both_modes;
use anyhow::Context;
use harness::{App, Client, Mode, Reply, chat};
use reqwest::Method;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use tokio::task::JoinSet;

both_modes!(a_key_stands_for_one_task, a_key_is_bound_to_its_request);

fn task(prompt: &str) -> Value {
    json!({"endpoint": "/v1/chat/completions", "body": chat(prompt, json!({}))})
}

/// Sends it as clients do: again, while the first request with its key is not answered.
async fn insistent(request: reqwest::RequestBuilder) -> anyhow::Result<Reply> {
    loop {
        let again = request.try_clone().context("a body that can be sent again")?;
        let reply = Client::send(again).await?;
        if reply.status != 409 || reply.json()?["error"]["code"] != "idempotency_key_under_way" {
            return Ok(reply);
        }
        tokio::time::sleep(Duration::from_secs(reply.header("retry-after").parse()?)).await;
    }
}

async fn a_key_stands_for_one_task(mode: Mode) -> anyhow::Result<()> {
    let app = App::with(mode).apis(2).start().await?;
    let mut submits = JoinSet::new();
    for n in 0..1_000 {
        let key = format!("key-{}", n % 100);
        let client = &app.apis[n % app.apis.len()];
        let request =
            client.request(Method::POST, "/v1/tasks").header("idempotency-key", &key).json(&task(&key));
        submits.spawn(async move { anyhow::Ok((key, insistent(request).await?)) });
    }
    let mut answers: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    while let Some(submitted) = submits.join_next().await {
        let (key, reply) = submitted??;
        let id = reply.expect(202)?["id"].as_str().unwrap_or_default().to_owned();
        answers.entry(key).or_default().insert(id);
    }
    assert_eq!(answers.len(), 100);
    assert!(answers.values().all(|ids| ids.len() == 1), "one key, one task: {answers:?}");

    let page = app.client().get("/v1/tasks?limit=100").await?.expect(200)?;
    let stored: BTreeSet<&str> =
        page["data"].as_array().into_iter().flatten().filter_map(|task| task["id"].as_str()).collect();
    let answered: BTreeSet<&str> = answers.values().flatten().map(String::as_str).collect();
    assert_eq!((stored, &page["has_more"]), (answered, &json!(false)));
    Ok(())
}

async fn a_key_is_bound_to_its_request(mode: Mode) -> anyhow::Result<()> {
    let app = App::start(mode).await?;
    let client = app.client();
    let submit = async |prompt: &str| {
        let request = client.request(Method::POST, "/v1/tasks").header("idempotency-key", "the-key");
        Client::send(request.json(&task(prompt))).await
    };
    let first = submit("one").await?;
    let id = first.expect(202)?["id"].clone();
    assert_eq!(first.header("idempotent-replayed"), "");

    let replay = submit("one").await?;
    assert_eq!(replay.header("idempotent-replayed"), "true");
    assert_eq!(replay.expect(202)?["id"], id);

    let other = submit("two").await?;
    assert_eq!(other.status, 422, "the key was used for another request");
    Ok(())
}
