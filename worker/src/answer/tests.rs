//! What is an answer, and what is none.

use super::*;

const CHAT: &str = "/v1/chat/completions";

fn verdict(endpoint: &str, request: &str, body: &str) -> Result<(), NoAnswer> {
    judge(endpoint, Wanted::of(endpoint, request.as_bytes()), "application/json", body.as_bytes()).verdict
}

#[test]
fn inputs_are_counted() {
    let vectors = |input: &str| {
        Wanted::of("/v1/embeddings", format!(r#"{{"model":"m","input":{input}}}"#).as_bytes()).vectors
    };
    assert_eq!(vectors(r#""a""#), Some(1));
    assert_eq!(vectors(r#"["a","b"]"#), Some(2));
    assert_eq!(vectors("[1,2,3]"), Some(1));
    assert_eq!(vectors("[[1],[2,3]]"), Some(2));
    assert_eq!(vectors("null"), None);
    assert_eq!(Wanted::of(CHAT, br#"{"n":3,"input":"x"}"#), Wanted { choices: 3, vectors: None });
}

#[test]
fn each_endpoint_says_what_an_answer_is() {
    let other = |verdict: Result<(), NoAnswer>| matches!(verdict, Err(NoAnswer::Other(_)));
    let vectors = r#"{"data":[{"embedding":[0.5]},{"embedding":"AAAA"}]}"#;
    assert_eq!(verdict("/v1/embeddings", r#"{"input":["a","b"]}"#, vectors), Ok(()));
    assert!(other(verdict("/v1/embeddings", r#"{"input":["a","b","c"]}"#, vectors)));
    assert!(other(verdict("/v1/embeddings", r#"{"input":"a"}"#, r#"{"data":[{"embedding":[]}]}"#)));
    let response =
        |status: &str| verdict("/v1/responses", "{}", &format!(r#"{{"status":"{status}","output":[]}}"#));
    assert_eq!((response("completed"), response("incomplete")), (Ok(()), Ok(())));
    assert_eq!((response("failed"), response("cancelled")), (Err(NoAnswer::Aborted), Err(NoAnswer::Aborted)));
    assert_eq!(response("in_progress"), Err(NoAnswer::Unfinished));
    assert!(other(response("")));
    assert_eq!(verdict("/v1/messages", "{}", r#"{"content":[],"stop_reason":"end_turn"}"#), Ok(()));
    assert_eq!(
        verdict("/v1/messages", "{}", r#"{"content":[],"stop_reason":null}"#),
        Err(NoAnswer::Unfinished)
    );
    assert!(other(verdict("/v1/moderations", "{}", r#"{"results":[]}"#)));
    assert_eq!(
        verdict("/v1/other", "{}", "anything"),
        Err(NoAnswer::Other("the upstream's answer is not the JSON that it claims to be"))
    );
    assert_eq!(verdict("/v1/other", "{}", r#"{"error":"no"}"#), Err(NoAnswer::Error));
    assert_eq!(verdict("/v1/other", "{}", r#"{"error":"","result":1}"#), Ok(()));
    assert!(other(verdict("/v1/other", "{}", " ")));
}

#[test]
fn an_error_beside_an_answer_is_no_failure_and_one_in_its_place_is() {
    let choice = |content: &str, reason: &str| {
        format!(
            r#"{{"error":{{"message":"m"}},"choices":[{{"message":{{"role":"assistant","content":{content}}},"finish_reason":{reason}}}]}}"#
        )
    };
    assert_eq!(verdict(CHAT, "{}", &choice("\"a\"", "\"stop\"")), Ok(()));
    for in_its_place in [
        choice("\"\"", "\"stop\""),
        choice("\"a\"", "null"),
        choice("\"a\"", "\"error\""),
        r#"{"choices":[],"error":{"message":"m"}}"#.to_owned(),
        r#"{"choices":[{"error":{"message":"m"},"message":{"content":"a"},"finish_reason":"stop"}]}"#
            .to_owned(),
        r#"[{"error":{"message":"m"}}]"#.to_owned(),
        r#"{"detail":"m"}"#.to_owned(),
    ] {
        assert_eq!(verdict(CHAT, "{}", &in_its_place), Err(NoAnswer::Error), "{in_its_place}");
    }
}

#[test]
fn speech_is_bytes() {
    let speech = |label: &str, body: &[u8]| {
        judge("/v1/audio/speech", Wanted::of("", b""), label, body).verdict.is_ok()
    };
    assert!(speech("application/octet-stream", b"RIFF\0\0"));
    assert!(!speech("audio/mpeg", b""));
    assert!(!speech("audio/mpeg", b"{\"error\":\"no\"}"));
    assert!(!speech("audio/mpeg", b"<html>"));
    assert!(!speech("text/plain", b"Internal error"));
}
