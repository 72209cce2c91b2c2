//! `longhaul batches`.

use crate::{
    args::{BatchesCommand, Form},
    client::{Client, or_detach},
    output::{self, Batch, ERROR, Failure, Outcome, USAGE},
    submit::read,
    tasks::encoded,
};
use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Time between two looks at a batch.
const LOOK: Duration = Duration::from_millis(200);

/// Runs one of them.
pub(crate) async fn run(client: &Client, command: &BatchesCommand, stop: CancellationToken) -> Outcome {
    match command {
        BatchesCommand::Get { id } => one(&client.get(&path(id)).await?, client),
        BatchesCommand::List { limit } => {
            let listed = client.pages("/v1/batches", "", *limit).await?;
            match client.form {
                Form::Json => listed.print(),
                form => {
                    output::batches(&[], &listed.read::<Batch>()?, form)?;
                    listed.say_more();
                    Ok(())
                }
            }
        }
        BatchesCommand::Cancel { id } => one(&client.post(&format!("{}/cancel", path(id))).await?, client),
        BatchesCommand::Submit { file, wait } => {
            let text = read(file).await?;
            let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
            let body = post(client, &lines).await?;
            let batch: Batch = output::parse(&body)?;
            if !wait || batch.is_over() {
                one(&body, client)?;
                return if batch.is_over() { batch.verdict() } else { Ok(()) };
            }
            let left =
                || format!("{0} goes on without you; look at it with: longhaul batches get {0}", batch.id);
            let (batch, body) = or_detach(&stop, left, progress(client, &batch.id)).await?;
            one(&body, client)?;
            batch.verdict()
        }
    }
}

/// Submits lines in OpenAI's form as one batch; its JSON.
pub(crate) async fn post(client: &Client, lines: &[&str]) -> Outcome<Vec<u8>> {
    #[derive(Deserialize)]
    struct Line {
        url: Option<String>,
    }
    #[derive(Serialize)]
    struct NewBatch<'a> {
        endpoint: &'a str,
        completion_window: &'a str,
        requests: Vec<&'a RawValue>,
    }
    let numbered = lines.iter().enumerate();
    let raw = numbered.map(|(i, line)| {
        let wrong = |error| Failure::new(USAGE, format!("line {} is no JSON: {error}", i + 1));
        serde_json::from_str::<&RawValue>(line).map_err(wrong)
    });
    let requests = raw.collect::<Outcome<Vec<_>>>()?;
    let first = requests.first().and_then(|line| serde_json::from_str::<Line>(line.get()).ok());
    let endpoint = first.and_then(|line| line.url);
    let endpoint = endpoint
        .ok_or_else(|| Failure::new(USAGE, "the first line names no url such as /v1/chat/completions"))?;
    let batch = NewBatch { endpoint: &endpoint, completion_window: "24h", requests };
    let json = serde_json::to_vec(&batch).map_err(|error| Failure::new(ERROR, error.to_string()))?;
    Ok(client.post_body("/v1/batches", "application/json", json).await?.to_vec())
}

/// Shows a batch's progress until nothing more will happen to it. Without a terminal the bar stays away.
pub(crate) async fn progress(client: &Client, id: &str) -> Outcome<(Batch, Vec<u8>)> {
    // The terminal's own colours, and a track of its own: nothing that a background could swallow.
    let style = ProgressStyle::with_template("[{bar:32}] {pos}/{len}  {msg}  {per_sec:.0}  {elapsed}");
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=>-");
    let bar = ProgressBar::new(0).with_style(style);
    loop {
        let body = client.get(&path(id)).await?;
        let batch: Batch = output::parse(&body)?;
        let counts = batch.request_counts;
        bar.set_length(counts.total);
        bar.set_position(counts.completed + counts.failed);
        bar.set_message(format!("ok {}  failed {}", counts.completed, counts.failed));
        if batch.is_over() {
            bar.finish_and_clear();
            return Ok((batch, body.to_vec()));
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn one(body: &[u8], client: &Client) -> Outcome {
    output::batches(body, &[output::parse(body)?], client.form)
}

fn path(id: &str) -> String {
    format!("/v1/batches/{}", encoded(id))
}
