//! Faults of the wire, seen byte by byte: resets, silence, drops, cuts and pieces.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use simulator::Behaviour;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::server::{CHAT, Server, anywhere, chat, streamed};

/// Longer than any of these tests.
const LONG_MS: u64 = 60_000;

/// Reads a chunked answer as far as it comes: the head, the chunks, and whether the last one came.
async fn chunks(mut socket: TcpStream) -> (String, Vec<Vec<u8>>, bool) {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    while !bytes.ends_with(b"\r\n0\r\n\r\n") {
        match socket.read(&mut buffer).await {
            Ok(size @ 1..) => bytes.extend_from_slice(&buffer[..size]),
            _ => break,
        }
    }
    let head = bytes.windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 4;
    let mut rest = bytes.split_off(head);
    let mut chunks = Vec::new();
    while let Some(line) = rest.windows(2).position(|end| end == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..line]).unwrap(), 16).unwrap();
        if size == 0 {
            return (String::from_utf8(bytes).unwrap(), chunks, true);
        }
        chunks.push(rest[line + 2..line + 2 + size].to_vec());
        rest = rest.split_off(line + 4 + size);
    }
    (String::from_utf8(bytes).unwrap(), chunks, false)
}

/// What has arrived once nothing more does.
async fn until_silence(socket: &mut TcpStream) -> String {
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    while let Ok(read) = tokio::time::timeout(Duration::from_millis(100), socket.read(&mut buffer)).await {
        match read.unwrap() {
            0 => break,
            size => bytes.extend_from_slice(&buffer[..size]),
        }
    }
    String::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn a_reset_is_one() {
    let server = Server::start(Behaviour::instant()).await;
    for (task, body) in [("a", chat(json!({"reset": true}))), ("b", streamed(json!({"reset": true})))] {
        let mut socket = server.call(CHAT, &body, task).await;
        let error = socket.read(&mut [0; 1]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        assert_eq!((server.how(task).await, server.ended(task).await.bytes), ("reset", 0));
    }
    assert_eq!((server.simulator.calls(), server.simulator.running()), (2, 0));
}

#[tokio::test]
async fn silence_begins_where_it_was_asked_for_and_a_leaver_is_noticed_at_once() {
    let server = Server::start(Behaviour::instant()).await;
    let hang = |at: &str| json!({"hang_ms": LONG_MS, "hang_at": at});
    let failure = |at: &str| json!({"hang_ms": LONG_MS, "hang_at": at, "status": 503});
    let default = || json!({"hang_ms": LONG_MS});
    for (task, body, head, events) in [
        ("head", chat(hang("head")), "", 0),
        ("head streamed", streamed(hang("head")), "", 0),
        ("body", chat(hang("body")), "HTTP/1.1 200", 0),
        ("body streamed", streamed(hang("body")), "HTTP/1.1 200", 0),
        ("token streamed", streamed(hang("token")), "HTTP/1.1 200", 2),
        ("default", chat(default()), "", 0),
        ("default streamed", streamed(default()), "HTTP/1.1 200", 2),
        ("failure", chat(failure("head")), "", 0),
        ("failure's body", chat(failure("body")), "HTTP/1.1 503", 0),
        ("raw", chat(json!({"hang_ms": LONG_MS, "hang_at": "body", "raw": "x"})), "HTTP/1.1 200", 0),
        ("reset", chat(json!({"hang_ms": LONG_MS, "reset": true})), "", 0),
        ("drip", chat(json!({"drip_ms": LONG_MS})), "HTTP/1.1 200", 0),
        ("drip streamed", streamed(json!({"drip_ms": LONG_MS})), "HTTP/1.1 200", 0),
    ] {
        let mut socket = server.call(CHAT, &body, task).await;
        let seen = until_silence(&mut socket).await;
        assert!(seen.starts_with(head) && seen.is_empty() == head.is_empty(), "{task}: {seen}");
        assert_eq!(seen.matches("data: ").count(), events, "{task}: {seen}");
        let left = Instant::now();
        drop(socket);
        let entry = server.ended(task).await;
        assert!(left.elapsed() < Duration::from_secs(1), "{task}");
        assert_eq!(entry.how, "client_closed", "{task}");
        match events {
            0 => assert_eq!(entry.bytes, u64::from(task.starts_with("drip")), "{task}"),
            _ => assert_eq!(entry.tokens, 1, "{task}"),
        }
    }
}

#[tokio::test]
async fn a_drip_is_a_byte_at_a_time() {
    let server = Server::start(Behaviour::instant()).await;
    let begun = Instant::now();
    let socket = server.call(CHAT, &chat(json!({"raw": "drops", "drip_ms": 10})), "raw").await;
    let (_, drops, ended) = chunks(socket).await;
    assert!(begun.elapsed() >= Duration::from_millis(40));
    assert_eq!((drops.len(), drops.concat().as_slice(), ended), (5, "drops".as_bytes(), true));
    assert_eq!(server.how("raw").await, "raw");
    server.post(CHAT, &streamed(json!({"drip_ms": 0, "tokens": 1})), "drip").await.bytes().await.unwrap();
    assert_eq!(server.how("drip").await, "drip_ms");
}

#[tokio::test]
async fn connections_are_cut_after_so_many_bytes() {
    let server = Server::start(Behaviour::instant()).await;
    for size in [0, 1, 300] {
        for (kind, stream) in [("whole", false), ("stream", true)] {
            let task = format!("{kind} {size}");
            let body = anywhere(json!({"cut_bytes": size}), stream);
            let (head, parts, ended) = chunks(server.call(CHAT, &body, &task).await).await;
            assert!(head.starts_with("HTTP/1.1 200"));
            assert_eq!((parts.concat().len(), ended), (size, false), "{task}");
            let entry = server.ended(&task).await;
            assert_eq!((entry.how, entry.bytes), ("cut_bytes", size as u64), "{task}");
        }
    }
    server.post(CHAT, &chat(json!({"cut_bytes": 1_000_000})), "short").await.bytes().await.unwrap();
    assert_eq!(server.how("short").await, "finished");
    let both = json!({"status": 500, "cut_bytes": 3});
    let (_, parts, ended) = chunks(server.call(CHAT, &chat(both), "failure").await).await;
    assert_eq!((parts.concat().len(), ended, server.how("failure").await), (3, false, "cut_bytes"));
}

#[tokio::test]
async fn every_byte_or_half_event_is_a_write_of_its_own() {
    let server = Server::start(Behaviour::instant()).await;
    let text = "caf\u{e9} \u{1f69a} \u{0000}";
    for stream in [false, true] {
        let ask = |split: Value| {
            let mut sim = json!({"text": text});
            sim["split"] = split;
            anywhere(sim, stream)
        };
        let whole = server.post(CHAT, &ask(Value::Null), "whole").await.bytes().await.unwrap();
        let task = format!("bytes {stream}");
        let (_, parts, ended) = chunks(server.call(CHAT, &ask("bytes".into()), &task).await).await;
        assert!(parts.iter().all(|part| part.len() == 1) && ended);
        assert_eq!(parts.concat(), whole);
        assert_eq!(server.how(&task).await, "split");

        let (_, parts, ended) = chunks(server.call(CHAT, &ask("frames".into()), "frames").await).await;
        let events = if stream { whole.windows(2).filter(|end| end == b"\n\n").count() } else { 1 };
        assert_eq!((parts.len(), ended), (2 * events, true));
        assert!(parts.chunks(2).all(|halves| !halves[0].ends_with(b"\n")));
        assert_eq!(parts.concat(), whole);
    }
}

#[tokio::test]
async fn a_giant_is_made_while_it_is_sent() {
    let server = Server::start(Behaviour::instant()).await;
    let size = 3_000_000;
    let giant = server.post(CHAT, &chat(json!({"huge_bytes": size})), "giant").await.bytes().await.unwrap();
    assert_eq!(giant.len(), size);
    let parsed: Value = serde_json::from_slice(&giant).unwrap();
    assert!(parsed["choices"][0]["message"]["content"].as_str().unwrap().starts_with("[SIMULATED]"));
    assert_eq!(server.ended("giant").await.bytes, size as u64);
    assert_eq!(server.how("giant").await, "huge_bytes");

    let events = server.events(CHAT, &chat(json!({"huge_bytes": size}))).await;
    assert_eq!(events[0].to_string().len() + "data: \n\n".len(), size);
    assert_eq!(events[1]["choices"][0]["delta"]["content"], "[SIMULATED]");

    let mut socket = server.call(CHAT, &chat(json!({"huge_bytes": 60_000_000_000_u64})), "left").await;
    assert!(socket.read(&mut [0; 1024]).await.unwrap() > 0);
    drop(socket);
    let entry = server.ended("left").await;
    assert!(entry.how == "client_closed" && entry.bytes < 1_000_000_000, "{entry:?}");
}
