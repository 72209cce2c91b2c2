//! The embedded mode, killed again and again: one process is everything, and its file survives.

use super::{history, load, task};
use harness::{App, Mode, Seen, extra_calls, integrity, report, size};
use serde_json::json;
use std::time::Duration;
use tokio::{task::JoinSet, time::sleep};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_kills_lose_nothing() -> anyhow::Result<()> {
    harness::journey(Mode::Embedded, async |mode| {
        const SLOTS: u64 = 16;
        let (kills, tasks) = size((20, 600), (200, 6_000));
        let mut app = App::with(mode).slots(16).quick().start().await?;
        let history = history(&app).await?;
        let mut clients = JoinSet::new();
        let paced = load(&app, &history, "kills").paced(tasks as f64 / (kills as f64 * 0.8));
        clients.spawn(paced.run(tasks, |n| task(n, json!({"ttft_ms": 100}))));
        for _ in 0..kills {
            sleep(Duration::from_millis(fastrand::u64(100..600))).await;
            app.restart_api(0, &[]).await?;
            history.note(&Seen::Killed { slots: SLOTS });
            assert_eq!(integrity(&app).await?, "ok");
        }
        while let Some(done) = clients.join_next().await {
            done??;
        }
        let seen = app.judge(&history, Duration::from_secs(120)).await?;
        let extra = extra_calls(&seen);
        assert!(extra <= kills * SLOTS, "{extra} extra calls after {kills} kills of {SLOTS} slots");
        report(
            "30",
            "SQLite: the one process killed",
            &json!({"kills": kills, "tasks": tasks, "lost": 0, "integrity_check": "ok", "extra calls": extra, "extra calls allowed": kills * SLOTS}),
        )
    })
    .await
}
