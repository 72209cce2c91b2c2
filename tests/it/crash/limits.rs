//! A limit that four processes share: exact while Redis is there, and at most doubled when it goes.

use anyhow::Context;
use harness::{App, Client, Mode, report, size};
use serde_json::json;
use std::time::{Duration, Instant};
use tokio::{task::JoinSet, time::sleep};

/// Callers per process.
const CALLERS: usize = 64;
/// Of each key, in any minute.
const QUOTA: f64 = 600.0;

/// Requests that were let through in this time, and the time that it took.
async fn storm(app: &App, key: &str, time: Duration) -> anyhow::Result<(u32, f64)> {
    async fn call(client: Client, until: Instant) -> anyhow::Result<u32> {
        let mut through = 0;
        while Instant::now() < until {
            let reply = client.get("/v1/queues").await?;
            anyhow::ensure!(matches!(reply.status, 200 | 429), "{reply:?}");
            through += u32::from(reply.status == 200);
            if reply.status == 429 {
                sleep(Duration::from_millis(20)).await;
            }
        }
        Ok(through)
    }

    let begun = Instant::now();
    let mut callers = JoinSet::new();
    for api in &app.apis {
        for _ in 0..CALLERS {
            callers.spawn(call(api.with_key(key), begun + time));
        }
    }
    let mut through = 0;
    while let Some(done) = callers.join_next().await {
        through += done??;
    }
    Ok((through, begun.elapsed().as_secs_f64()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_processes_share_a_limit() -> anyhow::Result<()> {
    harness::journey(Mode::Distributed, async |mode| {
        let time = Duration::from_secs(size(3, 20));
        let quota = QUOTA.to_string();
        let app = App::with(mode).apis(4).workers(0).env("LONGHAUL_LIMITS__KEY_REQUESTS_PER_MINUTE", &quota);
        let mut app = app.start().await?;
        // A key that has not been seen is looked up in the database, and so is none of this about Redis.
        let (one, other) = (app.tenant("acme", "read").await?, app.tenant("acme", "read").await?);
        let (through, took) = storm(&app, &one.key, time).await?;
        let most = QUOTA * (1.0 + took / 60.0) + 1.0;
        assert!(f64::from(through) <= most, "{through} requests of {most:.0}");
        assert!(f64::from(through) >= QUOTA, "{through} requests: nobody should be refused what is theirs");
        // The second half of this storm has no Redis.
        let before = storm(&app, &other.key, time / 2).await?;
        app.redis.as_mut().context("a distributed app has a Redis")?.process.kill_9()?;
        let after = storm(&app, &other.key, time / 2).await?;
        let (away, took) = (before.0 + after.0, before.1 + after.1);
        let doubled = 2.0 * (QUOTA * (1.0 + took / 60.0) + 1.0);
        assert!(f64::from(away) <= doubled, "{away} requests of {doubled:.0} while Redis went away");
        assert!(after.0 > 0, "nobody is shut out because Redis is");
        report(
            "37",
            "a limit in four processes",
            &json!({"callers": 4 * CALLERS, "let through": through, "allowed": most.floor(),
                    "let through while Redis went": away, "allowed then": doubled.floor()}),
        )
    })
    .await
}
