//! Every operation of the document, by those who may and those who may not, with what it takes and with what it does not.

use super::{Estate, Heard, House};
use base64::{Engine, prelude::BASE64_STANDARD as BASE64};
use harness::{Client, Operation, chat};
use reqwest::Method;
use serde_json::{Value, json};
use shared::identity::ApiKey;

/// Ways to show what lets nobody in.
pub(super) struct Stranger(Vec<(&'static str, String)>);

impl Stranger {
    /// Each of them is a secret too: it may be another system's.
    pub(super) fn new(house: &House) -> anyhow::Result<Self> {
        let app = &house.app;
        let key = ApiKey::generate().expose().to_owned();
        app.secret("bad key", &key);
        let password = app.plant("password of Basic");
        let signed = house.token.rsplit_once('.').map_or("", |(signed, _)| signed);
        let token = format!("{signed}.{}", app.plant("bad signature"));
        app.secret("bad token", &token);
        let basic = BASE64.encode(format!("user:{password}"));
        Ok(Self(vec![
            ("authorization", format!("Bearer {key}")),
            ("authorization", format!("Bearer {}", app.plant("word as a key"))),
            ("authorization", format!("Bearer {token}")),
            ("authorization", format!("Basic {basic}")),
            ("authorization", app.plant("bare word as a key")),
            ("x-api-key", app.plant("x-api-key")),
            ("cookie", format!("session={}", app.plant("cookie"))),
        ]))
    }
}

/// The operation's path to `mine`.
fn path(operation: &Operation, estate: &Estate, house: &House) -> anyhow::Result<String> {
    let id = match operation.path.as_str() {
        "/v1/tasks/{id}" if operation.method == Method::DELETE => &estate.doomed,
        "/v1/tasks/{id}/retry" => &estate.failed,
        path if path.starts_with("/v1/tasks/{id}") => &estate.task,
        "/v1/batches/{id}/cancel" => &estate.stopped,
        path if path.starts_with("/v1/batches/{id}") => &estate.batch,
        path if path.starts_with("/v1/webhook_endpoints/{id}") => &estate.endpoint,
        path if path.starts_with("/v1/webhook_deliveries/{id}") => &estate.delivery,
        path if path.starts_with("/v1/models/") => "sim-chat",
        path if path.starts_with("/v1/admin/keys/") => &house.other.id,
        path if path.starts_with("/v1/admin/projects/") => "acme",
        path if !path.contains('{') => "",
        path => anyhow::bail!("this test does not know whose {path} is: teach it"),
    };
    Ok(operation.path.replace("{id}", id))
}

/// Bodies that the operation does not take, with a word in each.
fn bodies(operation: &Operation, word: &str) -> Vec<String> {
    let mut bodies = vec![
        json!({}).to_string(),
        json!(word).to_string(),
        json!([word]).to_string(),
        json!({"no_such_field": word}).to_string(),
        format!("{{\"body\": \"{word}\", oops"),
        format!("{word}\u{0}"),
        format!("{{\"body\": \"{word}"),
    ];
    for field in &operation.fields {
        for value in [json!(word), json!([word]), json!({"x": word}), json!({"x": {"x": word}})] {
            bodies.push(json!({field: value}).to_string());
        }
    }
    bodies
}

/// Walks.
pub(super) async fn operations(
    house: &House,
    estate: &Estate,
    stranger: &Stranger,
    heard: &mut Heard,
) -> anyhow::Result<()> {
    let (anybody, words) = (house.app.client(), &house.words);
    let operator = anybody.with_key(&house.operator);
    for operation in Operation::all(anybody).await? {
        let path = path(&operation, estate, house)?;
        let what = format!("{} {path}", operation.method);
        for (name, value) in &stranger.0 {
            let request = anybody.request(operation.method.clone(), &path).header(*name, value);
            heard.other(&what, Client::send(request.header("user-agent", value)).await?);
        }
        if operation.path.contains("{id}") && operation.scope.as_deref() != Some("admin") {
            heard.other(&what, operation.call(&house.other.client, &path).await?);
            heard.own(&what, operation.call(&house.mine.client, &path.replace("_", "-")).await?);
        }
        let is_admins = operation.scope.as_deref() == Some("admin");
        let (may, may_not) =
            if is_admins { (&operator, &house.mine.client) } else { (&house.mine.client, &operator) };
        heard.other(&what, operation.call(may_not, &path).await?);
        let by_token = anybody.with_key(&house.token);
        heard.own(&what, operation.call(&by_token, &path).await?);
        if operation.method == Method::POST {
            for body in bodies(&operation, &words.field) {
                heard.own(format!("{what} {body}"), may.post_bytes(&path, body.clone()).await?);
            }
            let text = may.request(Method::POST, &path).header("content-type", "text/plain");
            heard.own(&what, Client::send(text.body(words.field.clone())).await?);
        }
        let mut query = path.clone() + "?x=";
        for name in ["limit", "after", "status", "wait", "until", "include", "batch_id", "queue"] {
            query += &format!("{}&{name}=", words.question);
            let one = format!("{path}?{name}={}", words.question);
            if operation.method == Method::GET {
                heard.own(&what, operation.call(may, &one).await?);
            }
        }
        heard.own(&what, operation.call(may, &query).await?);
        heard.own(&what, operation.call(may, &operation.path.replace("{id}", &words.question)).await?);
    }
    Ok(())
}

/// Tasks that are refused for what is inside of them.
pub(super) async fn bad_tasks(house: &House, heard: &mut Heard) -> anyhow::Result<()> {
    let (client, words) = (&house.mine.client, &house.words);
    let (word, name) = (&words.field, &words.question);
    let places = [
        ("/body", json!(word)),
        ("/body", json!([word])),
        ("/body/model", json!([word])),
        ("/body/model", json!(name)),
        ("/endpoint", json!(name)),
        ("/queue", json!(name)),
        ("/queue", json!(format!("{name} {name}"))),
        ("/priority", json!(word)),
        ("/delay_s", json!(word)),
        ("/scheduled_at", json!(word)),
        ("/metadata", json!(word)),
        ("/metadata", json!({"word": [word]})),
        ("/metadata", json!({"word": word.repeat(20)})),
        ("/metadata", json!({"word": format!("{word}\u{0}")})),
        ("/metadata", json!({name.repeat(5): "x"})),
        ("/policy", json!(word)),
        ("/policy", json!({"events": word})),
        ("/policy", json!({"max_attempts": word})),
        ("/policy", json!({"backoff": {"base_ms": word}})),
    ];
    for (pointer, value) in places {
        let mut wanted = super::task(words);
        let (parent, key) = pointer.rsplit_once('/').expect("a pointer has a slash");
        let parent = wanted.pointer_mut(parent).and_then(Value::as_object_mut).expect("its parent is there");
        parent.insert(key.to_owned(), value.clone());
        let reply = client.post("/v1/tasks", &wanted).await?;
        assert!(matches!(reply.status, 400 | 404), "{pointer} {value}: {}", reply.status);
        heard.own(format!("a task with {pointer} = {value}"), reply);
    }
    Ok(())
}

/// Batches that are refused for what is inside of their lines.
pub(super) async fn bad_lines(house: &House, heard: &mut Heard) -> anyhow::Result<()> {
    let (client, words) = (&house.mine.client, &house.words);
    let line = |change: Value| {
        let mut line = json!({"custom_id": words.custom_id, "method": "POST", "url": "/v1/chat/completions",
                              "body": chat(&words.prompt, json!({}))});
        for (name, value) in change.as_object().into_iter().flatten() {
            line[name] = value.clone();
        }
        line
    };
    let lines = [
        json!(words.prompt),
        json!([words.prompt]),
        line(json!({"body": words.prompt})),
        line(json!({"body": [words.prompt]})),
        line(json!({"body": {"model": [words.prompt]}})),
        line(json!({"method": words.field})),
        line(json!({"url": words.field})),
        line(json!({"custom_id": [words.custom_id]})),
        line(json!({"custom_id": words.custom_id.repeat(20)})),
        line(json!({"custom_id": format!("{}\u{0}", words.custom_id)})),
        line(json!({"no_such_field": words.prompt})),
        line(json!({})),
    ];
    let unstorable = line(json!({"custom_id": format!("{}\u{0}", words.custom_id)}));
    for lines in [lines.to_vec(), vec![line(json!({})), line(json!({}))], vec![unstorable]] {
        let wanted =
            json!({"endpoint": "/v1/chat/completions", "completion_window": "24h", "requests": lines});
        let refused = client.post("/v1/batches", &wanted).await?;
        assert!(matches!(refused.status, 200 | 400), "{refused:?}");
        heard.own(format!("a batch with bad lines: {}", refused.status), refused);
    }
    Ok(())
}

/// HTTP/2 packs headers and cuts bodies in its own way.
pub(super) async fn over_http2(house: &House, heard: &mut Heard) -> anyhow::Result<()> {
    let http = reqwest::Client::builder().no_proxy().http2_prior_knowledge().build()?;
    let url = format!("{}/v1/tasks", house.app.client().base());
    let keys = [(&house.mine.key, 202), (&house.token, 202), (&house.app.plant("bad key over HTTP/2"), 401)];
    for (key, status) in keys {
        let request = http.post(&url).bearer_auth(key).json(&super::task(&house.words));
        let reply = Client::send(request).await?;
        assert_eq!(reply.status, status);
        heard.own("over HTTP/2", reply);
    }
    Ok(())
}
