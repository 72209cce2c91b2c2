//! What is printed, and the exit status that goes with it.

use crate::{args::Form, client::Listed};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};
use shared::clock::UnixMs;
use std::{
    fmt,
    io::{self, Write},
};

/// Why a command ends without success: an exit status, and one line for stderr.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The exit status.
    pub(crate) status: u8,
    /// The line.
    pub(crate) message: String,
}

/// A failure of no special kind.
pub(crate) const ERROR: u8 = 1;
/// The command cannot be meant.
pub(crate) const USAGE: u8 = 2;
/// The task or batch ended without success.
pub(crate) const NOT_COMPLETED: u8 = 3;
/// The wait was over first.
pub(crate) const TIMED_OUT: u8 = 4;
/// The key is missing or wrong.
pub(crate) const UNAUTHORISED: u8 = 5;
/// There is no such thing.
pub(crate) const NOT_FOUND: u8 = 6;
/// Nobody answers.
pub(crate) const UNREACHABLE: u8 = 7;
/// Stopped by a signal.
pub(crate) const INTERRUPTED: u8 = 130;

impl Failure {
    /// A failure with this status.
    pub(crate) fn new(status: u8, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }
}

/// Shorthand of the commands' results.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

/// A task, as far as it is printed.
#[derive(Deserialize)]
pub(crate) struct Task {
    pub(crate) id: String,
    pub(crate) status: String,
    model: String,
    endpoint: String,
    queue: String,
    attempt: u32,
    queue_position: Option<u64>,
    created_at: f64,
    started_at: Option<f64>,
    finished_at: Option<f64>,
    result: Option<TaskResult>,
    error: Option<TaskError>,
}

#[derive(Deserialize)]
struct TaskResult {
    body: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
struct TaskError {
    code: String,
    message: String,
    upstream_code: Option<String>,
    upstream_message: Option<String>,
}

impl fmt::Display for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.code)?;
        match (&self.upstream_message, &self.upstream_code) {
            (Some(message), Some(code)) => write!(f, "; the upstream says: {message} ({code})"),
            (Some(said), None) | (None, Some(said)) => write!(f, "; the upstream says: {said}"),
            (None, None) => Ok(()),
        }
    }
}

/// A batch, as far as it is printed.
#[derive(Deserialize)]
pub(crate) struct Batch {
    pub(crate) id: String,
    pub(crate) status: String,
    pub(crate) request_counts: Counts,
    created_at: f64,
}

#[derive(Deserialize, Clone, Copy)]
pub(crate) struct Counts {
    pub(crate) total: u64,
    pub(crate) completed: u64,
    pub(crate) failed: u64,
}

#[derive(Deserialize)]
pub(crate) struct List<T> {
    pub(crate) data: Vec<T>,
}

/// The text of an answer, whole or so far, where its form is known.
pub(crate) fn text(body: &RawValue) -> Option<String> {
    let body: Value = serde_json::from_str(body.get()).ok()?;
    let places =
        ["/choices/0/message/content", "/choices/0/text", "/content/0/text", "/output/0/content/0/text"];
    places.iter().find_map(|place| body.pointer(place)?.as_str().map(str::to_owned))
}

impl Task {
    /// Whether its run is over.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.status.as_str(), "completed" | "failed" | "cancelled" | "expired")
    }

    /// The number of its newest attempt.
    pub(crate) fn attempts(&self) -> u32 {
        self.attempt
    }

    /// The answer's text, where its form is known.
    pub(crate) fn text(&self) -> Option<String> {
        text(self.result.as_ref()?.body.as_ref()?)
    }

    /// Success, or the failure that its end means.
    pub(crate) fn verdict(&self) -> Outcome {
        if self.status == "completed" {
            return Ok(());
        }
        let why = self.error.as_ref().map_or(String::new(), |error| format!(": {error}"));
        Err(Failure::new(NOT_COMPLETED, format!("{} is {}{why}", self.id, self.status)))
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        let waits = self.queue_position.map_or(String::new(), |before| format!(", {before} before it"));
        let mut fields = vec![
            ("id", self.id.clone()),
            ("status", format!("{}{waits}", self.status)),
            ("model", self.model.clone()),
            ("endpoint", self.endpoint.clone()),
            ("queue", self.queue.clone()),
            ("attempt", self.attempt.to_string()),
            ("created", age(self.created_at)),
        ];
        fields.extend(
            self.started_at.zip(self.finished_at).map(|(from, to)| ("took", format!("{:.3} s", to - from))),
        );
        fields.extend(self.error.as_ref().map(|error| ("error", error.to_string())));
        fields.extend(self.text().map(|text| ("answer", text)));
        fields
    }
}

impl Batch {
    /// Whether nothing more will happen to it.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.status.as_str(), "completed" | "failed" | "cancelled" | "expired")
    }

    /// Success, or the failure that its end means.
    pub(crate) fn verdict(&self) -> Outcome {
        let Counts { total, failed, .. } = self.request_counts;
        if self.status == "completed" && failed == 0 {
            return Ok(());
        }
        Err(Failure::new(
            NOT_COMPLETED,
            format!("{} is {}: {failed} of {total} failed", self.id, self.status),
        ))
    }

    fn row(&self) -> Vec<String> {
        let Counts { total, completed, failed } = self.request_counts;
        let counts = [total, completed, failed].map(|count| count.to_string());
        let head = [self.id.clone(), self.status.clone()];
        head.into_iter().chain(counts).chain([age(self.created_at)]).collect()
    }
}

/// Prints a task as the API answered it.
pub(crate) fn task(body: &[u8], form: Form) -> Outcome {
    match form {
        Form::Json => raw(body),
        Form::Id => raw(parse::<Task>(body)?.id.as_bytes()),
        Form::Table => {
            let fields = parse::<Task>(body)?.fields();
            let lines: Vec<String> =
                fields.iter().map(|(name, value)| format!("{name:<9} {value}")).collect();
            raw(lines.join("\n").as_bytes())
        }
    }
}

/// Prints tasks.
pub(crate) fn tasks(listed: &Listed, form: Form) -> Outcome {
    if form == Form::Json {
        return listed.print();
    }
    let tasks = listed.read::<Task>()?;
    let row = |task: &Task| {
        let attempt = task.attempt.to_string();
        vec![
            task.id.clone(),
            task.status.clone(),
            task.model.clone(),
            task.queue.clone(),
            attempt,
            age(task.created_at),
        ]
    };
    let rows = tasks.iter().map(row).collect();
    self::listed(&["ID", "STATUS", "MODEL", "QUEUE", "ATTEMPT", "CREATED"], rows, form)?;
    listed.say_more();
    Ok(())
}

/// Prints batches.
pub(crate) fn batches(body: &[u8], batches: &[Batch], form: Form) -> Outcome {
    if form == Form::Json {
        return raw(body);
    }
    let rows = batches.iter().map(Batch::row).collect();
    listed(&["ID", "STATUS", "TOTAL", "COMPLETED", "FAILED", "CREATED"], rows, form)
}

/// Prints rows under their heads.
pub(crate) fn listed(head: &[&str], rows: Vec<Vec<String>>, form: Form) -> Outcome {
    let lines: Vec<String> = if form == Form::Id {
        rows.iter().map(|row| row[0].clone()).collect()
    } else {
        let head = head.iter().map(|name| (*name).to_owned()).collect();
        let rows: Vec<Vec<String>> = std::iter::once(head).chain(rows).collect();
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..rows[0].len()).map(width).collect();
        let cells = |row: &Vec<String>| {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        };
        rows.iter().map(cells).collect()
    };
    if lines.is_empty() { Ok(()) } else { raw(lines.join("\n").as_bytes()) }
}

/// Reads an answer of the API.
pub(crate) fn parse<'de, T: Deserialize<'de>>(body: &'de [u8]) -> Outcome<T> {
    serde_json::from_slice(body)
        .map_err(|error| Failure::new(ERROR, format!("the server's answer cannot be read: {error}")))
}

/// Prints bytes and a line end on stdout.
pub(crate) fn raw(bytes: &[u8]) -> Outcome {
    write(&[bytes, b"\n"])
}

/// Prints pieces of a line on stdout, at once.
pub(crate) fn write(pieces: &[&[u8]]) -> Outcome {
    let mut out = io::stdout().lock();
    let written = pieces.iter().try_for_each(|piece| out.write_all(piece)).and_then(|()| out.flush());
    written.map_err(|error| Failure::new(ERROR, format!("cannot write to stdout: {error}")))
}

/// Says one line on stderr.
pub(crate) fn say(line: &str) {
    // Where stderr is closed, nobody is left to be told.
    let _ = writeln!(io::stderr(), "{line}");
}

/// How long ago this was, Unix seconds.
pub(crate) fn age(created_at: f64) -> String {
    let seconds = (UnixMs::now().0 as f64 / 1000.0 - created_at).max(0.0);
    match seconds {
        s if s < 120.0 => format!("{s:.0} s ago"),
        s if s < 7_200.0 => format!("{:.0} min ago", s / 60.0),
        s if s < 172_800.0 => format!("{:.0} h ago", s / 3_600.0),
        s => format!("{:.0} d ago", s / 86_400.0),
    }
}
