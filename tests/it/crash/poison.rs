//! Tasks that take their worker down: given up on after five at the most, and nobody else is hurt, however often its worker dies.

use super::{history, load, task};
use crate::journey::both_transports;
use harness::{App, Mode, report, size, within};
use serde_json::json;
use std::time::Duration;

both_transports!(it_is_given_up_on);

async fn it_is_given_up_on(mode: Mode) -> anyhow::Result<()> {
    if !harness::failpoints() {
        return Ok(());
    }
    let (poison, good) = size((2, 100), (5, 995));
    let poisonous = [("FAILPOINTS", "poison=return(hemlock)")];
    let mut app = App::with(mode).workers(0).slots(16).quick().start().await?;
    let history = history(&app).await?;
    app.add_worker_with(&poisonous)?;
    app.add_worker_with(&poisonous)?;
    load(&app, &history, "poison").run(poison, |n| task(n, json!({"text": "hemlock"}))).await?;
    load(&app, &history, "good").run(good, |n| task(n, json!({"ttft_ms": 20}))).await?;
    let mut deaths = 0;
    within(Duration::from_secs(120), "every task has ended", async || {
        for one in 0..app.workers.len() {
            // As an init system would.
            if app.workers[one].ended()?.is_some() {
                deaths += 1;
                app.replace_worker(one, &poisonous)?;
            }
        }
        Ok((app.unfinished().await? == 0).then_some(()))
    })
    .await?;
    app.judge(&history, Duration::from_secs(30)).await?;
    for (key, id) in history.accepted()? {
        let ended = app.client().task(&id).await?;
        let wanted = if key.starts_with("poison") { ("failed", "worker_crashed") } else { ("completed", "") };
        let code = ended["error"]["code"].as_str().unwrap_or_default();
        assert_eq!((ended["status"].as_str().unwrap_or_default(), code), wanted, "{key}: {ended}");
    }
    // Two that others may have caused, and three that are clearly its own.
    assert!(deaths <= 5 * poison, "{poison} poisonous tasks took {deaths} workers down");
    report(
        "15",
        "tasks that take their worker down",
        &json!({"mode": mode.name(), "poisonous": poison, "good": good, "workers lost": deaths, "allowed": 5 * poison, "good ones lost": 0}),
    )
}
