//! One execution from its body to its last byte: read, refuse or fail if asked to, compose, wait, send.
//!
//! `Execution` is the guard of the ledger's entry. Whatever drops it before `end` (a handler whose client left, a body
//! nobody reads any more) leaves the entry as `client_closed`.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use sha2::{Digest, Sha256};
use shared::clock::UnixMs;

use crate::Simulator;
use crate::behaviour::Behaviour;
use crate::error::Failure;
use crate::ledger::{Entry, RUNNING, Received};
use crate::pace::{Pace, Paced, halved};
use crate::reply::{Answer, Content, times};
use crate::request::{Ask, Sim};
use crate::text::{Seed, hex};
use crate::{chat, completions, embeddings, messages, responses};

/// What can be executed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Endpoint {
    Chat,
    Completions,
    Embeddings,
    Responses,
    Messages,
}

impl Endpoint {
    pub(crate) const ALL: [Self; 5] =
        [Self::Chat, Self::Completions, Self::Embeddings, Self::Responses, Self::Messages];

    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::Chat => "/v1/chat/completions",
            Self::Completions => "/v1/completions",
            Self::Embeddings => "/v1/embeddings",
            Self::Responses => "/v1/responses",
            Self::Messages => "/v1/messages",
        }
    }

    fn compose(self, ask: &Ask<'_>, behaviour: &Behaviour, body: &[u8]) -> Result<Answer, Failure> {
        match self {
            Self::Chat => chat::answer(ask, behaviour, body),
            Self::Completions => completions::answer(ask, behaviour, body),
            Self::Embeddings => embeddings::answer(ask, body),
            Self::Responses => responses::answer(ask, behaviour, body),
            Self::Messages => messages::answer(ask, behaviour, body),
        }
    }
}

/// The ledger's entry of one execution, while it runs.
pub(crate) struct Execution {
    simulator: Simulator,
    number: u64,
    ended: bool,
    pub(crate) bytes: u64,
    pub(crate) tokens: u64,
}

impl Execution {
    fn start(simulator: Simulator, entry: Entry, body: &Bytes) -> Self {
        let (task, attempt, endpoint) = (entry.task.clone(), entry.attempt, entry.endpoint);
        simulator.running().fetch_add(1, Ordering::Relaxed);
        let number = {
            let mut memory = simulator.memory();
            memory.keep(Received { task, attempt, endpoint, body: body.clone() });
            memory.start(entry)
        };
        Self { simulator, number, ended: false, bytes: 0, tokens: 0 }
    }

    /// Completes the entry. Only the first call counts.
    pub(crate) fn end(&mut self, how: &'static str) {
        if !std::mem::replace(&mut self.ended, true) {
            self.simulator.running().fetch_sub(1, Ordering::Relaxed);
            self.simulator.memory().end(self.number, how, self.bytes, self.tokens);
        }
    }

    /// Waits, longer under load, and not at all for zero.
    pub(crate) async fn wait(&self, time: Duration) {
        if !time.is_zero() {
            let running = self.simulator.running().load(Ordering::Relaxed);
            tokio::time::sleep(time.mul_f64(self.simulator.behaviour().load_factor(running))).await;
        }
    }
}

impl Drop for Execution {
    fn drop(&mut self) {
        self.end("client_closed");
    }
}

/// Executes a request of any endpoint.
pub(crate) async fn execute(
    endpoint: Endpoint,
    State(simulator): State<Simulator>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let body = match body {
        Ok(body) => body,
        Err(rejection) => {
            return Failure::unreadable(rejection.status(), rejection.body_text()).respond(endpoint);
        }
    };
    let asked = Ask::parse(&body);
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let entry = Entry {
        task: text("longhaul-task-id").map(Arc::from),
        attempt: text("longhaul-attempt").and_then(|value| value.parse().ok()),
        started_at: UnixMs::now(),
        ended_at: None,
        how: RUNNING,
        bytes: 0,
        tokens: 0,
        body_sha256: Sha256::digest(&body).into(),
        endpoint: endpoint.path(),
        streamed: asked.as_ref().is_ok_and(Ask::streamed),
    };
    // Failures are counted by task; a call without one is its own body's.
    let key = entry.task.clone().unwrap_or_else(|| hex(&entry.body_sha256).into());
    let mut execution = Execution::start(simulator, entry, &body);
    match asked {
        Ok(ask) => run(endpoint, execution, ask, &body, key).await,
        Err(failure) => {
            execution.end("rejected");
            failure.respond(endpoint)
        }
    }
}

/// Everything after a request was understood.
async fn run(
    endpoint: Endpoint,
    mut execution: Execution,
    mut ask: Ask<'_>,
    body: &[u8],
    key: Arc<str>,
) -> Response {
    let sim = std::mem::take(&mut ask.sim);
    let count = if sim.fail_first.is_some() { execution.simulator.memory().count(key) } else { 0 };
    if let Some((how, status)) = sim.fault(count) {
        hang(sim.hang_ms).await;
        execution.end(how);
        return Failure::asked_for(status, sim.retry_after_s).respond(endpoint);
    }
    let behaviour = times(&sim, execution.simulator.behaviour());
    let mut pace = Pace::new(behaviour.clone(), Seed::of(&[b"pace", body]).rng(0));
    if let Some(raw) = sim.raw {
        hang(sim.hang_ms).await;
        execution.wait(pace.first()).await;
        execution.bytes = raw.len() as u64;
        execution.end("raw");
        let status =
            sim.status.and_then(|status| StatusCode::from_u16(status).ok()).unwrap_or(StatusCode::OK);
        return respond(status, "application/json", sim.content_type, raw.into());
    }
    ask.sim = sim;
    let answer = match endpoint.compose(&ask, &behaviour, body) {
        Ok(answer) => answer,
        Err(failure) => {
            execution.end("rejected");
            return failure.respond(endpoint);
        }
    };
    send(execution, answer, pace, ask.sim).await
}

/// Waits for an answer's time and sends it.
async fn send(mut execution: Execution, answer: Answer, mut pace: Pace, sim: Sim) -> Response {
    match answer.content {
        Content::Frames(frames) => {
            execution.wait(pace.first()).await;
            let hang = sim.hang_ms.map(Duration::from_millis);
            let (frames, cut_after) = (frames.peekable(), sim.cut_after);
            let paced = Paced { frames, pace, cut_after, hang, execution, sent: 0 };
            let mut response = respond(
                StatusCode::OK,
                "text/event-stream; charset=utf-8",
                sim.content_type,
                paced.into_body(),
            );
            let headers = response.headers_mut();
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform"));
            headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
            response
        }
        Content::Whole(whole) => {
            hang(sim.hang_ms).await;
            let time = pace.whole(answer.positions);
            execution.wait(time).await;
            let body = if sim.cut_after.is_some() {
                halved(&whole, execution)
            } else {
                (execution.bytes, execution.tokens) = (whole.len() as u64, answer.tokens);
                execution.end("finished");
                whole.into()
            };
            respond(StatusCode::OK, "application/json", sim.content_type, body)
        }
    }
}

async fn hang(ms: Option<u64>) {
    if let Some(ms) = ms {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
}

fn respond(status: StatusCode, natural: &'static str, asked: Option<String>, body: Body) -> Response {
    let asked = asked.and_then(|asked| HeaderValue::try_from(asked).ok());
    let content_type = asked.unwrap_or(HeaderValue::from_static(natural));
    (status, [(header::CONTENT_TYPE, content_type)], body).into_response()
}
