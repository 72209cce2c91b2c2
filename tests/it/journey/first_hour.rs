//! What somebody meets who comes without knowing the way.

use super::both_modes;
use harness::{App, Client, Mode, Receiver, Reply, chat};
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::BTreeSet;

both_modes!(
    paths_that_are_not_there_say_where_to_go,
    no_error_speaks_the_language_of_the_parser,
    pages_of_this_machine_may_read_without_a_key,
    failures_count_the_last_attempt,
    a_test_event_has_the_fields_of_a_real_one,
);

async fn accepted(app: &App, path: &str, accept: &str) -> anyhow::Result<Reply> {
    Client::send(app.client().request(Method::GET, path).header("accept", accept)).await
}

fn message(reply: &Reply) -> anyhow::Result<String> {
    Ok(reply.json()?["error"]["message"].as_str().unwrap_or_default().to_owned())
}

async fn paths_that_are_not_there_say_where_to_go(mode: Mode) -> anyhow::Result<()> {
    let app = App::start(mode).await?;
    let page = accepted(&app, "/", "text/html,*/*").await?;
    let text = String::from_utf8(page.body.to_vec())?;
    assert!(page.status == 200 && page.header("content-type").starts_with("text/html"), "{page:?}");
    for part in
        ["/docs", "/redoc", "/openapi.json", app.client().base(), "prefers-color-scheme: dark", "lang=\"en\""]
    {
        assert!(text.contains(part), "{part} is missing");
    }
    assert!(text.len() < 6_000 && !text.contains("<script"), "{} bytes", text.len());
    assert!(page.header("content-security-policy").contains("default-src 'self'"), "{page:?}");
    let data = accepted(&app, "/", "application/json").await?;
    assert_eq!(
        (data.json()?["name"].as_str(), &data.json()?["links"]["docs"]),
        (Some("Longhaul"), &json!("/docs"))
    );
    for (path, words) in [
        ("/v1/weather?key=word", "POST /v1/weather."),
        ("/v1/chat/completions", "POST /v1/tasks with"),
        ("/chat/completions", "\"endpoint\": \"/v1/chat/completions\""),
        ("/v1/embeddings", "\"endpoint\": \"/v1/embeddings\""),
        ("/v1/files", "POST /v1/batches"),
        ("/v1/task", "Did you mean /v1/tasks?"),
    ] {
        let reply = app.client().post(path, &json!({})).await?;
        let said = message(&reply)?;
        assert!(reply.status == 404 && said.contains(words) && !said.contains("word"), "{path}: {said}");
    }
    let body = chat("Hello", json!({}));
    let bare = app.client().post("/v1/tasks", &body).await?;
    assert!(bare.status == 400 && message(&bare)?.contains("inside it: {\"endpoint\""), "{bare:?}");
    let mut unknown = body;
    unknown["model"] = json!("gpt-unheard-of");
    let reply =
        app.client().post("/v1/tasks", &json!({"endpoint": "/v1/chat/completions", "body": unknown})).await?;
    let said = message(&reply)?;
    assert!(reply.status == 404 && said.contains("gpt-unheard-of") && said.contains("sim-chat"), "{said}");
    let said = message(&app.client().get("/v1/models/sim-chta").await?)?;
    assert!(said.contains("'sim-chta'") && said.contains("Served are sim-chat"), "{said}");
    Ok(())
}

async fn no_error_speaks_the_language_of_the_parser(mode: Mode) -> anyhow::Result<()> {
    let app = App::start(mode).await?;
    let with =
        |options: &str| format!(r#"{{"endpoint":"/v1/chat/completions","body":{{"model":"m"}}{options}}}"#);
    let values =
        ["null", "true", "7", "-7", "1.5", "1e99", "\"word\"", "[]", "[1]", "{}", "{\"a\":[]}", "[", "nul"];
    let fields = [
        "priority",
        "delay_s",
        "scheduled_at",
        "queue",
        "policy",
        "metadata",
        "webhook",
        "endpoint",
        "body",
        "policy\":{\"ttl_s",
        "policy\":{\"events",
        "policy\":{\"backoff",
        "policy\":{\"max_attempts",
        "webhook\":{\"url",
        "webhook\":{\"event_types",
        "metadata\":{\"a",
    ];
    for (field, value) in fields.iter().flat_map(|field| values.map(|value| (field, value))) {
        let close = if field.contains('{') { "}" } else { "" };
        for (path, json) in [
            ("/v1/tasks", with(&format!(r#","{field}":{value}{close}"#))),
            ("/v1/batches", format!(r#"{{"{field}":{value}{close}}}"#)),
        ] {
            let said = message(&app.client().post_bytes(path, json.clone()).await?)?;
            for word in [
                "f64",
                "f32",
                "u8",
                "u16",
                "u32",
                "u64",
                "i64",
                "usize",
                "at line",
                "missing field",
                "struct ",
                "enum ",
                "variant",
                "sequence",
                "a map",
                "map,",
                "borrowed",
                "unit",
                "EOF",
                "floating point",
            ] {
                assert!(!said.contains(word), "{json}: {said}");
            }
        }
    }
    Ok(())
}

async fn pages_of_this_machine_may_read_without_a_key(mode: Mode) -> anyhow::Result<()> {
    let app = App::start(mode).await?;
    for (origin, host, may) in [
        ("http://localhost:3000", None, true),
        ("http://127.0.0.1:5173", None, true),
        ("http://[::1]:5173", None, true),
        ("https://app.example.com", None, false),
        ("http://localhost.example.com", None, false),
        ("null", None, false),
        ("file://localhost", None, false),
        ("http://localhost:3000", Some("rebound.example.com"), false),
    ] {
        let request = app.client().request(Method::OPTIONS, "/v1/tasks").header("origin", origin);
        let request = request.header("access-control-request-method", "POST");
        let request = host.into_iter().fold(request, |request, host| request.header("host", host));
        let allowed = Client::send(request).await?.header("access-control-allow-origin").to_owned();
        assert_eq!(allowed, if may { origin } else { "" }, "{origin} at {host:?}");
    }
    Ok(())
}

async fn failures_count_the_last_attempt(mode: Mode) -> anyhow::Result<()> {
    let app = App::start(mode).await?;
    for (attempts, sim) in
        [(1, json!({"status": 500})), (2, json!({"status": 500})), (1, json!({"status": 400}))]
    {
        let policy = json!({"max_attempts": attempts, "backoff": {"base_ms": 1, "max_ms": 1}});
        let task =
            json!({"endpoint": "/v1/chat/completions", "policy": policy, "body": chat("Hello", sim.clone())});
        let id = app.client().submit(&task).await?;
        let task = app.client().ended(&id).await?;
        assert_eq!(
            (&task["status"], &task["failures"]),
            (&json!("failed"), &json!(attempts)),
            "{sim}: {task}"
        );
    }
    Ok(())
}

async fn a_test_event_has_the_fields_of_a_real_one(mode: Mode) -> anyhow::Result<()> {
    let app = App::with(mode).env("LONGHAUL_WEBHOOKS__PRIVATE_NETWORKS", "127.0.0.0/8").start().await?;
    let (client, receiver) = (app.client(), Receiver::start([200]).await?);
    let wanted =
        json!({"name": "all", "url": receiver.url(), "event_types": ["task.completed", "task.failed"]});
    let made = client.post("/v1/webhook_endpoints", &wanted).await?.expect(200)?;
    let path = format!("/v1/webhook_endpoints/{}/test", made["id"].as_str().unwrap_or_default());
    let mut count = 0;
    for (kind, sim) in [("task.completed", json!({})), ("task.failed", json!({"status": 400}))] {
        let id = client.ask("Hello", sim).await?;
        client.ended(&id).await?;
        client.post(&path, &json!({"event_type": kind})).await?.expect(200)?;
        count += 2;
        let told = receiver.has(count).await?;
        let bodies = told[count - 2..].iter().map(|told| Ok(serde_json::from_slice::<Value>(&told.body)?));
        let bodies = bodies.collect::<anyhow::Result<Vec<_>>>()?;
        assert_eq!(fields(&bodies[0]), fields(&bodies[1]), "{kind}: {} {}", bodies[0], bodies[1]);
        assert!(bodies.iter().all(|body| body["type"] == kind), "{bodies:?}");
    }
    Ok(())
}

/// The paths of all fields, but for what is inside of an answer and of metadata, with the kind of their values.
fn fields(value: &Value) -> BTreeSet<String> {
    fn walk(value: &Value, path: &str, found: &mut BTreeSet<String>) {
        let kind = match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "list",
            Value::Object(_) => "object",
        };
        found.insert(format!("{path}: {kind}"));
        if path.ends_with("/body") || path.ends_with("/metadata") {
            return;
        }
        for (name, value) in value.as_object().into_iter().flatten() {
            walk(value, &format!("{path}/{name}"), found);
        }
    }
    let mut found = BTreeSet::new();
    walk(value, "", &mut found);
    found
}
