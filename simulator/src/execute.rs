//! One execution from its body to its last byte: read, refuse or fail if asked to, compose, wait, send.
//!
//! `Execution` is the guard of the ledger's entry. Whatever drops it before `end` (a handler whose client left, a body
//! nobody reads any more) leaves the entry as `client_closed`, or as
//! `refuse` if it was we who closed the connection.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use sha2::{Digest, Sha256};
use shared::clock::UnixMs;

use crate::Simulator;
use crate::behaviour::Behaviour;
use crate::deliver::{self, Delivery, EVENT_STREAM, JSON};
use crate::error::Failure;
use crate::ledger::{Entry, RUNNING, Received};
use crate::line::Line;
use crate::pace::Pace;
use crate::reply::{Answer, Content, json, times};
use crate::request::Ask;
use crate::sim::{HangAt, Sim};
use crate::spoil::spoil;
use crate::text::{Seed, hex};
use crate::{chat, completions, embeddings, messages, moderations, responses};

/// What can be executed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Endpoint {
    Chat,
    Completions,
    Embeddings,
    Responses,
    Messages,
    Moderations,
}

impl Endpoint {
    pub(crate) const ALL: [Self; 6] =
        [Self::Chat, Self::Completions, Self::Embeddings, Self::Responses, Self::Messages, Self::Moderations];

    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::Chat => "/v1/chat/completions",
            Self::Completions => "/v1/completions",
            Self::Embeddings => "/v1/embeddings",
            Self::Responses => "/v1/responses",
            Self::Messages => "/v1/messages",
            Self::Moderations => "/v1/moderations",
        }
    }

    fn compose(self, ask: &Ask<'_>, behaviour: &Behaviour, body: &[u8]) -> Result<Answer, Failure> {
        match self {
            Self::Chat => chat::answer(ask, behaviour, body),
            Self::Completions => completions::answer(ask, behaviour, body),
            Self::Embeddings => embeddings::answer(ask, body),
            Self::Responses => responses::answer(ask, behaviour, body),
            Self::Messages => messages::answer(ask, behaviour, body),
            Self::Moderations => moderations::answer(ask),
        }
    }
}

/// The ledger's entry of one execution, while it runs.
pub(crate) struct Execution {
    simulator: Simulator,
    line: Line,
    number: u64,
    ended: bool,
    pub(crate) bytes: u64,
    pub(crate) tokens: u64,
}

impl Execution {
    fn start(simulator: Simulator, line: Line, entry: Entry, body: &Bytes) -> Self {
        let (task, attempt, endpoint) = (entry.task.clone(), entry.attempt, entry.endpoint);
        simulator.load().fetch_add(1, Ordering::Relaxed);
        let number = {
            let mut memory = simulator.memory();
            memory.keep(Received { task, attempt, endpoint, body: body.clone() });
            memory.start(entry)
        };
        Self { simulator, line, number, ended: false, bytes: 0, tokens: 0 }
    }

    /// Completes the entry. Only the first call counts.
    pub(crate) fn end(&mut self, how: &'static str) {
        if !std::mem::replace(&mut self.ended, true) {
            self.simulator.load().fetch_sub(1, Ordering::Relaxed);
            self.simulator.memory().end(self.number, how, self.bytes, self.tokens);
        }
    }

    /// The `sim` object this execution is subject to: under an outage with the outage's faults, and without any once
    /// its `fail_first` is over.
    fn faults(&self, own: Sim, model: &str, key: &str) -> Sim {
        let window = self.simulator.outages().window();
        // Every outage counts for itself, and none of them counts for the request's own `fail_first`.
        let (sim, key) = match window.fault(model) {
            Some(fault) => (own.with_faults_of(fault), format!("{}/{key}", window.number)),
            None => (own, key.to_owned()),
        };
        let count = if sim.fail_first.is_some() { self.simulator.memory().count(key.into()) } else { 0 };
        sim.at(count)
    }

    /// Waits, longer under load, and not at all for zero.
    pub(crate) async fn wait(&self, time: Duration) {
        if !time.is_zero() {
            let running = self.simulator.running();
            tokio::time::sleep(time.mul_f64(self.simulator.behaviour().load_factor(running))).await;
        }
    }
}

impl Drop for Execution {
    fn drop(&mut self) {
        self.end(self.line.cause().unwrap_or("client_closed"));
    }
}

/// Executes a request of any endpoint.
pub(crate) async fn execute(
    endpoint: Endpoint,
    State(simulator): State<Simulator>,
    Extension(line): Extension<Line>,
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
    let mut execution = Execution::start(simulator, line, entry, &body);
    match asked {
        Ok(ask) => run(endpoint, execution, ask, &body, &key).await,
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
    key: &str,
) -> Response {
    ask.sim = execution.faults(std::mem::take(&mut ask.sim), &ask.model, key);
    if ask.sim.reset {
        deliver::hang(ask.sim.hang(HangAt::Head, false)).await;
        execution.end("reset");
        match execution.line.reset().await {}
    }
    let streamed = ask.streamed();
    if let Some((how, status)) = ask.sim.failure() {
        let failure = Failure::asked_for(status, ask.sim.error_code.as_deref());
        let answer = Answer::whole(json(&failure.body(endpoint)));
        return Delivery { status, how, content_type: JSON, answer, pace: Pace::none() }
            .send(execution, &ask.sim)
            .await;
    }
    let behaviour = times(&ask.sim, execution.simulator.behaviour());
    let pace = Pace::new(behaviour.clone(), Seed::of(&[b"pace", body]).rng(0));
    if let Some(raw) = ask.sim.raw.take() {
        let status = ask.sim.asked_status().unwrap_or(StatusCode::OK);
        let content_type = if streamed { EVENT_STREAM } else { JSON };
        let answer = Answer::whole(raw.into());
        return Delivery { status, how: "raw", content_type, answer, pace }.send(execution, &ask.sim).await;
    }
    let answer = match endpoint.compose(&ask, &behaviour, body) {
        Ok(answer) => answer,
        Err(failure) => {
            execution.end("rejected");
            return failure.respond(endpoint);
        }
    };
    let (answer, how) = spoil(answer, &ask.sim, endpoint);
    let content_type = if matches!(answer.content, Content::Frames(_)) { EVENT_STREAM } else { JSON };
    Delivery { status: StatusCode::OK, how, content_type, answer, pace }.send(execution, &ask.sim).await
}
