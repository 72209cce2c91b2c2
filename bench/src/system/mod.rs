//! The systems under test, started from nothing for each measurement and stopped after it.
//!
//! All do one job: accept a chat completion over HTTP, durably, with 202 and an id; call the model server; keep the answer; show
//! it by GET; tell that it is there.

pub(crate) mod longhaul;
mod peer;

use crate::gauge::rows::Rows;
use crate::{gauge::tree::Classes, load::follow::Follow};
use clap::ValueEnum;
use harness::{Process, Redis, eventually, free_address, program};
use std::{fmt, net::SocketAddr, path::PathBuf};
use tokio::net::TcpStream;

/// A system under test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum System {
    /// On Postgres and Redis, with the default transport.
    Longhaul,
    /// The same with `queue.transport = "apalis"`.
    LonghaulApalis,
    /// The first, with keys and limits of every kind.
    LonghaulGuarded,
    /// One process on SQLite.
    LonghaulEmbedded,
    /// FastAPI + Celery.
    Celery,
    /// Fastify + `BullMQ`.
    Bullmq,
}

impl fmt::Display for System {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(self.to_possible_value().as_ref().map_or("", |value| value.get_name()))
    }
}

impl System {
    /// Whether it is ours.
    pub(crate) fn is_longhaul(self) -> bool {
        !matches!(self, Self::Celery | Self::Bullmq)
    }

    /// A number of tasks that keeps it busy for some seconds: its share of what the fastest gets.
    pub(crate) fn share(self, of_fastest: u32) -> u32 {
        match self {
            Self::Longhaul | Self::LonghaulApalis | Self::LonghaulGuarded | Self::LonghaulEmbedded => {
                of_fastest
            }
            Self::Bullmq => of_fastest / 8,
            Self::Celery => of_fastest / 20,
        }
    }
}

/// What a measurement asks of a system.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wish {
    /// Calls of the model at once, in the one worker.
    pub(crate) slots: u32,
    /// How the model behaves.
    pub(crate) model: Model,
    /// Whether the worker starts with the rest; an embedded process always has one.
    pub(crate) worker: bool,
    /// Whether answers are streamed through (`events: "deltas"`); peers cannot.
    pub(crate) deltas: bool,
}

/// How the simulated model behaves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Model {
    /// Milliseconds until the first token, and so of an unstreamed answer when `between_ms` is zero.
    pub(crate) first_ms: u32,
    /// Milliseconds between tokens.
    pub(crate) between_ms: u32,
    /// Tokens of an answer.
    pub(crate) tokens: u32,
}

impl Model {
    /// The prompt of all requests, for a model that behaves so this once.
    fn chat(self) -> serde_json::Value {
        let mut chat = chat();
        chat["sim"] =
            serde_json::json!({"ttft_ms": self.first_ms, "itl_ms": self.between_ms, "tokens": self.tokens});
        chat
    }
}

/// A running system. Dropping it stops everything it consists of.
pub(crate) struct Running {
    /// Where its API listens.
    pub(crate) api: SocketAddr,
    /// Where its model listens.
    pub(crate) model_at: SocketAddr,
    /// Its rows.
    pub(crate) rows: Rows,
    /// How one learns that a task has ended.
    pub(crate) follow: Follow,
    /// The path of a task, without its id.
    pub(crate) path: &'static str,
    /// A request to submit a task.
    pub(crate) submit: Vec<u8>,
    /// Keys of two projects, if callers must show one: the requests here show the first.
    pub(crate) keys: Vec<String>,
    // In the order in which they should stop.
    workers: Vec<Process>,
    start_worker: StartWorker,
    /// The line by which a worker says that it works.
    works: fn(&str) -> bool,
    apis: Vec<Process>,
    model: Process,
    redis: Option<Redis>,
}

/// How to start a worker later on.
type StartWorker = Box<dyn Fn() -> anyhow::Result<Process> + Send + Sync>;

impl Running {
    /// Starts a system from nothing and waits until it serves.
    ///
    /// # Errors
    /// Something did not start.
    pub(crate) async fn start(system: System, wish: Wish) -> anyhow::Result<Self> {
        let model = start_model(wish.model).await?;
        let running = match system {
            System::Longhaul => longhaul::distributed("sorted", wish, model, None).await?,
            System::LonghaulGuarded => {
                longhaul::distributed("sorted", wish, model, Some(longhaul::Limits::WIDE)).await?
            }
            System::LonghaulApalis => longhaul::distributed("apalis", wish, model, None).await?,
            System::LonghaulEmbedded => longhaul::embedded(wish, model).await?,
            System::Celery | System::Bullmq => peer::start(system, wish, model).await?,
        };
        running.ready(wish).await
    }

    /// Starts Longhaul with these limits.
    ///
    /// # Errors
    /// Something did not start.
    pub(crate) async fn limited(wish: Wish, limits: longhaul::Limits) -> anyhow::Result<Self> {
        let model = start_model(wish.model).await?;
        longhaul::distributed("sorted", wish, model, Some(limits)).await?.ready(wish).await
    }

    async fn ready(mut self, wish: Wish) -> anyhow::Result<Self> {
        let api = self.api;
        eventually("the API accepts connections", async || Ok(TcpStream::connect(api).await.ok())).await?;
        if wish.worker {
            self.add_worker().await?;
        }
        Ok(self)
    }

    /// Its Redis, if it has one.
    pub(crate) fn redis(&self) -> Option<&Redis> {
        self.redis.as_ref()
    }

    /// A request for a task.
    pub(crate) fn get(&self, task: &str) -> Vec<u8> {
        let key = self.keys.first().map(|key| authorization(key)).unwrap_or_default();
        format!("GET {}{task} HTTP/1.1\r\nhost: {}\r\n{key}\r\n", self.path, self.api).into_bytes()
    }

    /// A request for such an answer to the model itself, streamed.
    pub(crate) fn direct(&self, model: Model) -> Vec<u8> {
        let mut chat = model.chat();
        chat["stream"] = true.into();
        post("/v1/chat/completions", self.model_at, None, &chat.to_string())
    }

    /// A request to submit this task.
    pub(crate) fn submit_task(&self, task: &str) -> Vec<u8> {
        post("/v1/tasks", self.api, self.keys.first(), task)
    }

    /// The request to submit a task, by another project.
    pub(crate) fn submit_with(&self, key: &str) -> Vec<u8> {
        let own = self.keys.first().map(|key| authorization(key)).unwrap_or_default();
        String::from_utf8_lossy(&self.submit).replacen(&own, &authorization(key), 1).into_bytes()
    }

    /// Starts the worker and waits until it says that it works.
    ///
    /// # Errors
    /// It did not start.
    pub(crate) async fn add_worker(&mut self) -> anyhow::Result<()> {
        if self.workers.is_empty() && self.rows.is_embedded() {
            return Ok(());
        }
        let mut worker = (self.start_worker)()?;
        eventually("the worker is ready", async || {
            worker.must_run()?;
            Ok(worker.said()?.lines().any(self.works).then_some(()))
        })
        .await?;
        self.workers.push(worker);
        Ok(())
    }

    /// Stops the workers as an operator does, and waits for it.
    ///
    /// # Errors
    /// One does not stop.
    pub(crate) async fn stop_workers(&mut self) -> anyhow::Result<()> {
        stop(std::mem::take(&mut self.workers)).await
    }

    /// Stops everything; peers stop their children only when they are asked to.
    ///
    /// # Errors
    /// Something does not stop.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        self.stop_workers().await?;
        stop(std::mem::take(&mut self.apis)).await
    }

    /// The processes by class, for the gauges.
    pub(crate) async fn classes(&self) -> anyhow::Result<Classes> {
        let pids = |processes: &[Process]| processes.iter().map(Process::pid).collect::<Vec<_>>();
        let mut classes = Classes::from([
            ("api", pids(&self.apis)),
            ("worker", pids(&self.workers)),
            ("model", vec![self.model.pid()]),
            ("generator", vec![std::process::id()]),
        ]);
        classes.extend(self.redis.iter().map(|redis| ("redis", vec![redis.process.pid()])));
        classes.extend(self.rows.server_pid().await?.map(|pid| ("postgres", vec![pid])));
        classes.retain(|_, pids| !pids.is_empty());
        Ok(classes)
    }
}

async fn stop(processes: Vec<Process>) -> anyhow::Result<()> {
    processes.iter().try_for_each(|process| process.signal("TERM"))?;
    for mut process in processes {
        eventually("a process has stopped", async || process.ended()).await?;
    }
    Ok(())
}

struct ModelServer {
    process: Process,
    listen: SocketAddr,
    url: String,
}

async fn start_model(model: Model) -> anyhow::Result<ModelServer> {
    let listen = free_address()?;
    let args = [
        ("--listen", listen.to_string()),
        ("--ttft-ms", model.first_ms.to_string()),
        ("--itl-ms", model.between_ms.to_string()),
        ("--tokens", model.tokens.to_string()),
        ("--jitter", "0".into()),
    ];
    let command = |command: &mut std::process::Command| {
        command.args(args.iter().flat_map(|(name, value)| [*name, value.as_str()]));
    };
    let process = Process::start("model", &program("longhaul-sim")?, command, &logs()?)?;
    eventually("the model listens", async || Ok(TcpStream::connect(listen).await.ok())).await?;
    Ok(ModelServer { process, listen, url: format!("http://{listen}") })
}

/// Where the processes' logs go: beside the programs.
fn logs() -> anyhow::Result<PathBuf> {
    program("bench-logs")
}

fn authorization(key: &str) -> String {
    format!("authorization: Bearer {key}\r\n")
}

/// A keep-alive request with a JSON body, as bytes.
fn post(path: &str, host: SocketAddr, key: Option<&String>, body: &str) -> Vec<u8> {
    let (length, key) = (body.len(), key.map(|key| authorization(key)).unwrap_or_default());
    format!("POST {path} HTTP/1.1\r\nhost: {host}\r\n{key}content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}")
        .into_bytes()
}

/// The same prompt for every system: some 200 bytes.
fn chat() -> serde_json::Value {
    let prompt =
        "Read the report below and say in three sentences what a busy reader has to know of it. ".repeat(2);
    serde_json::json!({"model": "sim-chat", "messages": [{"role": "user", "content": prompt}], "max_tokens": 4096})
}
