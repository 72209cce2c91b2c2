//! `longhaul-sim`: the model simulator as a process of its own.

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::Parser;
use simulator::Behaviour;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// A model server without a model: made-up answers, honest timing, faults on request.
#[derive(Debug, Parser)]
#[command(name = "longhaul-sim", version)]
struct Flags {
    /// The address to listen on.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8090")]
    listen: SocketAddr,

    #[command(flatten)]
    behaviour: Behaviour,
}

#[tokio::main]
async fn main() -> ExitCode {
    let flags = Flags::parse();
    match run(flags).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("longhaul-sim: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(flags: Flags) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    let bound = TcpListener::bind(flags.listen).await;
    let listener = bound.map_err(|error| anyhow::anyhow!("cannot listen on {}: {error}", flags.listen))?;
    eprintln!("SIMULATED model server on http://{}", listener.local_addr()?);
    let serving = simulator::serve(listener, flags.behaviour, stop.clone());
    tokio::pin!(serving);
    tokio::select! {
        ended = &mut serving => return ended,
        asked = asked_to_stop() => asked?,
    }
    stop.cancel();
    serving.await
}

/// Waits for ctrl-c or, where there is one, SIGTERM.
async fn asked_to_stop() -> std::io::Result<()> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            asked = tokio::signal::ctrl_c() => asked,
            _ = terminate.recv() => Ok(()),
        }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await
}
