//! `bench`: measures Longhaul beside what people use today, on one box, in one run.
//!
//! In: a profile's name, and the services that `scripts/bench` has started. Out: raw JSON and a table under `bench/results`.
//! Systems take turns round by round, and every measurement has processes, a database and a Redis of its own. Never here: how
//! Longhaul works inside; it is driven as a client drives it and observed from its processes and rows.

mod gauge;
mod load;
mod measure;
mod profile;
mod report;
mod system;

use anyhow::Context;
use clap::Parser;
use profile::Profile;
use std::{path::PathBuf, process::ExitCode};

/// Measures Longhaul beside what people use today. Start it by `scripts/bench`, which brings Postgres, Redis and the peers.
#[derive(Debug, Parser)]
#[command(name = "bench", version)]
struct Flags {
    /// What to measure: `bench list` shows the profiles.
    profile: String,

    /// Rounds; figures are medians over them.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,

    /// Only these systems, e.g. `longhaul,celery`.
    #[arg(long, value_delimiter = ',')]
    systems: Vec<system::System>,

    /// Only these measurements, e.g. `accept,idle`.
    #[arg(long, value_delimiter = ',')]
    measures: Vec<measure::Measure>,

    /// A factor on every count of tasks: below 1 for a glance.
    #[arg(long, default_value_t = 1.0)]
    scale: f64,

    /// The folder for the raw JSON and the table.
    #[arg(long, default_value = "bench/results")]
    results: PathBuf,
}

// One thread: what drives the systems should take as little of the box as it can.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Flags::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(flags: Flags) -> anyhow::Result<()> {
    if flags.profile == "list" {
        profile::ALL.iter().for_each(|profile| println!("{:10} {}", profile.name, profile.about));
        return Ok(());
    }
    let known = || profile::ALL.iter().map(|profile| profile.name).collect::<Vec<_>>().join(", ");
    let profile = Profile::named(&flags.profile)
        .with_context(|| format!("no profile {}: there are {}", flags.profile, known()))?;
    let mut runs = Vec::new();
    for round in 1..=flags.rounds {
        for &measure in profile.measures.iter().filter(|it| chosen(&flags.measures, it)) {
            for &system in profile.systems.iter().filter(|it| chosen(&flags.systems, it)) {
                if !measure.suits(system) {
                    continue;
                }
                eprintln!("── round {round}: {measure} of {system}");
                let figures = measure::run(measure, system, flags.scale)
                    .await
                    .with_context(|| format!("{measure} of {system}, round {round}"))?;
                eprintln!("   {}", report::line(&figures));
                runs.push(report::Run { round, measure, system, figures });
            }
        }
    }
    let paths = report::write(&flags.results, profile.name, &flags_of(&flags), &runs).await?;
    print!("{}", std::fs::read_to_string(&paths.table)?);
    eprintln!("raw: {}\ntable: {}", paths.raw.display(), paths.table.display());
    Ok(())
}

fn chosen<T: PartialEq>(only: &[T], one: &T) -> bool {
    only.is_empty() || only.contains(one)
}

/// The command that repeats this run.
fn flags_of(flags: &Flags) -> String {
    let mut command = format!("scripts/bench {} --rounds {}", flags.profile, flags.rounds);
    for (name, list) in [
        ("systems", flags.systems.iter().map(ToString::to_string).collect::<Vec<_>>()),
        ("measures", flags.measures.iter().map(ToString::to_string).collect()),
    ] {
        if !list.is_empty() {
            command += &format!(" --{name} {}", list.join(","));
        }
    }
    if flags.scale != 1.0 {
        command += &format!(" --scale {}", flags.scale);
    }
    command
}
