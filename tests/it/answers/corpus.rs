//! How answers are written down.
//!
//! `body` is one answer as it stands. `stream` has an event on each line: `C{…}` is a chunk with that delta, `F"…"` one with that finish reason,
//! `U a b` one with a input and b output tokens, `D` the end, `: …` a comment, `event: …` the name of the event that follows, anything else the
//! data itself.

use anyhow::Context;
use harness::{Scripted, Then};
use serde::Deserialize;

/// One answer, and what should come of it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Case {
    /// Whose it is.
    #[serde(skip)]
    pub(super) server: String,
    /// What is special about it.
    pub(super) what: String,
    /// Where it was asked for.
    #[serde(default = "chat")]
    pub(super) endpoint: String,
    /// More members of the request.
    pub(super) request: Option<String>,
    #[serde(default = "ok")]
    status: u16,
    label: Option<String>,
    body: Option<String>,
    pub(super) stream: Option<String>,
    /// Lines end with CRLF.
    #[serde(default)]
    crlf: bool,
    /// `close` in an orderly way, `cut`, `hang` in silence, or `beat` for ever.
    #[serde(default = "close")]
    end: String,
    /// `completed`, or the code of the error.
    #[serde(default = "completed")]
    pub(super) ends: String,
    /// What the folded body, or the error, must show.
    #[serde(default)]
    pub(super) has: Vec<String>,
    /// What it must not show.
    #[serde(default)]
    pub(super) lacks: Vec<String>,
    /// Input and output tokens.
    pub(super) usage: Option<[u64; 2]>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    server: String,
    answer: Vec<Case>,
}

fn chat() -> String {
    "/v1/chat/completions".to_owned()
}

fn ok() -> u16 {
    200
}

fn close() -> String {
    "close".to_owned()
}

fn completed() -> String {
    "completed".to_owned()
}

/// All of them, by server.
pub(super) fn cases() -> anyhow::Result<Vec<Case>> {
    let folder = crate::tidy::root().join("tests/it/answers/servers");
    let mut paths: Vec<_> =
        std::fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    paths.sort();
    let mut cases = Vec::new();
    for path in paths {
        let file: File =
            toml::from_str(&std::fs::read_to_string(&path)?).with_context(|| path.display().to_string())?;
        cases.extend(file.answer.into_iter().map(|case| Case { server: file.server.clone(), ..case }));
    }
    Ok(cases)
}

impl Case {
    /// The body as it is sent.
    pub(super) fn body(&self) -> Vec<u8> {
        let Some(lines) = &self.stream else { return self.body.clone().unwrap_or_default().into_bytes() };
        let events: String = lines.lines().filter(|line| !line.is_empty()).map(event).collect();
        if self.crlf { events.replace('\n', "\r\n") } else { events }.into_bytes()
    }

    /// Whether signs of life follow it for ever.
    pub(super) fn beats(&self) -> bool {
        self.end == "beat"
    }

    /// The whole answer.
    pub(super) fn scripted(&self) -> Scripted {
        let form = if self.stream.is_some() { "text/event-stream" } else { "application/json" };
        let (label, body) = (self.label.as_deref().unwrap_or(form), self.body());
        let (length, then) = match self.end.as_str() {
            "close" => (Some(body.len()), Then::Close),
            "cut" => (Some(body.len() + 1_000), Then::Close),
            "hang" => (None, Then::Silence),
            _ => (None, Then::Beat(b"8\r\n: beat\n\n\r\n")),
        };
        let framing =
            length.map_or("transfer-encoding: chunked".to_owned(), |n| format!("content-length: {n}"));
        let mut bytes =
            format!("HTTP/1.1 {} X\r\ncontent-type: {label}\r\n{framing}\r\n\r\n", self.status).into_bytes();
        match length {
            Some(_) => bytes.extend(body),
            None => bytes.extend([format!("{:x}\r\n", body.len()).as_bytes(), &body, b"\r\n"].concat()),
        }
        Scripted { bytes, then }
    }
}

fn event(line: &str) -> String {
    let chunk = |choice: &str| {
        format!(
            r#"{{"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{{"index":0,{choice}}}]}}"#
        )
    };
    let data = if line.starts_with(':') {
        return format!("{line}\n\n");
    } else if line.starts_with("event:") {
        return format!("{line}\n");
    } else if let Some(delta) = line.strip_prefix("C{") {
        chunk(&format!(r#""delta":{{{delta}"#))
    } else if let Some(reason) = line.strip_prefix('F') {
        chunk(&format!(r#""delta":{{}},"finish_reason":{reason}"#))
    } else if let Some((input, output)) = line.strip_prefix("U ").and_then(|usage| usage.split_once(' ')) {
        format!(
            r#"{{"id":"c","choices":[],"usage":{{"prompt_tokens":{input},"completion_tokens":{output},"total_tokens":0}}}}"#
        )
    } else if line == "D" {
        "[DONE]".to_owned()
    } else {
        line.to_owned()
    };
    format!("data: {data}\n\n")
}
