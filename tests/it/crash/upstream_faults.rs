//! Everything that a model server can do wrong, and what becomes of the task: never a truncated answer that counts as complete, never a
//! hang beyond a limit.

use super::{history, task};
use crate::journey::both_modes;
use harness::{App, Mode, Seen, report};
use serde_json::{Value, json};
use std::time::Duration;

both_modes!(every_fault_is_what_it_is);

/// What the fault is, what the simulator is told, and the task's end: its state, and the error's code.
type Case = (&'static str, Value, &'static str, &'static str);

/// Statuses. Those that a server gives whoever asks are in `scopes`.
fn refused() -> Vec<Case> {
    let (done, failed) = ("completed", "failed");
    vec![
        ("a good answer", json!({}), done, ""),
        ("400", json!({"status": 400}), failed, "upstream_rejected"),
        (
            "403 for its content",
            json!({"status": 403, "error_code": "content_policy_violation"}),
            failed,
            "upstream_rejected",
        ),
        (
            "a model that is not there",
            json!({"status": 404, "error_code": "model_not_found"}),
            failed,
            "upstream_rejected",
        ),
        ("404", json!({"status": 404}), failed, "upstream_rejected"),
        ("413", json!({"status": 413}), failed, "upstream_rejected"),
        ("422", json!({"status": 422}), failed, "upstream_rejected"),
        (
            "302",
            json!({"status": 302, "headers": {"location": "http://127.0.0.1:1/"}}),
            failed,
            "upstream_rejected",
        ),
        (
            "an empty purse",
            json!({"status": 429, "error_code": "insufficient_quota"}),
            failed,
            "upstream_rejected",
        ),
        ("408", json!({"status": 408}), failed, "upstream_failed"),
        ("500", json!({"status": 500}), failed, "upstream_failed"),
        ("502", json!({"status": 502}), failed, "upstream_failed"),
        ("504", json!({"status": 504}), failed, "upstream_failed"),
        ("500 once", json!({"status": 500, "fail_first": 1}), done, ""),
        ("529 once", json!({"status": 529, "fail_first": 1}), done, ""),
    ]
}

/// Faults of the wire and of what is sent, of streams and of whole answers alike.
fn strange() -> Vec<Case> {
    let (done, failed) = ("completed", "failed");
    vec![
        ("a reset", json!({"reset": true}), failed, "upstream_unreachable"),
        ("a reset once", json!({"reset": true, "fail_first": 1}), done, ""),
        (
            "silence before the head",
            json!({"hang_ms": 60_000, "hang_at": "head"}),
            failed,
            "upstream_timeout",
        ),
        ("silence after the head", json!({"hang_ms": 60_000, "hang_at": "body"}), failed, "upstream_timeout"),
        ("cut at a byte", json!({"cut_bytes": 100}), failed, "upstream_truncated"),
        ("cut at the first byte", json!({"cut_bytes": 1}), failed, "upstream_truncated"),
        ("cut once", json!({"cut_bytes": 100, "fail_first": 1}), done, ""),
        ("cut between events", json!({"cut_after": 2}), failed, "upstream_truncated"),
        ("byte by byte", json!({"split": "bytes", "tokens": 4}), done, ""),
        ("half events", json!({"split": "frames"}), done, ""),
        (
            "HTML",
            json!({"raw": "<html>busy</html>", "content_type": "application/json"}),
            failed,
            "upstream_malformed",
        ),
        (
            "half a JSON",
            json!({"raw": "{\"choices\": [", "content_type": "application/json"}),
            failed,
            "upstream_malformed",
        ),
        (
            "nothing at all",
            json!({"raw": "", "content_type": "application/json"}),
            failed,
            "upstream_malformed",
        ),
        ("an error in place of an answer", json!({"error_after": 0}), failed, "upstream_failed"),
        (
            "an error that is ours",
            json!({"error_after": 0, "error_code": "invalid_request_error"}),
            failed,
            "upstream_rejected",
        ),
        ("an answer beyond the limit", json!({"huge_bytes": 3_000_000}), failed, "upstream_malformed"),
        ("a large answer", json!({"huge_bytes": 900_000}), done, ""),
        ("U+0000", json!({"text": "a\u{0}b"}), done, ""),
        ("half a surrogate", json!({"lone_surrogate": true}), done, ""),
        ("no usage", json!({"usage": "absent"}), done, ""),
        ("absurd usage", json!({"usage": "absurd"}), done, ""),
    ]
}

/// Faults of streams.
fn streamed() -> Vec<Case> {
    let (done, failed) = ("completed", "failed");
    vec![
        ("silence after a token", json!({"hang_ms": 60_000, "hang_at": "token"}), failed, "upstream_timeout"),
        ("no finish reason", json!({"omit_finish": true}), failed, "upstream_truncated"),
        ("no [DONE]", json!({"omit_done": true}), done, ""),
        ("an error among the tokens", json!({"error_after": 3}), failed, "upstream_failed"),
        ("an error among the tokens, once", json!({"error_after": 3, "fail_first": 1}), done, ""),
        (
            "no stream at all",
            json!({"raw": "data: {]\n\n", "content_type": "text/event-stream"}),
            failed,
            "upstream_malformed",
        ),
        (
            "a stream that ends at once",
            json!({"raw": "", "content_type": "text/event-stream"}),
            failed,
            "upstream_truncated",
        ),
        ("a slow stream", json!({"drip_ms": 1, "tokens": 2}), done, ""),
    ]
}

async fn every_fault_is_what_it_is(mode: Mode) -> anyhow::Result<()> {
    let wishes = App::with(mode).slots(64).quick();
    let app = wishes
        // Each case is its own: none may pause the upstream for the others.
        .env("LONGHAUL_WORKER__BREAKER_FAILURES", "10000")
        .env("LONGHAUL_WORKER__FIRST_BYTE_TIMEOUT", "1s")
        .env("LONGHAUL_WORKER__IDLE_TIMEOUT", "1s")
        .env("LONGHAUL_WORKER__ANSWER_BYTES_MAX", "1MiB")
        .env("LONGHAUL_TASK__BACKOFF_BASE", "20ms")
        .start()
        .await?;
    let history = history(&app).await?;
    let mut asked = Vec::new();
    for (relay, cases) in [
        ("lifecycle", refused()),
        ("lifecycle", strange()),
        ("deltas", refused()),
        ("deltas", strange()),
        ("deltas", streamed()),
    ] {
        for case in cases {
            let mut body = task(asked.len(), case.1.clone());
            body["policy"] = json!({"events": relay, "max_attempts": 2});
            let id = app.client().submit(&body).await?;
            history.note(&Seen::Accepted { task: id.clone(), key: None });
            asked.push((relay, case, id));
        }
    }
    let mut wrong = Vec::new();
    for (relay, (fault, _, state, code), id) in &asked {
        let ended = ended(&app, id).await?;
        let came = (
            ended["status"].as_str().unwrap_or_default(),
            ended["error"]["code"].as_str().unwrap_or_default(),
        );
        if came != (*state, *code) {
            wrong.push(format!(
                "{fault} ({relay}): {came:?} instead of {:?}: {}",
                (state, code),
                ended["error"]
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    harness::within(Duration::from_secs(10), "no call is left open", async || {
        Ok((app.model.running() == 0).then_some(()))
    })
    .await?;
    report(
        "20",
        "faults of the model server",
        &json!({"mode": mode.name(), "scripts": asked.len(), "as specified": asked.len(), "truncated but completed": 0, "left hanging": 0}),
    )
}

/// The task once it has ended. Its answer is passed on as it came, which not every reader of JSON takes.
async fn ended(app: &App, id: &str) -> anyhow::Result<Value> {
    harness::eventually("the task has ended", async || {
        let reply = app.client().get(&format!("/v1/tasks/{id}?wait=30")).await?;
        let task: Value =
            serde_json::from_str(&String::from_utf8_lossy(&reply.body).replace("\\ud800", "?"))?;
        Ok((!task["finished_at"].is_null()).then_some(task))
    })
    .await
}
