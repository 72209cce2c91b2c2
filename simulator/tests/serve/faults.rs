//! Faults of what is said: failures with their headers, streams without an end, answers no parser likes.

use serde_json::{Value, json};
use simulator::Behaviour;

use crate::server::{CHAT, Server, anywhere, chat, streamed};

const MESSAGES: &str = "/v1/messages";
const RESPONSES: &str = "/v1/responses";
const TEXTS: [&str; 4] = [CHAT, "/v1/completions", RESPONSES, MESSAGES];

/// The whole text of a stream, which must come to a clean end.
async fn stream(server: &Server, path: &str, sim: Value) -> String {
    server.post(path, &anywhere(sim, true), "stream").await.text().await.unwrap()
}

#[tokio::test]
async fn failures_bring_their_code_and_their_headers() {
    let server = Server::start(Behaviour::instant()).await;
    let broke = chat(json!({"status": 429, "error_code": "insufficient_quota"}));
    let error = server.whole(CHAT, &broke).await;
    assert_eq!(error["error"]["code"], "insufficient_quota");
    assert_eq!(server.whole(MESSAGES, &broke).await["error"]["type"], "insufficient_quota");
    assert_eq!(server.how("whole").await, "status");

    for (name, value) in [
        ("retry-after", "2"),
        ("retry-after", "Fri, 31 Dec 1999 23:59:59 GMT"),
        ("retry-after-ms", "1500"),
        ("retry-after", "0"),
        ("retry-after", "-1"),
        ("retry-after", "1000000000"),
        ("x-ratelimit-reset-requests", "1s"),
    ] {
        for status in [429, 503, 529] {
            let mut sim = json!({"status": status});
            sim["headers"][name] = value.into();
            let response = server.post(CHAT, &chat(sim), "told").await;
            assert_eq!(
                (response.status().as_u16(), &response.headers()[name]),
                (status, &value.parse().unwrap())
            );
        }
    }
    let plain = server.post(CHAT, &chat(json!({"status": 429})), "untold").await;
    assert!(!plain.headers().contains_key("retry-after"));
    let dated = server.post(CHAT, &chat(json!({"status": 503, "retry_after_date_s": 90})), "dated").await;
    let date = dated.headers()["retry-after"].to_str().unwrap().to_owned();
    assert!(date.len() == 29 && date.ends_with(" GMT"), "{date}");

    let good = server.post(CHAT, &chat(json!({"headers": {"x-request-id": "7"}})), "good").await;
    assert_eq!((good.status().as_u16(), &good.headers()["x-request-id"]), (200, &"7".parse().unwrap()));
    let bad = server.post(CHAT, &chat(json!({"headers": {"content-length": "7"}})), "bad").await;
    assert_eq!(bad.status(), 400);
}

#[tokio::test]
async fn streams_end_without_their_end() {
    let server = Server::start(Behaviour::instant()).await;
    let finishes = ["\"finish_reason\":\"stop\"", "\"stop_reason\":\"end_turn\"", "output_item.done"];
    let ends = ["[DONE]", "event: message_stop", "event: response.completed"];
    for path in TEXTS {
        let whole = stream(&server, path, json!({"tokens": 3})).await;
        let has = |text: &str, marks: [&str; 3]| marks.iter().any(|mark| text.contains(mark));
        assert!(has(&whole, finishes) && has(&whole, ends), "{path}: {whole}");

        let unfinished = stream(&server, path, json!({"tokens": 3, "omit_finish": true})).await;
        assert!(whole.starts_with(&unfinished) && unfinished.ends_with("\n\n"), "{path}");
        assert!(!has(&unfinished, finishes) && !has(&unfinished, ends), "{path}: {unfinished}");
        assert_eq!((server.how("stream").await, server.ended("stream").await.tokens), ("omit_finish", 3));

        let undone = stream(&server, path, json!({"tokens": 3, "omit_done": true})).await;
        assert!(whole.starts_with(&undone) && has(&undone, finishes), "{path}: {undone}");
        assert!(!has(&undone, ends), "{path}: {undone}");
        assert_eq!(server.how("stream").await, "omit_done");
    }
}

#[tokio::test]
async fn an_error_comes_in_place_of_the_rest() {
    let server = Server::start(Behaviour::instant()).await;
    for path in TEXTS {
        for after in [0, 2] {
            let sim = json!({"tokens": 4, "error_after": after, "error_code": "boom"});
            let text = stream(&server, path, sim.clone()).await;
            let last = text.trim_end().rsplit("\n\n").next().unwrap();
            let data: Value = serde_json::from_str(last.split_once("data: ").unwrap().1).unwrap();
            match path {
                MESSAGES => assert_eq!(data["error"]["type"], "boom"),
                RESPONSES => assert_eq!(data["code"], "boom"),
                _ => assert_eq!(
                    (&data["error"]["code"], &data["error"]["type"]),
                    (&json!("boom"), &json!("server_error"))
                ),
            }
            let named = [MESSAGES, RESPONSES].contains(&path);
            assert_eq!(last.starts_with("event: error\n"), named, "{path}: {last}");
            let entry = server.ended("stream").await;
            assert_eq!((entry.how, entry.tokens), ("error_after", after), "{path}");
            let whole = server.whole(path, &anywhere(sim, false)).await;
            assert_eq!((whole["error"].is_object(), server.how("whole").await), (true, "error_after"));
        }
    }
    let plain = server.whole(CHAT, &chat(json!({"error_after": 0}))).await;
    assert_eq!((&plain["error"]["code"], &plain["error"]["type"]), (&json!(null), &json!("server_error")));
    stream(&server, CHAT, json!({"tokens": 2, "error_after": 9})).await;
    assert_eq!(server.how("stream").await, "finished");
}

#[tokio::test]
async fn no_parser_takes_a_lone_surrogate() {
    let server = Server::start(Behaviour::instant()).await;
    for path in TEXTS {
        for stream in [false, true] {
            let body = anywhere(json!({"lone_surrogate": true, "text": "a\u{0}b"}), stream);
            let text = server.post(path, &body, "odd").await.text().await.unwrap();
            assert!(text.contains(r"a\u0000b\ud800"), "{path}: {text}");
            let json = text.split("data: ").map(str::trim).find(|part| part.contains(r"\ud800")).unwrap();
            assert!(serde_json::from_str::<Value>(json.split("\n\n").next().unwrap()).is_err());
            assert_eq!(server.how("odd").await, "lone_surrogate");
        }
    }
    let calls = chat(json!({"lone_surrogate": true, "tool_calls": [{"name": "f", "arguments": "{}"}]}));
    assert!(server.post(CHAT, &calls, "calls").await.text().await.unwrap().contains(r"{}\ud800"));
}

#[tokio::test]
async fn usage_is_absent_or_absurd() {
    let server = Server::start(Behaviour::instant()).await;
    for path in TEXTS.into_iter().chain(["/v1/embeddings"]) {
        let ask = |usage: &str| anywhere(json!({"usage": usage}), false);
        let whole = server.whole(path, &ask("absent")).await;
        assert!(whole["object"] != "error" && whole.get("usage").is_none(), "{path}: {whole}");
        assert_eq!(server.how("whole").await, "usage");
        let absurd = server.whole(path, &ask("absurd")).await["usage"].to_string();
        assert!(
            absurd.contains("-1") && absurd.contains("e+300") && absurd.contains("many"),
            "{path}: {absurd}"
        );
        if path != "/v1/embeddings" {
            assert!(!stream(&server, path, json!({"usage": "absent"})).await.contains("usage"), "{path}");
            assert!(stream(&server, path, json!({"usage": "absurd"})).await.contains("many"), "{path}");
        }
    }
    let absurd = server.whole(CHAT, &chat(json!({"usage": "absurd"}))).await;
    assert_eq!(
        absurd["usage"],
        json!({"prompt_tokens": -1, "completion_tokens": 1e300, "total_tokens": "many"})
    );
}

#[tokio::test]
async fn raw_bytes_answer_a_stream_too() {
    let server = Server::start(Behaviour::instant()).await;
    let response = server.post(CHAT, &streamed(json!({"raw": "data: {oops\n\n"})), "raw").await;
    assert_eq!(response.headers()["content-type"], "text/event-stream; charset=utf-8");
    assert_eq!(response.text().await.unwrap(), "data: {oops\n\n");
    let html = json!({"raw": "<html>", "content_type": "text/html", "status": 502});
    let response = server.post(CHAT, &streamed(html), "html").await;
    assert_eq!(
        (response.status().as_u16(), &response.headers()["content-type"]),
        (502, &"text/html".parse().unwrap())
    );
    assert_eq!(server.how("html").await, "raw");
}

#[tokio::test]
async fn the_first_executions_suffer_whatever_was_named() {
    let server = Server::start(Behaviour::instant()).await;
    for (task, mut sim, how) in [
        ("reset", json!({"reset": true}), "reset"),
        ("cut", json!({"cut_bytes": 9}), "cut_bytes"),
        ("raw", json!({"raw": "<html>"}), "raw"),
        ("usage", json!({"usage": "absent"}), "usage"),
        ("status", json!({"status": 429, "headers": {"retry-after": "0"}}), "fail_first"),
        ("bare", json!({}), "fail_first"),
    ] {
        sim["fail_first"] = 2.into();
        for _ in 0..3 {
            let url = format!("http://{}{CHAT}", server.address);
            let request = server.client.post(url).body(chat(sim.clone()).to_string());
            if let Ok(response) = request.header("longhaul-task-id", task).send().await {
                drop(response.bytes().await);
            }
            server.ended(task).await;
        }
        let hows: Vec<_> = server.simulator.ledger(Some(task)).iter().map(|entry| entry.how).collect();
        assert_eq!(hows, [how, how, "finished"]);
    }
}
