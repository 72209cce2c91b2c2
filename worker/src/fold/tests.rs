//! Folded bodies against what unstreamed calls return.

use super::*;

fn fold(endpoint: &str, chunks: &[&str]) -> Result<String, Unfinished> {
    let mut fold = Fold::of(endpoint, 1).unwrap();
    for chunk in chunks {
        assert!(!matches!(fold.push(chunk).unwrap(), Progress::Failed(_)), "{chunk}");
    }
    fold.finish()
}

#[test]
fn a_chat_keeps_order_escapes_and_big_numbers() {
    let body = fold(
        "/v1/chat/completions",
        &[
            r#"{"id":"c1","object":"chat.completion.chunk","created":1,"model":"m","big":12345678901234567890123,"choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}],"usage":null,"obfuscation":"xx"}"#,
            r#"{"id":"c1","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"a\u0000\ud83d","reasoning_content":"h"},"logprobs":{"content":[{"token":"a","logprob":-0.10}],"refusal":null}}]}"#,
            r#"{"id":"c1","choices":[{"index":0,"delta":{"content":"\ude00b","reasoning_content":"m"},"logprobs":{"content":[{"token":"b","logprob":-1e-9}],"refusal":null}}]}"#,
            r#"{"id":"c1","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#,
            r#"{"id":"c1","choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}"#,
        ],
    );
    assert_eq!(
        body.unwrap(),
        r#"{"id":"c1","object":"chat.completion","created":1,"model":"m","big":12345678901234567890123,"choices":[{"index":0,"message":{"role":"assistant","content":"a\u0000\ud83d\ude00b","reasoning_content":"hm"},"logprobs":{"content":[{"token":"a","logprob":-0.10},{"token":"b","logprob":-1e-9}],"refusal":null},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":2}}"#
    );
}

#[test]
fn tool_calls_are_merged_by_index() {
    let body = fold(
        "/v1/chat/completions",
        &[
            r#"{"choices":[{"index":0,"delta":{"role":"assistant","content":"","tool_calls":[{"index":1,"id":"b","type":"function","function":{"name":"g","arguments":""}}]}}]}"#,
            r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"a","type":"function","function":{"name":"f","arguments":"{\"x\""}}]}}]}"#,
            r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"a","type":"function","function":{"name":"f","arguments":":1}"}},{"index":1,"function":{"arguments":"{}"}}]},"finish_reason":"tool_calls"}]}"#,
        ],
    );
    assert_eq!(
        body.unwrap(),
        r#"{"choices":[{"index":0,"message":{"role":"assistant","content":null,"tool_calls":[{"id":"a","type":"function","function":{"name":"f","arguments":"{\"x\":1}"}},{"id":"b","type":"function","function":{"name":"g","arguments":"{}"}}]},"finish_reason":"tool_calls"}],"object":"chat.completion"}"#
    );
}

#[test]
fn a_tool_call_in_one_chunk_has_no_index_either() {
    let body = fold(
        "/v1/chat/completions",
        &[
            r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":"{}"}}]},"finish_reason":"tool_calls"}]}"#,
        ],
    );
    assert!(body.unwrap().contains(r#""tool_calls":[{"id":"a","function":{"name":"f","arguments":"{}"}}]"#));
}

#[test]
fn completions_join_their_text() {
    let body = fold(
        "/v1/completions",
        &[
            r#"{"id":"x","object":"text_completion","choices":[{"index":1,"text":"B","logprobs":{"tokens":["B"]},"finish_reason":null}]}"#,
            r#"{"id":"x","choices":[{"index":0,"text":"A","logprobs":null,"finish_reason":"stop"}]}"#,
            r#"{"id":"x","choices":[{"index":1,"text":"C","logprobs":{"tokens":["C"]},"finish_reason":"length"}]}"#,
        ],
    );
    assert_eq!(
        body.unwrap(),
        r#"{"id":"x","object":"text_completion","choices":[{"index":0,"text":"A","logprobs":null,"finish_reason":"stop"},{"index":1,"text":"BC","logprobs":{"tokens":["B","C"]},"finish_reason":"length"}]}"#
    );
}

#[test]
fn messages_collect_blocks_and_figures() {
    let body = fold(
        "/v1/messages",
        &[
            r#"{"type":"message_start","message":{"id":"m","type":"message","role":"assistant","content":[],"stop_reason":null,"usage":{"input_tokens":5,"output_tokens":1}}}"#,
            r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#,
            r#"{"type":"ping"}"#,
            r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"he"}}"#,
            r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"llo"}}"#,
            r#"{"type":"content_block_stop","index":0}"#,
            r#"{"type":"content_block_start","index":1,"content_block":{"type":"tool_use","id":"t","name":"f","input":{}}}"#,
            r#"{"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":"{\"n\": 123456789"}}"#,
            r#"{"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":"01234567890}"}}"#,
            r#"{"type":"message_delta","delta":{"stop_reason":"tool_use","stop_sequence":null},"usage":{"output_tokens":9}}"#,
            r#"{"type":"message_stop"}"#,
        ],
    );
    assert_eq!(
        body.unwrap(),
        r#"{"id":"m","type":"message","role":"assistant","content":[{"type":"text","text":"hello"},{"type":"tool_use","id":"t","name":"f","input":{"n": 12345678901234567890}}],"stop_reason":"tool_use","usage":{"input_tokens":5,"output_tokens":9},"stop_sequence":null}"#
    );
}

#[test]
fn responses_are_their_terminal_event() {
    let body = fold(
        "/v1/responses",
        &[
            r#"{"type":"response.created","response":{"id":"r"}}"#,
            r#"{"type":"response.completed","response":{"id":"r", "output":[]}}"#,
        ],
    );
    assert_eq!(body.unwrap(), r#"{"id":"r", "output":[]}"#);
}

#[test]
fn what_did_not_end_is_no_answer() {
    let unfinished = r#"{"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}]}"#;
    assert_eq!(fold("/v1/chat/completions", &[unfinished]), Err(Unfinished::Truncated));
    let aborted = r#"{"choices":[{"index":0,"delta":{},"finish_reason":"abort"}]}"#;
    assert_eq!(fold("/v1/chat/completions", &[aborted]), Err(Unfinished::Aborted));
    assert_eq!(fold("/v1/chat/completions", &[]), Err(Unfinished::Truncated));
    assert_eq!(
        fold("/v1/messages", &[r#"{"type":"message_start","message":{"content":[]}}"#]),
        Err(Unfinished::Truncated)
    );
    assert_eq!(fold("/v1/responses", &[r#"{"type":"response.created"}"#]), Err(Unfinished::Truncated));
}

#[test]
fn errors_inside_a_stream_are_seen() {
    for (endpoint, error) in [
        ("/v1/chat/completions", r#"{"error":{"code":500}}"#),
        ("/v1/chat/completions", r#"{"error":"busy","choices":[]}"#),
        ("/v1/chat/completions", r#"{"choices":[{"error":{"code":502},"finish_reason":"error"}]}"#),
        ("/v1/responses", r#"{"error":{"code":500}}"#),
        ("/v1/responses", r#"{"type":"error","code":"server_error","message":"m"}"#),
        ("/v1/messages", r#"{"type":"error","error":{"type":"overloaded_error"}}"#),
        ("/v1/messages", r#"{"error":"busy"}"#),
    ] {
        let progress = Fold::of(endpoint, 1).unwrap().push(error);
        assert!(matches!(progress, Ok(Progress::Failed(_))), "{error}: {progress:?}");
    }
}

#[test]
fn depth_is_the_upstreams_problem() {
    let deep = format!("{}{}", r#"{"a":"#.repeat(20_000), "1") + &"}".repeat(20_000);
    let chunk = format!(r#"{{"choices":[{{"index":0,"delta":{{"x":{deep}}},"finish_reason":"stop"}}]}}"#);
    assert!(fold("/v1/chat/completions", &[&chunk, &chunk]).is_ok());
}

#[test]
fn what_has_come_so_far_has_the_form_of_the_whole() {
    let mut chat = Fold::of("/v1/chat/completions", 1).unwrap();
    assert_eq!(chat.so_far(), None);
    chat.push(r#"{"id":"c","choices":[{"index":0,"delta":{"role":"assistant","content":"a"}}]}"#).unwrap();
    chat.push(r#"{"id":"c","choices":[{"index":0,"delta":{"content":"b"}}]}"#).unwrap();
    let so_far = r#"{"id":"c","choices":[{"index":0,"message":{"role":"assistant","content":"ab"}}],"object":"chat.completion"}"#;
    assert_eq!(chat.so_far().as_deref(), Some(so_far));
    assert_eq!(chat.finish(), Err(Unfinished::Truncated), "it is not whole for all that");

    let mut message = Fold::of("/v1/messages", 1).unwrap();
    assert_eq!(message.so_far(), None);
    for event in [
        r#"{"type":"message_start","message":{"id":"m","content":[]}}"#,
        r#"{"type":"content_block_start","index":0,"content_block":{"type":"tool_use","id":"t","input":{}}}"#,
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"input_json_delta","partial_json":"{\"city\":"}}"#,
    ] {
        message.push(event).unwrap();
    }
    let so_far: serde_json::Value = serde_json::from_str(&message.so_far().unwrap()).unwrap();
    assert_eq!(so_far["content"][0]["input"], serde_json::json!({}), "half of an input is none");
    assert_eq!(message.finish(), Err(Unfinished::Truncated));
}

fn message(chunks: &[&str]) -> serde_json::Value {
    let chunks: Vec<String> = chunks
        .iter()
        .map(|delta| format!(r#"{{"choices":[{{"index":0,"delta":{delta}}}]}}"#))
        .chain([r#"{"choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}"#.to_owned()])
        .collect();
    let chunks: Vec<&str> = chunks.iter().map(String::as_str).collect();
    let body = fold("/v1/chat/completions", &chunks).unwrap();
    serde_json::from_str::<serde_json::Value>(&body).unwrap()["choices"][0]["message"].take()
}

#[test]
fn calls_are_told_apart_by_whatever_names_them() {
    let named = |message: serde_json::Value| -> Vec<(String, String)> {
        let calls = message["tool_calls"].as_array().unwrap().iter();
        let text = |value: &serde_json::Value| value.as_str().unwrap_or("").to_owned();
        calls.map(|call| (text(&call["function"]["name"]), text(&call["function"]["arguments"]))).collect()
    };
    let pair =
        |a: (&str, &str), b: (&str, &str)| [a, b].map(|(name, args)| (name.to_owned(), args.to_owned()));
    // All of index 0, whole, with ids; one of the same name.
    let got = named(message(&[
        r#"{"tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":"{\"x\":1}"}}]}"#,
        r#"{"tool_calls":[{"index":0,"id":"b","function":{"name":"f","arguments":"{\"x\":1}"}}]}"#,
    ]));
    assert_eq!(got, pair(("f", r#"{"x":1}"#), ("f", r#"{"x":1}"#)));
    // Whole, without an id or an index; two in one chunk.
    let got = named(message(&[
        r#"{"tool_calls":[{"function":{"name":"f","arguments":"{}"}},{"id":"","function":{"name":"f","arguments":"{}"}}]}"#,
    ]));
    assert_eq!(got, pair(("f", "{}"), ("f", "{}")));
    // A new id with every piece of the same call.
    let got = named(message(&[
        r#"{"tool_calls":[{"index":0,"id":"a1","function":{"name":"f","arguments":"{\"x\""}}]}"#,
        r#"{"tool_calls":[{"index":0,"id":"a2","function":{"name":"f","arguments":":1}"}}]}"#,
        r#"{"tool_calls":[{"index":1,"id":"b1","function":{"name":"f","arguments":""}}]}"#,
        r#"{"tool_calls":[{"index":1,"id":"b2","function":{"arguments":"{}"}}]}"#,
    ]));
    assert_eq!(got, pair(("f", r#"{"x":1}"#), ("f", "{}")));
    // Pieces of two calls, neither with an index, by their ids.
    let got = named(message(&[
        r#"{"tool_calls":[{"id":"a","function":{"name":"f","arguments":""}},{"id":"b","function":{"name":"g","arguments":""}}]}"#,
        r#"{"tool_calls":[{"id":"a","function":{"arguments":"{}"}},{"id":"b","function":{"arguments":"{"}}]}"#,
        r#"{"tool_calls":[{"function":{"arguments":"}"}}]}"#,
    ]));
    assert_eq!(got, pair(("f", "{}"), ("g", "{}")));
    // An index in quotes.
    let got = named(message(&[
        r#"{"tool_calls":[{"index":"1","id":"b","function":{"name":"g","arguments":"{}"}}]}"#,
        r#"{"tool_calls":[{"index":"0","id":"a","function":{"name":"f","arguments":"{}"}}]}"#,
    ]));
    assert_eq!(got, pair(("f", "{}"), ("g", "{}")));
}

#[test]
fn what_is_repeated_is_not_joined_and_what_is_blank_replaces_nothing() {
    let got = message(&[
        r#"{"role":"assistant","content":"a","provider":"p","audio":{"id":"x","data":"AA","transcript":"h"}}"#,
        r#"{"role":"assistant","content":"a","provider":"p","audio":{"id":"x","data":"BB","transcript":"i","expires_at":7}}"#,
        r#"{"role":"","content":"","provider":"","audio":null,"images":[{"url":"u"}]}"#,
        r#"{"images":[{"url":"v"}],"annotations":[]}"#,
    ]);
    assert_eq!(
        got,
        serde_json::json!({"role": "assistant", "content": "aa", "provider": "p", "images": [{"url": "u"}, {"url": "v"}],
            "annotations": [], "audio": {"id": "x", "data": "AABB", "transcript": "hi", "expires_at": 7}})
    );
}

#[test]
fn answers_of_too_many_members_are_none() {
    let chunk = |delta: String| format!(r#"{{"choices":[{{"delta":{delta}}}]}}"#);
    let joined =
        |some: std::ops::Range<u32>, one: &dyn Fn(u32) -> String| some.map(one).collect::<Vec<_>>().join(",");
    let members = |n: u32| joined(300 * n..300 * (n + 1), &|n| format!(r#""m{n}":0"#));
    let calls = |n: u32| joined(3_000 * n..3_000 * (n + 1), &|n| format!(r#"{{"index":{n}}}"#));
    for chunks in [
        [chunk(format!("{{{}}}", members(0))), chunk(format!("{{{}}}", members(1)))],
        [0, 1].map(|n| chunk(format!(r#"{{"tool_calls":[{}]}}"#, calls(n)))),
        [0, 1].map(|n| chunk(format!(r#"{{"reasoning_details":[{}]}}"#, calls(n)))),
    ] {
        let mut fold = Fold::of("/v1/chat/completions", 1).unwrap();
        assert!(fold.push(&chunks[0]).is_ok());
        assert!(matches!(fold.push(&chunks[1]), Err(Malformed::TooManyMembers(_))), "{}", &chunks[1][..60]);
    }
    // Elements that do not grow cost no more than their text.
    let mut fold = Fold::of("/v1/chat/completions", 1).unwrap();
    let many = chunk(format!(r#"{{"images":[{}]}}"#, joined(0..100_000, &|n| n.to_string())));
    assert!((0..4).all(|_| fold.push(&many).is_ok()));
}

#[test]
fn a_tools_input_may_be_cut_off_in_an_orderly_way() {
    let events = |reason: &str| {
        [
            r#"{"type":"message_start","message":{"id":"m","type":"message","role":"assistant","content":[],"stop_reason":null}}"#.to_owned(),
            r#"{"type":"content_block_start","index":0,"content_block":{"type":"tool_use","id":"t","name":"f","input":{}}}"#.to_owned(),
            r#"{"type":"content_block_delta","index":0,"delta":{"type":"input_json_delta","partial_json":"{\"a\": [1, \"x\"], \"b\": \"\\u00"}}"#.to_owned(),
            format!(r#"{{"type":"message_delta","delta":{{"stop_reason":"{reason}"}}}}"#),
            r#"{"type":"message_stop"}"#.to_owned(),
        ]
    };
    let fold = |reason: &str| {
        let events = events(reason);
        fold("/v1/messages", &events.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let body: serde_json::Value = serde_json::from_str(&fold("max_tokens").unwrap()).unwrap();
    assert_eq!(body["content"][0]["input"], serde_json::json!({"a": [1, "x"]}));
    assert_eq!(fold("tool_use"), Err(Unfinished::Truncated));
}
