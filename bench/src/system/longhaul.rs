//! Longhaul as an operator starts it: one API and one worker, or one process that is both.

use super::{Model, ModelServer, Running, Wish, chat, logs, post};
use crate::{gauge::rows::Rows, load::follow::Follow};
use anyhow::Context;
use harness::{Process, Redis, free_address, fresh_database, program};
use serde_json::json;
use std::net::SocketAddr;
use tokio::net::TcpStream;

const PATH: &str = "/v1/tasks/";

/// Without `policy.events`, tasks of the default queue are streamed; peers call the model unstreamed, and so does this by default.
fn submit(api: SocketAddr, wish: Wish, key: Option<&String>) -> Vec<u8> {
    let events = if wish.deltas { "deltas" } else { "lifecycle" };
    let task = json!({"endpoint": "/v1/chat/completions", "policy": {"events": events}, "body": chat()});
    post("/v1/tasks", api, key, &task.to_string())
}

/// A task whose answer is streamed by a model that behaves so, as JSON.
pub(crate) fn streamed(model: Model) -> String {
    let policy = json!({"events": "deltas"});
    json!({"endpoint": "/v1/chat/completions", "policy": policy, "body": model.chat()}).to_string()
}

/// A task that waits for an hour, as JSON.
pub(crate) fn waiting() -> String {
    json!({"endpoint": "/v1/chat/completions", "delay_s": 3_600, "body": chat()}).to_string()
}

/// Limits of callers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Requests of a project in a minute.
    pub(crate) requests: u32,
    /// Its tasks that may wait.
    pub(crate) waiting: u32,
    /// Its tasks that may run at once.
    pub(crate) running: u32,
}

impl Limits {
    /// Nobody reaches them: they are only looked after.
    pub(super) const WIDE: Self =
        Self { requests: 1_000_000_000, waiting: 1_000_000_000, running: 1_000_000 };

    /// Of all kinds; what is not named is wide.
    fn env(self) -> [(String, String); 7] {
        let wide = 1_000_000_000;
        [
            ("PROJECT_REQUESTS_PER_MINUTE", self.requests),
            ("PROJECT_TOKENS_PER_MINUTE", wide),
            ("PROJECT_QUEUED_TASKS", self.waiting),
            ("PROJECT_CONCURRENT_TASKS", self.running),
            ("KEY_REQUESTS_PER_MINUTE", wide),
            ("KEY_TOKENS_PER_MINUTE", wide),
            ("IP_REQUESTS_PER_MINUTE", wide),
        ]
        .map(|(name, limit)| (format!("LONGHAUL_LIMITS__{name}"), limit.to_string()))
    }
}

/// A key of a new project of this name.
async fn key(database: &str, project: &str) -> anyhow::Result<String> {
    let args = [
        "keys",
        "create",
        "--project",
        project,
        "--scopes",
        "submit,read",
        "--database-url",
        database,
        "-o",
        "json",
    ];
    let said = harness::output(&args, &[]).await?;
    let made: serde_json::Value = serde_json::from_slice(&said.stdout)?;
    made["key"].as_str().map(str::to_owned).context("no key was made")
}

fn start(name: &str, binary: &str, args: &[&str], env: &[(String, String)]) -> anyhow::Result<Process> {
    let command = |command: &mut std::process::Command| {
        command.env_clear().envs(env.iter().cloned()).args(args);
    };
    Process::start(name, &program(binary)?, command, &logs()?)
}

/// One `longhaul-api` and, when asked, one `longhaul-worker`. With limits there are keys.
pub(super) async fn distributed(
    transport: &'static str,
    wish: Wish,
    model: ModelServer,
    limits: Option<Limits>,
) -> anyhow::Result<Running> {
    let (database, redis) = (fresh_database().await?, Redis::durable(&logs()?).await?);
    let mut env = vec![
        ("DATABASE_URL".to_owned(), database.clone()),
        ("REDIS_URL".to_owned(), redis.url.clone()),
        ("LONGHAUL_WORKER__SLOTS".to_owned(), wish.slots.to_string()),
        ("LONGHAUL_QUEUE__TRANSPORT".to_owned(), transport.to_owned()),
    ];
    let mut keys = Vec::new();
    if let Some(limits) = limits {
        env.extend(limits.env());
        keys = vec![key(&database, "acme").await?, key(&database, "globex").await?];
    }
    let (listen, health) = (free_address()?, free_address()?.to_string());
    let api_args = ["--listen", &listen.to_string(), "--upstream", &model.url];
    let api = start("longhaul-api", "longhaul-api", &api_args, &env)?;
    let upstream = model.url;
    let start_worker = move || {
        start("longhaul-worker", "longhaul-worker", &["--upstream", &upstream, "--listen", &health], &env)
    };
    Ok(Running {
        api: listen,
        model_at: model.listen,
        rows: Rows::longhaul(&database).await?,
        follow: Follow::WebSocket(listen),
        path: PATH,
        submit: submit(listen, wish, keys.first()),
        keys,
        workers: Vec::new(),
        start_worker: Box::new(start_worker),
        works: |line| line.contains("registered"),
        apis: vec![api],
        model: model.process,
        redis: Some(redis),
    })
}

/// One `longhaul serve` on an empty data folder. It always works: a wish without a worker gets one slot, for a model that
/// does not answer in time.
pub(super) async fn embedded(wish: Wish, model: ModelServer) -> anyhow::Result<Running> {
    let data = logs()?.join("data");
    match std::fs::remove_dir_all(&data) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let slots = if wish.worker { wish.slots } else { 1 };
    let env = vec![("LONGHAUL_WORKER__SLOTS".to_owned(), slots.to_string())];
    let listen = free_address()?;
    let folder = data.display().to_string();
    let args = ["serve", "--listen", &listen.to_string(), "--data-dir", &folder, "--upstream", &model.url];
    let mut serve = start("longhaul-serve", "longhaul", &args, &env)?;
    harness::eventually("the data folder has a database", async || {
        serve.must_run()?;
        Ok(TcpStream::connect(listen).await.ok())
    })
    .await?;
    Ok(Running {
        api: listen,
        model_at: model.listen,
        rows: Rows::embedded(&data.join("longhaul.db")).await?,
        follow: Follow::WebSocket(listen),
        path: PATH,
        submit: submit(listen, wish, None),
        keys: Vec::new(),
        workers: Vec::new(),
        start_worker: Box::new(|| anyhow::bail!("an embedded process has its worker inside")),
        works: |line| line.contains("registered"),
        apis: vec![serve],
        model: model.process,
        redis: None,
    })
}
