//! Many clients, one key: one task, one id, whoever asks first.

use super::{history, task};
use crate::journey::both_modes;
use anyhow::Context;
use harness::{App, Client, Mode, Seen, report, size};
use reqwest::Method;
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};
use tokio::task::JoinSet;

both_modes!(one_key_is_one_task);

async fn one_key_is_one_task(mode: Mode) -> anyhow::Result<()> {
    let (clients, keys) = size((20, 50), (100, 1_000));
    let app = App::with(mode).apis(2).start().await?;
    let history = history(&app).await?;
    let mut asking = JoinSet::new();
    for one in 0..clients {
        let api = app.apis[one % app.apis.len()].clone();
        let history = history.clone();
        asking.spawn(async move {
            for n in 0..keys {
                let key = format!("key-{n}");
                let id = submit(&api, &key, &task(n, json!({}))).await?.expect(202)?["id"].clone();
                history
                    .note(&Seen::Accepted { task: id.as_str().unwrap_or_default().into(), key: Some(key) });
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = asking.join_next().await {
        done??;
    }
    let other = submit(app.client(), "key-0", &task(1, json!({}))).await?;
    assert_eq!(other.status, 422, "{other:?}");
    let seen = app.judge(&history, Duration::from_secs(120)).await?;
    let tasks: BTreeSet<&str> = seen
        .iter()
        .filter_map(|seen| if let Seen::Stands { task, .. } = seen { Some(task.as_str()) } else { None })
        .collect();
    assert_eq!(tasks.len(), keys, "one task per key");
    report(
        "14",
        "one key, many clients",
        &json!({"mode": mode.name(), "clients": clients, "keys": keys, "tasks": tasks.len(), "another body": 422}),
    )
}

async fn submit(api: &Client, key: &str, body: &Value) -> anyhow::Result<harness::Reply> {
    Client::send(api.request(Method::POST, "/v1/tasks").header("idempotency-key", key).json(body)).await
}

/// While the first request with a key hangs, its repeats are told so after a second; nobody is told more than is known.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_under_way_is_said_to_be() -> anyhow::Result<()> {
    harness::journey(Mode::Distributed, async |mode| {
        let app = App::with(mode).own_postgres().quick().start().await?;
        let postgres = app.postgres.as_ref().context("this app has a Postgres of its own")?;
        let body = task(0, json!({}));
        // Models are known, so that what follows waits for the commit and nothing else.
        submit(app.client(), "warm", &body).await?.expect(202)?;
        postgres.freeze().await?;
        let begun = Instant::now();
        let (first, second) = tokio::join!(submit(app.client(), "key", &body), async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            let reply = submit(app.client(), "key", &body).await;
            reply.map(|reply| (reply, begun.elapsed()))
        });
        postgres.thaw()?;
        let (second, waited) = second?;
        assert_eq!(
            (first?.status, second.status, second.header("retry-after")),
            (503, 409, "1"),
            "{second:?}"
        );
        assert!(waited >= Duration::from_secs(1), "{waited:?}");
        let id = submit(app.client(), "key", &body).await?.expect(202)?["id"].clone();
        assert_eq!(submit(app.client(), "key", &body).await?.expect(202)?["id"], id);
        Ok(())
    })
    .await
}
