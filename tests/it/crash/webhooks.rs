//! Webhooks where receivers fail for days, hang by the dozen, and workers die between a webhook and its note.

use super::task;
use crate::journey::both_modes;
use anyhow::Context;
use harness::{App, Client, Mode, PATIENCE, Receiver, eventually, free_address, report, size, within};
use serde_json::json;
use shared::clock::UnixMs;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::TcpListener,
    time::Duration,
};

both_modes!(it_is_tried_for_three_days);

/// Seconds between one attempt and the next, as docs/webhooks.md has them.
const WAITS_S: [i64; 11] = [5, 30, 120, 600, 1_800, 3_600, 10_800, 21_600, 43_200, 86_400, 86_400];
const ATTEMPTS: usize = WAITS_S.len() + 1;

async fn endpoint(client: &Client, url: &str) -> anyhow::Result<String> {
    let wanted = json!({"name": "", "url": url, "event_types": ["task.completed"]});
    let made = client.post("/v1/webhook_endpoints", &wanted).await?.expect(200)?;
    Ok(made["signing_secret"].as_str().context("no secret")?.to_owned())
}

/// The clock of the rows is moved on, not that of the machine: a delivery that is planned becomes due.
async fn it_is_tried_for_three_days(mode: Mode) -> anyhow::Result<()> {
    let app = App::with(mode).env("LONGHAUL_WEBHOOKS__PRIVATE_NETWORKS", "127.0.0.0/8").start().await?;
    // Each attempt has a status of its own, by which the rows tell which one they know of.
    let statuses = (500..).take(ATTEMPTS).chain([200]);
    let (client, receiver) = (app.client(), Receiver::start(statuses).await?);
    let secret = endpoint(client, &receiver.url()).await?;
    client.ask("Tell me", json!({})).await?;
    let mut planned = 0;
    for attempt in 1..=ATTEMPTS {
        receiver.has(attempt).await?;
        let stands =
            "select cast(attempts as bigint), cast(coalesce(last_status, 0) as bigint), coalesce(due_at, 0)
          from webhook_deliveries";
        let due = within(Duration::from_secs(15), "the attempt is noted", async || {
            let rows = app.numbers(stands).await?;
            let [row] = rows.as_slice() else { anyhow::bail!("{rows:?}") };
            Ok((row[..2] == [attempt as i64, 499 + attempt as i64]).then_some(row[2]))
        })
        .await?;
        let Some(wait) = WAITS_S.get(attempt - 1) else {
            assert_eq!(due, 0, "it was the last one");
            continue;
        };
        let ms = due - UnixMs::now().0;
        // Some of it has passed since.
        assert!((wait * 800 - 5_000..=wait * 1_200).contains(&ms), "{ms} ms after attempt {attempt}");
        planned += ms;
        assert_eq!(app.change("update webhook_deliveries set due_at = 1 where due_at is not null").await?, 1);
    }
    let failed = client.get("/v1/webhook_deliveries?status=failed").await?.expect(200)?["data"][0].clone();
    assert_eq!(
        (&failed["attempts"], &failed["last_status_code"]),
        (&json!(ATTEMPTS), &json!(511)),
        "{failed}"
    );
    let id = failed["id"].as_str().context("no id")?;
    client.post(&format!("/v1/webhook_deliveries/{id}/redeliver"), &json!({})).await?.expect(200)?;
    let told = receiver.has(ATTEMPTS + 1).await?;
    for told in &told {
        assert_eq!((told.id(), &told.verified(&secret)?["id"]), (id, &json!(id)));
    }
    within(Duration::from_secs(15), "it is delivered", async || {
        let list = client.get("/v1/webhook_deliveries?status=delivered").await?.expect(200)?;
        Ok((list["data"][0]["attempts"] == told.len()).then_some(()))
    })
    .await?;
    report(
        "29",
        "a webhook tried until it is given up on",
        &json!({"mode": mode.name(), "attempts": ATTEMPTS, "planned, h": planned as f64 / 3.6e6, "ids": 1, "valid signatures": told.len()}),
    )
}

/// A receiver that is there, with the secret that it knows.
struct Healthy {
    receiver: Receiver,
    secret: String,
    project: usize,
}

impl Healthy {
    /// The first coming of each task's end, by the task: seconds after the end. All of them must be signed, and repeats have the
    /// same id.
    fn ends(&self) -> anyhow::Result<BTreeMap<String, f64>> {
        let (mut ids, mut ends) = (BTreeMap::new(), BTreeMap::new());
        for told in self.receiver.received()? {
            let event = told.verified(&self.secret)?;
            let task = event["data"]["id"].as_str().context("no task")?.to_owned();
            let first = ids.entry(task.clone()).or_insert_with(|| told.id().to_owned());
            assert_eq!(first, told.id(), "a repeat has the id of the first");
            let finished = event["data"]["finished_at"].as_f64().context("no time of the end")?;
            ends.entry(task).or_insert(told.at - finished);
        }
        Ok(ends)
    }
}

/// Endpoints of many projects, one in ten of which hangs or refuses, and a worker that is killed in the middle.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_dead_delay_no_living() -> anyhow::Result<()> {
    harness::journey(Mode::Distributed, async |mode| {
        let (projects, each, tasks) = size((2, 15, 9), (10, 50, 30));
        let network = ("LONGHAUL_WEBHOOKS__PRIVATE_NETWORKS", "127.0.0.0/8");
        let mut app = App::with(mode).workers(2).quick().env(network.0, network.1).start().await?;
        let (mut healthy, mut hanging, mut clients) = (Vec::new(), Vec::new(), Vec::new());
        for project in 0..projects {
            let client = app.tenant(&format!("project-{project}"), "submit,read,webhooks").await?.client;
            for n in 0..each {
                let number = project * each + n;
                if number % 10 != 0 {
                    let receiver = Receiver::start([200]).await?;
                    let secret = endpoint(&client, &receiver.url()).await?;
                    healthy.push(Healthy { receiver, secret, project });
                } else if number % 20 == 0 {
                    // It takes connections, and says nothing.
                    let hangs = TcpListener::bind("127.0.0.1:0")?;
                    endpoint(&client, &format!("http://{}/", hangs.local_addr()?)).await?;
                    hanging.push(hangs);
                } else {
                    endpoint(&client, &format!("http://{}/", free_address()?)).await?;
                }
            }
            clients.push(client);
        }
        let mut calm = BTreeSet::new();
        for part in 0..3 {
            let told = submit(&clients, tasks / 3).await?;
            if part == 1 {
                app.workers[0].kill_9()?;
                app.replace_worker(0, &[])?;
            }
            for (client, id) in told.iter().flat_map(|(client, ids)| ids.iter().map(move |id| (client, id))) {
                client.ended(id).await?;
            }
            if part == 1 {
                // What the dead one had claimed is due when its claims run out: a minute has passed.
                app.change("update webhook_deliveries set due_at = due_at - 60000 where state = 'pending'").await?;
            } else {
                calm.extend(told.into_iter().flat_map(|(_, ids)| ids));
            }
            everyone_knows(&healthy, (part + 1) * (tasks / 3)).await?;
        }
        let mut late = Vec::new();
        for one in &healthy {
            late.extend(one.ends()?.into_iter().filter(|(task, _)| calm.contains(task)).map(|(_, late)| late));
        }
        late.sort_by(f64::total_cmp);
        let p99 = late[(late.len() - 1) * 99 / 100];
        let deliveries: usize = healthy.iter().map(|one| one.receiver.received().map_or(0, |all| all.len())).sum();
        let repeats = deliveries - healthy.len() * (tasks / 3 * 3);
        assert!(p99 <= 5.0, "p99 of the living {p99:.2} s");
        report(
            "29",
            "webhooks to many endpoints, one in ten dead",
            &json!({"endpoints": projects * each, "dead": projects * each - healthy.len(), "events": projects * (tasks / 3 * 3),
                    "lost": 0, "repeated after a kill": repeats, "living, s": {"p50": late[late.len() / 2], "p99": p99}}),
        )
    })
    .await
}

async fn submit(clients: &[Client], count: usize) -> anyhow::Result<Vec<(Client, Vec<String>)>> {
    let mut told = Vec::new();
    for client in clients {
        let mut ids = Vec::new();
        for n in 0..count {
            ids.push(client.submit(&task(n, json!({"ttft_ms": 50}))).await?);
        }
        told.push((client.clone(), ids));
    }
    Ok(told)
}

/// Each of the living has been told of so many tasks.
async fn everyone_knows(healthy: &[Healthy], tasks: usize) -> anyhow::Result<()> {
    for one in healthy {
        within(PATIENCE, "the living are told of everything", async || {
            Ok((one.ends()?.len() >= tasks).then_some(()))
        })
        .await
        .with_context(|| format!("project {}", one.project))?;
    }
    Ok(())
}

/// Receivers that hang are owed more than there are requests at a time: the living are told within moments.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_that_hang_delay_no_living() -> anyhow::Result<()> {
    harness::journey(Mode::Embedded, async |mode| {
        let network = ("LONGHAUL_WEBHOOKS__PRIVATE_NETWORKS", "127.0.0.0/8");
        let app = App::with(mode).quick().env(network.0, network.1).start().await?;
        let (client, mut hanging) = (app.client().clone(), Vec::new());
        for _ in 0..40 {
            let hangs = TcpListener::bind("127.0.0.1:0")?;
            endpoint(&client, &format!("http://{}/", hangs.local_addr()?)).await?;
            hanging.push(hangs);
        }
        let receiver = Receiver::start([200]).await?;
        let secret = endpoint(&client, &receiver.url()).await?;
        let healthy = [Healthy { receiver, secret, project: 0 }];
        submit(&[client], 20).await?;
        everyone_knows(&healthy, 20).await?;
        let late = healthy[0].ends()?.into_values().fold(0.0, f64::max);
        // The first time they hang costs a second or two; a request that hangs has 15.
        assert!(late <= 8.0, "the last one came after {late:.2} s");
        report(
            "29",
            "webhooks beside many that hang",
            &json!({"mode": mode.name(), "hanging": hanging.len(), "deliveries to them": 20 * hanging.len(), "living, s": {"max": late}}),
        )
    })
    .await
}

/// A worker that dies between a webhook and its note: the receiver is told again, with the same id.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_sent_again_with_the_same_id() -> anyhow::Result<()> {
    if !harness::failpoints() {
        return Ok(());
    }
    harness::journey(Mode::Distributed, async |mode| {
        let network = ("LONGHAUL_WEBHOOKS__PRIVATE_NETWORKS", "127.0.0.0/8");
        let mut app = App::with(mode).workers(0).quick().env(network.0, network.1).start().await?;
        let (client, receiver) = (app.client().clone(), Receiver::start([200]).await?);
        let secret = endpoint(&client, &receiver.url()).await?;
        app.add_worker_with(&[("FAILPOINTS", "webhook_sent=return")])?;
        let id = client.submit(&task(0, json!({}))).await?;
        eventually("the worker is dead", async || Ok(app.workers[0].ended()?.map(drop))).await?;
        let path = "/v1/webhook_deliveries?status=pending";
        assert_eq!(client.get(path).await?.expect(200)?["data"][0]["attempts"], 1, "nobody has noted it");
        // The claim runs out: a minute has passed.
        assert_eq!(app.change("update webhook_deliveries set due_at = due_at - 60000").await?, 1);
        app.add_worker()?;
        let told = receiver.has(2).await?;
        for one in &told {
            assert_eq!((one.id(), &one.verified(&secret)?["data"]["id"]), (told[0].id(), &json!(id)));
        }
        within(Duration::from_secs(10), "it is noted", async || {
            let list = client.get("/v1/webhook_deliveries?status=delivered").await?.expect(200)?;
            Ok((list["data"][0]["attempts"] == 2).then_some(()))
        })
        .await
    })
    .await
}
