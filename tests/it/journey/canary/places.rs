//! Where the words are looked for, and the places that are made for some of them.

use super::{Heard, House};
use harness::{Client, Net};

/// What `mine` writes and reads: no secret of the house, but its own business.
const CONTENT: [&str; 7] =
    ["prompt", "answer", "metadata", "custom_id", "reason", "Idempotency-Key", "URL of a webhook"];

/// Words that callers made up for bad requests, good for nothing.
const MADE_UP: [&str; 2] = ["field", "question"];

/// Columns that are made for what projects write and read.
const COLUMNS: [(&str, &[&str]); 9] = [
    ("webhook_endpoints.url", &["URL of a webhook"]),
    // Requests are signed with it.
    ("webhook_endpoints.secret", &["secret of webhooks"]),
    ("payloads.body", &["prompt", "answer"]),
    ("payloads.metadata", &["metadata"]),
    ("payloads.custom_id", &["custom_id"]),
    ("batches.metadata", &["metadata"]),
    ("results.body", &["prompt", "answer"]),
    // A cancel's reason is for whoever reads the task.
    ("results.error", &["reason"]),
    ("idempotency.key", &["Idempotency-Key"]),
];

/// Keys of Redis that are made for answers while they are written, and for why a task was cancelled.
const EVENT_LOG: &str = "lh:events:log:";

fn none(found: Vec<String>) {
    assert!(found.is_empty(), "this does not belong there:\n{}", found.join("\n"));
}

/// Answers to requests.
pub(super) fn errors(house: &House, heard: &Heard) {
    let all = house.app.canaries();
    let look = |net: &Net, (what, reply): &(String, harness::Reply)| {
        let mut text = format!("{} {:?}\n", reply.status, reply.headers).into_bytes();
        text.extend_from_slice(&reply.body);
        net.found_in(what, &text)
    };
    let (secrets, names) = (all.but(&CONTENT).but(&MADE_UP).net(), all.but(&["question"]).net());
    let all = all.net();
    let own = heard.own.iter().flat_map(|said| {
        // What the model server answers is the task's owner's, errors included.
        let is_error = said.1.status >= 400 && !is_answer(said);
        look(if is_error { &names } else { &secrets }, said)
    });
    let others = heard.others.iter().flat_map(|said| look(&all, said));
    none(own.chain(others).collect());
    assert!(heard.own.iter().filter(|(_, reply)| reply.status >= 400).count() > 300, "few errors");
    assert!(heard.others.len() > 200, "few strangers");
}

fn is_answer((what, reply): &(String, harness::Reply)) -> bool {
    what.contains("result") && !reply.body.starts_with(b"{\"error\":{\"message\":\"the upstream")
}

/// Figures of all processes.
pub(super) async fn figures(house: &House) -> anyhow::Result<()> {
    let operator = house.app.client().with_key(&house.operator);
    let worker = Client::new(&house.figures)?.with_key(&house.operator);
    let all = house.app.canaries().net();
    for client in [operator, worker] {
        let figures = client.get("/metrics").await?;
        assert!(figures.status == 200 && figures.body.len() > 1_000, "{figures:?}");
        none(all.found_in("/metrics", &figures.body));
    }
    Ok(())
}

/// Every key and value of Redis.
pub(super) async fn redis(house: &House) -> anyhow::Result<()> {
    let Some(redis) = &house.app.redis else { return Ok(()) };
    let all = house.app.canaries();
    let (in_logs, all, mut answers) = (all.but(&["answer", "reason"]).net(), all.net(), 0);
    for (key, value) in redis.holds().await? {
        let is_log = key.starts_with(EVENT_LOG);
        let net = if is_log { &in_logs } else { &all };
        none(net.found_in(&key, value.as_bytes()));
        answers += usize::from(is_log && value.contains(&house.words.answer));
    }
    assert!(answers > 0, "no event log has an answer: nothing was looked at");
    Ok(())
}

/// Every column of the database, and the files beside it.
pub(super) async fn database(house: &House) -> anyhow::Result<()> {
    // The walk makes projects and keys of whatever name.
    let all = house.app.canaries().but(&MADE_UP);
    let net = all.net();
    for (column, values) in house.app.rows().await? {
        let found = net.found_in(&column, values.as_bytes());
        match COLUMNS.iter().find(|(name, _)| *name == column) {
            Some((_, words)) => {
                assert!(!found.is_empty(), "{column} is made for {words:?} and has none");
                none(all.but(words).net().found_in(&column, values.as_bytes()));
            }
            None => none(found),
        }
    }
    let files = all.but(&CONTENT).net().found_below(house.app.folder())?;
    // The embedded database is a file, with the column of the secrets that it signs with.
    let is_column =
        |found: &String| found.contains("/longhaul.db") && found.ends_with(": secret of webhooks");
    none(files.into_iter().filter(|found| !is_column(found)).collect());
    Ok(())
}
