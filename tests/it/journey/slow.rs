//! Uploads that do not go on are cut, and what takes its time for a good reason is not.

use super::both_modes;
use anyhow::Context;
use harness::{App, Mode, chat};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{interval, timeout},
};

both_modes!(an_upload_has_to_go_on, what_is_waited_for_is_not_cut);

/// Silence after which an upload is cut here, and time after which its rate counts.
const PATIENCE: Duration = Duration::from_secs(1);

async fn an_upload_has_to_go_on(mode: Mode) -> anyhow::Result<()> {
    let app = App::with(mode).env("LONGHAUL_API__BODY_TIMEOUT", "1s").start().await?;
    let address = app.client().base().trim_start_matches("http://");
    let task = json!({"endpoint": "/v1/chat/completions", "body": chat(&"slow ".repeat(1_000), json!({}))})
        .to_string();
    let whole = format!("content-length: {}\r\n\r\n", task.len());
    let chunked = "transfer-encoding: chunked\r\n\r\n";
    let drip = |bytes: &[u8]| bytes.chunks(1).map(<[u8]>::to_vec).collect::<Vec<_>>();
    let chunks = "1\r\n \r\n".repeat(1_000).into_bytes();
    let chunks: Vec<Vec<u8>> = chunks.chunks(6).map(<[u8]>::to_vec).collect();
    let honest: Vec<Vec<u8>> = task.as_bytes().chunks(task.len() / 30 + 1).map(<[u8]>::to_vec).collect();
    let head = |path: &str, rest: &str| {
        format!("POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n{rest}")
    };
    let before = format!("GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n{}", head("/v1/tasks", &whole));
    let cancel = head("/v1/tasks/task_01jd00000000000000000000zz/cancel", &whole);
    let (stalled, half, dripped, in_chunks, optional, later, slow) = tokio::join!(
        upload(address, head("/v1/tasks", &whole), Vec::new()),
        upload(address, head("/v1/tasks", &whole), vec![task.as_bytes()[..2_000].to_vec()]),
        upload(address, head("/v1/tasks", &whole), drip(task.as_bytes())),
        upload(address, head("/v1/batches", chunked), chunks),
        upload(address, cancel, Vec::new()),
        upload(address, before, Vec::new()),
        upload(address, head("/v1/tasks", &format!("connection: close\r\n{whole}")), honest),
    );
    for (what, cut) in [
        ("stalled", stalled),
        ("half", half),
        ("dripped", dripped),
        ("in chunks", in_chunks),
        ("optional", optional),
        ("later", later),
    ] {
        let (took, text) = cut.context(what)?;
        let text = text.replacen("HTTP/1.1 200 OK", "", usize::from(what == "later"));
        let (_, answer) =
            text.split_once("HTTP/1.1 408 Request Timeout\r\n").with_context(|| format!("{what}: {text}"))?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no body")?;
        assert!(head.contains("connection: close"), "{what}: {head}");
        let error = serde_json::from_str::<Value>(body)?["error"].clone();
        assert_eq!(
            (&error["code"], &error["type"]),
            (&json!("request_timeout"), &json!("invalid_request_error")),
            "{what}"
        );
        assert!((PATIENCE..3 * PATIENCE).contains(&took), "{what}: cut after {took:?}");
    }
    let (took, text) = slow?;
    assert!(text.starts_with("HTTP/1.1 202 Accepted\r\n"), "{text}");
    assert!(took > 2 * PATIENCE, "an honest upload took {took:?}, and was not cut");
    Ok(())
}

/// Sends the head, then a piece every 100 ms, and never ends. The time until the other end closes, and what it said.
async fn upload(address: &str, head: String, pieces: Vec<Vec<u8>>) -> anyhow::Result<(Duration, String)> {
    let begun = Instant::now();
    let mut stream = TcpStream::connect(address).await?;
    let (mut from, mut to) = stream.split();
    let send = async {
        to.write_all(head.as_bytes()).await?;
        let mut beat = interval(Duration::from_millis(100));
        for piece in pieces {
            beat.tick().await;
            to.write_all(&piece).await?;
        }
        std::io::Result::Ok(())
    };
    let mut heard = Vec::new();
    let both = async { tokio::join!(send, from.read_to_end(&mut heard)) };
    // Whether all of it was taken, or the end was without a word after the answer, is not asked.
    timeout(10 * PATIENCE, both).await.context("not cut")?.0.ok();
    Ok((begun.elapsed(), String::from_utf8(heard)?))
}

/// Every time limit of a connection is far shorter than the task takes.
async fn what_is_waited_for_is_not_cut(mode: Mode) -> anyhow::Result<()> {
    let names = ["HEADER_TIMEOUT", "IDLE_TIMEOUT", "BODY_TIMEOUT", "WRITE_TIMEOUT"];
    let short = |app: harness::Builder, name: &&str| app.env(&format!("LONGHAUL_API__{name}"), "300ms");
    let app = names.iter().fold(App::with(mode), short).start().await?;
    let client = app.client().without_pool()?;
    let slow = json!({"endpoint": "/v1/chat/completions", "body": chat("slow", json!({"ttft_ms": 2_000}))});
    let id = client.submit(&slow).await?;
    let topic = format!("task:{id}");
    let socket = async {
        let mut watch = client.watch().await?;
        let acknowledged = watch.subscribe(&json!({"type": "subscribe", "topics": [topic]})).await?;
        anyhow::ensure!(acknowledged["type"] == "ack", "{acknowledged}");
        watch.until_end(&topic).await
    };
    let prefer = client.request(reqwest::Method::POST, "/v1/tasks").header("prefer", "wait=20").json(&slow);
    let poll = format!("/v1/tasks/{id}?wait=20");
    let (events, told, polled, waited) = tokio::join!(
        client.events(&id, None, usize::MAX),
        socket,
        client.get(&poll),
        harness::Client::send(prefer),
    );
    assert_eq!(events?.last().map(|event| event.name.clone()).as_deref(), Some("task.completed"));
    assert_eq!(told?.last().map(|event| event["type"].clone()), Some(json!("task.completed")));
    assert_eq!(polled?.expect(200)?["status"], "completed");
    assert_eq!(waited?.expect(200)?["status"], "completed");
    Ok(())
}
