//! What nobody sends who means well: over a bare socket, one case per row. Each is refused for what is wrong with it, none is a
//! fault of ours, none is kept, and none costs memory.

mod batches;
mod bodies;
mod case;
mod envelopes;
mod heads;
mod questions;
mod sockets;

use super::both_modes;
use anyhow::Context;
use case::Case;
use harness::{App, Mode, PATIENCE, within};
use serde_json::json;

/// Fewer would not be a test of it.
const CASES_MIN: usize = 120;
/// What the process may grow by meanwhile.
const GROWTH_MAX_KB: u64 = 64 << 10;

both_modes!(hostile_requests_are_refused_and_cost_nothing);

fn cases() -> Vec<Case> {
    [
        bodies::cases(),
        envelopes::cases(),
        heads::cases(),
        questions::cases(),
        batches::cases(),
        sockets::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// A figure of the API process in kB: `VmRSS` now, `VmHWM` at most so far.
pub(super) fn memory(pid: u32, name: &str) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    Ok(line.and_then(|line| line.trim().strip_suffix(" kB")).context("no such figure")?.parse()?)
}

async fn hostile_requests_are_refused_and_cost_nothing(mode: Mode) -> anyhow::Result<()> {
    // One mode after the other: other tests want the processor as well.
    static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    let _alone = ALONE.lock().await;
    let mut app = App::with(mode).env("LONGHAUL_API__BODY_TIMEOUT", "3s").start().await?;
    let pid = app.api_process(0).pid();
    let client = app.client().clone();
    let address = client.base().trim_start_matches("http://").to_owned();
    for path in ["/v1/tasks", "/v1/queues", "/openapi.json"] {
        client.get(path).await?.expect(200)?;
    }
    let before = memory(pid, "VmRSS")?;

    let cases = cases();
    let (count, made) = (cases.len(), cases.iter().filter(|case| case.makes_a_task()).count());
    assert!(count >= CASES_MIN, "{count} cases");
    let mut complaints = Vec::new();
    for case in cases {
        let what = case.what.clone();
        if let Err(error) = case.run(&address).await {
            complaints.push(format!("{what}: {error:#}"));
        }
    }
    assert!(complaints.is_empty(), "{} of {count}:\n{}", complaints.len(), complaints.join("\n\n"));

    let growth = memory(pid, "VmHWM")?.saturating_sub(before);
    let now = memory(pid, "VmRSS")?.saturating_sub(before);
    println!("{count} hostile requests: {} MiB more at most, {} MiB now", growth >> 10, now >> 10);
    assert!(growth <= GROWTH_MAX_KB, "{growth} kB more at most, {now} kB now");
    assert_eq!(client.get("/livez").await?.status, 200);
    let far_too_long = client.post_bytes("/v1/tasks", vec![b' '; 40 << 20]).await?;
    assert_eq!(far_too_long.status, 413, "a library that still sends hears it as well");
    let tasks = client.get("/v1/tasks?limit=100").await?.expect(200)?;
    assert_eq!(
        tasks["data"].as_array().map(Vec::len),
        Some(made),
        "only what is inside of the bounds is kept"
    );
    for batch in
        client.get("/v1/batches?limit=100").await?.expect(200)?["data"].as_array().into_iter().flatten()
    {
        assert_eq!(
            (&batch["status"], &batch["request_counts"]["total"]),
            (&json!("failed"), &json!(0)),
            "{batch}"
        );
    }
    within(PATIENCE, "all streams are closed", async || {
        let metrics = client.get("/metrics").await?;
        let text = String::from_utf8_lossy(&metrics.body).into_owned();
        Ok(text.contains("longhaul_streams{kind=\"ws\"} 0\n").then_some(()))
    })
    .await
}
