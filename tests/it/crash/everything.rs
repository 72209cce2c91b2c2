//! Everything at once: workers, APIs, Postgres and Redis are killed, frozen, emptied and asked to end, in an order that a seed gives, while
//! clients submit under keys, watch, cancel, and send batches. Nobody notices, but for the time it takes.

use super::{history, load, task};
use crate::journey::both_transports;
use anyhow::Context;
use harness::{App, Client, Follower, History, Mode, Seen, Way, chat, report, size, within};
use reqwest::Method;
use serde_json::{Value, json};
use shared::clock::UnixMs;
use std::time::{Duration, Instant};
use tokio::{task::JoinSet, time::sleep};

both_transports!(nobody_notices);

/// Lines of a batch.
const LINES: usize = 20;
/// After the last blow everything has ended within this time.
const CALM: Duration = Duration::from_secs(60);

async fn nobody_notices(mode: Mode) -> anyhow::Result<()> {
    let (seconds, rate) = size((16_u32, 40.0), (450, 60.0));
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut app = App::with(mode).own_postgres().apis(2).workers(3).slots(16).quick().start().await?;
    let history = history(&app).await?;
    let tasks = (rate * f64::from(seconds)) as usize;
    let mut doing = JoinSet::new();
    let every = |n: usize| {
        task(
            n,
            if n.is_multiple_of(7) {
                json!({"ttft_ms": 150, "fail_first": 1})
            } else {
                json!({"ttft_ms": 150})
            },
        )
    };
    let one = load(&app, &history, "chaos");
    doing.spawn({
        let paced = one.clone().paced(rate);
        async move { paced.run(tasks, every).await.map(drop) }
    });
    // A tenth is sent twice, under the same keys.
    doing.spawn(async move { one.paced(rate / 10.0).run(tasks / 10, every).await.map(drop) });
    for n in 0..2 * seconds {
        let (apis, history) = (app.apis.clone(), history.clone());
        let begins = Duration::from_millis(500) * n;
        doing.spawn(async move {
            sleep(begins).await;
            match n % 4 {
                0 => cancelled(&apis, &history, n as usize).await,
                _ => followed(apis, &history, n as usize).await,
            }
        });
    }
    let batches = [batch(&app).await?, batch(&app).await?, batch(&app).await?];
    let (mut dice, mut blows, begun) = (fastrand::Rng::with_seed(seed), 0, Instant::now());
    while begun.elapsed() < Duration::from_secs(u64::from(seconds)) {
        sleep(Duration::from_millis(dice.u64(200..900))).await;
        blow(&mut app, &mut dice).await?;
        blows += 1;
    }
    let calm = Instant::now();
    while let Some(done) = doing.join_next().await {
        done?.with_context(|| format!("seed {seed}"))?;
    }
    let seen = app.judge(&history, CALM).await.with_context(|| format!("seed {seed}"))?;
    for id in &batches {
        completes(&app, id, CALM.saturating_sub(calm.elapsed()))
            .await
            .with_context(|| format!("seed {seed}"))?;
    }
    let is_bad = |seen: &&Seen| matches!(seen, Seen::Stands { state, .. } if !matches!(&**state, "completed" | "cancelled"));
    let failed: Vec<_> = seen.iter().filter(is_bad).collect();
    assert!(failed.is_empty(), "seed {seed}: {failed:?}");
    report(
        "24",
        "everything at once",
        &json!({"mode": mode.name(), "seed": seed, "blows": blows, "tasks": tasks, "failed": 0, "ended after, s": calm.elapsed().as_secs_f64()}),
    )
}

/// Sends a batch.
async fn batch(app: &App) -> anyhow::Result<String> {
    let line = |n| {
        let body = chat(&format!("line {n}"), json!({"ttft_ms": 1_000}));
        json!({"custom_id": format!("{n}"), "method": "POST", "url": "/v1/chat/completions", "body": body})
    };
    let lines: Vec<Value> = (0..LINES).map(line).collect();
    let wanted = json!({"endpoint": "/v1/chat/completions", "completion_window": "24h", "requests": lines});
    let made = app.client().post("/v1/batches", &wanted).await?.expect(200)?;
    Ok(made["id"].as_str().context("a batch without an id")?.to_owned())
}

async fn completes(app: &App, batch: &str, patience: Duration) -> anyhow::Result<()> {
    let (path, mut last) = (format!("/v1/batches/{batch}"), Value::Null);
    within(patience, "the batch has ended", async || {
        last = app.client().get(&path).await?.expect(200)?;
        Ok((last["status"] == "completed").then_some(()))
    })
    .await?;
    assert_eq!(last["request_counts"], json!({"total": LINES, "completed": LINES, "failed": 0}), "{batch}");
    Ok(())
}

/// One of all that may happen.
async fn blow(app: &mut App, dice: &mut fastrand::Rng) -> anyhow::Result<()> {
    let (worker, api) = (dice.usize(..app.workers.len()), dice.usize(..app.apis.len()));
    let absent = "a distributed app of its own has all of them";
    let moment = Duration::from_millis(dice.u64(300..2_500));
    match dice.u32(..12) {
        0..4 => app.replace_worker(worker, &[])?,
        4 | 5 => app.restart_api(api, &[]).await?,
        6 => {
            let postgres = app.postgres.as_mut().context(absent)?;
            postgres.kill_9().await?;
            postgres.restart().await?;
        }
        7 => app.redis.as_mut().context(absent)?.restart().await?,
        8 => app.redis.as_ref().context(absent)?.flush().await?,
        9 => {
            app.redis.as_ref().context(absent)?.freeze().await?;
            sleep(moment).await;
            app.redis.as_ref().context(absent)?.thaw()?;
        }
        10 => {
            // Beyond its lease, as often as not.
            app.workers[worker].signal("STOP")?;
            sleep(moment).await;
            app.workers[worker].signal("CONT")?;
        }
        _ => {
            app.workers[worker].signal("TERM")?;
            sleep(moment).await;
            app.replace_worker(worker, &[])?;
        }
    }
    Ok(())
}

/// Posts until it is answered so.
async fn posted(apis: &[Client], path: &str, key: &str, body: &Value, status: u16) -> anyhow::Result<Value> {
    let (begun, mut last) = (Instant::now(), None);
    for api in apis.iter().cycle() {
        let request = api.request(Method::POST, path).header("idempotency-key", key).json(body);
        match Client::send(request).await.and_then(|reply| reply.expect(status)) {
            Ok(answer) => return Ok(answer),
            Err(error) if begun.elapsed() > CALM => return Err(error),
            Err(error) => last = Some(error),
        }
        sleep(Duration::from_millis(50)).await;
    }
    Err(last.context("there is no API")?)
}

async fn streamed(apis: &[Client], history: &History, n: usize) -> anyhow::Result<String> {
    let sim = json!({"ttft_ms": 50, "itl_ms": 25, "tokens": 60});
    let key = format!("stream-{n}-{:016x}", fastrand::u64(..));
    let made = posted(apis, "/v1/tasks", &key, &task(n, sim), 202).await?;
    let id = made["id"].as_str().context("a task without an id")?.to_owned();
    history.note(&Seen::Accepted { task: id.clone(), key: Some(key) });
    Ok(id)
}

/// Every follower checks that what it hears has no gap, and is the answer or is said not to be.
async fn followed(apis: Vec<Client>, history: &History, n: usize) -> anyhow::Result<()> {
    let task = streamed(&apis, history, n).await?;
    let way = if n.is_multiple_of(2) { Way::Stream } else { Way::Socket };
    Follower { apis, task, way, leaves: Some(20) }.follow().await.map(drop)
}

async fn cancelled(apis: &[Client], history: &History, n: usize) -> anyhow::Result<()> {
    let id = streamed(apis, history, n).await?;
    let path = format!("/v1/tasks/{id}/cancel");
    let stands = posted(apis, &path, &id, &json!({}), 200).await?["status"].clone();
    if stands == "cancelled" {
        history.note(&Seen::Cancelled { task: id, at: UnixMs::now().0 as f64 / 1_000.0 });
    }
    Ok(())
}
