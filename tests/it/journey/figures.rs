//! What operators read: the worker's own figures.

use super::both_modes;
use harness::{App, Client, Mode, eventually, free_address};
use serde_json::json;

both_modes!(a_worker_says_how_many_slots_are_busy);

async fn a_worker_says_how_many_slots_are_busy(mode: Mode) -> anyhow::Result<()> {
    let listen = free_address()?.to_string();
    let app = App::with(mode).slots(4).quick().env("LONGHAUL_WORKER__LISTEN", &listen).start().await?;
    let worker = Client::new(format!("http://{listen}"))?;
    let slots = async |busy: u32| {
        eventually("the worker's slots are told", async || {
            let said = String::from_utf8_lossy(&worker.get("/metrics").await?.body).into_owned();
            let has = |state: &str, count: u32| {
                said.contains(&format!("longhaul_worker_slots{{state=\"{state}\"}} {count}\n"))
            };
            Ok((has("busy", busy) && has("free", 4 - busy)).then_some(()))
        })
        .await
    };
    slots(0).await?;
    for n in 0..3 {
        app.client().ask(&format!("task {n}"), json!({"ttft_ms": 30_000})).await?;
    }
    slots(3).await
}
