//! What a watcher may ask for, and what it is told where that is not to be had: cursors of every kind, long logs, falling behind,
//! too much of everything.

use super::both_modes;
use anyhow::Context;
use bytes::Bytes;
use harness::{App, Client, Follower, Mode, Watch, Way, chat};
use reqwest::Method;
use serde_json::{Value, json};
use std::time::Duration;

both_modes!(
    every_cursor_is_answered,
    a_long_log_forgets_its_beginning_and_says_so,
    who_falls_behind_is_told,
    a_socket_has_its_bounds,
    a_stream_passes_through_proxies,
);

/// What is told after a cursor, over both ways, which must say the same.
async fn told(client: &Client, id: &str, after: Option<i64>) -> anyhow::Result<Vec<Value>> {
    let streamed = async {
        match client.open_events(id, after).await?.status().as_u16() {
            204 => Ok(Vec::new()),
            _ => client.events(id, after, usize::MAX).await,
        }
    };
    let watched = async {
        let (topic, mut watch) = (format!("task:{id}"), client.watch().await?);
        let mut wish = json!({"type": "subscribe", "id": "1", "topics": [topic]});
        if let Some(after) = after {
            wish["after"] = json!({&topic: after});
        }
        let ack = watch.subscribe(&wish).await?;
        assert_eq!(ack["type"], "ack", "{ack}");
        watch.until_end(&topic).await
    };
    let (streamed, watched) = tokio::join!(streamed, watched);
    let (streamed, watched) = (streamed?.into_iter().map(|event| event.data).collect::<Vec<_>>(), watched?);
    let short = |events: &[Value]| {
        events.iter().map(|event| (event["seq"].clone(), event["type"].clone())).collect::<Vec<_>>()
    };
    assert_eq!(short(&streamed), short(&watched));
    Ok(streamed)
}

fn seqs(events: &[Value]) -> Vec<i64> {
    events.iter().filter_map(|event| event["seq"].as_i64()).collect()
}

fn types(events: &[Value]) -> Vec<&str> {
    events.iter().filter_map(|event| event["type"].as_str()).collect()
}

async fn every_cursor_is_answered(mode: Mode) -> anyhow::Result<()> {
    let app = App::start(mode).await?;
    let (mine, other) =
        (app.tenant("mine", "submit,read").await?.client, app.tenant("other", "submit,read").await?.client);
    let id = mine.ask("count", json!({"ttft_ms": 100, "itl_ms": 50, "tokens": 30})).await?;
    mine.events(&id, None, 6).await?;
    // While it runs: two tabs, one that knows something, and one that knows more than there is.
    let whole = Follower { apis: vec![mine.clone()], task: id.clone(), way: Way::Socket, leaves: None };
    let (first, second, known, beyond) = tokio::join!(
        whole.clone().follow(),
        Follower { way: Way::Stream, ..whole.clone() }.follow(),
        told(&mine, &id, Some(3)),
        told(&mine, &id, Some(100_000)),
    );
    let (first, second, known, beyond) = (first?, second?, known?, beyond?);
    for tab in [&first, &second] {
        tab.must_be_whole()?;
        assert_eq!((tab.seqs(), tab.text()), (first.seqs(), first.text()));
    }
    let last = first.last().context("no events")?;
    assert_eq!(seqs(&known), (4..=last).collect::<Vec<_>>());
    assert_eq!(
        (types(&beyond)[0], beyond.last()),
        ("task.snapshot", first.heard.last().map(|heard| &heard.event))
    );
    assert!(seqs(&beyond).windows(2).all(|pair| pair[1] == pair[0] + 1), "{:?}", seqs(&beyond));
    // After its end.
    assert_eq!(seqs(&told(&mine, &id, None).await?), first.seqs());
    assert_eq!(seqs(&told(&mine, &id, Some(last - 1)).await?), [last]);
    assert_eq!(told(&mine, &id, Some(last)).await?, [json!(null); 0]);
    let beyond = told(&mine, &id, Some(100_000)).await?;
    assert_eq!(types(&beyond), ["task.snapshot", "task.completed"]);
    // Of another project.
    assert_eq!(other.open_events(&id, None).await?.status(), 404);
    let topic = format!("task:{id}");
    let mut stranger = other.watch().await?;
    for ask in [
        json!({"type": "subscribe", "id": "1", "topics": [topic]}),
        json!({"type": "resume", "id": "1", "cursors": {topic: 3}}),
    ] {
        let refused = stranger.subscribe(&ask).await?;
        assert_eq!(
            (&refused["type"], &refused["error"]["code"]),
            (&json!("error"), &json!("task_not_found")),
            "{refused}"
        );
    }
    Ok(())
}

/// More events than a log keeps: who comes late hears one snapshot, with the output so far, and what follows.
async fn a_long_log_forgets_its_beginning_and_says_so(mode: Mode) -> anyhow::Result<()> {
    const KEPT: usize = 10_000;
    let app = App::start(mode).await?;
    let client = app.client();
    let id =
        client.ask("a very long one", json!({"ttft_ms": 100, "itl_ms": 0, "tokens": KEPT + 2_000})).await?;
    let follower = |leaves| Follower { apis: app.apis.clone(), task: id.clone(), way: Way::Stream, leaves };
    let whole = follower(Some(2_000)).follow().await?;
    whole.must_be_whole()?;
    let last = whole.last().context("no events")?;
    for after in [None, Some(5)] {
        let late = told(client, &id, after).await?;
        let first = late[0]["seq"].as_i64().context("no seq")?;
        assert_eq!(
            (types(&late)[0], seqs(&late)),
            ("task.snapshot", (first..=last).collect()),
            "after {after:?}"
        );
        assert_eq!(types(&late).iter().filter(|kind| **kind == "task.snapshot").count(), 1);
        assert!((2..=KEPT).contains(&late.len()), "{} events", late.len());
    }
    let late = follower(None).follow().await?;
    let result = client.get(&format!("/v1/tasks/{id}/result")).await?.expect(200)?;
    let answer = result["choices"][0]["message"]["content"].as_str().unwrap_or_default();
    assert!(late.text() == answer && whole.text() == answer, "a text is not the answer's");
    let inside = last - 1_000;
    assert_eq!(seqs(&told(client, &id, Some(inside)).await?), (inside + 1..=last).collect::<Vec<_>>());
    Ok(())
}

async fn who_falls_behind_is_told(mode: Mode) -> anyhow::Result<()> {
    let app = App::start(mode).await?;
    let client = app.client();
    let mut watch = client.watch_through(4_096).await?;
    let ack = watch.subscribe(&json!({"type": "subscribe", "id": "1", "topics": ["project:me"]})).await?;
    assert_eq!(ack["type"], "ack", "{ack}");
    // More than is kept for who does not read.
    let batch = batch(client, 1_000, json!({})).await?;
    harness::eventually("the batch is through", async || {
        let batch = client.get(&format!("/v1/batches/{batch}")).await?.expect(200)?;
        Ok((batch["status"] == "completed").then_some(()))
    })
    .await?;
    let id = client.ask("one more", json!({})).await?;
    client.ended(&id).await?;
    let (mut lagged, mut over) = (0, false);
    while !over {
        let frame = watch.next().await?;
        lagged += usize::from(frame == json!({"type": "lagged", "topic": "project:me"}));
        over = frame["event"]["task_id"] == *id && frame["event"]["type"] == "task.completed";
    }
    assert!(lagged > 0, "it has missed nothing, or was not told");
    Ok(())
}

async fn batch(client: &Client, lines: usize, sim: Value) -> anyhow::Result<String> {
    let requests: Vec<Value> = (0..lines)
        .map(|n| {
            let body = chat(&format!("line {n}"), sim.clone());
            json!({"custom_id": n.to_string(), "method": "POST", "url": "/v1/chat/completions", "body": body})
        })
        .collect();
    let batch = json!({"endpoint": "/v1/chat/completions", "completion_window": "24h", "requests": requests});
    let batch = client.post("/v1/batches", &batch).await?.expect(200)?;
    Ok(batch["id"].as_str().context("a batch without an id")?.to_owned())
}

/// The answer to what was asked with this id; events come in between.
async fn answer(watch: &mut Watch, ask: &Value) -> anyhow::Result<Value> {
    watch.send(ask).await?;
    loop {
        let frame = watch.next().await?;
        if frame["id"] == ask["id"] {
            return Ok(frame);
        }
    }
}

async fn a_socket_has_its_bounds(mode: Mode) -> anyhow::Result<()> {
    let app = App::start(mode).await?;
    let client = app.client();
    let batch = batch(client, 1_000, json!({"ttft_ms": 60_000})).await?;
    let mut topics: Vec<String> = Vec::new();
    let mut page = String::new();
    while topics.len() < 1_000 {
        let list = client.get(&format!("/v1/tasks?batch_id={batch}&limit=100{page}")).await?.expect(200)?;
        let ids = list["data"].as_array().into_iter().flatten().filter_map(|task| task["id"].as_str());
        topics.extend(ids.map(|id| format!("task:{id}")));
        page = format!("&after={}", topics.last().context("an empty page")?.trim_start_matches("task:"));
    }
    let mut watch = client.watch().await?;
    let all = answer(&mut watch, &json!({"type": "subscribe", "id": "all", "topics": topics})).await?;
    assert_eq!(
        (&all["type"], all["topics"].as_object().map(serde_json::Map::len)),
        (&json!("ack"), Some(1_000))
    );
    let more = json!({"type": "subscribe", "id": "more", "topics": ["project:me"]});
    let refused = answer(&mut watch, &more).await?;
    assert_eq!(
        (&refused["type"], &refused["error"]["param"]),
        (&json!("error"), &json!("topics")),
        "{refused}"
    );
    let again =
        answer(&mut watch, &json!({"type": "subscribe", "id": "again", "topics": topics[..9]})).await?;
    assert_eq!(again["type"], "ack", "those it has already are not more: {again}");
    let less =
        answer(&mut watch, &json!({"type": "unsubscribe", "id": "less", "topics": topics[..1]})).await?;
    assert_eq!(less["type"], "ack", "{less}");
    assert_eq!(answer(&mut watch, &more).await?["type"], "ack");
    watch.send_bytes(Bytes::from_static(b"{\"type\":\"ping\",\"id\":\"bytes\"}")).await?;
    let pong = answer(&mut watch, &json!({"type": "ping", "id": "text"})).await?;
    assert_eq!(pong, json!({"type": "pong", "id": "text"}), "bytes are not heard, and the socket lives on");
    Ok(())
}

/// Nothing on the way may keep it, pack it or gather it.
async fn a_stream_passes_through_proxies(mode: Mode) -> anyhow::Result<()> {
    let app = App::start(mode).await?;
    let id = app.client().ask("a slow one", json!({"ttft_ms": 300})).await?;
    for (accept, kind) in [
        ("text/event-stream", "text/event-stream; charset=utf-8"),
        ("application/x-ndjson", "application/x-ndjson"),
    ] {
        let request = app.client().request(Method::GET, &format!("/v1/tasks/{id}/events"));
        let request = request.header("accept", accept).header("accept-encoding", "gzip, br, zstd, deflate");
        let reply = request.timeout(Duration::from_secs(20)).send().await?;
        let header =
            |name: &str| reply.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        assert_eq!(header("content-type"), kind);
        assert_eq!(header("x-accel-buffering"), "no");
        for word in ["no-cache", "no-transform"] {
            assert!(header("cache-control").contains(word), "{}", header("cache-control"));
        }
        assert_eq!(["content-encoding", "content-length"].map(header), ["", ""]);
        assert!(reply.text().await?.contains("task.completed"));
    }
    Ok(())
}
