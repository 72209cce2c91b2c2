//! Tasks that are JSON, with a field that is missing, unknown, doubled, of the wrong type or out of its bounds.

use super::{
    bodies::GOOD,
    case::{Case, bodiless, post, post_as, task},
};
use serde_json::{Value, json};

/// What is wrong, the code, the field.
type Fault = (Value, &'static str, &'static str);

pub(super) fn cases() -> Vec<Case> {
    [fields(), bounds(), doubled(), keys(), millions(), others()].into_iter().flatten().collect()
}

/// A task with these fields beside or instead of its own.
fn with(fields: &Value) -> String {
    let mut task: Value = serde_json::from_str(GOOD).expect("a good task is JSON");
    for (name, value) in fields.as_object().expect("fields are an object") {
        task[name] = value.clone();
    }
    task.to_string()
}

fn faulty(faults: Vec<Fault>) -> Vec<Case> {
    let case = |(fields, code, param): Fault| {
        let what: String = fields.to_string().chars().take(120).collect();
        task(what, with(&fields)).is(400, code, param)
    };
    faults.into_iter().map(case).collect()
}

fn fields() -> Vec<Case> {
    let mut faults = Vec::new();
    for wrong in [json!(7), json!(null), json!(true), json!([]), json!({})] {
        faults.push((json!({"endpoint": wrong}), "invalid_type", "endpoint"));
    }
    for wrong in [json!(7), json!("text"), json!(true), json!([]), json!(null)] {
        faults.push((json!({"body": wrong}), "invalid_type", "body"));
    }
    for wrong in [json!(7), json!([]), json!({})] {
        faults.push((json!({"body": {"model": wrong}}), "invalid_type", "body.model"));
        faults.push((json!({"queue": wrong}), "invalid_type", "queue"));
    }
    for (name, wrong) in [
        ("priority", json!("high")),
        ("priority", json!([1])),
        ("delay_s", json!("1")),
        ("delay_s", json!({})),
        ("scheduled_at", json!("tomorrow")),
        ("policy", json!("strict")),
        ("metadata", json!("team")),
        ("metadata", json!([["team", "a"]])),
    ] {
        faults.push((json!({name: wrong}), "invalid_type", name));
    }
    for (policy, param) in [
        (json!({"ttl_s": "1h"}), "policy.ttl_s"),
        (json!({"max_attempts": 1.5}), "policy.max_attempts"),
        (json!({"backoff": 1}), "policy.backoff"),
        (json!({"backoff": {"base_ms": "1"}}), "policy.backoff.base_ms"),
    ] {
        faults.push((json!({"policy": policy}), "invalid_type", param));
    }
    for (fields, param) in [
        (json!({"endpont": "x"}), "endpont"),
        (json!({"__proto__": {"admin": true}}), "__proto__"),
        (json!({"constructor": {}}), "constructor"),
        (json!({"project": "other"}), "project"),
        (json!({"id": "task_01jd00000000000000000000zz"}), "id"),
        (json!({"state": "completed"}), "state"),
        (json!({"policy": {"tries": 3}}), "policy.tries"),
        (json!({"policy": {"backoff": {"mx_ms": 1}}}), "policy.backoff.mx_ms"),
    ] {
        faults.push((fields, "unknown_parameter", param));
    }
    for (fields, param) in
        [(json!({"body": {}}), "body.model"), (json!({"body": {"model": null}}), "body.model")]
    {
        faults.push((fields, "missing_required_parameter", param));
    }
    faulty(faults)
}

/// Every documented bound of a task: at it, and one beyond.
fn bounds() -> Vec<Case> {
    let pairs = |count: usize, key: usize, value: usize| {
        let pair = |n| (format!("{n:0>key$}"), json!("v".repeat(value)));
        Value::Object((0..count).map(pair).collect())
    };
    let month = 2_592_000;
    let inside = [
        json!({"priority": 100}),
        json!({"priority": -100}),
        json!({"delay_s": month - 1, "policy": {"ttl_s": month}}),
        json!({"policy": {"ttl_s": 1, "queue_timeout_s": 1, "execution_timeout_s": 1, "result_ttl_s": month}}),
        json!({"policy": {"max_attempts": 100, "backoff": {"base_ms": 1, "max_ms": 3_600_000}}}),
        json!({"metadata": pairs(16, 64, 512)}),
    ];
    let beyond = vec![
        (json!({"priority": 101}), "invalid_value", "priority"),
        (json!({"priority": -101}), "invalid_value", "priority"),
        (json!({"delay_s": month + 1}), "invalid_value", "delay_s"),
        (json!({"delay_s": month, "policy": {"ttl_s": month}}), "invalid_value", "delay_s"),
        (json!({"delay_s": 1, "scheduled_at": 4_000_000_000_u64}), "invalid_value", "scheduled_at"),
        (json!({"scheduled_at": 4_000_000_000_u64}), "invalid_value", "scheduled_at"),
        (json!({"policy": {"ttl_s": month + 1}}), "invalid_value", "policy.ttl_s"),
        (json!({"policy": {"ttl_s": 0}}), "invalid_value", "policy.ttl_s"),
        (json!({"policy": {"queue_timeout_s": 0}}), "invalid_value", "policy.queue_timeout_s"),
        (
            json!({"policy": {"execution_timeout_s": month + 1}}),
            "invalid_value",
            "policy.execution_timeout_s",
        ),
        (json!({"policy": {"result_ttl_s": month + 1}}), "invalid_value", "policy.result_ttl_s"),
        (json!({"policy": {"max_attempts": 101}}), "invalid_value", "policy.max_attempts"),
        (json!({"policy": {"max_attempts": 0}}), "invalid_value", "policy.max_attempts"),
        (json!({"policy": {"backoff": {"base_ms": 0}}}), "invalid_value", "policy.backoff.base_ms"),
        (json!({"policy": {"backoff": {"max_ms": 3_600_001}}}), "invalid_value", "policy.backoff.max_ms"),
        (json!({"policy": {"events": "everything"}}), "invalid_value", "policy.events"),
        (json!({"metadata": pairs(17, 2, 1)}), "invalid_value", "metadata"),
        (json!({"metadata": {"k": "v".repeat(513)}}), "invalid_value", "metadata.k"),
        (json!({"metadata": {"": "v"}}), "invalid_value", "metadata."),
        (json!({"metadata": {"k": "\0"}}), "invalid_value", "metadata.k"),
        (json!({"metadata": {"k": 1}}), "invalid_type", "metadata.k"),
        (json!({"metadata": {"k": null}}), "invalid_type", "metadata.k"),
        (json!({"body": {"model": ""}}), "invalid_value", "body.model"),
        (json!({"body": {"model": "m\0"}}), "invalid_value", "body.model"),
        (json!({"body": {"model": "m".repeat(257)}}), "invalid_value", "body.model"),
        (json!({"queue": ""}), "invalid_value", "queue"),
        (json!({"queue": "../default"}), "invalid_value", "queue"),
        (json!({"endpoint": ""}), "invalid_value", "endpoint"),
        (json!({"endpoint": "http://169.254.169.254/latest"}), "invalid_value", "endpoint"),
        (json!({"endpoint": "/v1/chat/completions/../../admin"}), "invalid_value", "endpoint"),
        (json!({"endpoint": "/v1/chat/completions\r\nx: y"}), "invalid_value", "endpoint"),
    ];
    let mut cases = faulty(beyond);
    let key = json!({"metadata": {"k".repeat(65): "v"}});
    let named = format!("metadata.{}", "k".repeat(65));
    cases.push(task("a metadata key of 65", with(&key)).is(400, "invalid_value", named.as_str()));
    let unserved = json!({"body": {"model": "m".repeat(256)}});
    cases.push(task("a model of 256", with(&unserved)).is(404, "model_not_found", "body.model"));
    cases.push(task("a field without a name", with(&json!({"": 1}))).is(400, "unknown_parameter", None));
    cases.extend(
        inside.map(|fields| {
            task(format!("at the bound: {:.80}", fields.to_string()), with(&fields)).served(202)
        }),
    );
    cases
}

fn doubled() -> Vec<Case> {
    let twice = |more: &str| GOOD.replacen('{', &format!("{{{more},"), 1);
    let cases = [
        (r#""endpoint":"/v1/embeddings""#, "endpoint"),
        (r#""body":{}"#, "body"),
        (r#""priority":1,"priority":2"#, "priority"),
        (r#""policy":{"ttl_s":1,"ttl_s":2}"#, "policy.ttl_s"),
    ];
    let mut cases: Vec<Case> = cases
        .into_iter()
        .map(|(more, param)| task(more, twice(more)).is(400, "duplicate_parameter", param))
        .collect();
    let models = r#"{"endpoint":"/v1/chat/completions","body":{"model":"sim-chat","model":"other"}}"#;
    cases.push(task("two models", models).is(400, "duplicate_parameter", "body.model"));
    let pairs = twice(r#""metadata":{"a":"1","a":"2"}"#);
    cases.push(task("two pairs of one key", pairs).is(400, "invalid_value", "metadata"));
    cases
}

fn keys() -> Vec<Case> {
    let json = "content-type: application/json\r\n";
    let mut cases = Vec::new();
    for (what, key) in [
        ("an empty key", String::new()),
        ("a quoted empty key", "\"\"".into()),
        ("a key of 256", "k".repeat(256)),
        ("a key of 17 KiB", "k".repeat(17 << 10)),
        ("a key that is not ASCII", "cl\u{e9}".into()),
        ("a key of white space", " \t ".into()),
    ] {
        let headers = format!("{json}idempotency-key: {key}\r\n");
        cases.push(post_as(what, "/v1/tasks", &headers, || GOOD.into()).is(
            400,
            "invalid_value",
            "Idempotency-Key",
        ));
    }
    let two = format!("{json}idempotency-key: a\r\nidempotency-key: b\r\n");
    cases.push(post_as("two keys", "/v1/tasks", &two, || GOOD.into()).is(
        400,
        "invalid_value",
        "Idempotency-Key",
    ));
    let longest = format!("{json}idempotency-key: {}\r\n", "k".repeat(255));
    cases.push(post_as("a key of 255", "/v1/tasks", &longest, || GOOD.into()).served(202));
    cases
}

/// Many of something, in as few bytes as that takes.
fn millions() -> Vec<Case> {
    let pairs = || (0..1_000_000).map(|n| format!(r#""{n}":"","#)).collect::<String>() + r#""x":"""#;
    let long = || "x".repeat(15 << 20);
    let json = "content-type: application/json\r\n";
    let big = |what: &str, target: &str, body: fn(String) -> String, made: fn() -> String| {
        post_as(what, target, json, move || body(made()).into_bytes())
    };
    let with = |what: &str, field: fn(String) -> String, made: fn() -> String| {
        post_as(what, "/v1/tasks", json, move || {
            GOOD.replacen('{', &format!("{{{},", field(made())), 1).into_bytes()
        })
    };
    vec![
        big("a million fields", "/v1/tasks", |pairs| format!("{{{pairs}}}"), pairs).is(
            400,
            "unknown_parameter",
            "0",
        ),
        with("a million pairs of metadata", |pairs| format!(r#""metadata":{{{pairs}}}"#), pairs).is(
            400,
            "invalid_value",
            "metadata",
        ),
        big(
            "a million keys in the body",
            "/v1/tasks",
            |pairs| format!(r#"{{"endpoint":"/v1/chat/completions","body":{{{pairs}}}}}"#),
            pairs,
        )
        .is(400, "missing_required_parameter", "body.model"),
        big(
            "an endpoint of 15 MiB",
            "/v1/tasks",
            |long| format!(r#"{{"endpoint":"{long}","body":{{"model":"m"}}}}"#),
            long,
        )
        .is(400, "invalid_value", None),
        with("a queue of 15 MiB", |long| format!(r#""queue":"{long}""#), long).is(400, "invalid_value", None),
        with("a priority of 15 MiB", |long| format!(r#""priority":"{long}""#), long).is(
            400,
            "invalid_value",
            None,
        ),
        big("a model of 15 MiB", "/v1/tasks", |long| GOOD.replace("sim-chat", &long), long).is(
            400,
            "invalid_value",
            "body.model",
        ),
        with("metadata of 15 MiB", |long| format!(r#""metadata":{{"a":"{long}"}}"#), long).is(
            400,
            "invalid_value",
            None,
        ),
        big(
            "scopes without end",
            "/v1/admin/keys",
            |_| format!(r#"{{"project":"default","scopes":[{}"read"]}}"#, r#""","#.repeat(5 << 20)),
            String::new,
        )
        .is(400, "invalid_value", "scopes"),
    ]
}

/// Bodies of other operations.
fn others() -> Vec<Case> {
    let unknown = "/v1/tasks/task_01jd00000000000000000000zz/cancel";
    vec![
        post("a cancel with garbage", unknown, "garbage").is(400, "invalid_json", None),
        post("a cancel with a field", unknown, r#"{"why":1}"#).is(400, "unknown_parameter", "why"),
        post("a cancel with a list", unknown, "[]").is(400, "invalid_type", None),
        post("a cancel with depth", unknown, "[".repeat(100_000)).is(400, "json_too_deep", None),
        bodiless("POST", unknown, "content-length: 0\r\n").is(404, "task_not_found", "id"),
        post("a project without a name", "/v1/admin/projects", "{}").is(
            400,
            "missing_required_parameter",
            "name",
        ),
        post("a project of another shape", "/v1/admin/projects", r#"{"name":"../x"}"#).is(
            400,
            "invalid_value",
            "name",
        ),
        post("a key of no project", "/v1/admin/keys", r#"{"project":"none","scopes":["read"]}"#).is(
            404,
            "project_not_found",
            "project",
        ),
        post("a key of a scope that is none", "/v1/admin/keys", r#"{"project":"default","scopes":["root"]}"#)
            .is(400, "invalid_value", "scopes"),
    ]
}
