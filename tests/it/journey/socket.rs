//! What a socket has beside the events of tasks: tickets for browsers, counters for dashboards, topics that are followed anew, long
//! answers.

use super::both_modes;
use anyhow::Context;
use harness::{App, Client, Mode, Watch, chat};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

both_modes!(
    a_ticket_opens_one_socket,
    a_ticket_is_no_better_than_its_key,
    counters_follow_the_tasks,
    what_has_no_counters_says_so,
    a_topic_that_is_followed_anew_starts_at_its_cursor,
    long_answers_are_pointed_at,
);

const OURS: &str = "https://app.example.com";

async fn ticket(app: &App, client: &Client) -> anyhow::Result<String> {
    let made = client.post("/v1/ws_tickets", &json!({})).await?;
    assert_eq!(made.header("cache-control"), "no-store");
    let made = made.expect(200)?;
    assert_eq!(made["object"], "ws_ticket");
    let ticket = made["ticket"].as_str().context("a ticket")?.to_owned();
    app.secret("ticket", &ticket);
    Ok(ticket)
}

async fn refused(client: &Client, origin: &str, ticket: Option<&str>) -> String {
    match client.watch_from(origin, ticket).await {
        Ok(_) => "it was let in".to_owned(),
        Err(error) => error.to_string(),
    }
}

async fn a_ticket_opens_one_socket(mode: Mode) -> anyhow::Result<()> {
    let app = App::with(mode).apis(2).env("LONGHAUL_API__CORS_ORIGINS", OURS).start().await?;
    let tenant = app.tenant("acme", "submit,read").await?;
    let id = tenant.client.ask("hello", json!({})).await?;
    // Any process takes what another one made.
    let other = app.apis.last().context("an API")?;
    let ticket = ticket(&app, &tenant.client).await?;
    let mut watch = other.watch_from(OURS, Some(&ticket)).await?;
    let topic = json!({"type": "subscribe", "topics": [format!("task:{id}")]});
    assert_eq!(watch.subscribe(&topic).await?["type"], "ack", "it sees what its project has");
    for (origin, ticket, status) in
        [(OURS, Some(ticket.as_str()), "401"), (OURS, Some("wst_guessed"), "401"), (OURS, None, "401")]
    {
        let said = refused(other, origin, ticket).await;
        assert!(said.contains(status), "{ticket:?}: {said}");
    }
    let fresh = self::ticket(&app, &tenant.client).await?;
    let said = refused(other, "https://evil.example.com", Some(&fresh)).await;
    assert!(said.contains("403"), "{said}");
    let path = format!("/v1/tasks?ticket={}", self::ticket(&app, &tenant.client).await?);
    assert_eq!(other.get(&path).await?.status, 401, "a ticket is for sockets");
    Ok(())
}

async fn a_ticket_is_no_better_than_its_key(mode: Mode) -> anyhow::Result<()> {
    let app = App::with(mode).env("LONGHAUL_API__CORS_ORIGINS", OURS).start().await?;
    let tenant = app.tenant("acme", "read").await?;
    let mut watch = app.client().watch_from(OURS, Some(&ticket(&app, &tenant.client).await?)).await?;
    let task = json!({"endpoint": "/v1/chat/completions", "body": chat("hello", json!({}))});
    let answer = watch.subscribe(&json!({"type": "task.create", "id": "1", "task": task})).await?;
    assert_eq!(answer["error"]["code"], "insufficient_scope", "{answer}");
    let late = ticket(&app, &tenant.client).await?;
    app.keys(&["revoke", &tenant.id]).await?;
    let closed = loop {
        match watch.next().await {
            Ok(_) => {}
            Err(closed) => break closed.to_string(),
        }
    };
    assert!(closed.contains("4401"), "{closed}");
    let said = refused(app.client(), OURS, Some(&late)).await;
    assert!(said.contains("401"), "{said}");
    Ok(())
}

/// Counters of a topic until they are these: how many frames came, and the last.
async fn until(watch: &mut Watch, topic: &str, wanted: &Value) -> anyhow::Result<usize> {
    for frames in 1.. {
        let frame = watch.next().await?;
        anyhow::ensure!(frame["type"] == "counters" && frame["topic"] == topic, "{frame}");
        let shown = &frame["counters"];
        if ["scheduled", "queued", "in_progress"].iter().all(|name| shown[name] == wanted[name]) {
            return Ok(frames);
        }
    }
    unreachable!("there is no end to counting")
}

async fn counters_follow_the_tasks(mode: Mode) -> anyhow::Result<()> {
    let app = App::with(mode).slots(2).start().await?;
    let client = app.client();
    let (mut lane, mut project) = (client.watch().await?, client.watch().await?);
    let ack = lane.subscribe(&json!({"type": "subscribe", "topics": ["queue:default"]})).await?;
    assert_eq!(ack["topics"], json!({"queue:default": {}}), "{ack}");
    let only = json!({"type": "subscribe", "topics": ["project:me"], "events": ["counters"]});
    assert_eq!(project.subscribe(&only).await?["type"], "ack");
    let none = json!({"scheduled": 0, "queued": 0, "in_progress": 0});
    until(&mut lane, "queue:default", &none).await?;
    until(&mut project, "project:me", &none).await?;
    let began = Instant::now();
    for n in 0..4 {
        client.ask(&format!("long {n}"), json!({"ttft_ms": 2_000})).await?;
    }
    let later = json!({"endpoint": "/v1/chat/completions", "queue": "batch", "delay_s": 600, "body": chat("later", json!({}))});
    client.submit(&later).await?;
    let busy = json!({"scheduled": 0, "queued": 2, "in_progress": 2});
    let mut frames = until(&mut lane, "queue:default", &busy).await?;
    until(&mut project, "project:me", &json!({"scheduled": 1, "queued": 2, "in_progress": 2})).await?;
    frames += until(&mut lane, "queue:default", &none).await?;
    until(&mut project, "project:me", &json!({"scheduled": 1, "queued": 0, "in_progress": 0})).await?;
    let most = began.elapsed().as_secs_f64() * 4.0 + 2.0;
    assert!((frames as f64) < most, "{frames} frames, at most four a second");
    let queues = client.get("/v1/queues").await?.expect(200)?;
    assert_eq!(queues["data"].as_array().map(Vec::len), Some(3), "{queues}");
    Ok(())
}

async fn what_has_no_counters_says_so(mode: Mode) -> anyhow::Result<()> {
    let app = App::start(mode).await?;
    let mut watch = app.client().watch().await?;
    for (topics, events, word) in [
        (json!(["queue:nowhere"]), json!(["counters"]), "the queues are"),
        (json!(["queue:default"]), json!(["lifecycle"]), "events"),
        (json!(["project:me"]), json!(["tokens"]), "lifecycle and counters"),
    ] {
        let said = watch.subscribe(&json!({"type": "subscribe", "topics": topics, "events": events})).await?;
        assert!(said["type"] == "error" && said.to_string().contains(word), "{said}");
    }
    Ok(())
}

async fn a_topic_that_is_followed_anew_starts_at_its_cursor(mode: Mode) -> anyhow::Result<()> {
    let app = App::start(mode).await?;
    let client = app.client();
    let id = client.ask("count", json!({"tokens": 40, "ttft_ms": 60, "itl_ms": 1})).await?;
    let last = client.ended(&id).await?["progress"]["last_seq"].as_i64().context("a seq")?;
    let topic = format!("task:{id}");
    let mut watch = client.watch().await?;
    watch.send(&json!({"type": "subscribe", "id": "a", "topics": [topic]})).await?;
    watch.send(&json!({"type": "resume", "id": "b", "cursors": {&topic: last - 3}})).await?;
    let mut seqs = Vec::new();
    while watch.next().await?["id"] != "b" {}
    loop {
        let frame = watch.next().await?;
        match frame["type"].as_str() {
            Some("event") => seqs.extend(frame["seq"].as_i64()),
            _ => break assert_eq!(frame["type"], "end", "{frame}"),
        }
    }
    assert_eq!(seqs, [last - 2, last - 1, last], "nothing of the first one comes after the second began");
    watch.send(&json!({"type": "ping", "id": "c"})).await?;
    assert_eq!(watch.next().await?["type"], "pong", "and nothing after its end");
    watch.send(&json!({"type": "subscribe", "id": "d", "topics": [topic]})).await?;
    watch.send(&json!({"type": "unsubscribe", "id": "e", "topics": [topic]})).await?;
    while watch.next().await?["id"] != "e" {}
    watch.send(&json!({"type": "ping", "id": "f"})).await?;
    assert_eq!(watch.next().await?["id"], "f", "nor after it was left");
    Ok(())
}

async fn long_answers_are_pointed_at(mode: Mode) -> anyhow::Result<()> {
    let app = App::start(mode).await?;
    let client = app.client();
    let sim = json!({"huge_bytes": 3_000_000, "ttft_ms": 100});
    let task = json!({"endpoint": "/v1/chat/completions", "policy": {"events": "lifecycle"}, "body": chat("much", sim)});
    let id = client.submit(&task).await?;
    let mut watch = client.watch().await?;
    let topic = format!("task:{id}");
    assert_eq!(watch.subscribe(&json!({"type": "subscribe", "topics": [topic]})).await?["type"], "ack");
    let begun = Instant::now();
    let told = watch.until_end(&topic).await?;
    let result = &told.last().context("events")?["data"]["task"]["result"];
    assert_eq!((&result["omitted"], &result["body"]), (&json!(true), &Value::Null), "{result}");
    assert!(begun.elapsed() < Duration::from_secs(20));
    let answer = client.get(&format!("/v1/tasks/{id}/result")).await?;
    assert!(answer.body.len() >= 3_000_000, "{} bytes", answer.body.len());
    Ok(())
}
