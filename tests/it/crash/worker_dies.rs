//! `kill -9` of a worker in the middle of its work.

use harness::{App, Mode, eventually};
use serde_json::json;
use std::collections::BTreeMap;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn its_tasks_are_run_again_and_end_once() -> anyhow::Result<()> {
    harness::journey(Mode::Distributed, async |mode| {
        let short_lease = [("LONGHAUL_LEASE__HEARTBEAT", "200ms"), ("LONGHAUL_LEASE__TTL", "1s")];
        let wishes = App::with(mode).slots(16).env("LONGHAUL_SWEEP__PERIOD", "200ms");
        let wishes = short_lease.into_iter().fold(wishes, |wishes, (name, value)| wishes.env(name, value));
        let mut app = wishes.start().await?;
        let mut tasks = Vec::new();
        for n in 0..16 {
            // Long enough to be caught in the middle, short enough to be done twice.
            tasks.push(app.client().ask(&format!("task {n}"), json!({"ttft_ms": 3_000})).await?);
        }
        let all_run = async || Ok((app.model.ledger(None).len() == 16).then_some(()));
        eventually("the worker runs all of them", all_run).await?;
        app.workers[0].kill_9()?;
        app.add_worker()?;

        for id in &tasks {
            let ended = app.client().ended(id).await?;
            assert_eq!((&ended["status"], &ended["attempt"]), (&json!("completed"), &json!(2)), "{ended}");
            assert_eq!(app.executions(id), ["client_closed", "finished"]);
        }
        let calls = app.model.ledger(None);
        let mut finished = BTreeMap::new();
        for call in calls.iter().filter(|call| call.how == "finished") {
            *finished.entry(call.task.clone()).or_insert(0) += 1;
        }
        assert!(
            finished.len() == 16 && finished.values().all(|count| *count == 1),
            "one result each: {finished:?}"
        );
        Ok(())
    })
    .await
}
