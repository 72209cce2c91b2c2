//! The life of a process: start, role, signals, drain, exit status. Every program is one call of [`run`].
//!
//! The first SIGTERM or SIGINT cancels the stop token, and the role drains; the second one ends the process at once. What
//! makes a start fail is one line on stderr and status 1.

use crate::{
    backends::{Backends, Unopened},
    config::{self, Config, Flags, Mode},
    failpoint,
    rooms::Rooms,
    sweep, telemetry,
};
use std::{
    convert::Infallible,
    fmt,
    future::Future,
    io::{self, Write},
    net::SocketAddr,
    process::ExitCode,
    sync::Arc,
};
use tokio::{
    net::{TcpListener, TcpSocket},
    signal::unix::{SignalKind, signal},
};
use tokio_util::sync::CancellationToken;

/// Connections that may wait to be accepted: those of a burst beyond it are dropped by the kernel, whose own limit may be lower.
const BACKLOG: u32 = 4096;

/// The filter of log lines of a process that serves. What goes wrong inside a library comes back as an error, and is logged once, with
/// its cause, where it is handled.
pub const USUAL_LOG: &str = "off,api=info,longhaul=info,shared=info,simulator=info,worker=info";

/// A role could not start, or ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The configuration does not hold.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// A backend could not be opened.
    #[error(transparent)]
    Backend(#[from] Unopened),
    /// The address cannot be listened on.
    #[error("cannot listen on {0}: {1}")]
    Listen(SocketAddr, #[source] std::io::Error),
    /// Strangers could reach the API.
    #[error(
        "api.listen is {0}, which others can reach, and there is no API key: make one with `longhaul keys create`, set \
         LONGHAUL_API_KEY (or LONGHAUL_API_KEY_FILE), or listen on 127.0.0.1"
    )]
    NoKey(SocketAddr),
    /// Two processes cannot share what is kept in memory.
    #[error(
        "{0} works beside other processes and needs DATABASE_URL and REDIS_URL; `longhaul serve` is all in one"
    )]
    Alone(&'static str),
    /// A worker without work.
    #[error("a worker needs a model server: set --upstream, LONGHAUL_UPSTREAM or [[upstreams]]")]
    NoUpstream,
    /// The role's own end.
    #[error("{0}")]
    Role(String),
}

/// Runs `role` until it ends or a signal stops it; an error becomes one line on stderr and status 1.
pub fn run<F, E>(log: &str, role: impl FnOnce(CancellationToken) -> F) -> ExitCode
where
    F: Future<Output = Result<(), E>>,
    E: fmt::Display,
{
    run_to_status(log, async |stop| match role(stop).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    })
}

/// As [`run`], for a role with an exit status of its own.
pub fn run_to_status(log: &str, role: impl AsyncFnOnce(CancellationToken) -> ExitCode) -> ExitCode {
    telemetry::process_start(log);
    failpoint::listen();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&format!("cannot start threads: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let status = runtime.block_on(async {
        let stop = CancellationToken::new();
        tokio::select! {
            status = role(stop.clone()) => status,
            () = signals(stop) => ExitCode::from(130),
            never = telemetry::upkeep() => match never {},
        }
    });
    // What still blocks a thread (a name being resolved, a terminal being read) must not hold up the end.
    runtime.shutdown_background();
    status
}

/// Cancels `stop` at the first signal; ends at the second one.
async fn signals(stop: CancellationToken) {
    let streams =
        signal(SignalKind::terminate()).and_then(|term| Ok((term, signal(SignalKind::interrupt())?)));
    let (mut term, mut interrupt) = match streams {
        Ok(streams) => streams,
        Err(error) => {
            tracing::error!(%error, "signals cannot be heard: the process will not drain");
            return std::future::pending().await;
        }
    };
    for first in [true, false] {
        tokio::select! {
            _ = term.recv() => {}
            _ = interrupt.recv() => {}
        }
        if first {
            tracing::info!("stopping: running work may end; a second signal ends it at once");
            stop.cancel();
        }
    }
}

/// The whole life of a process that serves the API and nothing else.
///
/// # Errors
/// What made the start fail, or made it end without being asked to.
pub async fn api<F, E>(
    flags: &Flags,
    stop: CancellationToken,
    serve: impl FnOnce(TcpListener, Backends, Arc<Config>, CancellationToken) -> F,
) -> Result<(), Failure>
where
    F: Future<Output = Result<(), E>> + Send + 'static,
    E: fmt::Display + 'static,
{
    let config = Arc::new(config::load(flags)?);
    needs_company("the API", &config)?;
    let listener = listen(config.api.listen).await?;
    let backends = Backends::open(&config).await?;
    needs_key(&config, &backends).await?;
    tracing::info!(listen = %config.api.listen, version = env!("CARGO_PKG_VERSION"), "api started");
    let mut rooms = Rooms::new();
    rooms.open("api", |stop| serve(listener, backends.clone(), config.clone(), stop));
    rooms.open("sweep", |stop| async move {
        sweep::run(backends, config, stop).await;
        Ok::<_, Infallible>(())
    });
    rooms.run(stop).await.map_err(Failure::Role)
}

/// The whole life of a process that runs tasks and nothing else.
///
/// # Errors
/// What made the start fail, or made it end without being asked to.
pub async fn worker<F, E>(
    flags: &Flags,
    stop: CancellationToken,
    run: impl FnOnce(Backends, Arc<Config>, CancellationToken) -> F,
) -> Result<(), Failure>
where
    F: Future<Output = Result<(), E>> + Send + 'static,
    E: fmt::Display + 'static,
{
    let config = Arc::new(config::load(flags)?);
    needs_company("a worker", &config)?;
    if config.upstreams.is_empty() {
        return Err(Failure::NoUpstream);
    }
    let backends = Backends::open(&config).await?;
    tracing::info!(slots = config.worker.slots, version = env!("CARGO_PKG_VERSION"), "worker started");
    let mut rooms = Rooms::new();
    rooms.open("worker", |stop| run(backends, config, stop));
    rooms.run(stop).await.map_err(Failure::Role)
}

/// Binds the address.
///
/// # Errors
/// Why it cannot be had.
pub async fn listen(address: SocketAddr) -> Result<TcpListener, Failure> {
    bound(address).map_err(|error| Failure::Listen(address, error))
}

fn bound(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // Who starts again must not wait for connections of the process before.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Refuses to be reachable by strangers without a key that anybody could have.
async fn needs_key(config: &Config, backends: &Backends) -> Result<(), Failure> {
    let safe =
        config.api.listen.ip().is_loopback() || config.api.key.is_some() || config.jwt.issuer.is_some();
    if safe || backends.registry.has_keys().await.map_err(|error| Failure::Role(error.to_string()))? {
        return Ok(());
    }
    Err(Failure::NoKey(config.api.listen))
}

/// Refuses to share what is kept in one process's memory.
fn needs_company(what: &'static str, config: &Config) -> Result<(), Failure> {
    match config.mode {
        Mode::Distributed { .. } => Ok(()),
        Mode::Embedded { .. } => Err(Failure::Alone(what)),
    }
}

/// Says one line on stderr.
pub fn complain(line: &str) {
    // Where stderr is closed, nobody is left to be told.
    let _ = writeln!(std::io::stderr(), "longhaul: {line}");
}
