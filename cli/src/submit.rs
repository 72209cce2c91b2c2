//! `longhaul submit` and `longhaul run`.

use crate::{
    args::{Form, RunArgs, SubmitArgs, TaskArgs},
    client::{Client, or_detach},
    follow::{Printer, follow},
    output::{self, ERROR, Failure, List, Outcome, Task, USAGE},
    tasks,
};
use serde::{Deserialize, Serialize};
use serde_json::{json, value::RawValue};
use std::{
    borrow::Cow,
    path::Path,
    time::{Duration, Instant},
};
use tokio::io::AsyncReadExt;
use tokio_util::sync::CancellationToken;

/// The path of chat completions.
pub(crate) const CHAT: &str = "/v1/chat/completions";

#[derive(Serialize)]
struct NewTask<'a> {
    endpoint: &'a str,
    body: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    queue: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<i64>,
}

/// Submits one task; its JSON.
pub(crate) async fn post(client: &Client, endpoint: &str, body: &str, args: &TaskArgs) -> Outcome<Vec<u8>> {
    let body: &RawValue = serde_json::from_str(body)
        .map_err(|error| Failure::new(USAGE, format!("the body is no JSON: {error}")))?;
    let task = NewTask { endpoint, body, queue: args.queue.as_deref(), priority: args.priority };
    let json = serde_json::to_vec(&task).map_err(|error| Failure::new(ERROR, error.to_string()))?;
    Ok(client.post_body("/v1/tasks", "application/json", json).await?.to_vec())
}

/// The body of a chat completion.
pub(crate) fn chat(model: &str, prompt: &str) -> String {
    json!({"model": model, "messages": [{"role": "user", "content": prompt}]}).to_string()
}

/// The model that was named, or the first that the server lists. A worker that has just started may still be asking its
/// upstreams for theirs.
pub(crate) async fn model(client: &Client, named: Option<&str>) -> Outcome<String> {
    #[derive(Deserialize)]
    struct Model {
        id: String,
    }
    if let Some(named) = named {
        return Ok(named.to_owned());
    }
    for patience in [100, 400, 1_000, 2_000, 3_000, 0] {
        let models: List<Model> = output::parse(&client.get("/v1/models").await?)?;
        if let Some(first) = models.data.into_iter().next() {
            return Ok(first.id);
        }
        tokio::time::sleep(Duration::from_millis(patience)).await;
    }
    Err(Failure::new(USAGE, "the server lists no model: name one with --model"))
}

/// A file's text; `-` is stdin.
pub(crate) async fn read(path: &Path) -> Outcome<String> {
    let mut text = String::new();
    let read = if path.as_os_str() == "-" {
        tokio::io::stdin().read_to_string(&mut text).await.map(|_| text)
    } else {
        tokio::fs::read_to_string(path).await
    };
    read.map_err(|error| Failure::new(USAGE, format!("cannot read {}: {error}", path.display())))
}

/// The prompt; `-` is stdin.
async fn asked(prompt: &str) -> Outcome<Cow<'_, str>> {
    if prompt != "-" {
        return Ok(prompt.into());
    }
    let text = read(Path::new(prompt)).await?;
    match text.trim() {
        "" => Err(Failure::new(USAGE, "stdin is empty: there is nothing to ask")),
        text => Ok(text.to_owned().into()),
    }
}

/// `longhaul submit`.
pub(crate) async fn submit(client: &Client, args: &SubmitArgs, stop: CancellationToken) -> Outcome {
    let body = match (&args.file, &args.prompt) {
        (Some(path), _) => read(path).await?,
        (None, prompt) if args.endpoint == CHAT => {
            let prompt = asked(prompt.as_deref().unwrap_or_default()).await?;
            chat(&model(client, args.task.model.as_deref()).await?, &prompt)
        }
        (None, _) => {
            return Err(Failure::new(USAGE, format!("a prompt makes a body for {CHAT} only: use --file")));
        }
    };
    let accepted = post(client, &args.endpoint, &body, &args.task).await?;
    if !args.wait {
        output::task(&accepted, client.form)?;
        let id = output::parse::<Task>(&accepted)?.id;
        output::say(&format!("accepted; see it end with: longhaul tasks watch {id}"));
        return Ok(());
    }
    let id = output::parse::<Task>(&accepted)?.id;
    tasks::wait(client, &id, args.timeout, &stop).await
}

/// `longhaul run`.
pub(crate) async fn run(client: &Client, args: &RunArgs, stop: CancellationToken) -> Outcome {
    let prompt = asked(&args.prompt).await?;
    let model = model(client, args.task.model.as_deref()).await?;
    let started = Instant::now();
    let accepted: Task = output::parse(&post(client, CHAT, &chat(&model, &prompt), &args.task).await?)?;
    let id = accepted.id;
    output::say(&format!(
        "{id} accepted after {:.1} ms, model {model}",
        started.elapsed().as_secs_f64() * 1000.0
    ));
    let left = || format!("{id} goes on without you; come back with: longhaul tasks watch {id}");
    let task = or_detach(&stop, left, async {
        if client.form != Form::Table {
            // What is printed is the task's end, and nothing before it.
            let (task, body) = follow(client, &id, |_, _| Ok(())).await?;
            output::task(&body, client.form)?;
            return Ok(task);
        }
        let mut printer = Printer::default();
        let (task, _) = follow(client, &id, |told, _| printer.show(told)).await?;
        printer.finish(&task)?;
        Ok(task)
    });
    let task = task.await?;
    output::say(&format!("{} after {:.2} s", task.status, started.elapsed().as_secs_f64()));
    task.verdict()
}
