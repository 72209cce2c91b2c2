//! An API dies, and everyone who watched comes to the other one in the same moment.

use crate::journey::both_transports;
use harness::{App, Client, Follower, Mode, Way, report, size, within};
use serde_json::json;
use shared::clock::UnixMs;
use std::time::{Duration, Instant};
use tokio::{task::JoinSet, time::sleep};

both_transports!(everyone_is_back_in_time);

/// Longest time until the last one is back.
const BACK: Duration = Duration::from_secs(60);
/// Longest submit meanwhile, at the 99th percentile.
const SUBMIT: Duration = Duration::from_secs(10);

async fn everyone_is_back_in_time(mode: Mode) -> anyhow::Result<()> {
    let (followers, tasks, itl, tokens) = size((200, 20, 500, 30), (5_000, 100, 5_000, 24));
    let mut app = App::with(mode).apis(2).slots(128).start().await?;
    let (mut ids, mut following) = (Vec::new(), JoinSet::new());
    for n in 0..tasks {
        let sim = json!({"ttft_ms": 100, "itl_ms": itl, "tokens": tokens});
        ids.push(app.client().ask(&format!("task {n}"), sim).await?);
    }
    let other = app.apis[1].clone();
    for n in 0..followers {
        let way = if n % 2 == 0 { Way::Stream } else { Way::Socket };
        // The first one is there when they come, and then never again.
        let mut apis = vec![other.clone(); 20];
        apis[0] = app.apis[0].clone();
        following.spawn(Follower { apis, task: ids[n % tasks].clone(), way, leaves: None }.follow());
        if n % 50 == 49 {
            sleep(Duration::from_millis(20)).await;
        }
    }
    within(BACK, "all of them watch", async || Ok((streams(&app.apis[0]).await? >= followers).then_some(())))
        .await?;
    let before = submits(&other, Duration::from_secs(3)).await?;
    let killed = UnixMs::now().0 as f64 / 1_000.0;
    app.api_process(0).kill_9()?;
    let meanwhile = submits(&other, Duration::from_secs(size(3, 20))).await?;
    let mut back = Vec::new();
    while let Some(followed) = following.join_next().await {
        let story = followed??;
        story.must_be_whole()?;
        assert_eq!(story.count("task.snapshot"), 0, "{:?}", story.seqs());
        // Whose connection broke before, while all the others came, was at the other one already; clients end a stream after 90 s.
        if let [_, second, ..] = story.stood[..]
            && second >= killed
        {
            back.push(second - killed);
        }
    }
    assert!(back.len() * 100 >= followers * 99, "{} of {followers} came back", back.len());
    let slowest = back.iter().copied().fold(0.0, f64::max);
    assert!(slowest <= BACK.as_secs_f64(), "the last one was back after {slowest:.1} s");
    assert!(meanwhile <= SUBMIT, "p99 of submits {meanwhile:?}, {before:?} before");
    report(
        "19",
        "everyone comes back at once",
        &json!({"mode": mode.name(), "followers": followers, "came back": back.len(), "gaps": 0, "all back after, s": slowest,
                "submit p99, ms": {"before": before.as_secs_f64() * 1e3, "meanwhile": meanwhile.as_secs_f64() * 1e3}}),
    )
}

/// Streams and sockets that an API has open.
async fn streams(api: &Client) -> anyhow::Result<usize> {
    let metrics = api.get("/metrics").await?;
    let text = String::from_utf8_lossy(&metrics.body).into_owned();
    let open = text.lines().filter_map(|line| line.strip_prefix("longhaul_streams{")?.rsplit_once(' '));
    Ok(open.filter_map(|(_, count)| count.parse::<f64>().ok()).sum::<f64>() as usize)
}

/// Submits for so long; the 99th percentile of the answers.
async fn submits(api: &Client, time: Duration) -> anyhow::Result<Duration> {
    let (begun, mut took) = (Instant::now(), Vec::new());
    while begun.elapsed() < time {
        let asked = Instant::now();
        api.ask("meanwhile", json!({})).await?;
        took.push(asked.elapsed());
        sleep(Duration::from_millis(20)).await;
    }
    took.sort();
    Ok(took[(took.len() - 1) * 99 / 100])
}
