//! Longhaul as people run it: the real programs, on one machine, in one of its two modes.
//!
//! Embedded: one `longhaul serve` with a data folder. Distributed: `longhaul-api` and `longhaul-worker` processes on a database
//! and a Redis of their own. The model is the simulator, inside the test's process, unless an upstream is named.

mod builder;
mod cluster;
mod edges;
mod silence;

pub use builder::Builder;
pub use edges::{Edge, Edges};

use crate::{
    Canaries, Client, Postgres, Process, Redis, SmallDisk, eventually, free_address, names, process, program,
};
use anyhow::Context;
use bytes::Bytes;
use edges::Ways;
use simulator::Simulator;
use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
};
use tempfile::TempDir;
use tokio::task::JoinSet;

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

/// A running Longhaul. Dropping it stops everything it consists of.
#[derive(Debug)]
pub struct App {
    /// In which mode it runs.
    pub mode: Mode,
    /// A client of each API process; embedded: of the only process.
    pub apis: Vec<Client>,
    /// The simulated model and its ledger.
    pub model: Simulator,
    /// The model server's base URL.
    pub upstream: String,
    /// Its configuration file says which upstreams there are, and no flag does.
    own_upstreams: bool,
    /// Workers; embedded: the one process that is everything.
    pub workers: Vec<Process>,
    servers: Vec<Process>,
    /// The proxies between the processes and what they use: see [`Builder::proxied`].
    pub edges: Edges,
    /// Distributed: the app's own Redis.
    pub redis: Option<Redis>,
    /// Distributed: the URL of the app's own database, past any proxy.
    pub database: Option<String>,
    /// The server of that database, if the app has one of its own: see [`Builder::own_postgres`].
    pub postgres: Option<Postgres>,
    /// Embedded: the disk that holds the data folder, if it is small: see [`Builder::small_disk`].
    pub disk: Option<SmallDisk>,
    names: Option<PathBuf>,
    canaries: Mutex<Canaries>,
    ways: Ways,
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
        Builder::new(mode)
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
        self.add_worker_with(&[])
    }

    /// Starts another worker with settings of its own.
    ///
    /// # Errors
    /// It does not start.
    pub fn add_worker_with(&mut self, env: &[(&str, &str)]) -> anyhow::Result<()> {
        let name = format!("worker-{}", self.workers.len() + 1);
        let env = [pairs(env), self.ways.of_worker()].concat();
        let worker = self.spawn(&name, "longhaul-worker", &self.upstream_flag(), &env)?;
        self.workers.push(worker);
        Ok(())
    }

    /// Starts another API process and waits until it is ready.
    ///
    /// # Errors
    /// It does not start.
    pub async fn add_api(&mut self) -> anyhow::Result<()> {
        self.add_api_with(&[]).await
    }

    /// Starts another API process with settings of its own and waits until it is ready.
    ///
    /// # Errors
    /// It does not start.
    pub async fn add_api_with(&mut self, env: &[(&str, &str)]) -> anyhow::Result<()> {
        let name = format!("api-{}", self.apis.len() + 1);
        let listen = free_address()?.to_string();
        let args = [&["--listen", &*listen], &*self.upstream_flag()].concat();
        let env = [pairs(env), self.ways.of_api()].concat();
        let mut api = self.spawn(&name, "longhaul-api", &args, &env)?;
        self.apis.push(ready(&mut api, &listen).await?);
        self.servers.push(api);
        Ok(())
    }

    async fn add_all_in_one(&mut self) -> anyhow::Result<()> {
        let listen = free_address()?.to_string();
        let place = self.disk.as_ref().map_or(self.folder.path(), SmallDisk::path);
        let data = place.join("data").display().to_string();
        let args = [&["serve", "--listen", &*listen, "--data-dir", &data], &*self.upstream_flag()].concat();
        let mut serve = self.spawn("serve", "longhaul", &args, &[])?;
        self.apis.push(ready(&mut serve, &listen).await?);
        self.workers.push(serve);
        Ok(())
    }

    fn upstream_flag(&self) -> Vec<&str> {
        if self.own_upstreams { Vec::new() } else { vec!["--upstream", &self.ways.upstream] }
    }

    fn spawn(
        &self,
        name: &str,
        binary: &str,
        args: &[&str],
        env: &[(String, String)],
    ) -> anyhow::Result<Process> {
        let env = self.env.iter().chain(env).cloned();
        let command = |command: &mut Command| {
            // A developer's own settings must not reach the programs under test.
            command.env_clear().envs(env).args(args).current_dir(self.folder.path());
        };
        let program = program(binary)?;
        match (&self.disk, &self.names) {
            (Some(disk), _) => disk.start(name, &program, command, &self.logs),
            (None, Some(names)) => {
                let viewing = |viewing: &mut Command| {
                    viewing.args(names::view(names, &program));
                    command(viewing);
                };
                Process::start(name, Path::new("unshare"), viewing, &self.logs)
            }
            (None, None) => Process::start(name, &program, command, &self.logs),
        }
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
            return;
        }
        let gossip = self.gossip().expect("logs are readable");
        assert!(gossip.is_empty(), "not for logs:\n{}", gossip.join("\n"));
    }
}

fn pairs(env: &[(&str, &str)]) -> Vec<(String, String)> {
    env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
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
