//! Many who watch, over connections that break all the time, while the way of the events and the APIs themselves go down: everyone
//! hears everything once, and the end in time.

use crate::journey::both_modes;
use anyhow::Context;
use harness::{App, Follower, Mode, Story, Way, report, size};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::{task::JoinSet, time::sleep};

both_modes!(everyone_hears_everything_once);

/// Longest time from the commit of an end until it is heard, seconds. One look at the row is a second; it may be the one before
/// the commit, and the connection may be down at that moment.
const END_MAX: f64 = 4.0;

async fn everyone_hears_everything_once(mode: Mode) -> anyhow::Result<()> {
    let (followers, tasks, itl, kills) = size((100, 10, 60, 4), (1_000, 50, 400, 12));
    let mut app = App::with(mode).apis(2).slots(128).start().await?;
    let (mut ids, mut following) = (Vec::new(), JoinSet::new());
    for n in 0..tasks {
        // They do not end all at once, so that some end in the middle of every fault.
        let sim = json!({"ttft_ms": 200, "itl_ms": itl, "tokens": 50 + 50 * n / tasks});
        ids.push(app.client().ask(&format!("task {n}"), sim).await?);
    }
    for n in 0..followers {
        let mut apis = app.apis.clone();
        apis.rotate_left(n / 2 % app.apis.len());
        let way = if n % 2 == 0 { Way::Stream } else { Way::Socket };
        let task = ids[n % tasks].clone();
        following.spawn(Follower { apis, task, way, leaves: Some(10) }.follow());
    }
    // Over the whole time of the tasks.
    let pause = Duration::from_millis(itl * 100 / (kills + 1));
    for kill in 0..kills {
        sleep(pause).await;
        if let Some(redis) = &app.redis {
            let mut connection = redis.connection().await?;
            redis::cmd("CLIENT").arg("KILL").arg("TYPE").arg("pubsub").exec_async(&mut connection).await?;
            if kill == kills / 2 {
                app.restart_api(0, &[]).await?;
            }
        }
    }
    let (mut ends, mut heard, mut visits) = (Vec::new(), 0, 0);
    while let Some(followed) = following.join_next().await {
        let story = followed??;
        story.must_be_whole()?;
        assert_eq!(story.count("task.snapshot"), 0, "{:?}", story.seqs());
        ends.push(end(&story)?);
        heard += story.heard.len();
        visits += story.visits;
    }
    ends.sort_by(f64::total_cmp);
    let at = |share: f64| ends[((ends.len() - 1) as f64 * share) as usize];
    assert!(visits > 5 * followers, "{visits} connections of {followers} followers");
    assert!(at(1.0) <= END_MAX, "an end was heard after {:.1} s", at(1.0));
    report(
        "17",
        "followers whose connections break",
        &json!({"mode": mode.name(), "followers": followers, "tasks": tasks, "events heard": heard, "connections": visits,
                "kills of the event connection": if mode == Mode::Embedded { 0 } else { kills }, "gaps": 0, "repeats": 0,
                "end after its commit, s": {"p50": at(0.5), "p99": at(0.99), "max": at(1.0)}}),
    )
}

/// Seconds from the commit of the end until it was heard.
fn end(story: &Story) -> anyhow::Result<f64> {
    let last = story.heard.last().context("an empty story")?;
    let task: &Value = &last.event["data"]["task"];
    assert_eq!(task["status"], "completed", "{}", last.event);
    Ok(last.at - task["finished_at"].as_f64().context("no time of the end")?)
}
