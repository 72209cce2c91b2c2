//! Processes that die in the middle of the tokens: whoever watches goes on elsewhere, and holds the model's answer at the end,
//! every word of it once.

use crate::journey::{both_modes, both_transports};
use anyhow::Context;
use harness::{App, Fault, Follower, Mode, Story, Way, eventually, report, size};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::task::JoinSet;

both_transports!(
    an_api_dies,
    a_change_that_nobody_was_told_of_is_no_gap,
    who_comes_late_to_a_lost_log_hears_what_follows,
    a_lost_log_of_an_attempt_that_was_given_back,
    a_lost_log_of_an_attempt_that_was_cancelled,
    who_waits_for_the_end_gets_it
);
both_modes!(a_worker_dies, a_lost_log_is_not_taken_for_the_next_one);

/// An answer of about two seconds.
fn slow(tokens: usize) -> Value {
    json!({"ttft_ms": 100, "itl_ms": 30, "tokens": tokens})
}

/// The text of the answer that the task has kept.
async fn answer(app: &App, id: &str) -> anyhow::Result<String> {
    assert_eq!(app.client().ended(id).await?["status"], "completed");
    let result = app.client().get(&format!("/v1/tasks/{id}/result")).await?.expect(200)?;
    let text = result["choices"][0]["message"]["content"].as_str();
    Ok(text.context("an answer without a text")?.to_owned())
}

/// Two followers for each of some tasks: one over server-sent events, one over the WebSocket.
async fn follow(
    app: &App,
    tasks: usize,
    sim: &Value,
) -> anyhow::Result<(Vec<String>, JoinSet<anyhow::Result<(String, Story)>>)> {
    let (mut ids, mut following) = (Vec::new(), JoinSet::new());
    for n in 0..tasks {
        let id = app.client().ask(&format!("task {n}"), sim.clone()).await?;
        for way in [Way::Stream, Way::Socket] {
            let follower = Follower { apis: app.apis.clone(), task: id.clone(), way, leaves: None };
            let id = id.clone();
            following.spawn(async move { Ok((id, follower.follow().await?)) });
        }
        ids.push(id);
    }
    Ok((ids, following))
}

/// Every one of them holds the answer, and heard each event once.
async fn all_hold_the_answer(
    app: &App,
    mut following: JoinSet<anyhow::Result<(String, Story)>>,
) -> anyhow::Result<Vec<Story>> {
    let mut stories = Vec::new();
    while let Some(followed) = following.join_next().await {
        let (id, story) = followed??;
        holds_the_answer(app, &id, &story).await?;
        stories.push(story);
    }
    Ok(stories)
}

/// Waits until the stream of each task is in the middle.
async fn in_the_middle(app: &App, ids: &[String]) -> anyhow::Result<()> {
    for id in ids {
        let some = app.apis[app.apis.len() - 1].events(id, None, 15).await?;
        assert_eq!(some.last().map(|event| event.name.as_str()), Some("task.output.delta"));
    }
    Ok(())
}

async fn an_api_dies(mode: Mode) -> anyhow::Result<()> {
    let (tasks, tokens) = size((4, 60), (64, 200));
    let mut app = App::with(mode).apis(2).slots(64).start().await?;
    let (ids, following) = follow(&app, tasks, &slow(tokens)).await?;
    in_the_middle(&app, &ids).await?;
    app.api_process(0).kill_9()?;
    // The answers are asked for at the other one.
    app.apis.remove(0);
    let stories = all_hold_the_answer(&app, following).await?;
    let told_twice = ["task.snapshot", "task.output.reset"];
    for story in &stories {
        assert!(story.visits > 1, "{} connections", story.visits);
        assert_eq!(told_twice.map(|kind| story.count(kind)), [0, 0], "nothing was lost");
    }
    report(
        "17",
        "an API killed in the middle of the tokens",
        &json!({"mode": mode.name(), "tasks": tasks, "followers": stories.len(), "gaps": 0, "repeats": 0, "answers whole": stories.len()}),
    )
}

/// Embedded: the only process there is.
async fn a_worker_dies(mode: Mode) -> anyhow::Result<()> {
    let (tasks, tokens) = size((4, 60), (64, 200));
    let mut app = App::with(mode).slots(64).quick().start().await?;
    let (ids, following) = follow(&app, tasks, &slow(tokens)).await?;
    in_the_middle(&app, &ids).await?;
    restart(&mut app, mode).await?;
    let stories = all_hold_the_answer(&app, following).await?;
    // The one process has lost its log as well.
    let taken_back = if mode == Mode::Embedded { "task.snapshot" } else { "task.output.reset" };
    for story in &stories {
        assert!((1..=2).contains(&story.count(taken_back)), "{:?}", story.seqs());
        assert_eq!(story.heard.last().map(|heard| &heard.event["attempt"]), Some(&json!(2)));
    }
    report(
        "17",
        "a worker killed in the middle of the tokens",
        &json!({"mode": mode.name(), "tasks": tasks, "followers": stories.len(), "gaps": 0, "repeats": 0, "answers whole": stories.len()}),
    )
}

async fn restart(app: &mut App, mode: Mode) -> anyhow::Result<()> {
    match mode {
        Mode::Embedded => app.restart_api(0, &[]).await,
        Mode::Distributed | Mode::Apalis => app.replace_worker(0, &[]),
    }
}

async fn a_lost_log_is_not_taken_for_the_next_one(mode: Mode) -> anyhow::Result<()> {
    let app = App::with(mode).quick().start().await?;
    one_after_a_lost_log(app, async |app, _| {
        forget(app).await?;
        restart(app, mode).await
    })
    .await
}

async fn a_lost_log_of_an_attempt_that_was_given_back(mode: Mode) -> anyhow::Result<()> {
    let app = App::with(mode).quick().env("LONGHAUL_WORKER__GRACE", "100ms").start().await?;
    one_after_a_lost_log(app, async |app, _| {
        app.workers[0].signal("TERM")?;
        app.workers[0].wait_end(Duration::from_secs(10)).await?;
        forget(app).await?;
        app.add_worker()
    })
    .await
}

async fn a_lost_log_of_an_attempt_that_was_cancelled(mode: Mode) -> anyhow::Result<()> {
    let app = App::with(mode).quick().start().await?;
    one_after_a_lost_log(app, async |app, id| {
        app.client().post(&format!("/v1/tasks/{id}/cancel"), &json!({})).await?.expect(200)?;
        eventually("the model is left alone", async || Ok((app.model.running() == 0).then_some(()))).await?;
        forget(app).await?;
        app.client().post(&format!("/v1/tasks/{id}/retry"), &json!({})).await?.expect(202)?;
        Ok(())
    })
    .await
}

async fn forget(app: &App) -> anyhow::Result<()> {
    match &app.redis {
        Some(redis) => redis.flush().await,
        None => Ok(()),
    }
}

/// An attempt is over in this way, and the log is lost. Who comes back when the next one has told more than the first one had must not
/// take its words for a continuation of those that were heard.
async fn one_after_a_lost_log(
    mut app: App,
    over: impl AsyncFnOnce(&mut App, &str) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let id = app.client().ask("a long one", slow(90)).await?;
    let mut early = Vec::new();
    for way in [Way::Stream, Way::Socket] {
        let follower = Follower { apis: app.apis.clone(), task: id.clone(), way, leaves: None };
        early.push((follower.clone(), follower.until(15).await?));
    }
    over(&mut app, &id).await?;
    eventually("the next attempt has told more", async || {
        let told = app.client().events(&id, None, 40).await?;
        Ok(told.last().is_some_and(|event| event.data["attempt"] == 2).then_some(()))
    })
    .await?;
    for (follower, story) in early {
        let story = follower.go_on(story).await?;
        holds_the_answer(&app, &id, &story).await?;
    }
    Ok(())
}

/// The change from one attempt to the next is committed, and Redis away when it is to be told: the log has a hole.
async fn a_change_that_nobody_was_told_of_is_no_gap(mode: Mode) -> anyhow::Result<()> {
    let app = App::with(mode).quick().proxied().env("LONGHAUL_LOG", "shared=debug,info").start().await?;
    let sim = json!({"ttft_ms": 100, "itl_ms": 40, "tokens": 30, "hang_ms": 1_500, "cut_after": 20, "fail_first": 1});
    let id = app.client().ask("a broken one", sim).await?;
    // The first token is told; then the model hangs, and goes on until it breaks.
    app.client().events(&id, None, 4).await?;
    app.edges.worker_redis.set(Fault::Refuse).await?;
    eventually("the change could not be told", async || {
        let said = app.workers[0].said()?;
        Ok((said.contains("changes later") && app.client().task(&id).await?["failures"] == 1).then_some(()))
    })
    .await?;
    app.edges.worker_redis.set(Fault::Pass).await?;
    let follower = Follower { apis: app.apis.clone(), task: id.clone(), way: Way::Stream, leaves: None };
    let live = follower.clone().follow().await?;
    let late = follower.follow().await?;
    for story in [live, late] {
        assert!(story.count("task.snapshot") > 0, "{:?}", story.seqs());
        holds_the_answer(&app, &id, &story).await?;
    }
    Ok(())
}

/// A log is lost in the middle: who was there hears on, and who comes later hears the state first and then all that follows.
async fn who_comes_late_to_a_lost_log_hears_what_follows(mode: Mode) -> anyhow::Result<()> {
    let app = App::start(mode).await?;
    let id = app.client().ask("a long one", slow(80)).await?;
    let mut following = JoinSet::new();
    let follower = |way| Follower { apis: app.apis.clone(), task: id.clone(), way, leaves: None };
    for way in [Way::Stream, Way::Socket] {
        following.spawn(follower(way).follow());
    }
    in_the_middle(&app, std::slice::from_ref(&id)).await?;
    app.redis.as_ref().context("a distributed app has a Redis")?.flush().await?;
    let (first, second) = tokio::join!(follower(Way::Stream).follow(), follower(Way::Socket).follow());
    for late in [first?, second?] {
        assert!(late.count("task.snapshot") > 0 && late.count("task.output.delta") > 5, "{:?}", late.seqs());
        holds_the_answer(&app, &id, &late).await?;
    }
    while let Some(there) = following.join_next().await {
        holds_the_answer(&app, &id, &there??).await?;
    }
    Ok(())
}

async fn holds_the_answer(app: &App, id: &str, story: &Story) -> anyhow::Result<()> {
    story.must_be_whole()?;
    assert_eq!(story.text(), answer(app, id).await?, "{:?}", story.seqs());
    Ok(())
}

/// A long poll is not answered before there is something to answer, whatever becomes of the attempts meanwhile.
async fn who_waits_for_the_end_gets_it(mode: Mode) -> anyhow::Result<()> {
    let mut app = App::with(mode).quick().start().await?;
    let id = app.client().ask("a slow one", json!({"ttft_ms": 1_500, "itl_ms": 20, "tokens": 10})).await?;
    app.client().reaches(&id, "in_progress").await?;
    let (client, path) = (app.client().clone(), format!("/v1/tasks/{id}?wait=30"));
    let mut waiting = JoinSet::new();
    waiting.spawn(async move { client.get(&path).await });
    app.replace_worker(0, &[])?;
    let answered = waiting.join_next().await.context("nobody waits")???.expect(200)?;
    assert_eq!((&answered["status"], &answered["attempt"]), (&json!("completed"), &json!(2)), "{answered}");
    Ok(())
}
