//! `longhaul-api`: the API alone.

use clap::Parser;
use shared::{
    config::args::{ApiArgs, CommonArgs},
    process,
};
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Longhaul's API: accepts tasks and tells of them.
#[derive(Parser)]
#[command(name = "longhaul-api", version)]
struct Args {
    #[command(flatten)]
    common: CommonArgs,
    #[command(flatten)]
    api: ApiArgs,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let flags = args.api.on(args.common.flags());
    process::run(process::USUAL_LOG, async |stop| process::api(&flags, stop, api::serve).await)
}
