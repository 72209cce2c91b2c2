//! Output that could not be told: whoever watches holds the whole answer at the end, or was told that what it has is not all.
//!
//! Every [`Follower`] checks that by itself.

use crate::journey::{both_modes, both_transports};
use anyhow::Context;
use harness::{App, Follower, Mode, Story, Way, eventually, size};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::{task::JoinSet, time::sleep};

both_transports!(
    redis_is_frozen_while_streams_end,
    redis_is_frozen_while_a_second_attempt_runs,
    a_frozen_worker_goes_on,
    a_frozen_worker_is_too_late
);
both_transports!(a_deleted_task_leaves_no_words, a_log_that_was_not_ended);
both_modes!(a_second_attempt_is_too_quick_to_be_told, an_attempt_starts_once);

/// An answer of about two seconds.
fn slow() -> Value {
    json!({"ttft_ms": 100, "itl_ms": 30, "tokens": 60})
}

/// The same that breaks off the first time, after a pause in which what came so far is told; it comes at once the next time.
fn broken_once() -> Value {
    json!({"tokens": 30, "hang_ms": 1_500, "cut_after": 20, "fail_first": 1})
}

type Following = JoinSet<anyhow::Result<(String, Story)>>;

/// Tasks with their followers, in both ways, all of which have heard some of the output.
async fn followed(app: &App, sim: &Value) -> anyhow::Result<(Vec<String>, Following)> {
    let (mut ids, mut following) = (Vec::new(), JoinSet::new());
    for n in 0..size(6, 32) {
        let id = app.client().ask(&format!("task {n}"), sim.clone()).await?;
        for way in [Way::Stream, Way::Socket] {
            let follower = Follower { apis: app.apis.clone(), task: id.clone(), way, leaves: None };
            let id = id.clone();
            following.spawn(async move { Ok((id, follower.follow().await?)) });
        }
        ids.push(id);
    }
    for id in &ids {
        let some = app.client().events(id, None, 15).await?;
        assert_eq!(some.last().map(|event| event.name.as_str()), Some("task.output.delta"));
    }
    Ok((ids, following))
}

async fn all_completed(app: &App, ids: &[String]) -> anyhow::Result<()> {
    for id in ids {
        assert_eq!(app.client().ended(id).await?["status"], "completed");
    }
    Ok(())
}

/// Every story ends where the row says, and so does one that is told later, from the beginning or from the middle on.
async fn all_hold_the_answer(app: &App, mut following: Following) -> anyhow::Result<Vec<Story>> {
    let mut stories = Vec::new();
    while let Some(followed) = following.join_next().await {
        let (id, story) = followed??;
        let row = app.client().task(&id).await?;
        assert_eq!(story.last(), row["progress"]["last_seq"].as_i64(), "{id}: {:?}", story.seqs());
        assert_eq!(story.text(), row["result"]["body"]["choices"][0]["message"]["content"], "{id}");
        let again = Follower { apis: app.apis.clone(), task: id, way: Way::Stream, leaves: Some(10) };
        assert_eq!(again.follow().await?.last(), story.last(), "{:?}", story.seqs());
        stories.push(story);
    }
    Ok(stories)
}

/// Longer than anybody waits for an answer of it.
async fn redis_is_frozen_while_streams_end(mode: Mode) -> anyhow::Result<()> {
    let app = App::with(mode).apis(2).slots(64).start().await?;
    let (ids, following) = followed(&app, &slow()).await?;
    let redis = app.redis.as_ref().context("a distributed app has a Redis")?;
    redis.freeze().await?;
    all_completed(&app, &ids).await?;
    sleep(Duration::from_millis(500)).await;
    redis.thaw()?;
    all_hold_the_answer(&app, following).await?;
    Ok(())
}

async fn redis_is_frozen_while_a_second_attempt_runs(mode: Mode) -> anyhow::Result<()> {
    let mut app = App::with(mode).slots(64).quick().start().await?;
    let (ids, following) = followed(&app, &slow()).await?;
    app.add_worker()?;
    eventually("the other worker is there", async || {
        Ok(app.workers[1].said()?.contains("registered").then_some(()))
    })
    .await?;
    app.redis.as_ref().context("a distributed app has a Redis")?.freeze().await?;
    app.workers[0].kill_9()?;
    all_completed(&app, &ids).await?;
    app.redis.as_ref().context("a distributed app has a Redis")?.thaw()?;
    all_hold_the_answer(&app, following).await?;
    Ok(())
}

/// It comes back before its lease is over.
async fn a_frozen_worker_goes_on(mode: Mode) -> anyhow::Result<()> {
    let app = App::with(mode).slots(64).start().await?;
    let (ids, following) = followed(&app, &slow()).await?;
    app.workers[0].signal("STOP")?;
    sleep(Duration::from_secs(3)).await;
    app.workers[0].signal("CONT")?;
    all_completed(&app, &ids).await?;
    all_hold_the_answer(&app, following).await?;
    Ok(())
}

/// It comes back when another one has taken over.
async fn a_frozen_worker_is_too_late(mode: Mode) -> anyhow::Result<()> {
    let mut app = App::with(mode).slots(64).quick().start().await?;
    let (ids, following) = followed(&app, &slow()).await?;
    app.workers[0].signal("STOP")?;
    app.add_worker()?;
    for id in &ids {
        eventually("the second attempt", async || {
            Ok((app.client().task(id).await?["attempt"] == 2).then_some(()))
        })
        .await?;
    }
    app.workers[0].signal("CONT")?;
    all_completed(&app, &ids).await?;
    all_hold_the_answer(&app, following).await?;
    Ok(())
}

/// It is over before the moment at which chunks are told: what the first one has told must not look like the answer.
async fn a_second_attempt_is_too_quick_to_be_told(mode: Mode) -> anyhow::Result<()> {
    let app = App::with(mode).slots(64).start().await?;
    let (ids, following) = followed(&app, &broken_once()).await?;
    all_completed(&app, &ids).await?;
    all_hold_the_answer(&app, following).await?;
    Ok(())
}

/// A worker dies in the middle. Who was there, who comes back, and who comes late are told of each start once: one seq, one time.
async fn an_attempt_starts_once(mode: Mode) -> anyhow::Result<()> {
    let mut app = App::with(mode).slots(64).quick().start().await?;
    let id = app.client().ask("a slow one", slow()).await?;
    let follower = |apis, way| Follower { apis, task: id.clone(), way, leaves: None };
    let early = follower(app.apis.clone(), Way::Stream).until(15).await?;
    let mut there = JoinSet::new();
    for way in [Way::Stream, Way::Socket] {
        there.spawn(follower(app.apis.clone(), way).follow());
    }
    match mode {
        Mode::Embedded => app.restart_api(0, &[]).await?,
        Mode::Distributed | Mode::Apalis => app.replace_worker(0, &[])?,
    }
    let mut stories = vec![follower(app.apis.clone(), Way::Stream).go_on(early).await?];
    stories.extend(there.join_all().await.into_iter().collect::<anyhow::Result<Vec<_>>>()?);
    stories.push(follower(app.apis.clone(), Way::Socket).follow().await?);
    let row = app.client().task(&id).await?;
    let mut seqs = Vec::new();
    for story in stories {
        let starts: Vec<&Value> = story.of("task.started");
        let second: Vec<_> = starts.iter().filter(|event| event["attempt"] == 2).collect();
        assert_eq!(second.len(), 1, "{starts:?}");
        assert_eq!(second[0]["ts"], row["started_at"], "{starts:?}");
        seqs.push(second[0]["seq"].clone());
        assert_eq!(story.of("task.completed")[0]["ts"], row["finished_at"]);
    }
    seqs.dedup();
    assert_eq!(seqs.len(), 1, "{seqs:?}");
    Ok(())
}

/// Entries of a log: id and fields.
type Entries = Vec<(String, Vec<(String, String)>)>;

/// How long the words of a task would be kept; none where there are none.
async fn words(app: &App, id: &str) -> anyhow::Result<Option<Duration>> {
    let mut connection = app.redis.as_ref().context("a distributed app has a Redis")?.connection().await?;
    let key = format!("lh:events:log:{id}");
    let mut look = redis::pipe();
    look.cmd("XRANGE").arg(&key).arg("-").arg("+").pttl(&key);
    let (entries, left): (Entries, i64) = look.query_async(&mut connection).await?;
    let any =
        entries.iter().flat_map(|(_, fields)| fields).any(|(name, value)| name == "e" && !value.is_empty());
    Ok(any.then_some(Duration::from_millis(left.try_into()?)))
}

/// While it runs; or while Redis is away.
async fn a_deleted_task_leaves_no_words(mode: Mode) -> anyhow::Result<()> {
    let app = App::with(mode).slots(64).quick().start().await?;
    let redis = app.redis.as_ref().context("a distributed app has a Redis")?;
    let (mut ids, mut following) = followed(&app, &slow()).await?;
    following.abort_all();
    let unheard = ids.split_off(ids.len() / 2);
    for id in &ids {
        assert!(words(&app, id).await?.is_some());
        app.client().delete(&format!("/v1/tasks/{id}?force=true")).await?.expect(200)?;
        assert_eq!(words(&app, id).await?, None, "at once");
    }
    redis.freeze().await?;
    for id in &unheard {
        app.client().delete(&format!("/v1/tasks/{id}?force=true")).await?.expect(200)?;
    }
    eventually("the model is left alone", async || Ok((app.model.running() == 0).then_some(()))).await?;
    redis.thaw()?;
    for id in unheard.iter().chain(&ids) {
        eventually("its words are gone", async || Ok(words(&app, id).await?.is_none().then_some(()))).await?;
    }
    while following.join_next().await.is_some() {}
    Ok(())
}

/// The end could not be told: its log lives no longer than that of others.
async fn a_log_that_was_not_ended(mode: Mode) -> anyhow::Result<()> {
    let app = App::with(mode).slots(64).quick().env("LONGHAUL_EVENTS__KEEP", "2h").start().await?;
    let (ids, mut following) = followed(&app, &slow()).await?;
    following.abort_all();
    app.redis.as_ref().context("a distributed app has a Redis")?.freeze().await?;
    all_completed(&app, &ids).await?;
    app.redis.as_ref().context("a distributed app has a Redis")?.thaw()?;
    for id in &ids {
        eventually("it is kept for two hours", async || {
            let left = words(&app, id).await?.context("the words are kept for a while")?;
            Ok((left <= Duration::from_secs(2 * 60 * 60)).then_some(()))
        })
        .await?;
    }
    while following.join_next().await.is_some() {}
    Ok(())
}
