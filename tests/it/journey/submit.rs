//! From a POST to the answer, and what can be done with a task on the way.

use super::both_modes;
use harness::{App, Client, Mode, chat};
use reqwest::Method;
use serde_json::json;
use std::collections::BTreeSet;

both_modes!(
    a_task_is_accepted_run_and_kept,
    a_client_may_wait_for_the_answer,
    a_later_task_waits_for_its_time,
    a_failed_attempt_is_repeated,
    a_failed_task_can_be_retried,
    a_task_can_be_deleted,
    pages_lead_through_all_tasks,
);

async fn a_task_is_accepted_run_and_kept(mode: Mode) -> anyhow::Result<()> {
    let app = App::start(mode).await?;
    let client = app.client();
    let task = json!({
        "endpoint": "/v1/chat/completions",
        "body": chat("hello", json!({"text": "Hello, traveller."})),
        "metadata": {"trip": "1"},
    });
    let reply = client.post("/v1/tasks", &task).await?;
    let accepted = reply.expect(202)?;
    let id = accepted["id"].as_str().unwrap_or_default();
    assert_eq!(reply.header("location"), format!("/v1/tasks/{id}"));
    assert!(id.starts_with("task_") && id.len() == 31, "{id}");
    assert_eq!(accepted["object"], "task");
    assert_eq!(accepted["endpoint"], "/v1/chat/completions");
    assert_eq!(accepted["model"], "sim-chat");
    assert_eq!(accepted["queue"], "default");
    assert_eq!(accepted["metadata"], json!({"trip": "1"}));
    assert_eq!(accepted["attempt"], 0);

    let ended = client.ended(id).await?;
    assert_eq!(ended["status"], "completed");
    assert_eq!(ended["attempt"], 1);
    assert_eq!(ended["error"], json!(null));
    assert_eq!(ended["result"]["status_code"], 200);
    assert_eq!(ended["result"]["body"]["choices"][0]["message"]["content"], "Hello, traveller.");
    assert!(ended["usage"].is_object() && ended["finished_at"].is_number(), "{ended}");

    let answer = client.get(&format!("/v1/tasks/{id}/result")).await?;
    assert_eq!(answer.expect(200)?, ended["result"]["body"]);
    Ok(())
}

async fn a_client_may_wait_for_the_answer(mode: Mode) -> anyhow::Result<()> {
    let app = App::start(mode).await?;
    let client = app.client();
    let task = json!({"endpoint": "/v1/chat/completions", "body": chat("hello", json!({"ttft_ms": 200}))});
    let waiting = client.request(Method::POST, "/v1/tasks").header("prefer", "wait=30").json(&task);
    let ended = Client::send(waiting).await?.expect(200)?;
    assert_eq!(ended["status"], "completed");
    Ok(())
}

async fn a_later_task_waits_for_its_time(mode: Mode) -> anyhow::Result<()> {
    let app = App::start(mode).await?;
    let client = app.client();
    let body = chat("later", json!({}));
    let id = client.submit(&json!({"endpoint": "/v1/chat/completions", "body": body, "delay_s": 2})).await?;
    let task = client.task(&id).await?;
    assert_eq!(task["status"], "scheduled");
    assert!(task["scheduled_at"].is_number(), "{task}");
    let ended = client.ended(&id).await?;
    assert_eq!(ended["status"], "completed");
    let waited =
        ended["started_at"].as_f64().unwrap_or_default() - ended["created_at"].as_f64().unwrap_or_default();
    assert!((1.9..10.0).contains(&waited), "it waited {waited} s");
    Ok(())
}

async fn a_failed_attempt_is_repeated(mode: Mode) -> anyhow::Result<()> {
    let app = App::start(mode).await?;
    let client = app.client();
    let task = json!({
        "endpoint": "/v1/chat/completions",
        "body": chat("again", json!({"fail_first": 2, "status": 500})),
        "policy": {"max_attempts": 3, "backoff": {"base_ms": 10, "max_ms": 20}},
    });
    let id = client.submit(&task).await?;
    let ended = client.ended(&id).await?;
    assert_eq!((&ended["status"], &ended["attempt"]), (&json!("completed"), &json!(3)));
    Ok(())
}

async fn a_failed_task_can_be_retried(mode: Mode) -> anyhow::Result<()> {
    let app = App::start(mode).await?;
    let client = app.client();
    let task = json!({
        "endpoint": "/v1/chat/completions",
        "body": chat("once more", json!({"fail_first": 1, "status": 500})),
        "policy": {"max_attempts": 1},
    });
    let id = client.submit(&task).await?;
    let failed = client.ended(&id).await?;
    assert_eq!(failed["status"], "failed");
    assert_eq!(failed["error"]["code"], "upstream_failed");
    assert_eq!(failed["error"]["upstream_status"], 500);

    let retried = client.post(&format!("/v1/tasks/{id}/retry"), &json!({})).await?.expect(202)?;
    assert_eq!(retried["id"], id.as_str());
    let ended = client.ended(&id).await?;
    assert_eq!((&ended["status"], &ended["attempt"]), (&json!("completed"), &json!(2)));

    let refused = client.post(&format!("/v1/tasks/{id}/retry"), &json!({})).await?;
    assert_eq!(refused.status, 409, "a completed task is not retried");
    assert_eq!(refused.header("x-should-retry"), "false");
    Ok(())
}

async fn a_task_can_be_deleted(mode: Mode) -> anyhow::Result<()> {
    let app = App::start(mode).await?;
    let client = app.client();
    let id = client.ask("short", json!({})).await?;
    client.ended(&id).await?;
    let path = format!("/v1/tasks/{id}");
    let gone = client.delete(&path).await?.expect(200)?;
    assert_eq!(gone, json!({"id": id, "object": "task.deleted", "deleted": true}));
    assert_eq!(client.get(&path).await?.status, 404);

    let running = client.ask("long", json!({"ttft_ms": 60_000})).await?;
    client.reaches(&running, "in_progress").await?;
    let path = format!("/v1/tasks/{running}");
    assert_eq!(client.delete(&path).await?.status, 409, "an active task is kept");
    client.delete(&format!("{path}?force=true")).await?.expect(200)?;
    assert_eq!(client.get(&path).await?.status, 404);
    Ok(())
}

async fn pages_lead_through_all_tasks(mode: Mode) -> anyhow::Result<()> {
    let app = App::start(mode).await?;
    let client = app.client();
    let mut submitted = Vec::new();
    for n in 0..7 {
        let queue = if n % 2 == 0 { "batch" } else { "interactive" };
        let body = chat(&format!("task {n}"), json!({}));
        submitted.push(
            client.submit(&json!({"endpoint": "/v1/chat/completions", "body": body, "queue": queue})).await?,
        );
    }
    for id in &submitted {
        client.ended(id).await?;
    }

    let (mut listed, mut after) = (Vec::new(), String::new());
    loop {
        let page = client.get(&format!("/v1/tasks?limit=3{after}")).await?.expect(200)?;
        let ids = page["data"].as_array().into_iter().flatten().filter_map(|task| task["id"].as_str());
        listed.extend(ids.map(str::to_owned));
        assert_eq!(page["object"], "list");
        if page["has_more"] == false {
            break;
        }
        after = format!("&after={}", page["last_id"].as_str().unwrap_or_default());
    }
    let newest_first: Vec<String> = submitted.iter().rev().cloned().collect();
    assert_eq!(listed, newest_first);

    let filtered = client.get("/v1/tasks?status=completed&queue=interactive&limit=100").await?.expect(200)?;
    let found: BTreeSet<&str> =
        filtered["data"].as_array().into_iter().flatten().filter_map(|task| task["id"].as_str()).collect();
    let wanted: BTreeSet<&str> = submitted.iter().skip(1).step_by(2).map(String::as_str).collect();
    assert_eq!(found, wanted);
    let none = client.get("/v1/tasks?status=failed").await?.expect(200)?;
    assert_eq!(none["data"], json!([]));
    Ok(())
}
