//! The simulator over a real socket: what a platform, its tests and its users rely on.

#![expect(clippy::unwrap_used, reason = "a test's helpers may panic as its tests do")]

mod faults;
mod outages;
mod server;
mod wire;

use std::time::Duration;

use serde_json::{Value, json};
use simulator::Behaviour;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::server::{CHAT, Server, chat};

/// Joins chunks the way a client does: strings grow, list items meet by index, anything else is replaced.
fn fold(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::String(into), Value::String(from)) => into.push_str(from),
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                match into.get_mut(key) {
                    Some(known)
                        if !matches!(
                            key.as_str(),
                            "id" | "model" | "object" | "system_fingerprint" | "service_tier"
                        ) =>
                    {
                        fold(known, value);
                    }
                    _ => drop(into.insert(key.clone(), value.clone())),
                }
            }
        }
        (Value::Array(into), Value::Array(from)) => {
            for item in from {
                let index = item.get("index");
                match into.iter_mut().find(|known| index.is_some() && known.get("index") == index) {
                    Some(known) => fold(known, item),
                    None => into.push(item.clone()),
                }
            }
        }
        (into, from) if !from.is_null() => *into = from.clone(),
        _ => {}
    }
}

fn folded_chat(chunks: &[Value]) -> Value {
    let mut body = json!({});
    chunks.iter().for_each(|chunk| fold(&mut body, chunk));
    body["object"] = "chat.completion".into();
    for choice in body["choices"].as_array_mut().unwrap() {
        let mut message = choice.as_object_mut().unwrap().remove("delta").unwrap();
        for call in message.get_mut("tool_calls").and_then(Value::as_array_mut).into_iter().flatten() {
            call.as_object_mut().unwrap().remove("index");
        }
        choice["message"] = message;
    }
    body
}

#[tokio::test]
async fn a_folded_chat_stream_is_the_unstreamed_body() {
    let server = Server::start(Behaviour { jitter: 0.5, ..Behaviour::instant() }).await;
    let arguments = r#"{"from": "north", "miles": 12345678901234567890}"#;
    let calls = json!([{"name": "drive", "arguments": arguments}, {"name": "rest"}]);
    let mut many = chat(json!({"logprobs": true}));
    many["n"] = 3.into();
    let mut short = chat(json!({}));
    short["max_tokens"] = 5.into();
    let mut extra = chat(json!({"echo_fields": true}));
    extra["mileage"] = json!({"unit": "km", "of": [1, 2]});
    let asks = [chat(json!({})), chat(json!({"tool_calls": calls})), chat(json!({"text": ""})), many, short];
    for ask in asks {
        let whole = server.whole(CHAT, &ask).await;
        assert_eq!(folded_chat(&server.events(CHAT, &ask).await), whole, "{ask}");
        assert_eq!(server.whole(CHAT, &ask).await, whole);
    }
    assert_eq!(server.whole(CHAT, &extra).await["mileage"], extra["mileage"]);
    assert_eq!(server.events(CHAT, &extra).await[0]["mileage"], extra["mileage"]);
    let content = server.whole(CHAT, &chat(json!({}))).await["choices"][0]["message"]["content"].clone();
    assert!(content.as_str().unwrap().starts_with("[SIMULATED] "));
}

#[tokio::test]
async fn any_text_is_answered_exactly() {
    let server = Server::start(Behaviour::instant()).await;
    let text = "nul \u{0000} and \u{1f69a}\u{200d}\u{2028} \"quoted\"\\";
    let ask = chat(json!({"text": text}));
    let whole = server.whole(CHAT, &ask).await;
    assert_eq!(whole["choices"][0]["message"]["content"], text);
    assert_eq!(folded_chat(&server.events(CHAT, &ask).await), whole);
    let echo = chat(json!({"echo": true}));
    assert_eq!(server.whole(CHAT, &echo).await["choices"][0]["message"]["content"], echo.to_string());
}

#[tokio::test]
async fn the_ledger_knows_who_left() {
    let server = Server::start(Behaviour::instant()).await;
    // One leaves while the handler waits, one in the middle of the stream.
    for (task, sim) in [("early", json!({"ttft_ms": 60_000})), ("midway", json!({"itl_ms": 60_000}))] {
        let mut body = chat(sim);
        body["stream"] = true.into();
        let body = body.to_string();
        let mut socket = TcpStream::connect(&server.address).await.unwrap();
        let head = format!(
            "POST {CHAT} HTTP/1.1\r\nhost: sim\r\nlonghaul-task-id: {task}\r\nlonghaul-attempt: 2\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        socket.write_all(head.as_bytes()).await.unwrap();
        socket.write_all(body.as_bytes()).await.unwrap();
        if task == "midway" {
            assert!(socket.read(&mut [0; 64]).await.unwrap() > 0);
        } else {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        drop(socket);
        let entry = server.ended(task).await;
        assert_eq!((entry.how, entry.attempt, entry.streamed), ("client_closed", Some(2), true));
        assert_eq!(entry.tokens, u64::from(task == "midway"));
    }
    server.post(CHAT, &chat(json!({})), "patient").await.text().await.unwrap();
    let entry = server.ended("patient").await;
    assert_eq!((entry.how, entry.tokens, entry.streamed), ("finished", 32, false));
}

#[tokio::test]
async fn faults_happen_as_asked() {
    let server = Server::start(Behaviour::instant()).await;
    let failing = chat(json!({"fail_first": 2, "status": 429, "retry_after_s": 1.5}));
    let mut statuses = Vec::new();
    for _ in 0..3 {
        let response = server.post(CHAT, &failing, "failing").await;
        statuses.push((response.status().as_u16(), response.headers().contains_key("retry-after")));
        assert_eq!(response.headers()["longhaul-simulated"], "true");
    }
    assert_eq!(statuses, [(429, true), (429, true), (200, false)]);
    let hows: Vec<_> = server.simulator.ledger(Some("failing")).into_iter().map(|entry| entry.how).collect();
    assert_eq!(hows, ["fail_first", "fail_first", "finished"]);

    let mut cut = chat(json!({"cut_after": 4}));
    assert!(server.post(CHAT, &cut, "halved").await.bytes().await.is_err());
    assert_eq!(server.ended("halved").await.how, "cut_after");
    cut["stream"] = true.into();
    let mut response = server.post(CHAT, &cut, "cut").await;
    let mut seen = String::new();
    while let Ok(Some(bytes)) = response.chunk().await {
        seen.push_str(&String::from_utf8_lossy(&bytes));
    }
    assert_eq!((seen.matches("data: ").count(), seen.contains("[DONE]")), (4, false));
    assert_eq!(server.ended("cut").await.how, "cut_after");

    let raw = server.post(CHAT, &chat(json!({"raw": "<html>", "content_type": "text/html"})), "raw").await;
    assert_eq!(raw.headers()["content-type"], "text/html");
    assert_eq!(raw.text().await.unwrap(), "<html>");

    let malformed =
        server.client.post(format!("http://{}{CHAT}", server.address)).body("{").send().await.unwrap();
    assert_eq!(malformed.status(), 400);
    let unknown = server.post(CHAT, &json!({"model": "gpt", "messages": []}), "unknown").await;
    assert_eq!(unknown.status(), 404);
    assert!(unknown.text().await.unwrap().contains("model_not_found"));
    assert_eq!(server.ended("unknown").await.how, "rejected");
}

#[tokio::test]
async fn responses_come_in_order_and_end_with_the_unstreamed_one() {
    let server = Server::start(Behaviour::instant()).await;
    let path = "/v1/responses";
    let ask =
        json!({"model": "sim-chat", "input": "Where to?", "metadata": {"a": "b"}, "sim": {"tokens": 2}});
    let events = server.events(path, &ask).await;
    let kinds: Vec<_> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    let expected = "created queued in_progress output_item.added content_part.added output_text.delta \
        output_text.delta output_text.done content_part.done output_item.done completed";
    assert_eq!(kinds, expected.split(' ').map(|kind| format!("response.{kind}")).collect::<Vec<_>>());
    assert!(events.iter().enumerate().all(|(number, event)| event["sequence_number"] == number));
    let whole = server.whole(path, &ask).await;
    assert_eq!(events.last().unwrap()["response"], whole);
    assert_eq!((&whole["status"], &whole["metadata"]["a"]), (&json!("completed"), &json!("b")));

    let calls = json!({"model": "sim-chat", "input": "x", "sim": {"tool_calls": [{"name": "f", "arguments": "{}"}, {"name": "g", "arguments": "[1, 2]"}]}});
    let events = server.events(path, &calls).await;
    let pieces = |index: usize| {
        let deltas = events.iter().filter(|event| event["output_index"] == index);
        deltas.filter_map(|event| event["delta"].as_str()).collect::<String>()
    };
    assert_eq!((pieces(0), pieces(1)), ("{}".into(), "[1, 2]".into()));
    assert_eq!(events.last().unwrap()["response"], server.whole(path, &calls).await);
}

#[tokio::test]
async fn the_other_endpoints_have_their_shapes() {
    let server = Server::start(Behaviour::instant()).await;
    let prompts = json!({"model": "sim-chat", "prompt": ["a", "b"], "n": 2});
    let whole = server.whole("/v1/completions", &prompts).await;
    let chunks = server.events("/v1/completions", &prompts).await;
    for index in 0..4 {
        let choices = chunks.iter().flat_map(|chunk| chunk["choices"].as_array().unwrap());
        let mine = choices.filter(|choice| choice["index"] == index);
        let text: String = mine.filter_map(|choice| choice["text"].as_str()).collect();
        assert_eq!(whole["choices"][index]["text"], text);
    }

    let message = chat(json!({"tokens": 3}));
    let events = server.events("/v1/messages", &message).await;
    let text: String = events.iter().filter_map(|event| event["delta"]["text"].as_str()).collect();
    let whole = server.whole("/v1/messages", &message).await;
    assert_eq!((&whole["content"][0]["text"], &whole["stop_reason"]), (&json!(text), &json!("end_turn")));
    assert_eq!(
        (&events[0]["type"], &events.last().unwrap()["type"]),
        (&json!("message_start"), &json!("message_stop"))
    );

    let embed = json!({"model": "sim-embed", "input": ["a", "b"], "dimensions": 8});
    let vectors = server.whole("/v1/embeddings", &embed).await;
    assert_eq!(vectors["data"][1]["embedding"].as_array().unwrap().len(), 8);
    let packed = json!({"model": "sim-embed", "input": "a", "dimensions": 8, "encoding_format": "base64"});
    assert_eq!(
        server.whole("/v1/embeddings", &packed).await["data"][0]["embedding"].as_str().unwrap().len(),
        44
    );

    let get = async |path: &str| {
        let response = server.client.get(format!("http://{}{path}", server.address)).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };
    assert!(get("/v1/models").await.1.contains("longhaul-simulator"));
    assert_eq!(get("/v1/models/gpt").await.0, 404);
    assert_eq!(get("/_sim/requests/whole/1").await.1, packed.to_string());
    assert!(get("/_sim/ledger?task=whole&limit=1").await.1.contains("\"total\":4"));
}
