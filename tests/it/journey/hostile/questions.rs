//! Ids, cursors and queries that name nothing, or far too much.

use super::case::{Case, bodiless, get};

pub(super) fn cases() -> Vec<Case> {
    [ids(), queries(), cursors()].into_iter().flatten().collect()
}

const IDS: [&str; 14] = [
    "%00",
    "task_01jd00000000000000000000zz%00",
    "%0d%0aset-cookie:%20a=b",
    "%2fetc%2fpasswd",
    "..%2f..%2f..%2fetc%2fpasswd",
    "..%5c..%5cwindows",
    "C:%5cboot.ini",
    "%c3%a9%f0%9f%98%80",
    "%e2%80%ae",
    "%25%32%65",
    "%zz",
    "%",
    "'%20or%201=1--",
    "%24%7bjndi:ldap:%2f%2fx%7d",
];

fn ids() -> Vec<Case> {
    let mut cases = Vec::new();
    for id in IDS {
        for rest in ["", "/result", "/events"] {
            cases.push(get(&format!("/v1/tasks/{id}{rest}")).is(404, "task_not_found", "id"));
        }
        for rest in ["", "/results"] {
            cases.push(get(&format!("/v1/batches/{id}{rest}")).is(404, "batch_not_found", "id"));
        }
        cases.push(get(&format!("/v1/models/{id}")).is(404, "model_not_found", "id"));
        cases.push(bodiless("DELETE", &format!("/v1/tasks/{id}"), "").is(404, "task_not_found", "id"));
        cases.push(bodiless("POST", &format!("/v1/admin/keys/{id}/revoke"), "").is(
            404,
            "key_not_found",
            "id",
        ));
    }
    for target in ["/v1/tasks/%ff", "/v1/batches/%c3%28", "/v1/models/%ed%a0%80", "/v1/tasks/%ff/events"] {
        cases.push(get(target).is(400, "invalid_request", None));
    }
    for id in [
        "task_",
        "task_01JD00000000000000000000ZZ",
        "batch_01jd00000000000000000000zz",
        "task_01jd00000000000000000000zzz",
        "TASK_01jd00000000000000000000zz",
    ] {
        cases.push(get(&format!("/v1/tasks/{id}")).is(404, "task_not_found", "id"));
    }
    cases
}

fn queries() -> Vec<Case> {
    let mut cases = Vec::new();
    for (query, param) in [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=-1", "limit"),
        ("limit=1e2", "limit"),
        ("limit=18446744073709551616", "limit"),
        ("limit=", "limit"),
        ("limit=%00", "limit"),
        ("after=", "after"),
        ("after=%00", "after"),
        ("after=..%2f", "after"),
        ("after=task_01jd00000000000000000000zz", "after"),
        ("status=%00", "status"),
        ("status=queued,sleeping", "status"),
        ("queue=%00", "queue"),
        ("batch_id=x", "batch_id"),
        ("order=random()", "order"),
        ("created_after=NaN", "created_after"),
        ("created_after=inf", "created_after"),
        ("created_before=1e400", "created_before"),
        ("created_before=-1", "created_before"),
    ] {
        cases.push(get(&format!("/v1/tasks?{query}")).is(400, "invalid_value", param));
    }
    for (query, param) in
        [("colour=red", "colour"), ("Limit=1", "Limit"), ("metadata[a=1", "metadata[a"), ("=", "")]
    {
        cases.push(get(&format!("/v1/tasks?{query}")).is(400, "unknown_parameter", param));
    }
    for path in ["/v1/batches", "/v1/admin/keys", "/v1/admin/audit"] {
        cases.push(get(&format!("{path}?limit=101")).is(400, "invalid_value", "limit"));
        cases.push(get(&format!("{path}?after=%00")).is(400, "invalid_value", "after"));
        cases.push(get(&format!("{path}?sort=x")).is(400, "unknown_parameter", "sort"));
    }
    let filters = |count: usize, pair: fn(usize) -> String| {
        format!("/v1/tasks?{}", (0..count).map(pair).collect::<Vec<_>>().join("&"))
    };
    cases.push(get(&filters(16, |n| format!("metadata[k{n}]=v"))).served(200));
    cases.push(get(&filters(17, |n| format!("metadata[k{n}]=v"))).is(400, "invalid_value", "metadata"));
    cases.push(get(&filters(3_000, |n| format!("metadata[{n}]="))).is(400, "invalid_value", "metadata"));
    cases.push(get(&filters(3_000, |_| "status=queued".into())).served(200));
    cases.push(get(&filters(5_000, |_| "limit=1".into())).served(200));
    cases.push(get("/v1/tasks?metadata[a%00]=b").is(400, "invalid_value", "metadata[a\u{0}]"));
    cases.push(get("/v1/tasks?metadata[a]=b%00").is(400, "invalid_value", "metadata[a]"));
    cases.push(get("/v1/tasks?model=%00").is(400, "invalid_value", "model"));
    cases.push(get("/v1/tasks?model=%27%20or%201=1--").served(200));
    cases.push(get("/v1/tasks?model=%ff").served(200));
    cases.push(get("/v1/tasks?%zz=%zz").is(400, "unknown_parameter", "%zz"));
    cases
}

fn cursors() -> Vec<Case> {
    let task = "/v1/tasks/task_01jd00000000000000000000zz";
    let mut cases = Vec::new();
    for after in ["-2", "9223372036854775807", "99999999999999999999", "1.5", "x", "%00"] {
        cases.push(get(&format!("{task}/events?after={after}")).is(400, "invalid_value", "after"));
    }
    for after in ["-2", "1e3", "task_1", "9".repeat(10_000).as_str()] {
        let header = format!("last-event-id: {after}\r\n");
        cases.push(bodiless("GET", &format!("{task}/events"), &header).is(400, "invalid_value", "after"));
    }
    for wait in ["-1", "61", "NaN", "inf", "1e400"] {
        cases.push(get(&format!("{task}?wait={wait}")).is(404, "task_not_found", "id"));
    }
    for wait in ["x", "", "%00"] {
        cases.push(get(&format!("{task}?wait={wait}")).is(400, "invalid_value", "wait"));
    }
    cases
}
