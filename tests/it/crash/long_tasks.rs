//! Tasks far longer than a lease, in every slot, with more waiting: the lease is kept, and each is run once.

use super::{history, load, task};
use crate::journey::both_modes;
use harness::{App, Mode, extra_calls, report, size};
use serde_json::json;
use std::time::Duration;

both_modes!(they_are_run_once);

async fn they_are_run_once(mode: Mode) -> anyhow::Result<()> {
    let (long, waiting) = size((16, 200), (16, 1_000));
    let app = App::with(mode).slots(16).quick().start().await?;
    let history = history(&app).await?;
    load(&app, &history, "long").run(long, |n| task(n, json!({"ttft_ms": 10_000}))).await?;
    load(&app, &history, "waiting").run(waiting, |n| task(n, json!({}))).await?;
    let seen = app.judge(&history, Duration::from_secs(120)).await?;
    assert_eq!(extra_calls(&seen), 0, "no task was run twice");
    report(
        "4",
        "tasks of ten leases in every slot",
        &json!({"mode": mode.name(), "tasks": long, "waiting": waiting, "double calls": 0}),
    )
}
