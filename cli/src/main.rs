//! `longhaul`: every role in one program, and a client. Data goes to stdout, everything else to stderr.

mod args;
mod backup;
mod banner;
mod batches;
mod chaos;
mod client;
mod demo;
mod follow;
mod keys;
mod output;
mod roles;
mod serve;
mod sse;
mod submit;
mod tasks;

use args::{Args, Command, ConfigCommand};
use clap::Parser;
use shared::{
    config::Flags,
    process::{self, Failure, USUAL_LOG},
};
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The filter of log lines of a command that a person reads: what libraries say of an outage is said by the command itself.
const QUIET_LOG: &str = "off,api=warn,longhaul=warn,shared=warn,simulator=warn,worker=warn";

fn main() -> ExitCode {
    match Args::parse().command {
        Command::Serve(args) => {
            process::run(USUAL_LOG, async |stop| serve::run(&args.flags(), args.behaviour, stop).await)
        }
        Command::Demo(args) => demo::main(args),
        Command::Api(args) => {
            let flags = args.api.on(args.common.flags());
            process::run(USUAL_LOG, async |stop| process::api(&flags, stop, api::serve).await)
        }
        Command::Worker(args) => {
            let flags = args.health.on(args.worker.on(args.common.flags()));
            process::run(USUAL_LOG, async |stop| process::worker(&flags, stop, worker::run).await)
        }
        Command::Sim(args) => process::run(USUAL_LOG, async |stop| roles::sim(args, stop).await),
        Command::Migrate(args) => process::run(QUIET_LOG, async |_| roles::migrate(&args.flags()).await),
        Command::Keys { command, registry } => keys::keys(&registry, &command),
        Command::Projects { command, registry } => keys::projects(&registry, &command),
        Command::Backup(args) => process::run(QUIET_LOG, async |_| backup::run(&args).await),
        Command::Config { command: ConfigCommand::Check(common) } => {
            client::status(roles::check(&common.flags()))
        }
        Command::Config { command: ConfigCommand::Show { origin, common } } => {
            process::run(QUIET_LOG, async |_| show(&common.flags(), origin))
        }
        Command::Run(args) => {
            client::main(&args.client, async |client, stop| submit::run(client, &args, stop).await)
        }
        Command::Submit(args) => {
            client::main(&args.client, async |client, stop| submit::submit(client, &args, stop).await)
        }
        Command::Tasks { command, client } => {
            client::main(&client, async |client, stop| tasks::run(client, &command, stop).await)
        }
        Command::Batches { command, client } => {
            client::main(&client, async |client, stop| batches::run(client, &command, stop).await)
        }
        Command::Health(args) => client::main(&args, async |client, _| roles::health(client).await),
        Command::Openapi => client::status(output::raw(api::description_json().trim_end().as_bytes())),
    }
}

fn show(flags: &Flags, origin: bool) -> Result<(), Failure> {
    let text = roles::config(flags, origin)?;
    output::raw(text.trim_end().as_bytes()).map_err(|failure| Failure::Role(failure.message))
}
