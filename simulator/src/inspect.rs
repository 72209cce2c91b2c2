//! `/_sim/…`: the ledger and the raw bodies over HTTP, for tests in another process. No model server has these.

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::Simulator;
use crate::error::Failure;
use crate::execute::Endpoint;
use crate::text::base64;

/// A body may be 1 MiB; a listing holds no more than this many.
const MOST_BODIES: usize = 100;

#[derive(Deserialize)]
pub(crate) struct Filter {
    task: Option<String>,
    limit: Option<usize>,
}

pub(crate) async fn ledger(State(simulator): State<Simulator>, Query(filter): Query<Filter>) -> Json<Value> {
    let limit = filter.limit.unwrap_or(usize::MAX);
    let (data, total) = simulator.memory().entries(filter.task.as_deref(), limit);
    Json(json!({"object": "list", "total": total, "data": data}))
}

pub(crate) async fn clear(State(simulator): State<Simulator>) -> StatusCode {
    simulator.clear();
    StatusCode::NO_CONTENT
}

pub(crate) async fn requests(
    State(simulator): State<Simulator>,
    Query(filter): Query<Filter>,
) -> Json<Value> {
    let bodies = simulator.memory().bodies(filter.task.as_deref());
    let limit = filter.limit.unwrap_or(MOST_BODIES).min(MOST_BODIES);
    let newest = &bodies[bodies.len().saturating_sub(limit)..];
    let shown = |received: &crate::ledger::Received| {
        json!({"task": received.task, "attempt": received.attempt, "endpoint": received.endpoint,
               "body_base64": base64(&received.body)})
    };
    let data: Vec<_> = newest.iter().map(shown).collect();
    Json(json!({"object": "list", "total": bodies.len(), "data": data}))
}

pub(crate) async fn request(
    State(simulator): State<Simulator>,
    Path((task, attempt)): Path<(String, u64)>,
) -> Response {
    let bodies = simulator.memory().bodies(Some(&task));
    match bodies.into_iter().rev().find(|received| received.attempt == Some(attempt)) {
        Some(received) => {
            ([(header::CONTENT_TYPE, "application/octet-stream")], received.body).into_response()
        }
        None => {
            let message = "No body of this task and attempt is kept.".to_owned();
            Failure::unreadable(StatusCode::NOT_FOUND, message).respond(Endpoint::Chat)
        }
    }
}
