//! docs/events.md has every type and every field, and no others: what comes is compared with its tables.

use super::rows;
use crate::{journey::both_modes, shown::section, tidy::text};
use harness::{App, Client, Mode, chat};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

both_modes!(all_that_comes_is_explained_and_all_that_is_explained_comes);

/// Values that are others': what is inside them is not ours to explain.
const FOREIGN: [&str; 4] = ["data.chunk", "data.output", "data.task.result.body", "data.task.metadata"];

/// The page's fields, by path, with their types.
fn fields(page: &str) -> anyhow::Result<BTreeMap<String, String>> {
    let of = |heading, prefix: &'static str| {
        let rows = rows(section(page, heading)?).into_iter();
        anyhow::Ok(rows.map(move |row| (format!("{prefix}{}", row[0]), row[1].clone())))
    };
    Ok(of("## An event", "")?.chain(of("## The task", "data.task.")?).collect())
}

/// Types of event with the field that they have in `data`.
fn types(page: &str) -> anyhow::Result<BTreeMap<String, String>> {
    Ok(rows(section(page, "## Types")?).into_iter().map(|row| (row[0].clone(), row[2].clone())).collect())
}

/// Every path below a value, with what is there.
fn paths<'a>(value: &'a Value, path: &str, found: &mut Vec<(String, &'a Value)>) {
    let Some(object) = value.as_object().filter(|_| !FOREIGN.contains(&path)) else { return };
    for (name, value) in object {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        paths(value, &path, found);
        found.push((path, value));
    }
}

fn is(value: &Value, kinds: &str) -> bool {
    kinds.split(" or ").any(|kind| match kind {
        "any" => true,
        "string" => value.is_string(),
        "integer" => value.is_i64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "object" => value.is_object(),
        "null" => value.is_null(),
        _ => false,
    })
}

/// Tasks that go all ways there are, and how many of their events are wanted.
async fn tasks(client: &Client) -> anyhow::Result<Vec<(String, usize)>> {
    let submit = async |sim: Value, policy: Value| {
        let body = chat("Tell", sim);
        client.submit(&json!({"endpoint": "/v1/chat/completions", "body": body, "policy": policy})).await
    };
    let (text, headers) = ("one two three four", json!({"x-request-id": "theirs"}));
    let slow = json!({"text": text, "ttft_ms": 100, "itl_ms": 40, "headers": headers});
    let cut = json!({"text": text, "ttft_ms": 100, "itl_ms": 40, "fail_first": 1, "cut_after": 3});
    // So many that a snapshot comes among them.
    let long = json!({"tokens": 5_100, "ttft_ms": 100, "itl_ms": 0});
    let (refused, endless) = (json!({"status": 400}), json!({"ttft_ms": 60_000}));
    let (soon, late) = (
        json!({"backoff": {"base_ms": 10}}),
        json!({"backoff": {"base_ms": 3_600_000, "max_ms": 3_600_000}}),
    );
    let bytes = json!({"raw": "not JSON", "content_type": "text/plain"});
    let fails = json!({"status": 500, "fail_first": 1});
    let long_answer =
        json!({"raw": format!("\"{}\"", "x".repeat(70_000)), "content_type": "application/json"});
    let mut ids = vec![
        submit(long_answer, json!({"events": "lifecycle"})).await?,
        submit(slow, json!({})).await?,
        submit(cut, soon).await?,
        submit(long, json!({})).await?,
        submit(refused, json!({})).await?,
        submit(endless.clone(), json!({"ttl_s": 1})).await?,
        submit(bytes, json!({"events": "lifecycle"})).await?,
    ];
    let stopped = submit(endless, json!({})).await?;
    client.post(&format!("/v1/tasks/{stopped}/cancel"), &json!({})).await?.expect(200)?;
    let body = chat("Tell", json!({}));
    let line = json!({"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body});
    let batch = json!({"endpoint": "/v1/chat/completions", "completion_window": "24h", "requests": [line]});
    let batch = client.post("/v1/batches", &batch).await?.expect(200)?;
    let lines = format!("/v1/tasks?batch_id={}", batch["id"].as_str().unwrap_or_default());
    let lines = client.get(&lines).await?.expect(200)?;
    // Its chunks carry what the request has besides: they are too long to be told.
    let mut wide = chat("Tell", json!({"tokens": 2, "ttft_ms": 100, "itl_ms": 40, "echo_fields": true}));
    wide["padding"] = json!("x".repeat(600_000));
    ids.push(client.submit(&json!({"endpoint": "/v1/chat/completions", "body": wide})).await?);
    ids.extend([stopped, lines["data"][0]["id"].as_str().unwrap_or_default().to_owned()]);
    // It was too quick for a log, and waits, some part of an hour: one snapshot tells of it.
    let waits = submit(fails, late).await?;
    client.reaches(&waits, "scheduled").await?;
    Ok([(waits, 1)].into_iter().chain(ids.into_iter().map(|id| (id, usize::MAX))).collect())
}

async fn all_that_comes_is_explained_and_all_that_is_explained_comes(mode: Mode) -> anyhow::Result<()> {
    let app = App::start(mode).await?;
    let page = text("docs/events.md");
    let (fields, types) = (fields(&page)?, types(&page)?);
    let (mut came, mut told) = (BTreeSet::new(), BTreeSet::new());
    for (id, wanted) in tasks(app.client()).await? {
        for event in app.client().events(&id, None, wanted).await? {
            let data = types.get(&event.name);
            let data = data.ok_or_else(|| anyhow::anyhow!("{} is not explained", event.name))?;
            let known = event.data["data"].as_object().into_iter().flat_map(|data| data.keys());
            // A snapshot has it where it is known.
            let has = known.filter(|name| *name != "output").cloned().collect::<String>();
            let is_omitted = event.data["data"]["omitted"] == true;
            assert_eq!(has, if is_omitted { "omitted" } else { data }, "{}", event.data);
            told.insert(event.name.clone());
            let mut found = Vec::new();
            paths(&event.data, "", &mut found);
            for (path, value) in found {
                let kinds = fields.get(&path).map_or("nothing", String::as_str);
                assert!(is(value, kinds), "the page says {kinds} of {path}, which is {value}");
                came.extend((!value.is_null() || kinds == "null").then_some(path));
            }
        }
    }
    assert_eq!(told, types.into_keys().collect::<BTreeSet<_>>());
    assert_eq!(came, fields.into_keys().collect::<BTreeSet<_>>());
    Ok(())
}

#[test]
fn every_type_of_event_is_explained() -> anyhow::Result<()> {
    let source = text("shared/src/task/event.rs");
    let names = source
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Self::")?.split_once(" => \"")?.1.split_once('"'));
    let names: BTreeSet<String> = names.map(|(name, _)| name.to_owned()).collect();
    assert!(names.len() >= 11, "the names are where this test looks for them");
    assert_eq!(names, types(&text("docs/events.md"))?.into_keys().collect());
    Ok(())
}
