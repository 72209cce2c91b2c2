//! Half of those who watch a task take nothing of what they are told: the other half does not feel it, the API stays small, and
//! those who come back miss nothing.

use crate::journey::both_modes;
use anyhow::Context;
use harness::{App, Client, Follower, Mode, Watch, Way, report, size, within};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::task::JoinSet;

both_modes!(half_of_the_watchers_take_nothing);

/// What the API may grow by.
const GROWTH_MAX_KB: u64 = 150 << 10;
/// Longest time until the slow ones are cut off.
const CUT: Duration = Duration::from_secs(40);
/// Longest way of an event to those who listen, at the 99th percentile, seconds.
const DELAY_MAX: f64 = 2.0;

async fn half_of_the_watchers_take_nothing(mode: Mode) -> anyhow::Result<()> {
    let count = size(50, 500);
    let mut app = App::with(mode).slots(8).start().await?;
    let pid = app.api_process(0).pid();
    let alone = watched(&app, pid, count, 0).await?;
    let before = resident(pid)?;
    let beside = watched(&app, pid, count, count).await?;
    let most = beside.most.saturating_sub(before);
    let (fast, slow) = (alone.p99, beside.p99);
    assert!(most <= GROWTH_MAX_KB, "{most} kB more for {count} who take nothing");
    assert!(slow <= DELAY_MAX, "p99 {slow:.3} s beside {count} who take nothing, {fast:.3} s without");
    report(
        "18",
        "half of the watchers take nothing",
        &json!({"mode": mode.name(), "listen": count, "take nothing": count, "cut off": beside.cut, "API grew by, MB": most >> 10,
                "p99 of those who listen, ms": {"without": fast * 1e3, "beside": slow * 1e3, "ratio": slow / fast}, "gaps": 0}),
    )
}

struct Seen {
    /// Of those who listen, seconds.
    p99: f64,
    /// Memory of the API at most, kB.
    most: u64,
    cut: usize,
}

/// One task, watched by so many who listen and so many who take nothing.
async fn watched(app: &App, pid: u32, fast: usize, slow: usize) -> anyhow::Result<Seen> {
    let (tokens, itl, padding) = size((60, 50, 8_000), (200, 100, 2_000));
    let client = app.client();
    // Each chunk carries the padding back: more than the kernel keeps for those who do not take it.
    let mut body = harness::chat(
        "a long one",
        json!({"ttft_ms": 1_500, "itl_ms": itl, "tokens": tokens, "echo_fields": true}),
    );
    body["padding"] = json!("x".repeat(padding));
    let id = client.submit(&json!({"endpoint": "/v1/chat/completions", "body": body})).await?;
    let mut following = JoinSet::new();
    for _ in 0..fast {
        let follower = Follower { apis: app.apis.clone(), task: id.clone(), way: Way::Socket, leaves: None };
        following.spawn(follower.follow());
    }
    let mut deaf = Vec::new();
    for _ in 0..slow {
        let mut watch = client.watch_through(4_096).await?;
        watch.send(&subscription(&id, None)).await?;
        deaf.push(watch);
    }
    let (mut delays, mut most) = (Vec::new(), 0);
    while !following.is_empty() {
        most = most.max(resident(pid)?);
        let Ok(Some(followed)) =
            tokio::time::timeout(Duration::from_millis(200), following.join_next()).await
        else {
            continue;
        };
        let story = followed??;
        story.must_be_whole()?;
        assert_eq!(story.count("task.snapshot"), 0);
        delays.extend(story.delays());
    }
    delays.sort_by(f64::total_cmp);
    let p99 = delays.get(delays.len().saturating_sub(1) * 99 / 100).copied().context("no deltas")?;
    within(CUT, "those who take nothing are cut off", async || {
        Ok((sockets(client).await? == 0).then_some(()))
    })
    .await?;
    for watch in deaf {
        comes_back(client, &id, watch).await?;
    }
    Ok(Seen { p99, most, cut: slow })
}

fn subscription(id: &str, after: Option<i64>) -> Value {
    let topic = format!("task:{id}");
    json!({"type": "subscribe", "topics": [topic], "after": after.map_or_else(|| json!({}), |seq| json!({&topic: seq}))})
}

/// Reads what was on its way when it was cut off, and goes on from there.
async fn comes_back(client: &Client, id: &str, mut watch: Watch) -> anyhow::Result<()> {
    let mut seqs = Vec::new();
    // It ends, and not by the end of the task.
    while let Ok(frame) = watch.next().await {
        assert_ne!(frame["type"], "end", "it was not slow enough to be a test");
        seqs.extend(frame["event"]["seq"].as_i64());
    }
    let mut watch = client.watch().await?;
    let ack = watch.subscribe(&subscription(id, seqs.last().copied())).await?;
    assert_eq!(ack["type"], "ack", "{ack}");
    let rest = watch.until_end(&format!("task:{id}")).await?;
    seqs.extend(rest.iter().filter_map(|event| event["seq"].as_i64()));
    assert!(seqs.iter().copied().eq(0..seqs.len() as i64), "{seqs:?}");
    assert_eq!(rest.last().map(|event| &event["type"]), Some(&json!("task.completed")));
    Ok(())
}

/// Open sockets of the API.
async fn sockets(client: &Client) -> anyhow::Result<usize> {
    let metrics = client.get("/metrics").await?;
    let text = String::from_utf8_lossy(&metrics.body).into_owned();
    let open = text.lines().find_map(|line| line.strip_prefix("longhaul_streams{kind=\"ws\"} "));
    Ok(open.unwrap_or("0").parse::<f64>()? as usize)
}

/// Memory of a process now, kB.
pub(super) fn resident(pid: u32) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    Ok(line.and_then(|line| line.trim().strip_suffix(" kB")).context("no such figure")?.parse()?)
}
