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

both_modes!(
    a_key_stands_for_one_task,
    a_key_is_bound_to_its_request,
    a_key_stands_for_one_batch,
    no_operation_swallows_a_key,
);

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

fn batch(prompt: &str) -> Value {
    let body = chat(prompt, json!({}));
    let line = json!({"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body});
    json!({"endpoint": "/v1/chat/completions", "completion_window": "24h", "requests": [line]})
}

async fn a_key_stands_for_one_batch(mode: Mode) -> anyhow::Result<()> {
    let app = App::with(mode).apis(2).start().await?;
    let post = |n: usize, path: &str, key: &str, body: &Value| {
        let client = &app.apis[n % app.apis.len()];
        insistent(client.request(Method::POST, path).header("idempotency-key", key).json(body))
    };
    // Twenty at once, through two processes; half of them of a batch that is refused as a whole.
    let faulty = json!({"endpoint": "/v1/chat/completions", "completion_window": "24h", "requests": [{}]});
    let mut answers: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    let posts = (0..20).map(|n| match n % 4 < 2 {
        true => ("good", post(n, "/v1/batches", "good", &batch("one"))),
        false => ("faulty", post(n, "/v1/batches", "faulty", &faulty)),
    });
    let (keys, posts): (Vec<_>, Vec<_>) = posts.unzip();
    for (key, reply) in keys.into_iter().zip(futures_util::future::join_all(posts).await) {
        let id = reply?.expect(200)?["id"].as_str().unwrap_or_default().to_owned();
        answers.entry(key).or_default().insert(id);
    }
    assert!(answers.len() == 2 && answers.values().all(|ids| ids.len() == 1), "{answers:?}");
    let page = app.client().get("/v1/batches").await?.expect(200)?;
    assert_eq!(page["data"].as_array().map(Vec::len), Some(2));
    let tasks = app.client().get("/v1/tasks").await?.expect(200)?;
    assert_eq!(tasks["data"].as_array().map(Vec::len), Some(1));

    let again = post(1, "/v1/batches", "good", &batch("one")).await?;
    assert_eq!((again.status, again.header("idempotent-replayed")), (200, "true"));
    for (path, key, body) in [
        ("/v1/batches", "good", batch("another")),
        ("/v1/tasks", "good", task("one")),
        ("/v1/batches", "a task", batch("one")),
    ] {
        post(0, "/v1/tasks", "a task", &task("one")).await?.expect(202)?;
        assert_eq!(post(0, path, key, &body).await?.expect(422)?["error"]["code"], "idempotency_key_reused");
    }
    Ok(())
}

async fn no_operation_swallows_a_key(mode: Mode) -> anyhow::Result<()> {
    let app = App::start(mode).await?;
    let client = app.client();
    let id = client.ask("one", json!({})).await?;
    let send = async |method: Method, path: &str, body: &Value| {
        Client::send(client.request(method, path).header("idempotency-key", "k").json(body)).await
    };
    let url = json!({"url": "https://example.com"});
    for (path, body) in [
        (format!("/v1/tasks/{id}/retry"), json!({})),
        ("/v1/ws_tickets".to_owned(), json!({})),
        ("/v1/webhook_endpoints".to_owned(), url),
        ("/v1/webhook_secret/rotate".to_owned(), json!({})),
        ("/v1/admin/keys".to_owned(), json!({"name": "a"})),
        ("/v1/admin/projects".to_owned(), json!({"name": "a"})),
    ] {
        let refused = send(Method::POST, &path, &body).await?.expect(400)?;
        assert_eq!(refused["error"]["code"], "idempotency_key_unsupported", "{path}");
    }
    let path = format!("/v1/tasks/{id}");
    send(Method::POST, &format!("{path}/cancel"), &json!({})).await?.expect(200)?;
    send(Method::GET, &path, &json!(null)).await?.expect(200)?;
    send(Method::DELETE, &path, &json!(null)).await?.expect(200)?;
    Ok(())
}
