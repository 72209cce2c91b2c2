//! Longhaul as people run it: the real programs, on one machine, in one of its two modes.
//!
//! Embedded: one `longhaul serve` with a data folder. Distributed: `longhaul-api` and `longhaul-worker` processes on a database
//! and a Redis of their own. The model is the simulator, inside the test's process, unless an upstream is named.

use crate::{Client, Process, Redis, eventually, free_address, fresh_database, process, program};
use anyhow::Context;
use bytes::Bytes;
use simulator::{Behaviour, Simulator};
use std::{
    path::{Path, PathBuf},
    process::Command,
};
use tempfile::TempDir;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

/// Which of the two modes, the distributed one with either transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// One process on SQLite.
    Embedded,
    /// Many processes on Postgres and Redis.
    Distributed,
    /// The same, with `queue.transport` = `apalis`.
    Apalis,
}

/// What a test wishes for.
#[derive(Debug)]
pub struct Builder {
    mode: Mode,
    apis: usize,
    workers: usize,
    upstream: Option<String>,
    env: Vec<(String, String)>,
}

/// A running Longhaul. Dropping it stops everything it consists of.
#[derive(Debug)]
pub struct App {
    /// A client of each API process; embedded: of the only process.
    pub apis: Vec<Client>,
    /// The simulated model and its ledger.
    pub model: Simulator,
    /// The model server's base URL.
    pub upstream: String,
    /// Distributed: the app's own Redis.
    pub redis: Option<Redis>,
    /// Distributed: the URL of the app's own database.
    pub database: Option<String>,
    /// Workers; embedded: the one process that is everything.
    pub workers: Vec<Process>,
    servers: Vec<Process>,
    env: Vec<(String, String)>,
    logs: PathBuf,
    folder: TempDir,
    serving: JoinSet<anyhow::Result<()>>,
}

impl App {
    /// One API and one worker, or one process that is both.
    ///
    /// # Errors
    /// Something did not start.
    pub async fn start(mode: Mode) -> anyhow::Result<Self> {
        Self::with(mode).start().await
    }

    /// An app with wishes.
    #[must_use]
    pub fn with(mode: Mode) -> Builder {
        Builder { mode, apis: 1, workers: 1, upstream: None, env: Vec::new() }
            .env("LONGHAUL_DATABASE__CONNECTIONS", "8")
            .env("LONGHAUL_QUEUE__TRANSPORT", if mode == Mode::Apalis { "apalis" } else { "sorted" })
    }

    /// The client of the first API.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.apis[0]
    }

    /// Where this app keeps files: gone with it.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Starts another worker.
    ///
    /// # Errors
    /// It does not start.
    pub fn add_worker(&mut self) -> anyhow::Result<()> {
        let name = format!("worker-{}", self.workers.len() + 1);
        let worker = self.spawn(&name, "longhaul-worker", &["--upstream", &self.upstream])?;
        self.workers.push(worker);
        Ok(())
    }

    async fn add_api(&mut self) -> anyhow::Result<()> {
        let name = format!("api-{}", self.apis.len() + 1);
        let listen = free_address()?.to_string();
        let mut api =
            self.spawn(&name, "longhaul-api", &["--listen", &listen, "--upstream", &self.upstream])?;
        self.apis.push(ready(&mut api, &listen).await?);
        self.servers.push(api);
        Ok(())
    }

    async fn add_all_in_one(&mut self) -> anyhow::Result<()> {
        let listen = free_address()?.to_string();
        let data = self.folder.path().join("data").display().to_string();
        let args = ["serve", "--listen", &listen, "--data-dir", &data, "--upstream", &self.upstream];
        let mut serve = self.spawn("serve", "longhaul", &args)?;
        self.apis.push(ready(&mut serve, &listen).await?);
        self.workers.push(serve);
        Ok(())
    }

    fn spawn(&self, name: &str, binary: &str, args: &[&str]) -> anyhow::Result<Process> {
        let command = |command: &mut Command| {
            // A developer's own settings must not reach the programs under test.
            command.env_clear().envs(self.env.iter().cloned()).args(args).current_dir(self.folder.path());
        };
        Process::start(name, &program(binary)?, command, &self.logs)
    }

    /// How the model's executions of a task stand, oldest first: `running`, `finished`, `client_closed`, or a fault's name.
    #[must_use]
    pub fn executions(&self, task: &str) -> Vec<&'static str> {
        self.model.ledger(Some(task)).iter().map(|entry| entry.how).collect()
    }

    /// The body that the model was sent for an attempt.
    ///
    /// # Errors
    /// There was none.
    pub async fn sent(&self, task: &str, attempt: u32) -> anyhow::Result<Bytes> {
        let reply = Client::new(&self.upstream)?.get(&format!("/_sim/requests/{task}/{attempt}")).await?;
        anyhow::ensure!(reply.status == 200, "the model has not seen attempt {attempt} of {task}");
        Ok(reply.body)
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.serving.abort_all();
        if std::thread::panicking() {
            last_words(&self.logs);
        }
    }
}

impl Builder {
    /// This many API processes; embedded apps have one.
    #[must_use]
    pub fn apis(self, apis: usize) -> Self {
        Self { apis, ..self }
    }

    /// This many workers; embedded apps have one.
    #[must_use]
    pub fn workers(self, workers: usize) -> Self {
        Self { workers, ..self }
    }

    /// Attempts at once, per worker.
    #[must_use]
    pub fn slots(self, slots: u32) -> Self {
        self.env("LONGHAUL_WORKER__SLOTS", &slots.to_string())
    }

    /// Another upstream than the simulator.
    #[must_use]
    pub fn upstream(self, url: &str) -> Self {
        Self { upstream: Some(url.to_owned()), ..self }
    }

    /// A setting.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts everything and waits until every API is ready.
    ///
    /// # Errors
    /// Something did not start: its last words are in the error.
    pub async fn start(mut self) -> anyhow::Result<App> {
        let logs = logs_folder()?;
        std::fs::remove_dir_all(&logs).ok();
        let (model, mut serving) = (Simulator::new(Behaviour::instant()), JoinSet::new());
        let simulated = self.upstream.is_none();
        let upstream = match self.upstream.take() {
            Some(url) => url,
            None => serve(&model, &mut serving).await?,
        };
        let (mut redis, mut database) = (None, None);
        if self.mode != Mode::Embedded {
            let (url, process) = (fresh_database().await?, Redis::start(&logs).await?);
            self.env.push(("DATABASE_URL".into(), url.clone()));
            self.env.push(("REDIS_URL".into(), process.url.clone()));
            (database, redis) = (Some(url), Some(process));
        }
        let mut app = App {
            apis: Vec::new(),
            model,
            upstream,
            redis,
            database,
            workers: Vec::new(),
            servers: Vec::new(),
            env: self.env,
            logs,
            folder: tempfile::tempdir()?,
            serving,
        };
        match self.mode {
            Mode::Embedded => app.add_all_in_one().await?,
            Mode::Distributed | Mode::Apalis => {
                for _ in 0..self.apis {
                    app.add_api().await?;
                }
                for _ in 0..self.workers {
                    app.add_worker()?;
                }
            }
        }
        if simulated && !app.workers.is_empty() {
            let listed = async || {
                let reply = app.client().get("/v1/models").await?;
                // An app that asks for a key is asked by its own test.
                if reply.status == 401 {
                    return Ok(Some(()));
                }
                let models = reply.expect(200)?;
                Ok(models["data"].as_array().is_some_and(|models| !models.is_empty()).then_some(()))
            };
            eventually("a worker has noted the models", listed).await?;
        }
        Ok(app)
    }
}

async fn serve(model: &Simulator, serving: &mut JoinSet<anyhow::Result<()>>) -> anyhow::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let model = model.clone();
    serving.spawn(async move { model.serve(listener, CancellationToken::new()).await });
    Ok(url)
}

async fn ready(process: &mut Process, listen: &str) -> anyhow::Result<Client> {
    let client = Client::new(format!("http://{listen}"))?;
    eventually(&format!("{listen} is ready"), async || {
        process.must_run()?;
        let answer = client.get("/readyz").await;
        Ok(answer.ok().filter(|reply| reply.status == 200).map(drop))
    })
    .await?;
    Ok(client)
}

/// `target/<profile>/test-logs/<test>`: named after the running test, kept after it.
///
/// # Errors
/// The test runs neither from cargo nor on a thread with its name.
pub fn logs_folder() -> anyhow::Result<PathBuf> {
    let thread = std::thread::current();
    let test = thread.name().context("the test's thread has no name")?.replace("::", ".");
    Ok(process::profile_folder()?.join("test-logs").join(test))
}

/// Runs a journey in a mode; distributed ones only where there are services. If it fails, the processes' last words are shown.
///
/// # Errors
/// The journey's.
pub async fn journey(mode: Mode, run: impl AsyncFnOnce(Mode) -> anyhow::Result<()>) -> anyhow::Result<()> {
    if mode != Mode::Embedded && !crate::available() {
        return Ok(());
    }
    let result = run(mode).await;
    if result.is_err() {
        last_words(&logs_folder()?);
    }
    result
}

fn last_words(logs: &Path) {
    let files = std::fs::read_dir(logs).into_iter().flatten().flatten();
    for file in files.filter(|file| file.file_name() != "redis.log") {
        eprintln!("── {}\n{}", file.file_name().display(), process::last_words(&file.path()));
    }
}
