//! One hostile request: the bytes that go over the wire, and the answer that they must get.

use anyhow::{Context, ensure};
use serde_json::Value;
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// Longest time for an answer, whatever is sent.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// What is sent, and what must come back.
pub(super) struct Case {
    /// Its name in a complaint.
    pub(super) what: String,
    sent: Box<dyn FnOnce() -> Vec<u8> + Send>,
    wanted: Wanted,
}

enum Wanted {
    /// Our envelope with this status, code and parameter.
    Envelope { status: u16, code: &'static str, param: Option<String> },
    /// One of these from the HTTP library itself, without a body: the request never was one.
    Bare(&'static [u16]),
    /// Served: at a limit, not beyond it.
    Served(u16),
    /// A batch that has failed.
    Failed,
    /// A socket that is opened, and closed again with one of these codes.
    Closed(&'static [u16]),
}

/// A request whose bytes are all written out here.
pub(super) fn raw(what: impl Into<String>, sent: impl Into<Vec<u8>>) -> Case {
    let sent = sent.into();
    Case { what: what.into(), sent: Box::new(|| sent), wanted: Wanted::Served(200) }
}

/// A request without a body; `headers` are whole lines.
pub(super) fn bodiless(method: &str, target: &str, headers: &str) -> Case {
    let what: String = format!("{method} {target} {headers}").chars().take(120).collect();
    let head = format!("{method} {target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}\r\n");
    raw(what, head)
}

/// A `GET`.
pub(super) fn get(target: &str) -> Case {
    bodiless("GET", target, "")
}

/// A `POST` of these bytes; `headers` are whole lines.
pub(super) fn post_as(
    what: impl Into<String>,
    target: &str,
    headers: &str,
    body: impl FnOnce() -> Vec<u8> + Send + 'static,
) -> Case {
    let head = format!("POST {target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}");
    let sent = || {
        let body = body();
        let length = format!("content-length: {}\r\n\r\n", body.len());
        [head.into_bytes(), length.into_bytes(), body].concat()
    };
    Case { what: what.into(), sent: Box::new(sent), wanted: Wanted::Served(200) }
}

/// A `POST` of JSON, or of what is said to be JSON.
pub(super) fn post(what: impl Into<String>, target: &str, body: impl Into<Vec<u8>>) -> Case {
    let body = body.into();
    post_as(what, target, "content-type: application/json\r\n", || body)
}

/// A task.
pub(super) fn task(what: impl Into<String>, body: impl Into<Vec<u8>>) -> Case {
    post(what, "/v1/tasks", body)
}

impl Case {
    /// It must be refused with our envelope.
    pub(super) fn is<'p>(self, status: u16, code: &'static str, param: impl Into<Option<&'p str>>) -> Self {
        let param = param.into().map(str::to_owned);
        Self { wanted: Wanted::Envelope { status, code, param }, ..self }
    }

    /// It must be refused by the HTTP library.
    pub(super) fn bare(self, statuses: &'static [u16]) -> Self {
        Self { wanted: Wanted::Bare(statuses), ..self }
    }

    /// It must be served.
    pub(super) fn served(self, status: u16) -> Self {
        Self { wanted: Wanted::Served(status), ..self }
    }

    /// It makes a batch that has failed.
    pub(super) fn fails(self) -> Self {
        Self { wanted: Wanted::Failed, ..self }
    }

    /// It opens a socket, which must be closed.
    pub(super) fn closes(self, codes: &'static [u16]) -> Self {
        Self { wanted: Wanted::Closed(codes), ..self }
    }

    /// Whether it makes a task.
    pub(super) fn makes_a_task(&self) -> bool {
        matches!(self.wanted, Wanted::Served(202))
    }

    /// Sends it and judges the answer.
    pub(super) async fn run(self, address: &str) -> anyhow::Result<()> {
        let answer = exchange(address, (self.sent)()).await?;
        judge(&answer, &self.wanted).with_context(|| {
            let text = String::from_utf8_lossy(&answer);
            format!("the answer was {}", text.chars().take(2_000).collect::<String>())
        })
    }
}

/// All that comes back until the other end closes. It may close before it has heard everything.
async fn exchange(address: &str, sent: Vec<u8>) -> anyhow::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address).await?;
    let (mut from, mut to) = stream.split();
    let mut answer = Vec::new();
    let both = async { tokio::join!(to.write_all(&sent), from.read_to_end(&mut answer)) };
    timeout(ANSWER_MAX, both).await.context("no answer and no end")?.0.ok();
    Ok(answer)
}

fn judge(answer: &[u8], wanted: &Wanted) -> anyhow::Result<()> {
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").context("no whole head")?;
    let (head, body) = (std::str::from_utf8(&answer[..end])?.to_ascii_lowercase(), &answer[end + 4..]);
    let status: u16 = head.get(9..12).context("no status")?.parse()?;
    ensure!(status < 500, "a fault of ours");
    match wanted {
        Wanted::Envelope { status: wanted, code, param } => {
            ensure!(status == *wanted, "status {status} instead of {wanted}");
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            ensure!(length == Some(&body.len().to_string()), "one answer to one request");
            let answer: Value = serde_json::from_slice(body).context("no JSON")?;
            let error = &answer["error"];
            ensure!(error["code"] == *code, "code {} instead of {code}", error["code"]);
            ensure!(error["param"].as_str() == param.as_deref(), "param {}", error["param"]);
            let message = error["message"].as_str().context("no message")?;
            ensure!((10..2_000).contains(&message.len()), "{} bytes of message", message.len());
            ensure!(error["type"].is_string() && error["request_id"].is_string(), "not our envelope");
        }
        Wanted::Bare(statuses) => {
            ensure!(statuses.contains(&status), "status {status} instead of {statuses:?}");
            ensure!(body.is_empty(), "one answer, without a body");
        }
        Wanted::Served(wanted) => ensure!(status == *wanted, "status {status} instead of {wanted}"),
        Wanted::Failed => {
            let batch: Value = serde_json::from_slice(body).context("no JSON")?;
            ensure!(status == 200 && batch["status"] == "failed", "status {status}");
            ensure!(batch["errors"]["data"][0]["code"].is_string(), "no fault is told");
        }
        Wanted::Closed(codes) => {
            ensure!(status == 101, "status {status} instead of 101");
            let code = close_code(body).context("closed without a word")?;
            ensure!(codes.contains(&code), "closed with {code} instead of {codes:?}");
        }
    }
    Ok(())
}

/// The code of the close frame among a server's short frames.
fn close_code(mut frames: &[u8]) -> Option<u16> {
    loop {
        let (&[first, length], rest) = frames.split_first_chunk::<2>()?;
        let (length, rest) = match length {
            126 => rest.split_first_chunk().map(|(long, rest)| (u16::from_be_bytes(*long).into(), rest))?,
            short => (usize::from(short), rest),
        };
        if first & 0x0f == 8 {
            return rest.first_chunk().map(|code| u16::from_be_bytes(*code));
        }
        frames = rest.get(length..)?;
    }
}
