//! Bodies that are not JSON, not all there, too long, or too deep.

use super::case::{Case, post_as, raw, task};

/// A task without fault.
pub(super) const GOOD: &str = r#"{"endpoint":"/v1/chat/completions","body":{"model":"sim-chat","messages":[{"role":"user","content":"é"}]}}"#;
const LIMIT: usize = 16 << 20;

/// A task whose body holds `value`.
fn holding(value: &str) -> String {
    format!(
        r#"{{"endpoint":"/v1/chat/completions","body":{{"model":"sim-chat","messages":[],"x":{value}}}}}"#
    )
}

/// So many levels in all: two of them are the task and its body.
fn nested(levels: usize, open: &str, close: &str) -> String {
    holding(&format!("{}1{}", open.repeat(levels - 2), close.repeat(levels - 2)))
}

pub(super) fn cases() -> Vec<Case> {
    [malformed(), encoded(), numbers(), nestings(), lengths(), compressed(), declared()]
        .into_iter()
        .flatten()
        .collect()
}

fn malformed() -> Vec<Case> {
    let mut cases = Vec::new();
    for (what, body) in [
        ("nothing", ""),
        ("white space", " \r\n\t "),
        ("oops", r#"{"endpoint": oops}"#),
        ("single quotes", "{'endpoint':'x'}"),
        ("a comment", "{/* */}"),
        ("a comma too many", r#"{"endpoint":"x",}"#),
        ("no colon", r#"{"endpoint" "x"}"#),
        ("two bodies", &format!("{GOOD}{GOOD}")),
        ("two lines", &format!("{GOOD}\n{GOOD}")),
        ("garbage behind", &format!("{GOOD}x")),
        ("a bracket too many", &format!("{GOOD}}}")),
        ("NaN", &holding("NaN")),
        ("Infinity", &holding("Infinity")),
        ("-Infinity", &holding("-Infinity")),
        ("hexadecimal", &holding("0x10")),
        ("a leading zero", &holding("007")),
        ("a leading plus", &holding("+1")),
        ("a naked point", &holding("1.")),
        ("a raw newline in a text", &holding("\"\n\"")),
        ("a raw NUL in a text", &holding("\"\0\"")),
        ("a NUL between", "{\0}"),
        ("a bad escape", &holding(r#""\x41""#)),
        ("half an escape", &holding(r#""\u12""#)),
        ("form", "endpoint=%2Fv1%2Fchat%2Fcompletions&body=x"),
        ("XML", "<?xml version=\"1.0\"?><!DOCTYPE a [<!ENTITY b SYSTEM \"file:///etc/passwd\">]><a>&b;</a>"),
    ] {
        cases.push(task(what, body).is(400, "invalid_json", None));
    }
    for (what, body) in [("null", "null"), ("true", "true"), ("a number", "7"), ("a text", "\"task\"")] {
        cases.push(task(what, body).is(400, "invalid_type", None));
    }
    for (what, body) in [("a list", "[]"), ("a list of tasks", &format!("[{GOOD}]"))] {
        cases.push(task(what, body).is(400, "invalid_type", None));
    }
    cases.extend((1..GOOD.len()).step_by(6).map(|end| {
        task(format!("the first {end} bytes"), &GOOD.as_bytes()[..end]).is(400, "invalid_json", None)
    }));
    cases
}

fn encoded() -> Vec<Case> {
    let utf16 = |big: bool| -> Vec<u8> {
        let units = std::iter::once(0xfeff).chain(GOOD.encode_utf16());
        units.flat_map(|unit| if big { unit.to_be_bytes() } else { unit.to_le_bytes() }).collect()
    };
    let bytes = |bytes: &[u8]| [holding("\"").replace("}}", "").as_bytes(), bytes, b"\"}}"].concat();
    vec![
        task("BOM", [b"\xef\xbb\xbf", GOOD.as_bytes()].concat()).is(400, "invalid_json", None),
        task("UTF-16, big end first", utf16(true)).is(400, "invalid_json", None),
        task("UTF-16, little end first", utf16(false)).is(400, "invalid_json", None),
        task("Latin-1", bytes(b"\xe9")).is(400, "invalid_json", None),
        task("half a character", bytes(b"\xe2\x82")).is(400, "invalid_json", None),
        task("an overlong character", bytes(b"\xc0\xaf")).is(400, "invalid_json", None),
        task("a surrogate in UTF-8", bytes(b"\xed\xa0\x80")).is(400, "invalid_json", None),
        task("a character too far", bytes(b"\xf5\x80\x80\x80")).is(400, "invalid_json", None),
        task("a lone high surrogate", holding(r#""\ud800""#)).is(400, "invalid_json", None),
        task("a lone low surrogate", holding(r#""\udc00""#)).is(400, "invalid_json", None),
        task("two high surrogates", holding(r#""\ud800\ud800""#)).is(400, "invalid_json", None),
    ]
}

fn numbers() -> Vec<Case> {
    let priority = |value: &str| {
        format!(r#"{{"endpoint":"/v1/chat/completions","body":{{"model":"sim-chat"}},"priority":{value}}}"#)
    };
    let delay = |value: &str| priority(value).replace("priority", "delay_s");
    let long = "9".repeat(400);
    vec![
        task("priority 1e400", priority("1e400")).is(400, "invalid_json", None),
        task("delay 1e400", delay("1e400")).is(400, "invalid_json", None),
        task("delay of 400 digits", delay(&long)).is(400, "invalid_json", None),
        task("delay 1e308", delay("1e308")).is(400, "invalid_value", "delay_s"),
        task("delay -0.1", delay("-0.1")).is(400, "invalid_value", "delay_s"),
        task("priority 2^64", priority("18446744073709551616")).is(400, "invalid_type", "priority"),
        task("priority 2^63", priority("9223372036854775808")).is(400, "invalid_type", "priority"),
        task("priority -2^63 - 1", priority("-9223372036854775809")).is(400, "invalid_type", "priority"),
        task("priority 1.5", priority("1.5")).is(400, "invalid_type", "priority"),
        task("scheduled_at 1e300", priority("1e300").replace("priority", "scheduled_at")).is(
            400,
            "invalid_value",
            "scheduled_at",
        ),
    ]
}

fn nestings() -> Vec<Case> {
    let mut cases = vec![
        task("64 levels of lists", nested(64, "[", "]")).served(202),
        task("64 levels of objects", nested(64, r#"{"a":"#, "}")).served(202),
    ];
    for levels in [65, 129, 100_000] {
        let lists = task(format!("{levels} levels of lists"), nested(levels, "[", "]"));
        let objects = task(format!("{levels} levels of objects"), nested(levels, r#"{"a":"#, "}"));
        cases.extend([lists, objects].map(|case| case.is(400, "json_too_deep", None)));
    }
    for (what, opened) in [("lists", "["), ("objects", r#"{"a":"#)] {
        let body = opened.repeat(1_000_000);
        cases.push(task(format!("a million {what} that are only opened"), body).is(
            400,
            "json_too_deep",
            None,
        ));
    }
    cases
}

fn lengths() -> Vec<Case> {
    let head = "POST /v1/tasks HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n";
    let with = |length: &str, body: &str| format!("{head}content-length: {length}\r\n\r\n{body}");
    let chunked = |chunks: &str| format!("{head}transfer-encoding: chunked\r\n\r\n{chunks}");
    let json = "content-type: application/json\r\n";
    vec![
        raw("16 MiB + 1 are announced", with("16777217", "")).is(413, "body_too_large", None),
        raw("2^63 are announced", with("9223372036854775808", "")).is(413, "body_too_large", None),
        post_as("16 MiB + 1 are sent", "/v1/tasks", json, || vec![b' '; LIMIT + 1]).is(
            413,
            "body_too_large",
            None,
        ),
        post_as("16 MiB of nothing", "/v1/tasks", json, || vec![b' '; LIMIT]).is(400, "invalid_json", None),
        post_as("an escape of 16 MiB", "/v1/tasks", json, || {
            let head = br#"{"endpoint":""#.to_vec();
            [head, b"\\u0041".repeat(LIMIT / 6 - 10), b"\"}".to_vec()].concat()
        })
        .is(400, "invalid_value", None),
        raw("20 MiB without a length", {
            let chunk =
                [format!("{:x}\r\n", 1 << 20).into_bytes(), vec![b' '; 1 << 20], b"\r\n".to_vec()].concat();
            [chunked("").into_bytes(), chunk.repeat(20), b"0\r\n\r\n".to_vec()].concat()
        })
        .is(413, "body_too_large", None),
        raw("a shorter length than the body", with("20", GOOD)).is(400, "invalid_json", None),
        raw("a million tiny chunks", chunked(&("1\r\n \r\n".repeat(300_000) + "0\r\n\r\n"))).is(
            400,
            "invalid_json",
            None,
        ),
    ]
}

/// A megabyte of gzip that makes 1.1 GB of spaces: after its head each byte stands for four runs of 258.
fn bomb() -> Vec<u8> {
    let head = b"\x1f\x8b\x08\0\0\0\0\0\x02\x03\xec\xc1\x81\0\0\0\0\x80\x20\x95\xfd\x29\x17\xa9\x0a";
    [head.to_vec(), vec![0; 1_100_000]].concat()
}

fn compressed() -> Vec<Case> {
    let mut cases = Vec::new();
    for coding in [
        "gzip",
        "x-gzip",
        "deflate",
        "br",
        "zstd",
        "compress",
        "gzip, gzip",
        "GZIP",
        "identity, gzip",
        "unheard-of",
    ] {
        let headers = format!("content-type: application/json\r\ncontent-encoding: {coding}\r\n");
        cases.push(post_as(format!("a bomb of {coding}"), "/v1/tasks", &headers, bomb).is(
            415,
            "unsupported_content_encoding",
            "Content-Encoding",
        ));
    }
    let twice = "content-type: application/json\r\ncontent-encoding: identity\r\ncontent-encoding: gzip\r\n";
    cases.push(post_as("a bomb behind a plain one", "/v1/batches", twice, bomb).is(
        415,
        "unsupported_content_encoding",
        "Content-Encoding",
    ));
    cases.push(task("a bomb that is said to be JSON", bomb()).is(400, "invalid_json", None));
    cases
}

fn declared() -> Vec<Case> {
    let parts = |count: usize, end: &str| {
        let part = "--x\r\ncontent-disposition: form-data; name=\"a\"\r\n\r\n1\r\n";
        part.repeat(count) + end
    };
    let mut cases = Vec::new();
    for kind in [
        "text/plain",
        "application/jsonx",
        "json",
        "application/x-ndjson",
        ";",
        "*/*",
        "application",
        "\u{e9}",
    ] {
        let headers = format!("content-type: {kind}\r\n");
        cases.push((kind, headers, GOOD.to_owned()));
    }
    cases.push(("no type", String::new(), GOOD.to_owned()));
    cases.push(("a form", "content-type: application/x-www-form-urlencoded\r\n".into(), "endpoint=x".into()));
    let multipart = "content-type: multipart/form-data; boundary=x\r\n";
    cases.push(("multipart, cut off", multipart.into(), parts(1, "--x\r\ncontent-dis")));
    cases.push(("multipart of 10,000 parts", multipart.into(), parts(10_000, "--x--\r\n")));
    let cases = cases.into_iter().map(|(what, headers, body)| {
        post_as(what, "/v1/tasks", &headers, || body.into_bytes()).is(415, "unsupported_media_type", None)
    });
    cases.collect()
}
