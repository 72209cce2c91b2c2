//! Many clients, one key: one task, one id, whoever asks first.

use super::{history, task};
use crate::journey::both_modes;
use harness::{App, Client, Mode, Seen, report, size};
use reqwest::Method;
use serde_json::{Value, json};
use std::{collections::BTreeSet, time::Duration};
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
