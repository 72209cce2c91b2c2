//! Requests that cannot be served: refused with a status, a field and a sentence, and nothing is stored.

use super::both_modes;
use harness::{App, Client, Mode, chat};
use reqwest::Method;
use serde_json::{Value, json};

both_modes!(a_bad_submission_is_refused_and_leaves_no_trace, bad_questions_are_answered_politely);

/// What is sent, the status, and the field that the answer names.
fn submissions() -> Vec<(String, u16, Value)> {
    let good = || json!({"endpoint": "/v1/chat/completions", "body": chat("x", json!({}))});
    let with = |pointer: &str, value: Value| {
        let mut task = good();
        let (parent, key) = pointer.rsplit_once('/').expect("a pointer has a slash");
        task.pointer_mut(parent)
            .and_then(Value::as_object_mut)
            .expect("its parent is there")
            .insert(key.into(), value);
        task.to_string()
    };
    let without = |key: &str| {
        let mut task = good();
        task.as_object_mut().expect("a task is an object").remove(key);
        task.to_string()
    };
    vec![
        ("{\"endpoint\": oops".into(), 400, json!(null)),
        (String::new(), 400, json!(null)),
        ("[]".into(), 400, json!(null)),
        (without("endpoint"), 400, json!("endpoint")),
        (without("body"), 400, json!("body")),
        (with("/endpoint", json!(7)), 400, json!("endpoint")),
        (with("/endpoint", json!("/v1/weather")), 400, json!("endpoint")),
        (with("/body", json!("text")), 400, json!("body")),
        (with("/body/model", json!(null)), 400, json!("body.model")),
        (with("/body/model", json!("gpt-unheard-of")), 404, json!("body.model")),
        (with("/polcy", json!({})), 400, json!("polcy")),
        (with("/queue", json!("no such queue")), 400, json!("queue")),
        (with("/queue", json!("unheard-of")), 400, json!("queue")),
        (with("/priority", json!(101)), 400, json!("priority")),
        (with("/priority", json!("high")), 400, json!("priority")),
        (with("/delay_s", json!(-1)), 400, json!("delay_s")),
        (with("/policy", json!({"events": "everything"})), 400, json!("policy.events")),
        (with("/policy", json!({"max_attempts": 0})), 400, json!("policy.max_attempts")),
        (with("/policy", json!({"max_attempts": "3"})), 400, json!("policy.max_attempts")),
        (with("/policy", json!({"tries": 3})), 400, json!("policy.tries")),
        (with("/metadata", json!({"depth": {"a": 1}})), 400, json!("metadata.depth")),
    ]
}

async fn a_bad_submission_is_refused_and_leaves_no_trace(mode: Mode) -> anyhow::Result<()> {
    let app = App::with(mode).env("LONGHAUL_API__BODY_BYTES_MAX", "64KiB").start().await?;
    let client = app.client();
    for (body, status, param) in submissions() {
        let reply = client.post_bytes("/v1/tasks", body.clone()).await?;
        let error = reply.json()?["error"].clone();
        assert_eq!((reply.status, &error["param"]), (status, &param), "{body}: {error}");
        let message = error["message"].as_str().unwrap_or_default();
        assert!(
            message.len() > 10 && error["code"].is_string() && error["type"].is_string(),
            "{body}: {error}"
        );
        assert_eq!(error["request_id"], reply.header("x-request-id"), "{body}");
    }

    let big = json!({"endpoint": "/v1/chat/completions", "body": chat(&"x".repeat(70_000), json!({}))});
    assert_eq!(client.post("/v1/tasks", &big).await?.status, 413);
    let text = client.request(Method::POST, "/v1/tasks").header("content-type", "text/plain").body("{}");
    assert_eq!(Client::send(text).await?.status, 415);

    assert_eq!(client.get("/v1/tasks").await?.expect(200)?["data"], json!([]), "nothing was stored");
    Ok(())
}

async fn bad_questions_are_answered_politely(mode: Mode) -> anyhow::Result<()> {
    let app = App::start(mode).await?;
    let client = app.client();
    let table = [
        ("/v1/tasks/nonsense", 404, json!("id")),
        ("/v1/tasks/task_01jd00000000000000000000zz", 404, json!("id")),
        ("/v1/tasks/task_01jd00000000000000000000zz/result", 404, json!("id")),
        ("/v1/tasks/task_01jd00000000000000000000zz/events", 404, json!("id")),
        ("/v1/batches/nonsense", 404, json!("id")),
        ("/v1/tasks?limit=0", 400, json!("limit")),
        ("/v1/tasks?limit=101", 400, json!("limit")),
        ("/v1/tasks?limit=many", 400, json!("limit")),
        ("/v1/tasks?after=nonsense", 400, json!("after")),
        ("/v1/tasks?status=sleeping", 400, json!("status")),
        ("/v1/tasks?colour=red", 400, json!("colour")),
        ("/v1/tasks?model=%00", 400, json!("model")),
        ("/v1/tasks?metadata[a]=%00", 400, json!("metadata[a]")),
        ("/v1/tasks/task_01jd00000000000000000000zz?until=soon", 400, json!("until")),
        ("/v1/tasks/task_01jd00000000000000000000zz?include=all", 400, json!("include")),
        ("/v1/weather", 404, json!(null)),
    ];
    for (path, status, param) in table {
        let reply = client.get(path).await?;
        let error = reply.json()?["error"].clone();
        assert_eq!((reply.status, &error["param"]), (status, &param), "{path}: {error}");
    }

    let wrong_method = client.request(Method::PUT, "/v1/tasks");
    assert_eq!(Client::send(wrong_method).await?.status, 405);
    let problem =
        client.request(Method::GET, "/v1/tasks/nonsense").header("accept", "application/problem+json");
    let problem = Client::send(problem).await?;
    assert_eq!(problem.header("content-type"), "application/problem+json");
    assert_eq!(problem.json()?["status"], 404);

    let foreign = client.request(Method::GET, "/v1/tasks").header("x-forwarded-for", "203.0.113.9");
    assert_eq!(Client::send(foreign).await?.status, 401, "without a key only this machine is served");
    Ok(())
}
