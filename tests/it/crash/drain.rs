//! SIGTERM: running attempts end or are handed over, no request is cut, streams go on elsewhere; and a rolling restart of everything.

use super::{history, load, task};
use crate::journey::{both_modes, both_transports};
use harness::{App, Client, History, Mode, Seen, extra_calls, report, size};
use serde_json::json;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

both_transports!(a_rolling_restart_loses_and_repeats_nothing, what_does_not_end_in_time_is_handed_over);
both_modes!(streams_hear_that_their_process_ends);

/// Two APIs and two workers are replaced one after the other, while clients submit and watch.
async fn a_rolling_restart_loses_and_repeats_nothing(mode: Mode) -> anyhow::Result<()> {
    let (tasks, watchers) = size((300, 64), (2_000, 500));
    let mut app = App::with(mode).apis(2).workers(2).slots(64).quick().start().await?;
    let history = history(&app).await?;
    let streams = load(&app, &history, "streams");
    streams.run(16, |n| task(n, json!({"ttft_ms": 100, "itl_ms": 50, "tokens": 60}))).await?;
    let mut watching = JoinSet::new();
    let ids: Vec<String> = history.accepted()?.into_values().collect();
    for n in 0..watchers {
        watching.spawn(watch(app.apis.clone(), history.clone(), ids[n % ids.len()].clone(), n));
    }
    let mut clients = JoinSet::new();
    let paced = load(&app, &history, "rolling").paced(tasks as f64 / 6.0);
    clients.spawn(paced.run(tasks, |n| task(n, json!({"ttft_ms": 200}))));
    let (mut api, mut worker) = (Duration::ZERO, Duration::ZERO);
    for one in 0..2 {
        tokio::time::sleep(Duration::from_millis(700)).await;
        let begun = Instant::now();
        app.workers[one].signal("TERM")?;
        let status = app.workers[one].wait_end(Duration::from_secs(35)).await?;
        assert!(status.success(), "the worker ended with {status}");
        worker = worker.max(begun.elapsed());
        app.replace_worker(one, &[])?;
        let begun = Instant::now();
        let status = app.stop_api(one).await?;
        assert!(status.success(), "the API ended with {status}");
        api = api.max(begun.elapsed());
        app.restart_api(one, &[]).await?;
    }
    while let Some(done) = clients.join_next().await {
        done??;
    }
    while let Some(watched) = watching.join_next().await {
        watched??;
    }
    let seen = app.judge(&history, Duration::from_secs(60)).await?;
    assert_eq!(extra_calls(&seen), 0, "nothing is repeated");
    let failed = app.client().get("/v1/tasks?status=failed").await?.expect(200)?;
    assert_eq!(failed["data"], json!([]));
    report(
        "16",
        "a rolling restart under load",
        &json!({"mode": mode.name(), "tasks": tasks, "streams": 16, "watchers": watchers, "failed": 0, "repeated": 0,
                "slowest end of a worker, s": worker.as_secs_f64(), "slowest end of an API, s": api.as_secs_f64()}),
    )
}

/// Watches a task to its end, at whichever API is there, from the last event seen on.
async fn watch(apis: Vec<Client>, history: History, id: String, n: usize) -> anyhow::Result<()> {
    let (watcher, mut last, mut over) = (format!("watcher {n} of {id}"), None, false);
    for turn in n..n + 400 {
        if over {
            return Ok(());
        }
        let came = apis[turn % apis.len()].events(&id, last, usize::MAX).await.unwrap_or_default();
        for event in came {
            last = Some(event.id);
            over |=
                matches!(&*event.name, "task.completed" | "task.failed" | "task.cancelled" | "task.expired");
            history.note(&Seen::Event { watcher: watcher.clone(), seq: event.id, name: event.name });
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    anyhow::bail!("{watcher} never saw the end")
}

/// Calls that are longer than the grace time are stopped, and run elsewhere at no charge.
async fn what_does_not_end_in_time_is_handed_over(mode: Mode) -> anyhow::Result<()> {
    let mut app = App::with(mode).slots(8).quick().env("LONGHAUL_WORKER__GRACE", "1s").start().await?;
    let history = history(&app).await?;
    load(&app, &history, "long").run(8, |n| task(n, json!({"ttft_ms": 4_000}))).await?;
    harness::eventually("all are called", async || Ok((app.model.calls() == 8).then_some(()))).await?;
    app.workers[0].signal("TERM")?;
    let begun = Instant::now();
    app.add_worker()?;
    let status = app.workers[0].wait_end(Duration::from_secs(6)).await?;
    assert!(status.success(), "the worker ended with {status}");
    let took = begun.elapsed();
    app.judge(&history, Duration::from_secs(30)).await?;
    for id in history.accepted()?.values() {
        let task = app.client().task(id).await?;
        assert_eq!(
            (&task["status"], &task["failures"], &task["attempt"]),
            (&json!("completed"), &json!(0), &json!(2)),
            "{task}"
        );
    }
    assert!(took >= Duration::from_secs(1), "the grace time was not given: {took:?}");
    Ok(())
}

/// The last words of a stream whose process ends: no event, and so no id that a client would come back with.
async fn streams_hear_that_their_process_ends(mode: Mode) -> anyhow::Result<()> {
    let mut app = App::with(mode).env("LONGHAUL_WORKER__GRACE", "1s").start().await?;
    let id = app.client().ask("a long one", json!({"ttft_ms": 30_000})).await?;
    app.client().reaches(&id, "in_progress").await?;
    let stream = app.client().open_events(&id, None).await?;
    let reading = async { anyhow::Ok(stream.text().await?) };
    let (said, status) = tokio::join!(reading, app.stop_api(0));
    assert!(status?.success());
    let said = said?;
    let last = said.trim_end().rsplit("\n\n").next().unwrap_or_default();
    assert!(
        last.starts_with("retry: ") && last.contains("event: draining") && !last.contains("id: "),
        "{said}"
    );
    Ok(())
}
