//! An API that dies right after a commit, before anybody was told: the same key finds the same task, which has been at work since.

use super::{history, task};
use crate::journey::both_modes;
use harness::{App, Client, Mode, Seen, report, size, within};
use reqwest::Method;
use serde_json::json;
use std::time::{Duration, Instant};

both_modes!(the_commit_is_kept_and_found_again);

async fn the_commit_is_kept_and_found_again(mode: Mode) -> anyhow::Result<()> {
    if !harness::failpoints() {
        return Ok(());
    }
    let kills = size(10, 1_000);
    let mut app = App::with(mode).quick().start().await?;
    let history = history(&app).await?;
    let mut slowest = Duration::ZERO;
    app.restart_api(0, &[("FAILPOINTS", "submit_committed=return")]).await?;
    for n in 0..kills {
        let (key, body) = (format!("kill-{n}"), task(n, json!({})));
        let submit = |client: &Client| {
            client.request(Method::POST, "/v1/tasks").header("idempotency-key", &key).json(&body)
        };
        let died = Client::send(submit(app.client())).await;
        assert!(died.is_err(), "built without failpoints? use scripts/test: {died:?}");
        let begun = Instant::now();
        // The next one dies as well, after its own first commit: a replay commits nothing.
        app.restart_api(0, &[("FAILPOINTS", "submit_committed=1*off->return")]).await?;
        let found = Client::send(submit(app.client())).await?;
        assert_eq!(found.header("idempotent-replayed"), "true", "{found:?}");
        let id = found.expect(202)?["id"].as_str().unwrap_or_default().to_owned();
        history.note(&Seen::Accepted { task: id.clone(), key: Some(key.clone()) });
        let called = async || Ok((!app.executions(&id).is_empty()).then_some(()));
        within(Duration::from_secs(10), "the task is at work", called).await?;
        slowest = slowest.max(begun.elapsed());
    }
    app.restart_api(0, &[]).await?;
    app.judge(&history, Duration::from_secs(30)).await?;
    report(
        "5",
        "an API killed after the commit, before the bell",
        &json!({"mode": mode.name(), "kills": kills, "lost": 0, "slowest start incl. the API's own, s": slowest.as_secs_f64()}),
    )
}
