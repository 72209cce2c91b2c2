//! schemathesis takes docs/openapi.json at its word: it draws good requests and bad ones from it for every operation, follows its
//! links, and compares every answer with what is described. That every route is described is a test of `api/src/routes.rs`.

use anyhow::Context;
use harness::{App, Client, Mode, Process, chat, logs_folder, report, size};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn embedded() -> anyhow::Result<()> {
    harness::journey(Mode::Embedded, the_description_is_true).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn distributed() -> anyhow::Result<()> {
    harness::journey(Mode::Distributed, the_description_is_true).await
}

const KEY: &str = "the-operators-key-of-this-test";
/// Longer than a run takes.
const SLOW_MS: u64 = 3_600_000;
const COMMITTED: &str = include_str!("../../../docs/openapi.json");
const CONFIG: &str = include_str!("schemathesis.toml");
const HOOKS: &str = include_str!("hooks.py");

async fn the_description_is_true(mode: Mode) -> anyhow::Result<()> {
    // It thinks hard: other tests want the processor as well, so that it is nice, and alone.
    static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    let _alone = ALONE.lock().await;
    let Some(program) = harness::foreign("st") else { return Ok(()) };
    let examples = size(10, 200);
    // It shows bad keys as often as it likes.
    let app = App::with(mode)
        .env("LONGHAUL_API_KEY", KEY)
        .env("LONGHAUL_LIMITS__IP_FAILED_LOGINS_PER_MINUTE", "none")
        .env("LONGHAUL_WEBHOOKS__PRIVATE_NETWORKS", "127.0.0.0/8")
        .start()
        .await?;
    let client = app.client().with_key(KEY);
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("schemathesis.toml"), CONFIG)?;
    std::fs::write(folder.path().join("hooks.py"), HOOKS)?;
    furnish(&client, folder.path()).await?;
    let described = String::from_utf8(client.get("/openapi.json").await?.body.to_vec())?;
    anyhow::ensure!(described == COMMITTED.trim_end(), "docs/openapi.json is not what is served");
    std::fs::write(folder.path().join("openapi.json"), &described)?;
    let operations = operations(&described)?;
    let run = Run { program, folder: folder.path(), url: client.base(), examples };
    let said = run.phases("examples,coverage,fuzzing,stateful", 1).await?;
    for line in [format!("Selected: {operations}/{operations}"), format!("Tested: {operations}")] {
        anyhow::ensure!(said.contains(&line), "not {line}:\n{said}");
    }
    let (mut requests, mut scenarios) = (figure(&said, "generated")?, figure(&said, "Scenarios:")?);
    // The phase of stories ends early when one goes otherwise as it is told again: tasks end when they end. On with the next seed.
    for seed in 2..100 {
        if scenarios >= examples {
            break;
        }
        let said = run.phases("stateful", seed).await?;
        requests += figure(&said, "generated")?;
        scenarios += figure(&said, "Scenarios:")?;
    }
    anyhow::ensure!(scenarios >= examples, "only {scenarios} stateful scenarios");
    let figures = json!({"mode": mode.name(), "operations": operations, "examples per operation": examples,
        "stateful scenarios": scenarios, "requests": requests, "failures": 0, "warnings": 0});
    report("schemathesis", "the description against the API", &figures)
}

/// How it is run.
struct Run<'a> {
    program: PathBuf,
    folder: &'a Path,
    url: &'a str,
    examples: u64,
}

impl Run<'_> {
    /// Runs these phases; what it says, if it has found nothing.
    async fn phases(&self, phases: &str, seed: u32) -> anyhow::Result<String> {
        let header = format!("Authorization: Bearer {KEY}");
        let (examples, seed) = (self.examples.to_string(), seed.to_string());
        let start = |command: &mut Command| {
            command.env_clear().current_dir(self.folder).args(["-n", "19"]).arg(&self.program);
            command.args(["run", "openapi.json", "--url", self.url]);
            command.args(["-H", &header, "--phases", phases, "--max-examples", &examples]);
            command.args(["--seed", &seed, "--no-color"]);
            // Two workers make Python's parser stumble now and then.
            command.args(["--workers", "1", "--generation-database", "none"]);
        };
        let mut run = Process::start("schemathesis", Path::new("/usr/bin/nice"), start, &logs_folder()?)?;
        let ended = run.wait_end(size(Duration::from_secs(240), Duration::from_secs(1_800))).await;
        let said = run.said()?;
        let status = ended.with_context(|| said.clone())?;
        anyhow::ensure!(status.success(), "schemathesis, seed {seed}: {status}\n{said}");
        Ok(said)
    }
}

/// The number beside a word in what it says.
fn figure(said: &str, word: &str) -> anyhow::Result<u64> {
    let line =
        said.lines().find(|line| line.contains(word)).with_context(|| format!("no {word}:\n{said}"))?;
    let digits = line.split_whitespace().find(|part| part.bytes().all(|byte| byte.is_ascii_digit()));
    Ok(digits.with_context(|| line.to_owned())?.parse()?)
}

/// How many operations are described.
fn operations(described: &str) -> anyhow::Result<usize> {
    let described: Value = serde_json::from_str(described)?;
    let paths = described["paths"].as_object().context("a description has paths")?;
    Ok(paths.values().filter_map(Value::as_object).map(serde_json::Map::len).sum())
}

/// Makes what drawn ids would not find, and writes the ids where the configuration looks for them. Enough of each, because they are
/// deleted and revoked as well.
async fn furnish(client: &Client, folder: &Path) -> anyhow::Result<()> {
    let mut ids: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let mut keep = |kind, id| ids.entry(kind).or_default().push(id);
    for _ in 0..10 {
        let endpoint =
            json!({"name": "", "url": "https://127.0.0.1:9/hook", "event_types": ["task.completed"]});
        keep("endpoints", made(client, "/v1/webhook_endpoints", &endpoint).await?);
    }
    for n in 0..size(30, 100) {
        let task = client.ask("Why is the sky blue?", json!({})).await?;
        client.ended(&task).await?;
        keep("tasks", task);
        let task = client.ask("Why is the sky blue?", json!({"ttft_ms": SLOW_MS})).await?;
        client.post(&format!("/v1/tasks/{task}/cancel"), &json!({})).await?.expect(200)?;
        keep("ended-tasks", task);
        let key = json!({"project": "default", "scopes": ["read"], "name": n.to_string()});
        keep("keys", made(client, "/v1/admin/keys", &key).await?);
        keep("old-keys", made(client, "/v1/admin/keys", &key).await?);
    }
    for n in 0..5 {
        // They are cancelled before they are done, and stay cancelled.
        let line = json!({"custom_id": "a", "method": "POST", "url": "/v1/chat/completions",
            "body": chat("a", json!({"ttft_ms": SLOW_MS}))});
        let batch =
            json!({"endpoint": "/v1/chat/completions", "completion_window": "24h", "requests": [line]});
        keep("batches", made(client, "/v1/batches", &batch).await?);
        keep("projects", made(client, "/v1/admin/projects", &json!({"name": format!("project-{n}")})).await?);
    }
    let list = client.get("/v1/webhook_deliveries?limit=100").await?.expect(200)?;
    for delivery in list["data"].as_array().into_iter().flatten() {
        keep("deliveries", delivery["id"].as_str().unwrap_or_default().to_owned());
    }
    for (kind, ids) in &ids {
        let lines: String = ids.iter().map(|id| format!("\"{id}\"\n")).collect();
        std::fs::write(folder.join(kind), lines)?;
    }
    Ok(())
}

/// The id of what was made.
async fn made(client: &Client, path: &str, wanted: &Value) -> anyhow::Result<String> {
    let reply = client.post(path, wanted).await?;
    anyhow::ensure!(matches!(reply.status, 200 | 201), "{path}: {reply:?}");
    reply.json()?["id"].as_str().map(str::to_owned).context("what was made has an id")
}
