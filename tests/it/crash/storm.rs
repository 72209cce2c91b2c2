//! Very many tasks that become ready in the same second: all of them run, and no call of Redis is long.

use super::{history, load, task};
use crate::journey::both_transports;
use anyhow::Context;
use harness::{App, Mode, report, size};
use serde_json::json;
use shared::clock::UnixMs;
use std::time::Duration;

both_transports!(all_of_them_run);

async fn all_of_them_run(mode: Mode) -> anyhow::Result<()> {
    let (tasks, ahead) = size((3_000, 4), (50_000, 60));
    let app = App::with(mode).workers(2).slots(64).quick().start().await?;
    let redis = app.redis.as_ref().context("a distributed app has a Redis")?;
    // Its clock counts while it waits for the processor as well, which is shared here.
    let bar = if redis.favour()? { 10_000 } else { 100_000 };
    redis.config("slowlog-log-slower-than", "1000").await?;
    redis.config("slowlog-max-len", "100000").await?;
    let history = history(&app).await?;
    let due = UnixMs::now().seconds() + ahead;
    let mut storm = load(&app, &history, "storm");
    storm.clients = 128;
    storm
        .run(tasks, |n| {
            let mut task = task(n, json!({}));
            task["scheduled_at"] = json!(due);
            task
        })
        .await?;
    app.judge(&history, Duration::from_secs(300)).await?;
    let mut connection = redis.connection().await?;
    // Number, time, microseconds, command, client, name.
    let slow: Vec<(u64, u64, u64, redis::Value, String, String)> =
        redis::cmd("SLOWLOG").arg("GET").arg(-1).query_async(&mut connection).await?;
    let us = |(_, _, us, ..): &&(u64, u64, u64, redis::Value, String, String)| *us;
    let longest = slow.iter().max_by_key(us);
    let over = slow.iter().filter(|call| us(call) > 10_000).count();
    assert!(longest.is_none_or(|call| us(&call) < bar), "a call of Redis took long: {longest:?}");
    report(
        "8",
        "retries due in one second",
        &json!({"mode": mode.name(), "tasks": tasks, "lost": 0, "calls of Redis over 10 ms": over,
                "longest, ms": longest.map_or(0.0, |call| us(&call) as f64 / 1_000.0)}),
    )
}
