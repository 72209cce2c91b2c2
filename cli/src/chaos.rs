//! `longhaul demo --chaos`: the process that runs the tasks is killed in mid-work, another one takes over, and the ledger of the
//! simulated model says what that has cost.

use crate::{
    args::{Form, TaskArgs},
    client::Client,
    output::{self, ERROR, Failure, INTERRUPTED, Outcome, Task},
    submit::{self, CHAT},
};
use serde::Deserialize;
use shared::process;
use simulator::Behaviour;
use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};
use tokio::{
    process::{Child, Command},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

/// Tasks of the show.
const TASKS: usize = 6;
/// Longest time for a step that waits for something.
const PATIENCE: Duration = Duration::from_secs(60);
/// Time between two looks.
const LOOK: Duration = Duration::from_millis(50);
/// A model that is slow enough to be interrupted.
const SLOW: Behaviour = Behaviour { ttft_ms: 400, itl_ms: 60, tokens: 40, jitter: 0.1, max_concurrency: 0 };

/// A call of the model, as its ledger has it.
#[derive(Deserialize)]
struct Call {
    task: Option<String>,
    attempt: Option<u64>,
}

#[derive(Deserialize)]
struct Ledger {
    data: Vec<Call>,
}

/// The show, to its end.
pub(crate) async fn show(stop: &CancellationToken) -> Outcome {
    let failed = |error: &dyn std::fmt::Display| Failure::new(ERROR, error.to_string());
    let folder =
        tempfile::Builder::new().prefix("longhaul-chaos-").tempdir().map_err(|error| failed(&error))?;
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let listener = process::listen(any).await.map_err(|error| failed(&error))?;
    let model = Client::new(
        &format!("http://{}", listener.local_addr().map_err(|error| failed(&error))?),
        None,
        Form::Table,
    )?;
    let ended = stop.child_token();
    let serving = async {
        simulator::serve(listener, SLOW, ended.clone())
            .await
            .map_err(|error| Failure::new(ERROR, error.to_string()))
    };
    let playing = async {
        let interrupted = || Err(Failure::new(INTERRUPTED, "stopped before the end of the show"));
        let played = ended.run_until_cancelled(play(folder.path(), &model)).await.unwrap_or_else(interrupted);
        ended.cancel();
        played
    };
    let (served, played) = tokio::join!(serving, playing);
    played.and(served)
}

async fn play(folder: &Path, model: &Client) -> Outcome {
    let free = process::listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await;
    let address = free.map_err(|error| Failure::new(ERROR, error.to_string()))?.local_addr();
    let address = address.map_err(|error| Failure::new(ERROR, error.to_string()))?;
    let client = Client::new(&format!("http://{address}"), None, Form::Table)?;
    say(&format!(
        "1. API and worker, a process of their own (SQLite in {}, the model SIMULATED)",
        folder.display()
    ))?;
    let mut first = start(folder, address, &model.server, &client).await?;
    say(&format!("   process {} is ready at {}", number(&first), client.server))?;

    say(&format!("\n2. {TASKS} tasks"))?;
    let name = submit::model(&client, None).await?;
    let mut ids = Vec::new();
    for n in 1..=TASKS {
        let args = TaskArgs { model: None, queue: None, priority: None };
        let body = submit::chat(&name, &format!("Tell a long story about the number {n}."));
        let started = Instant::now();
        let task: Task = output::parse(&submit::post(&client, CHAT, &body, &args).await?)?;
        say(&format!("   {} accepted (202) after {:.1} ms", task.id, started.elapsed().as_secs_f64() * 1e3))?;
        ids.push(task.id);
    }
    until("the model is called for every task", async || Ok(calls(model).await?.len() >= TASKS)).await?;
    say("   the model has been called for all of them and answers word by word")?;

    let number_of_first = number(&first);
    first
        .kill()
        .await
        .map_err(|error| Failure::new(ERROR, format!("cannot kill {number_of_first}: {error}")))?;
    say(&format!(
        "\n3. kill -9 {number_of_first}: worker, API, queue and events are gone, in the middle of {TASKS} answers"
    ))?;
    let killed = Instant::now();
    let mut second = start(folder, address, &model.server, &client).await?;
    say(&format!("   process {} is ready after {:.1} s", number(&second), killed.elapsed().as_secs_f64()))?;

    say("\n4. What became of them")?;
    let mut ends = Vec::new();
    for id in &ids {
        ends.push(end(&client, id).await?);
    }
    say(&format!("   all have ended {:.1} s after the kill", killed.elapsed().as_secs_f64()))?;
    verdict(&ends, &calls(model).await?)?;
    second.kill().await.map_err(|error| Failure::new(ERROR, format!("cannot end the process: {error}")))
}

/// Says what the promises are worth.
fn verdict(ends: &[Task], calls: &[Call]) -> Outcome {
    let rows = ends.iter().map(|task| {
        let attempts = calls.iter().filter(|call| call.task.as_deref() == Some(&task.id));
        let attempts: Vec<String> = attempts.filter_map(|call| call.attempt).map(|n| n.to_string()).collect();
        let answer = task.text().map_or(0, |text| text.split_whitespace().count());
        let counted = task.attempts().to_string();
        vec![task.id.clone(), task.status.clone(), counted, attempts.join(", "), format!("{answer} words")]
    });
    output::listed(
        &["TASK", "STATUS", "ATTEMPTS", "CALLS OF THE MODEL, BY ATTEMPT", "ANSWER"],
        rows.collect(),
        Form::Table,
    )?;
    let completed = ends.iter().filter(|task| task.status == "completed").count();
    let counted: u64 = ends.iter().map(|task| u64::from(task.attempts())).sum();
    let (made, extra) = (calls.len(), calls.len().saturating_sub(ends.len()));
    say(&format!(
        "\n   Promise 1, a 202 is on the disk: {completed} of {TASKS} tasks that were accepted before the kill are completed.\n   \
         Promise 3, extra calls are counted, a result is written once: {made} calls of the model, {extra} of them extra; the tasks \
         count {counted} attempts; each has one answer, of its newest attempt.\n   \
         Promise 6, queue and events may be lost: both lived in the memory of the killed process, as they would in Redis."
    ))?;
    if completed == ends.len() && counted >= made as u64 {
        return Ok(());
    }
    Err(Failure::new(
        ERROR,
        format!("{completed} of {TASKS} tasks are completed, and {counted} attempts count for {made} calls"),
    ))
}

/// Starts `longhaul serve` and waits until it is ready. It is killed when its handle goes.
async fn start(folder: &Path, address: SocketAddr, upstream: &str, client: &Client) -> Outcome<Child> {
    let failed = |error: std::io::Error| Failure::new(ERROR, format!("cannot start a process: {error}"));
    let program = std::env::current_exe().map_err(failed)?;
    let mut child = Command::new(program)
        .args(["serve", "--listen", &address.to_string(), "--upstream", upstream])
        .env_clear()
        // Who is dead is known sooner than usual: nobody likes to watch a pause.
        .envs([("LONGHAUL_LEASE__TTL", "3s"), ("LONGHAUL_LEASE__HEARTBEAT", "1s"), ("LONGHAUL_LOG", "off")])
        .current_dir(folder)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    until("the process is ready", async || match child.try_wait().map_err(failed)? {
        Some(status) => Err(Failure::new(ERROR, format!("the process ended while it started: {status}"))),
        None => Ok(client.get("/readyz").await.is_ok()),
    })
    .await?;
    Ok(child)
}

fn number(child: &Child) -> String {
    child.id().map_or_else(|| "?".to_owned(), |id| id.to_string())
}

async fn end(client: &Client, id: &str) -> Outcome<Task> {
    let started = Instant::now();
    loop {
        let body = client.get(&format!("/v1/tasks/{id}?wait=30")).await?;
        let task: Task = output::parse(&body)?;
        if task.is_over() {
            return Ok(task);
        }
        if started.elapsed() > PATIENCE {
            return Err(Failure::new(ERROR, format!("{id} is still {}", task.status)));
        }
    }
}

async fn calls(model: &Client) -> Outcome<Vec<Call>> {
    Ok(output::parse::<Ledger>(&model.get("/_sim/ledger").await?)?.data)
}

async fn until(what: &str, mut is_so: impl AsyncFnMut() -> Outcome<bool>) -> Outcome {
    let started = Instant::now();
    while !is_so().await? {
        if started.elapsed() > PATIENCE {
            return Err(Failure::new(ERROR, format!("it took more than {PATIENCE:?} until {what}")));
        }
        sleep(LOOK).await;
    }
    Ok(())
}

fn say(line: &str) -> Outcome {
    output::raw(line.as_bytes())
}
