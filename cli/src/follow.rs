//! Following one task by its event stream, across broken connections, to its end.

use crate::{
    client::Client,
    output::{self, ERROR, Failure, Outcome, Task, UNREACHABLE},
    sse::Frames,
};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};
use std::{collections::BTreeMap, time::Duration};

/// Connections in a row that may break without a word.
const TRIES_MAX: u32 = 10;

/// An event, as far as it is looked at.
#[derive(Deserialize)]
pub(crate) struct Told<'a> {
    #[serde(rename = "type")]
    pub(crate) kind: &'a str,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

impl Told<'_> {
    fn is_terminal(&self) -> bool {
        matches!(self.kind, "task.completed" | "task.failed" | "task.cancelled" | "task.expired")
    }

    /// The text of the answer so far that a snapshot carries.
    fn so_far(&self) -> Option<String> {
        let data: BTreeMap<&str, &RawValue> = serde_json::from_str(self.data?.get()).ok()?;
        output::text(data.get("output")?)
    }

    /// The text that a chunk of the upstream's stream adds, where its form is known.
    pub(crate) fn text(&self) -> Option<String> {
        let data: Value = serde_json::from_str(self.data?.get()).ok()?;
        let chunk = data.get("chunk")?;
        let places = ["/choices/0/delta/content", "/choices/0/text", "/delta/text", "/delta"];
        places.iter().find_map(|place| chunk.pointer(place)?.as_str().map(str::to_owned))
    }
}

/// Passes every event on (and its verbatim form) until the task is over; the task as it then stands.
pub(crate) async fn follow(
    client: &Client,
    id: &str,
    mut on: impl FnMut(&Told<'_>, &str) -> Outcome,
) -> Outcome<(Task, Vec<u8>)> {
    let (mut last, mut tries) = (None, 0);
    loop {
        let before = last.clone();
        match connection(client, id, &mut last, &mut on).await {
            Ok(true) => break,
            Err(failure) if failure.status != UNREACHABLE || last.is_none() => return Err(failure),
            broken => {
                tries = if before == last { tries + 1 } else { 1 };
                if tries > TRIES_MAX {
                    return Err(broken
                        .err()
                        .unwrap_or_else(|| Failure::new(ERROR, "the event stream keeps breaking")));
                }
                tokio::time::sleep(Duration::from_millis(250) * tries).await;
            }
        }
    }
    let body = client.get(&format!("/v1/tasks/{id}")).await?;
    Ok((output::parse(&body)?, body.to_vec()))
}

/// One connection: `true` once the task is over.
async fn connection(
    client: &Client,
    id: &str,
    last: &mut Option<String>,
    on: &mut impl FnMut(&Told<'_>, &str) -> Outcome,
) -> Outcome<bool> {
    let Some(mut response) = client.events(id, last.as_deref()).await? else { return Ok(true) };
    let mut frames = Frames::default();
    // An error here is a broken connection: the next one resumes where this one ended.
    while let Ok(Some(bytes)) = response.chunk().await {
        let whole = frames
            .push(&bytes)
            .map_err(|_| Failure::new(ERROR, "the server sent an event of more than 128 MiB"))?;
        for frame in whole {
            let told: Told<'_> = output::parse(frame.data.as_bytes())?;
            on(&told, &frame.data)?;
            *last = frame.id.or(last.take());
            if told.is_terminal() {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Prints an answer while it grows.
#[derive(Default)]
pub(crate) struct Printer {
    shown: String,
}

impl Printer {
    /// Shows what an event adds.
    pub(crate) fn show(&mut self, told: &Told<'_>) -> Outcome {
        match told.kind {
            "task.output.delta" => {
                let Some(text) = told.text() else { return Ok(()) };
                self.shown.push_str(&text);
                output::write(&[text.as_bytes()])
            }
            "task.snapshot" => self.replace(&told.so_far().unwrap_or_default()),
            "task.output.reset" => self.discard(),
            _ => Ok(()),
        }
    }

    /// Shows what is missing of a text, or all of it if another one was shown.
    fn replace(&mut self, text: &str) -> Outcome {
        if !text.starts_with(&self.shown) {
            self.discard()?;
        }
        output::write(&[&text.as_bytes()[self.shown.len()..]])?;
        text.clone_into(&mut self.shown);
        Ok(())
    }

    /// Shows what the events left out of the whole answer.
    pub(crate) fn finish(mut self, task: &Task) -> Outcome {
        let text = task.text().unwrap_or_default();
        self.replace(&text)?;
        if text.is_empty() { Ok(()) } else { output::write(&[b"\n"]) }
    }

    fn discard(&mut self) -> Outcome {
        if self.shown.is_empty() {
            return Ok(());
        }
        self.shown.clear();
        output::write(&[b"\n"])?;
        output::say("the attempt was lost; from the start:");
        Ok(())
    }
}
