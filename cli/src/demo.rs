//! `longhaul demo`: a task and a batch from end to end, with nothing installed and nothing left behind.

use crate::{
    QUIET_LOG,
    args::{DemoArgs, Form, TaskArgs},
    banner, batches, chaos,
    client::{Client, status},
    follow::{Printer, follow},
    output::{self, ERROR, Failure, INTERRUPTED, Outcome, Task},
    serve::House,
    submit::{self, CHAT},
};
use serde_json::json;
use shared::{
    config::{Mode, Origin, Settings},
    process,
};
use std::{
    io::{self, IsTerminal},
    net::{Ipv4Addr, SocketAddr},
    process::ExitCode,
    time::Instant,
};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// What the sample task asks.
const PROMPT: &str = "Why do long tasks deserve a queue?";

/// Runs the demo to its exit status.
pub(crate) fn main(args: DemoArgs) -> ExitCode {
    process::run_to_status(QUIET_LOG, async |stop| status(show(args, stop).await))
}

async fn show(args: DemoArgs, stop: CancellationToken) -> Outcome {
    if args.chaos {
        return chaos::show(&stop).await;
    }
    // Nobody who reads a pipe ends it by a key.
    let unattended = !args.keep && !args.exit && !io::stdout().is_terminal();
    let exit = args.exit || unattended;
    let (house, _folder) = open(args).await.map_err(|error| Failure::new(ERROR, error.to_string()))?;
    banner::show(&house);
    let client = Client::new(&house.url(), house.config.api.key.clone(), Form::Table)?;
    let is_simulated = house.is_simulated;
    let stop = stop.child_token();
    let serving = async {
        let served = house.run(stop.clone()).await;
        stop.cancel();
        served.map_err(|failure| Failure::new(ERROR, failure.to_string()))
    };
    let touring = async {
        let interrupted = || Err(Failure::new(INTERRUPTED, "stopped before the end of the tour"));
        let toured = stop.run_until_cancelled(tour(&client, is_simulated)).await.unwrap_or_else(interrupted);
        if unattended {
            output::say("\nEnded, because this is no terminal: `longhaul demo --keep` goes on serving.");
        }
        if exit || toured.is_err() {
            stop.cancel();
        } else {
            output::say("\nStill serving; Ctrl-C ends it.");
        }
        toured
    };
    let (served, toured) = tokio::join!(serving, touring);
    served.and(toured)
}

/// Opens everything in one process: in a folder that goes away with the demo, at another port if the usual one is taken,
/// unless somebody chose them.
async fn open(args: DemoArgs) -> Result<(House, Option<TempDir>), process::Failure> {
    let settings = Settings::gather(&shared::config::Flags { embedded: true, ..args.serve.flags() })?;
    let mut config = settings.config()?;
    let folder = if *settings.origin("data_dir") == Origin::Default {
        let made = tempfile::Builder::new().prefix("longhaul-demo-").tempdir();
        let folder =
            made.map_err(|error| process::Failure::Role(format!("cannot make a temporary folder: {error}")))?;
        config.mode = Mode::Embedded { data_dir: folder.path().join("longhaul-data") };
        Some(folder)
    } else {
        None
    };
    let listener = match process::listen(config.api.listen).await {
        Err(process::Failure::Listen(taken, _)) if *settings.origin("api.listen") == Origin::Default => {
            output::say(&format!("{taken} is taken, so another port it is"));
            process::listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await?
        }
        listener => listener?,
    };
    Ok((House::open(config, listener, args.serve.behaviour).await?, folder))
}

async fn tour(client: &Client, is_simulated: bool) -> Outcome {
    let model = submit::model(client, None).await?;
    let label = if is_simulated { " (SIMULATED)" } else { "" };
    one_task(client, &model, label).await?;
    // A real model costs money: there a handful shows as much.
    many_tasks(client, &model, label, if is_simulated { 50 } else { 3 }).await?;
    let server = &client.server;
    let body = json!({"endpoint": CHAT, "body": {"model": model, "messages": [{"role": "user", "content": "Hello"}]}});
    output::raw(
        format!(
            "\n3. Yours\n   {} run \"Hello\"{}\n   curl {server}/v1/tasks -H 'content-type: application/json' \\\n     \
             -d '{body}'\n   {server}/docs",
            banner::program(),
            banner::elsewhere(server)
        )
        .as_bytes(),
    )
}

async fn one_task(client: &Client, model: &str, label: &str) -> Outcome {
    output::raw(format!("\n1. One task for {model}{label}: {PROMPT:?}").as_bytes())?;
    let args = TaskArgs { model: None, queue: Some("interactive".to_owned()), priority: None };
    let started = Instant::now();
    let accepted: Task =
        output::parse(&submit::post(client, CHAT, &submit::chat(model, PROMPT), &args).await?)?;
    let after = ms(started);
    output::write(&[
        format!("   POST /v1/tasks answered 202 after {after}: {}\n   ", accepted.id).as_bytes()
    ])?;
    let (mut printer, mut first) = (Printer::default(), None);
    let (task, _) = follow(client, &accepted.id, |told, _| {
        if told.kind == "task.output.delta" && first.is_none() {
            first = Some(ms(started));
        }
        printer.show(told)
    })
    .await?;
    printer.finish(&task)?;
    let first = first.map_or(String::new(), |first| format!("first words after {first}, "));
    output::raw(format!("   {first}{} after {}", task.status, ms(started)).as_bytes())?;
    task.verdict()
}

async fn many_tasks(client: &Client, model: &str, label: &str, count: u32) -> Outcome {
    output::raw(format!("\n2. A batch of {count} for {model}{label}").as_bytes())?;
    let line = |i| {
        let body = json!({"model": model, "messages": [{"role": "user", "content": format!("A fact about {i}, please.")}]});
        json!({"custom_id": format!("fact-{i}"), "method": "POST", "url": CHAT, "body": body}).to_string()
    };
    let lines: Vec<String> = (1..=count).map(line).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let started = Instant::now();
    let accepted: output::Batch = output::parse(&batches::post(client, &lines).await?)?;
    output::raw(format!("   POST /v1/batches answered after {}: {}", ms(started), accepted.id).as_bytes())?;
    let (batch, _) = batches::progress(client, &accepted.id).await?;
    let counts = batch.request_counts;
    let seconds = started.elapsed().as_secs_f64();
    let summary = format!(
        "   {}: {} of {} answered, {} failed, after {seconds:.2} s ({:.0} per second)",
        batch.status,
        counts.completed,
        counts.total,
        counts.failed,
        counts.total as f64 / seconds
    );
    output::raw(summary.as_bytes())?;
    batch.verdict()
}

fn ms(since: Instant) -> String {
    format!("{:.1} ms", since.elapsed().as_secs_f64() * 1000.0)
}
