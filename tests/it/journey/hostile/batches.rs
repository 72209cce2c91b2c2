//! Batches: what is wrong with the whole is a 400, what is wrong with a line is a batch that has failed and runs nothing.

use super::case::{Case, post, post_as};

pub(super) fn cases() -> Vec<Case> {
    [whole(), malformed(), lines(), counted()].into_iter().flatten().collect()
}

const JSON: &str = "content-type: application/json\r\n";

fn line(name: &str) -> String {
    format!(
        r#"{{"custom_id":"{name}","method":"POST","url":"/v1/chat/completions","body":{{"model":"sim-chat","messages":[]}}}}"#
    )
}

fn batch(requests: &str) -> String {
    format!(r#"{{"endpoint":"/v1/chat/completions","completion_window":"24h","requests":{requests}}}"#)
}

fn whole() -> Vec<Case> {
    let good = batch(&format!("[{}]", line("a")));
    let mut cases = Vec::new();
    for (what, body, code, param) in [
        ("no requests", good.replace("requests", "request"), "unknown_parameter", Some("request")),
        ("requests of another type", batch("{}"), "invalid_type", Some("requests")),
        ("requests as text", batch(r#""[]""#), "invalid_type", Some("requests")),
        ("null", batch("null"), "missing_required_parameter", Some("requests")),
        (
            "a file",
            good.replacen('{', r#"{"input_file_id":"file-1","#, 1),
            "invalid_value",
            Some("input_file_id"),
        ),
        (
            "no window",
            good.replace(r#""completion_window":"24h","#, ""),
            "missing_required_parameter",
            Some("completion_window"),
        ),
        ("a window without a unit", good.replace("24h", "24"), "invalid_value", Some("completion_window")),
        ("a window of 31 days", good.replace("24h", "31d"), "invalid_value", Some("completion_window")),
        (
            "a window without end",
            good.replace("24h", &format!("{}d", "9".repeat(100))),
            "invalid_value",
            Some("completion_window"),
        ),
        (
            "an endpoint that is none",
            good.replace("/v1/chat/completions", "/etc/passwd"),
            "invalid_value",
            Some("endpoint"),
        ),
        (
            "metadata of 17",
            good.replacen(
                '{',
                &format!(
                    r#"{{"metadata":{{{}}},"#,
                    (0..17).map(|n| format!(r#""{n}":"""#)).collect::<Vec<_>>().join(",")
                ),
                1,
            ),
            "invalid_value",
            Some("metadata"),
        ),
        (
            "metadata twice",
            good.replacen('{', r#"{"metadata":{},"metadata":{},"#, 1),
            "duplicate_parameter",
            Some("metadata"),
        ),
    ] {
        cases.push(post(what, "/v1/batches", body).is(400, code, param));
    }
    cases
}

fn malformed() -> Vec<Case> {
    let a = line("a");
    let cases = [
        ("JSON lines", format!("{a}\n{a}\n"), "unknown_parameter", Some("custom_id")),
        ("bad JSON in the middle", batch(&format!("[{a},{{oops}},{a}]")), "invalid_json", None),
        ("a line that is cut off", batch(&format!("[{a},{{\"custom_id\":")), "invalid_json", None),
        (
            "a line of 65 levels",
            batch(&format!("[{}1{}]", "[".repeat(63), "]".repeat(63))),
            "json_too_deep",
            None,
        ),
    ];
    let case = |(what, body, code, param): (&str, String, _, Option<&str>)| {
        post(what, "/v1/batches", body).is(400, code, param)
    };
    cases.map(case).into()
}

/// Each is one line beside a good one.
fn lines() -> Vec<Case> {
    let good = line("b");
    let long = good.replace("\"b\"", &format!("\"{}\"", "x".repeat(513)));
    let lines = [
        ("7", "a number"),
        ("null", "nothing"),
        ("[]", "a list"),
        ("{}", "an empty line"),
        (&good.replace(r#""custom_id":"b","#, ""), "no custom_id"),
        (&good.replace("\"b\"", "7"), "a custom_id of another type"),
        (&good.replace("\"b\"", "\"\""), "an empty custom_id"),
        (&good.replace("\"b\"", "\"\\u0000\""), "a custom_id of U+0000"),
        (&long, "a custom_id of 513"),
        (&line("a"), "a custom_id twice"),
        (&good.replace("POST", "GET"), "another method"),
        (&good.replace("url", "uri"), "an unknown field"),
        (&good.replace("/v1/chat/completions", "/v1/embeddings"), "another endpoint"),
        (&good.replace("/v1/chat/completions", "http://evil.example"), "another server"),
        (&good.replace(r#""model":"sim-chat","#, ""), "no model"),
        (&good.replace("sim-chat", "unheard-of"), "a model that is not served"),
        (&good.replace(r#""messages":[]"#, r#""stream":true"#), "a stream"),
        (&good.replace(r#"{"model""#, r#"{"model":"x","model""#), "two models"),
        (&good.replace(r#""body":{"#, r#""body":[{"#).replace("}}", "}]}"), "a body that is a list"),
    ];
    let case = |(broken, what): (&str, &str)| {
        let requests = format!("[{},{broken}]", line("a"));
        post(format!("a line: {what}"), "/v1/batches", batch(&requests)).fails()
    };
    let mut cases: Vec<Case> = lines.into_iter().map(case).collect();
    cases.push(post("no lines", "/v1/batches", batch("[]")).fails());
    let broken = || batch(&format!("[{}]", vec!["{}"; 1_000].join(","))).into_bytes();
    cases.push(post_as("a thousand broken lines", "/v1/batches", JSON, broken).fails());
    cases
}

/// Too many lines.
fn counted() -> Vec<Case> {
    let many = |count: usize| move || batch(&format!("[{}]", vec!["{}"; count].join(","))).into_bytes();
    let case = |count: usize| post_as(format!("{count} lines"), "/v1/batches", JSON, many(count));
    [1_001, 50_001, 5_000_000].map(|count| case(count).is(400, "invalid_value", "requests")).into()
}
