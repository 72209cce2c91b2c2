//! `longhaul-worker`: a worker alone.

use clap::Parser;
use shared::{
    config::args::{CommonArgs, HealthArgs, WorkerArgs},
    process,
};
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Longhaul's worker: claims tasks, calls model servers and stores the answers.
#[derive(Parser)]
#[command(name = "longhaul-worker", version)]
struct Args {
    #[command(flatten)]
    common: CommonArgs,
    #[command(flatten)]
    worker: WorkerArgs,
    #[command(flatten)]
    health: HealthArgs,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let flags = args.health.on(args.worker.on(args.common.flags()));
    process::run(process::USUAL_LOG, async |stop| process::worker(&flags, stop, worker::run).await)
}
