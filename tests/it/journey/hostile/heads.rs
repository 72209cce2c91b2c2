//! Heads of requests: too long, not well formed, contradictory, or in other ways than today's.

use super::{
    bodies::GOOD,
    case::{Case, bodiless, get, raw},
};

/// What the library answers to what is no HTTP.
const BAD: &[u16] = &[400];

pub(super) fn cases() -> Vec<Case> {
    [methods(), targets(), headers(), smuggled(), chunks(), places()].into_iter().flatten().collect()
}

fn methods() -> Vec<Case> {
    let mut cases = Vec::new();
    for method in ["PUT", "PATCH", "DELETE", "TRACE", "OPTIONS", "PROPFIND", "get", "GETGETGET"] {
        cases.push(bodiless(method, "/v1/tasks", "").is(405, "method_not_allowed", None));
    }
    for (method, target) in
        [("POST", "/v1/ws"), ("DELETE", "/v1/batches"), ("POST", "/v1/models"), ("PUT", "/livez")]
    {
        cases.push(bodiless(method, target, "").is(405, "method_not_allowed", None));
    }
    for line in [
        "G\0T /livez HTTP/1.1",
        "GE(T /livez HTTP/1.1",
        "GET",
        "GET /livez",
        "GET /livez HTTP/9.9",
        "GET /livez HTTP/1.1 x",
        " GET /livez HTTP/1.1",
    ] {
        cases.push(raw(line, format!("{line}\r\nhost: localhost\r\nconnection: close\r\n\r\n")).bare(BAD));
    }
    cases.push(raw("a greeting of TLS", b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03\r\n\r\n").bare(BAD));
    cases.push(raw("a greeting of SSH", "SSH-2.0-OpenSSH_9.6\r\n\r\n").bare(BAD));
    cases
}

fn targets() -> Vec<Case> {
    let line = |target: &[u8]| {
        [b"GET ", target, b" HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"].concat()
    };
    vec![
        get(&format!("/v1/tasks/{}", "x".repeat(8 << 10))).is(404, "task_not_found", "id"),
        raw("a target of 70,000", line(&[b"/", vec![b'x'; 70_000].as_slice()].concat())).bare(&[414]),
        raw("a target of 1 MiB", line(&[b"/", vec![b'x'; 1 << 20].as_slice()].concat())).bare(&[414, 431]),
        raw("a NUL in the target", line(b"/v1/tasks/\0")).bare(BAD),
        raw("a control in the target", line(b"/v1/tasks/\x07")).bare(BAD),
        raw("no slash", line(b"v1/tasks")).bare(BAD),
        get("*").is(404, "not_found", None),
        get("/v1/tasks/..%2f..%2fetc%2fpasswd").is(404, "task_not_found", "id"),
        get("/v1/../../../etc/passwd").is(404, "not_found", None),
        get("/v1/tasks/../batches").is(404, "not_found", None),
        get("//v1/tasks").is(404, "not_found", None),
        get("/v1//tasks").is(404, "not_found", None),
        get("/v1/tasks/").is(404, "not_found", None),
        get("/v1/tasks;a=b").is(404, "not_found", None),
        get("/V1/TASKS").is(404, "not_found", None),
        get("/docs/..%2f..%2fCargo.toml").is(404, "not_found", None),
        get("/docs/%2e%2e/%2e%2e/etc/passwd").is(404, "not_found", None),
    ]
}

fn headers() -> Vec<Case> {
    let head = |lines: &[u8]| {
        [b"GET /v1/tasks HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n", lines, b"\r\n"].concat()
    };
    let many = |count: usize| (0..count).map(|n| format!("x-{n}: a\r\n")).collect::<String>();
    vec![
        raw("two hosts", head(b"host: localhost\r\n")).is(400, "invalid_value", "Host"),
        raw("another host as well", head(b"host: evil.example\r\n")).is(400, "invalid_value", "Host"),
        raw("98 more headers", head(many(98).as_bytes())).served(200),
        raw("99 more headers", head(many(99).as_bytes())).bare(&[431]),
        raw("10,000 headers", head(many(10_000).as_bytes())).bare(&[431]),
        raw("a header of 17 KiB", head(format!("x-a: {}\r\n", "a".repeat(17 << 10)).as_bytes())).served(200),
        raw("a header of 1 MiB", head(format!("x-a: {}\r\n", "a".repeat(1 << 20)).as_bytes())).bare(&[431]),
        raw("a name of 70,000", head(format!("{}: a\r\n", "x".repeat(70_000)).as_bytes())).bare(&[400, 431]),
        raw("a NUL in a value", head(b"x-a: a\0b\r\n")).bare(BAD),
        raw("a control in a value", head(b"x-a: a\x07b\r\n")).bare(BAD),
        raw("CR in a value", head(b"x-a: a\rx-b: b\r\n")).bare(BAD),
        raw("a folded line", head(b"x-a: a\r\n b\r\n")).bare(BAD),
        raw("a space before the colon", head(b"x-a : a\r\n")).bare(BAD),
        raw("a name with a space", head(b"x a: a\r\n")).bare(BAD),
        raw("no name", head(b": a\r\n")).bare(BAD),
        raw("no colon", head(b"x-a\r\n")).bare(BAD),
        raw("a NUL in a name", head(b"x-\0: a\r\n")).bare(BAD),
        raw("a key that is not ASCII", head(b"authorization: Bearer \xff\xfe\r\n")).served(200),
        raw("an accept that is not ASCII", head(b"accept: \xff\r\n")).served(200),
        raw("a range", head(b"range: bytes=0-18446744073709551615\r\n")).served(200),
        raw("a date that is none", head(b"if-modified-since: yesterday\r\nif-none-match: \"\r\n"))
            .served(200),
    ]
}

/// A second request that one of two servers in a row might see, and the other might not.
fn smuggled() -> Vec<Case> {
    let inner = "GET /v1/queues HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let head = "POST /v1/tasks HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";
    let with = |lines: &str, body: &str| format!("{head}{lines}\r\n{body}");
    let hidden = format!("0\r\n\r\n{inner}");
    let length = hidden.len();
    let both = [
        format!("content-length: {length}\r\ntransfer-encoding: chunked\r\n"),
        format!("transfer-encoding: chunked\r\ncontent-length: {length}\r\n"),
    ];
    let mut cases: Vec<Case> = both
        .iter()
        .map(|lines| raw(format!("two lengths: {lines}"), with(lines, &hidden)).is(400, "invalid_json", None))
        .collect();
    for lines in [
        "content-length: 2\r\ncontent-length: 3\r\n",
        "content-length: 2, 3\r\n",
        "content-length: +2\r\n",
        "content-length: -1\r\n",
        "content-length: 0x2\r\n",
        "content-length: 2 2\r\n",
        "content-length: 99999999999999999999999999\r\n",
        "content-length:\r\n",
        "transfer-encoding: gzip\r\n",
        "transfer-encoding: chunked, gzip\r\n",
        "transfer-encoding: chunked, identity\r\n",
        "transfer-encoding: xchunked\r\n",
        "transfer-encoding:\r\n",
        "transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n",
        "transfer-encoding : chunked\r\n",
        "transfer-encoding:\x0bchunked\r\n",
        "content-length: 2\r\n\ttransfer-encoding: chunked\r\n",
    ] {
        cases.push(raw(lines, with(lines, inner)).bare(BAD));
    }
    let old = "POST /v1/tasks HTTP/1.0\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n";
    cases.push(raw("HTTP/1.0 in chunks", format!("{old}{hidden}")).bare(BAD));
    cases
}

fn chunks() -> Vec<Case> {
    let head = "POST /v1/tasks HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n\
                transfer-encoding: chunked\r\n\r\n";
    let mut cases = Vec::new();
    for chunks in [
        "x\r\n",
        "-1\r\n\r\n",
        "\r\n\r\n",
        "0x5\r\n",
        "fffffffffffffffff\r\n",
        "5 5\r\nabcde\r\n",
        "5\nabcde\r\n",
    ] {
        cases.push(raw(format!("a chunk of {chunks:?}"), format!("{head}{chunks}")).is(
            400,
            "invalid_body",
            None,
        ));
    }
    let endless = format!("{head}ffffffffffffffff\r\n");
    cases.push(raw("a chunk of 2^64 - 1 that does not come", endless).is(408, "request_timeout", None));
    let wrong = format!("{head}{:x}\r\n{GOOD}x\r\n0\r\n\r\n", GOOD.len());
    cases.push(raw("a chunk that goes on behind its end", wrong).is(400, "invalid_body", None));
    let long = format!("{head}5;{}\r\nabcde\r\n0\r\n\r\n", "a=b;".repeat(10_000));
    cases.push(raw("an extension of 40,000", long).is(400, "invalid_body", None));
    let trailers = format!("{head}1\r\nx\r\n0\r\n{}\r\n", "x-a: b\r\n".repeat(10_000));
    cases.push(raw("10,000 trailers", trailers).is(400, "invalid_body", None));
    cases
}

/// Requests that are not for this server, or in a form of another time. Callers without a key must be here.
fn places() -> Vec<Case> {
    let close = "connection: close\r\n\r\n";
    let stranger =
        |what: &str, head: &str| raw(what, format!("{head}{close}")).is(401, "invalid_api_key", None);
    vec![
        stranger("another host", "GET /v1/tasks HTTP/1.1\r\nhost: evil.example\r\n"),
        stranger("no host", "GET /v1/tasks HTTP/1.1\r\n"),
        stranger("an empty host", "GET /v1/tasks HTTP/1.1\r\nhost:\r\n"),
        stranger("a host like ours", "GET /v1/tasks HTTP/1.1\r\nhost: localhost.evil.example\r\n"),
        stranger("a host with a NUL's escape", "GET /v1/tasks HTTP/1.1\r\nhost: localhost%00.evil\r\n"),
        stranger(
            "another server's target",
            "GET http://evil.example/v1/tasks HTTP/1.1\r\nhost: localhost\r\n",
        ),
        stranger("a connection to elsewhere", "CONNECT evil.example:443 HTTP/1.1\r\nhost: localhost\r\n"),
        stranger(
            "another origin",
            "GET /v1/tasks HTTP/1.1\r\nhost: localhost\r\norigin: https://evil.example\r\n",
        ),
        stranger(
            "a page from elsewhere that has no origin",
            "GET /v1/tasks HTTP/1.1\r\nhost: localhost\r\nsec-fetch-site: cross-site\r\n",
        ),
        stranger("no origin", "GET /v1/tasks HTTP/1.1\r\nhost: localhost\r\norigin: null\r\n"),
        stranger(
            "a proxy's caller",
            "GET /v1/tasks HTTP/1.1\r\nhost: localhost\r\nx-forwarded-for: 127.0.0.1\r\n",
        ),
        stranger("HTTP/1.0", "GET /v1/tasks HTTP/1.0\r\nhost: localhost\r\n"),
        raw(
            "our own target in full",
            format!("GET http://localhost/v1/tasks HTTP/1.1\r\nhost: x\r\n{close}"),
        )
        .served(200),
        raw("HTTP/1.0 for health", "GET /livez HTTP/1.0\r\n\r\n").served(200),
        raw(
            "an expectation that we do not meet",
            format!("GET /livez HTTP/1.1\r\nhost: localhost\r\nexpect: a miracle\r\n{close}"),
        )
        .served(200),
    ]
}
