//! `longhaul tasks`.

use crate::{
    args::{Form, TasksCommand},
    client::{Client, or_detach},
    follow::{Printer, follow},
    output::{self, Failure, Outcome, TIMED_OUT, Task, USAGE},
};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// One long poll.
const POLL: Duration = Duration::from_secs(30);
/// As good as for ever.
const YEAR: Duration = Duration::from_secs(366 * 86_400);

/// Runs one of them.
pub(crate) async fn run(client: &Client, command: &TasksCommand, stop: CancellationToken) -> Outcome {
    match command {
        TasksCommand::Get { id } => output::task(&client.get(&path(id, "")).await?, client.form),
        TasksCommand::List { status, queue, model, limit } => {
            let filters = [("status", status), ("queue", queue), ("model", model)];
            let filters = filters
                .iter()
                .filter_map(|(name, value)| Some(format!("&{name}={}", encoded(value.as_ref()?))));
            let query: String = filters.collect();
            output::tasks(&client.pages("/v1/tasks", &query, *limit).await?, client.form)
        }
        TasksCommand::Wait { id, timeout } => wait(client, id, *timeout, &stop).await,
        TasksCommand::Watch { id } => watch(client, id, &stop).await,
        TasksCommand::Cancel { id } => output::task(&client.post(&path(id, "/cancel")).await?, client.form),
        TasksCommand::Delete { id, force } => delete(client, id, *force).await,
        TasksCommand::Retry { id } => output::task(&client.post(&path(id, "/retry")).await?, client.form),
    }
}

/// Waits for the task's end and prints it.
pub(crate) async fn wait(
    client: &Client,
    id: &str,
    timeout: Option<Duration>,
    stop: &CancellationToken,
) -> Outcome {
    let deadline = Instant::now() + timeout.unwrap_or(YEAR);
    let left = || format!("{id} goes on without you; come back with: longhaul tasks wait {id}");
    let ended = or_detach(stop, left, async {
        loop {
            let rest = deadline.saturating_duration_since(Instant::now());
            // A fraction of a second is rounded up: the server counts whole ones.
            let seconds = rest.min(POLL).as_secs_f64().ceil();
            let body = client.get(&path(id, &format!("?wait={seconds}"))).await?;
            let task: Task = output::parse(&body)?;
            if task.is_over() {
                return Ok((task, body));
            }
            if rest.is_zero() {
                return Err(Failure::new(TIMED_OUT, format!("{id} is still {}", task.status)));
            }
        }
    });
    let (task, body) = ended.await?;
    output::task(&body, client.form)?;
    task.verdict()
}

async fn delete(client: &Client, id: &str, force: bool) -> Outcome {
    let body = client.delete(&path(id, if force { "?force=true" } else { "" })).await?;
    match client.form {
        Form::Json => output::raw(if body.is_empty() { b"{}" } else { &body }),
        Form::Id => output::raw(id.as_bytes()),
        Form::Table => output::raw(format!("{id} is deleted").as_bytes()),
    }
}

async fn watch(client: &Client, id: &str, stop: &CancellationToken) -> Outcome {
    if client.form == Form::Id {
        return Err(Failure::new(USAGE, "watch streams an answer, which is no id: use -o table or -o json"));
    }
    let left = || format!("{id} goes on without you; come back with: longhaul tasks watch {id}");
    let task = or_detach(stop, left, async {
        let mut printer = Printer::default();
        let (task, _) = match client.form {
            Form::Json => follow(client, id, |_, verbatim| output::raw(verbatim.as_bytes())).await?,
            _ => follow(client, id, |told, _| printer.show(told)).await?,
        };
        if client.form != Form::Json {
            printer.finish(&task)?;
        }
        Ok(task)
    });
    let task = task.await?;
    output::say(&format!("{} is {}", task.id, task.status));
    task.verdict()
}

fn path(id: &str, rest: &str) -> String {
    format!("/v1/tasks/{}{rest}", encoded(id))
}

/// A value as it may stand in a URL.
pub(crate) fn encoded(value: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~');
    let encode = |byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    value.bytes().map(encode).collect()
}
