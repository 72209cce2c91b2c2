//! Watching: every event once, in order, over server-sent events and over the WebSocket, from any API process.

use super::both_modes;
use harness::{App, Client, Mode, SseEvent, chat};
use reqwest::Method;
use serde_json::{Value, json};

both_modes!(
    events_come_in_order_and_without_gaps,
    a_broken_stream_resumes_where_it_stopped,
    lines_say_what_frames_say,
    a_socket_shows_the_same_events,
    a_socket_watches_a_batch,
    a_socket_names_what_it_cannot_subscribe_to,
);

/// A request whose answer streams for about half a second.
fn slow() -> Value {
    json!({"text": "one two three four five six seven eight nine ten", "ttft_ms": 100, "itl_ms": 40})
}

/// The text that the deltas of the newest attempt make together.
fn told<'a>(events: impl IntoIterator<Item = &'a Value>) -> String {
    let mut text = String::new();
    for event in events {
        match event["type"].as_str() {
            Some("task.output.delta") => {
                text.push_str(
                    event["data"]["chunk"]["choices"][0]["delta"]["content"].as_str().unwrap_or_default(),
                );
            }
            Some("task.output.reset") => text.clear(),
            _ => {}
        }
    }
    text
}

fn assert_gapless(events: &[SseEvent], first: i64) {
    let ids: Vec<i64> = events.iter().map(|event| event.id).collect();
    let wanted: Vec<i64> = (first..first + ids.len() as i64).collect();
    assert_eq!(ids, wanted);
    for event in events {
        assert_eq!(event.data["seq"], event.id);
        assert_eq!(event.data["type"], event.name.as_str());
    }
}

async fn events_come_in_order_and_without_gaps(mode: Mode) -> anyhow::Result<()> {
    let app = App::start(mode).await?;
    let client = app.client();
    let id = client.ask("count to ten", slow()).await?;
    let events = client.events(&id, None, usize::MAX).await?;
    assert_gapless(&events, 0);
    let names: Vec<&str> = events.iter().map(|event| event.name.as_str()).collect();
    assert_eq!(names.first(), Some(&"task.created"));
    assert_eq!(names.last(), Some(&"task.completed"));
    assert!(names.contains(&"task.started"), "{names:?}");
    assert_eq!(
        told(events.iter().map(|event| &event.data)),
        "one two three four five six seven eight nine ten"
    );

    let last = events.last().map(|event| event.id);
    let over = client.open_events(&id, last).await?;
    assert_eq!(over.status(), 204, "nothing more will come: an EventSource must stop");
    Ok(())
}

async fn a_broken_stream_resumes_where_it_stopped(mode: Mode) -> anyhow::Result<()> {
    let app = App::start(mode).await?;
    let client = app.client();
    let id = client.ask("count to ten", slow()).await?;
    let mut events = client.events(&id, None, 4).await?;
    // Two breaks, each after a few events: what was seen is not repeated and nothing is missed.
    for enough in [3, usize::MAX] {
        let last = events.last().map(|event| event.id);
        events.extend(client.events(&id, last, enough).await?);
    }
    assert_gapless(&events, 0);
    assert_eq!(events.last().map(|event| event.name.as_str()), Some("task.completed"));
    assert_eq!(
        told(events.iter().map(|event| &event.data)),
        "one two three four five six seven eight nine ten"
    );
    Ok(())
}

async fn lines_say_what_frames_say(mode: Mode) -> anyhow::Result<()> {
    let app = App::start(mode).await?;
    let client = app.client();
    let id = client.ask("count to ten", slow()).await?;
    let lines = async |after: &str| {
        let request = client.request(Method::GET, &format!("/v1/tasks/{id}/events{after}"));
        Client::send(request.header("accept", "application/x-ndjson")).await
    };
    let reply = lines("").await?;
    assert_eq!(reply.header("content-type"), "application/x-ndjson");
    let text = String::from_utf8(reply.body.to_vec())?;
    let told: Vec<Value> = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let frames = client.events(&id, None, usize::MAX).await?;
    // The row and the log were written a moment apart.
    let timeless = |mut event: Value| {
        event["ts"] = Value::Null;
        event
    };
    let frames: Vec<Value> = frames.into_iter().map(|event| timeless(event.data)).collect();
    assert_eq!(told.iter().cloned().map(timeless).collect::<Vec<_>>(), frames);
    let last = told.len() - 1;
    assert_eq!(
        lines(&format!("?after={}", last - 1)).await?.json()?,
        told[last],
        "it goes on after any of them"
    );
    assert_eq!(lines(&format!("?after={last}")).await?.status, 204);
    Ok(())
}

async fn a_socket_shows_the_same_events(mode: Mode) -> anyhow::Result<()> {
    let app = App::start(mode).await?;
    let client = app.client();
    let id = client.ask("count to ten", slow()).await?;
    let topic = format!("task:{id}");
    let mut watch = client.watch().await?;
    let ack =
        watch.subscribe(&json!({"type": "subscribe", "id": "1", "topics": [topic], "after": {}})).await?;
    assert_eq!((&ack["type"], &ack["id"]), (&json!("ack"), &json!("1")));
    let watched = watch.until_end(&topic).await?;
    let seqs: Vec<i64> = watched.iter().filter_map(|event| event["seq"].as_i64()).collect();
    assert!(seqs.windows(2).all(|pair| pair[1] == pair[0] + 1), "{seqs:?}");
    assert_eq!(watched.last().map(|event| &event["type"]), Some(&json!("task.completed")));
    assert_eq!(told(&watched), "one two three four five six seven eight nine ten");
    Ok(())
}

async fn a_socket_watches_a_batch(mode: Mode) -> anyhow::Result<()> {
    let app = App::start(mode).await?;
    let client = app.client();
    let lines: Vec<Value> = (0..5)
        .map(|n| {
            let body = chat(&format!("line {n}"), json!({"ttft_ms": 300}));
            json!({"custom_id": format!("line-{n}"), "method": "POST", "url": "/v1/chat/completions", "body": body})
        })
        .collect();
    let mut everything = client.watch().await?;
    let ack =
        everything.subscribe(&json!({"type": "subscribe", "id": "1", "topics": ["project:me"]})).await?;
    assert_eq!(ack["type"], "ack", "{ack}");
    let batch = json!({"endpoint": "/v1/chat/completions", "completion_window": "24h", "requests": lines});
    let batch = client.post("/v1/batches", &batch).await?.expect(200)?;
    let topic = format!("batch:{}", batch["id"].as_str().unwrap_or_default());
    let mut watch = client.watch().await?;
    let ack = watch.subscribe(&json!({"type": "subscribe", "id": "1", "topics": [topic]})).await?;
    assert_eq!(ack["type"], "ack", "{ack}");
    for socket in [&mut watch, &mut everything] {
        let mut completed = 0;
        while completed < 5 {
            let frame = socket.next().await?;
            completed += usize::from(frame["event"]["type"] == "task.completed");
        }
    }
    Ok(())
}

async fn a_socket_names_what_it_cannot_subscribe_to(mode: Mode) -> anyhow::Result<()> {
    let app = App::start(mode).await?;
    let mut watch = app.client().watch().await?;
    let stranger = "task:task_01jd00000000000000000000zz";
    for (id, topic) in [("1", stranger), ("2", "task:nonsense"), ("3", "weather:sunny")] {
        let answer = watch.subscribe(&json!({"type": "subscribe", "id": id, "topics": [topic]})).await?;
        assert_eq!((&answer["type"], &answer["id"]), (&json!("error"), &json!(id)), "{answer}");
    }
    watch.send(&json!({"type": "ping", "id": "4"})).await?;
    assert_eq!(watch.next().await?, json!({"type": "pong", "id": "4"}), "the socket is still usable");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_api_shows_any_task() -> anyhow::Result<()> {
    harness::journey(Mode::Distributed, async |mode| {
        let app = App::with(mode).apis(2).workers(3).start().await?;
        let [first, second]: &[Client; 2] = app.apis.as_slice().try_into()?;
        let id = first.ask("count to ten", slow()).await?;
        let topic = format!("task:{id}");
        let mut watch = second.watch().await?;
        let ack = watch.subscribe(&json!({"type": "subscribe", "id": "1", "topics": [topic]})).await?;
        assert_eq!(ack["type"], "ack", "{ack}");
        let watched = watch.until_end(&topic).await?;
        assert_eq!(told(&watched), "one two three four five six seven eight nine ten");
        assert_eq!(first.task(&id).await?, second.task(&id).await?);
        Ok(())
    })
    .await
}
