//! Death at every named place: before and after each commit, push and end. One busy system per place; the process that passes there
//! dies, another one takes its place, and the history holds.

use super::{history, task};
use anyhow::Context;
use futures_util::{FutureExt, StreamExt, future::LocalBoxFuture, stream::FuturesUnordered};
use harness::{App, Client, History, Mode, Receiver, Seen, report, size, within};
use reqwest::Method;
use serde_json::{Value, json};
use shared::failpoint::Point;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// Makes tests of a share of the places each, so that they run side by side.
macro_rules! places {
    ($($mode:ident $name:ident $share:literal of $shares:literal,)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() -> anyhow::Result<()> {
            harness::journey(Mode::$mode, async |mode| share(mode, $share, $shares).await).await
        }
    )*};
}

places! {
    Embedded embedded_1 0 of 2,
    Embedded embedded_2 1 of 2,
    Distributed distributed_1 0 of 4,
    Distributed distributed_2 1 of 4,
    Distributed distributed_3 2 of 4,
    Distributed distributed_4 3 of 4,
}

async fn share(mode: Mode, share: usize, shares: usize) -> anyhow::Result<()> {
    if !harness::failpoints() {
        return Ok(());
    }
    // A lost reply kills nobody: lost_replies.rs has them.
    let deadly: Vec<Point> =
        Point::ALL.iter().copied().filter(|point| !point.name().ends_with("_reply")).collect();
    let mine = deadly.iter().copied().enumerate().filter(|(n, _)| n % shares == share);
    for (_, point) in mine {
        let skips = if is_rare(point) { &[0][..] } else { size(&[0][..], &[0, 1, 3][..]) };
        for skip in skips {
            place(mode, point, *skip)
                .await
                .map_err(|error| error.context(format!("at {} after {skip}", point.name())))?;
        }
    }
    Ok(())
}

/// Passed once in the life of a process, or of a run.
fn is_rare(point: Point) -> bool {
    matches!(
        point,
        Point::LeaseRegistered | Point::LeaseReleased | Point::SweepReaped | Point::SweepCancelled
    )
}

/// Who dies there: the API, or a worker. Where both pass, the API has been told not to.
fn is_of_api(point: Point) -> bool {
    ["submit_", "batch_", "cancel_", "retry_", "news_rung"].iter().any(|name| point.name().starts_with(name))
}

async fn place(mode: Mode, point: Point, skip: u32) -> anyhow::Result<()> {
    let wishes = App::with(mode).workers(0).slots(8).quick().env("LONGHAUL_WORKER__GRACE", "100ms");
    let wishes = wishes.env("LONGHAUL_WORKER__QUEUES", "default,batch");
    let wishes =
        wishes.env("LONGHAUL_TASK__BACKOFF_BASE", "50ms").env("LONGHAUL_WORKER__PROBE_PERIOD", "200ms");
    let wishes = wishes.env("LONGHAUL_WEBHOOKS__PRIVATE_NETWORKS", "127.0.0.0/8");
    let mut app = wishes.objects().start().await?;
    // At the other places there is enough to do.
    let receiver = Receiver::start([200]).await?;
    if point == Point::WebhookSent {
        let wanted = json!({"name": "", "url": receiver.url(), "event_types": ["task.completed"]});
        app.client().post("/v1/webhook_endpoints", &wanted).await?.expect(200)?;
    }
    let history = history(&app).await?;
    let deadly = format!("{}={skip}*off->return", point.name());
    let deadly = ("FAILPOINTS", deadly.as_str());
    // One process sweeps: the one that is to die.
    let idle = ("LONGHAUL_SWEEP__PERIOD", "60s");
    match point {
        Point::SweepReaped => orphans(&mut app).await?,
        // What the API has not come to.
        Point::SweepCancelled => half_cancelled(&mut app, &history).await?,
        _ => {}
    }
    match (mode, is_of_api(point)) {
        (Mode::Embedded, _) => {
            let started = app.restart_api(0, &[deadly, ("LONGHAUL_SWEEP__PERIOD", "200ms")]).await;
            // Some places are passed before it is ready: then it is found dead below.
            if app.api_process(0).ended()?.is_none() {
                started?;
            }
        }
        (_, true) => {
            app.restart_api(0, &[deadly]).await?;
            app.add_worker()?;
        }
        (_, false) => {
            // The worker first: a process sweeps once when it starts.
            app.add_worker_with(&[deadly])?;
            has_started(&mut app, point).await?;
            app.restart_api(0, &[idle]).await?;
        }
    }
    let begun = Instant::now();
    let mut died = 0;
    // Again, if the first round did not come by there.
    for round in 0..6 {
        if died > 0 && begun.elapsed() > Duration::from_millis(500) {
            break;
        }
        let mut clients = everything(&app.client().without_pool()?, &history, round);
        while !clients.is_empty() {
            died += supervise(&mut app, point).await?;
            if let Ok(Some(done)) = tokio::time::timeout(Duration::from_millis(20), clients.next()).await {
                done?;
            }
        }
        if point == Point::LeaseReleased && died == 0 {
            hand_over(&app).await?;
        }
        let _ = within(Duration::from_secs(2), "it dies", async || {
            died += supervise(&mut app, point).await?;
            Ok((died > 0).then_some(()))
        })
        .await;
    }
    anyhow::ensure!(died > 0, "nobody died: built without failpoints? use scripts/test");
    app.judge(&history, Duration::from_secs(30)).await?;
    report(
        "3",
        "death at a named place",
        &json!({"mode": mode.name(), "place": point.name(), "skipped": skip, "deaths": died, "broken promises": 0}),
    )
}

/// Waits until the worker has passed the registration and swept, or is dead.
async fn has_started(app: &mut App, point: Point) -> anyhow::Result<()> {
    let worker = &mut app.workers[0];
    within(Duration::from_secs(10), "the worker has started", async || {
        let started = point != Point::SweepCancelled && worker.said()?.contains("registered");
        Ok((started || worker.ended()?.is_some()).then_some(()))
    })
    .await
}

/// Asks the worker to end while it runs something.
async fn hand_over(app: &App) -> anyhow::Result<()> {
    let running = app.model.running();
    app.client().ask("handed over", json!({"ttft_ms": 3_000})).await?;
    let called = async || Ok((app.model.running() > running).then_some(()));
    within(Duration::from_secs(10), "it is called", called).await?;
    app.workers[0].signal("TERM")
}

/// Attempts whose worker is dead.
async fn orphans(app: &mut App) -> anyhow::Result<()> {
    if app.mode != Mode::Embedded {
        app.add_worker()?;
    }
    for _ in 0..4 {
        app.client().ask("an orphan", json!({"ttft_ms": 2_000})).await?;
    }
    within(Duration::from_secs(10), "they are called", async || Ok((app.model.running() == 4).then_some(())))
        .await?;
    app.workers[0].kill_9()?;
    if app.mode != Mode::Embedded {
        app.workers.remove(0);
    }
    Ok(())
}

/// A batch whose cancel has begun, and no more than that: the API died.
async fn half_cancelled(app: &mut App, history: &History) -> anyhow::Result<()> {
    let deadly = [("FAILPOINTS", "batch_cancelling=return"), ("LONGHAUL_SWEEP__PERIOD", "60s")];
    for n in 0..20 {
        app.restart_api(0, &deadly).await?;
        let actor = Actor { api: app.client().clone(), history: history.clone(), name: format!("half-{n}") };
        let id = actor.create_batch(10_000).await?;
        let cancelled = app.client().post(&format!("/v1/batches/{id}/cancel"), &json!({})).await;
        anyhow::ensure!(cancelled.is_err(), "built without failpoints? use scripts/test");
        // The sweep that its process began with may have come to it before it died.
        if app.unfinished().await? > 0 {
            return Ok(());
        }
    }
    anyhow::bail!("the first sweep of a process always comes to it")
}

/// As an init system would: who died is started again, in good health. How many died.
async fn supervise(app: &mut App, point: Point) -> anyhow::Result<u32> {
    let api = app.mode == Mode::Embedded || is_of_api(point);
    if api {
        if app.api_process(0).ended()?.is_some() {
            app.restart_api(0, &[]).await?;
            return Ok(1);
        }
    } else if app.workers[0].ended()?.is_some() {
        app.replace_worker(0, &[])?;
        return Ok(1);
    }
    Ok(0)
}

type Clients = FuturesUnordered<LocalBoxFuture<'static, anyhow::Result<()>>>;

/// Everything that a client can do, at once.
fn everything(api: &Client, history: &History, round: u32) -> Clients {
    let clients = Clients::new();
    let actor = |n: u32| Actor { api: api.clone(), history: history.clone(), name: format!("{round}-{n}") };
    for n in 0..4 {
        clients.push(actor(n).short().boxed_local());
    }
    clients.push(actor(10).stream().boxed_local());
    clients.push(actor(11).stream().boxed_local());
    clients.push(actor(12).again(json!({"status": 500, "fail_first": 1})).boxed_local());
    clients.push(actor(13).throttled().boxed_local());
    clients.push(actor(14).large().boxed_local());
    clients.push(actor(15).cancel().boxed_local());
    clients.push(actor(16).cancel().boxed_local());
    clients.push(actor(17).retry().boxed_local());
    clients.push(actor(18).late().boxed_local());
    clients.push(actor(19).delayed().boxed_local());
    clients.push(actor(22).too_late().boxed_local());
    clients.push(actor(20).batch(false).boxed_local());
    clients.push(actor(21).batch(true).boxed_local());
    clients
}

struct Actor {
    api: Client,
    history: History,
    name: String,
}

impl Actor {
    /// Asks until there is an answer that is none of an outage.
    async fn ask(&self, request: impl Fn() -> reqwest::RequestBuilder) -> anyhow::Result<harness::Reply> {
        within(Duration::from_secs(30), "there is an answer", async || {
            Ok(Client::send(request()).await.ok().filter(|reply| reply.status != 503))
        })
        .await
    }

    async fn submit(&self, body: &Value) -> anyhow::Result<String> {
        let request = || {
            let request = self.api.request(Method::POST, "/v1/tasks").header("idempotency-key", &self.name);
            request.json(body)
        };
        let id = self.ask(request).await?.expect(202)?["id"].as_str().unwrap_or_default().to_owned();
        self.history.note(&Seen::Accepted { task: id.clone(), key: Some(self.name.clone()) });
        Ok(id)
    }

    async fn short(self) -> anyhow::Result<()> {
        self.submit(&task(1, json!({}))).await.map(drop)
    }

    async fn again(self, sim: Value) -> anyhow::Result<()> {
        self.submit(&task(2, sim)).await.map(drop)
    }

    /// Two tasks of a model that nobody else asks for: the second to be turned away has it paused.
    async fn throttled(self) -> anyhow::Result<()> {
        for n in 0..2 {
            let mut body = task(n, json!({"status": 429, "fail_first": 1, "retry_after_s": 0.2}));
            body["body"]["model"] = json!("sim-embed");
            let one = Self {
                api: self.api.clone(),
                history: self.history.clone(),
                name: format!("{}-{n}", self.name),
            };
            one.submit(&body).await?;
        }
        Ok(())
    }

    /// Bodies that go to the object store, both ways.
    async fn large(self) -> anyhow::Result<()> {
        self.submit(&task(3, json!({"text": "x".repeat(300_000)}))).await.map(drop)
    }

    async fn late(self) -> anyhow::Result<()> {
        let mut body = task(4, json!({"ttft_ms": 20_000}));
        body["policy"] = json!({"ttl_s": 1});
        self.submit(&body).await.map(drop)
    }

    /// Never starts: no worker serves its queue.
    async fn too_late(self) -> anyhow::Result<()> {
        let mut body = task(9, json!({}));
        body["queue"] = json!("interactive");
        body["policy"] = json!({"ttl_s": 1});
        self.submit(&body).await.map(drop)
    }

    async fn delayed(self) -> anyhow::Result<()> {
        let mut body = task(5, json!({}));
        body["delay_s"] = json!(1);
        self.submit(&body).await.map(drop)
    }

    async fn stream(self) -> anyhow::Result<()> {
        let id = self.submit(&task(6, json!({"ttft_ms": 60, "itl_ms": 20, "tokens": 20}))).await?;
        let (watcher, mut last) = (format!("{} of {id}", self.name), None);
        within(Duration::from_secs(30), "the stream has ended", async || {
            for event in self.api.events(&id, last, usize::MAX).await.unwrap_or_default() {
                last = Some(event.id);
                let name = event.name.clone();
                self.history.note(&Seen::Event { watcher: watcher.clone(), seq: event.id, name: event.name });
                if name == "task.completed" {
                    return Ok(Some(()));
                }
            }
            Ok(None)
        })
        .await
    }

    async fn cancel(self) -> anyhow::Result<()> {
        let id = self.submit(&task(7, json!({"ttft_ms": 5_000}))).await?;
        sleep(Duration::from_millis(100)).await;
        let cancelled = self
            .ask(|| self.api.request(Method::POST, &format!("/v1/tasks/{id}/cancel")))
            .await?
            .expect(200)?;
        if cancelled["status"] == "cancelled" {
            let at = shared::clock::UnixMs::now().0 as f64 / 1000.0;
            self.history.note(&Seen::Cancelled { task: id, at });
        }
        Ok(())
    }

    async fn retry(self) -> anyhow::Result<()> {
        let id = self.submit(&task(8, json!({"status": 400}))).await?;
        let mut task = Value::Null;
        within(Duration::from_secs(30), "it has failed", async || {
            task = self.api.task(&id).await.unwrap_or_default();
            Ok((task["status"] == "failed").then_some(()))
        })
        .await
        .with_context(|| task.to_string())?;
        self.history.note(&Seen::Retried { task: id.clone() });
        // A lost reply: then the second one finds it queued, or failed again.
        self.ask(|| self.api.request(Method::POST, &format!("/v1/tasks/{id}/retry"))).await.map(drop)
    }

    async fn create_batch(&self, ttft_ms: u64) -> anyhow::Result<String> {
        let line = |n: u32| {
            json!({"custom_id": format!("line-{n}"), "method": "POST", "url": "/v1/chat/completions",
                   "body": harness::chat("a line", json!({"ttft_ms": ttft_ms}))})
        };
        let lines: Vec<Value> = (0..4).map(line).collect();
        let body = json!({"endpoint": "/v1/chat/completions", "completion_window": "24h", "requests": lines});
        let reply = self.ask(|| self.api.request(Method::POST, "/v1/batches").json(&body)).await?;
        let id = reply.json()?["id"].as_str().unwrap_or_default().to_owned();
        anyhow::ensure!(id.starts_with("batch_"), "no batch: {reply:?}");
        Ok(id)
    }

    async fn batch(self, cancelled: bool) -> anyhow::Result<()> {
        let id = self.create_batch(if cancelled { 10_000 } else { 50 }).await?;
        if cancelled {
            sleep(Duration::from_millis(100)).await;
            self.ask(|| self.api.request(Method::POST, &format!("/v1/batches/{id}/cancel"))).await?;
        }
        let mut batch = Value::Null;
        let ended = within(Duration::from_secs(30), "the batch has ended", async || {
            let Ok(reply) = self.api.get(&format!("/v1/batches/{id}")).await else { return Ok(None) };
            batch = reply.json()?;
            anyhow::ensure!(batch["status"] != "failed", "the batch was refused: {batch}");
            Ok(matches!(batch["status"].as_str(), Some("completed" | "cancelled")).then(|| batch.clone()))
        })
        .await
        .with_context(|| batch.to_string())?;
        let count = |name: &str| ended["request_counts"][name].as_u64().unwrap_or_default();
        self.history.note(&Seen::Batch {
            total: count("total"),
            completed: count("completed"),
            failed: count("failed"),
        });
        Ok(())
    }
}
