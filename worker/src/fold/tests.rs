//! Folded bodies against what unstreamed calls return.

use super::*;

fn fold(endpoint: &str, chunks: &[&str]) -> Result<String, Unfinished> {
    let mut fold = Fold::of(endpoint).unwrap();
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
    for endpoint in ["/v1/chat/completions", "/v1/responses"] {
        let progress = Fold::of(endpoint).unwrap().push(r#"{"error":{"code":500}}"#);
        assert_eq!(progress, Ok(Progress::Failed(r#"{"code":500}"#.into())), "{endpoint}");
    }
    let progress =
        Fold::of("/v1/messages").unwrap().push(r#"{"type":"error","error":{"type":"overloaded_error"}}"#);
    assert_eq!(progress, Ok(Progress::Failed(r#"{"type":"overloaded_error"}"#.into())));
}

#[test]
fn depth_is_the_upstreams_problem() {
    let deep = format!("{}{}", r#"{"a":"#.repeat(20_000), "1") + &"}".repeat(20_000);
    let chunk = format!(r#"{{"choices":[{{"index":0,"delta":{{"x":{deep}}},"finish_reason":"stop"}}]}}"#);
    assert!(fold("/v1/chat/completions", &[&chunk, &chunk]).is_ok());
}

#[test]
fn what_has_come_so_far_has_the_form_of_the_whole() {
    let mut chat = Fold::of("/v1/chat/completions").unwrap();
    assert_eq!(chat.so_far(), None);
    chat.push(r#"{"id":"c","choices":[{"index":0,"delta":{"role":"assistant","content":"a"}}]}"#).unwrap();
    chat.push(r#"{"id":"c","choices":[{"index":0,"delta":{"content":"b"}}]}"#).unwrap();
    let so_far = r#"{"id":"c","choices":[{"index":0,"message":{"role":"assistant","content":"ab"}}],"object":"chat.completion"}"#;
    assert_eq!(chat.so_far().as_deref(), Some(so_far));
    assert_eq!(chat.finish(), Err(Unfinished::Truncated), "it is not whole for all that");

    let mut message = Fold::of("/v1/messages").unwrap();
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
