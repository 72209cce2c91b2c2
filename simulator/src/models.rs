//! `GET /v1/models`: two models exist by name; any other `sim-…` is served all the same.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::Simulator;
use crate::error::Failure;
use crate::execute::Endpoint;
use crate::text::CREATED;

const NAMES: [&str; 2] = ["sim-chat", "sim-embed"];

fn model(id: &str) -> Value {
    json!({"id": id, "object": "model", "created": CREATED, "owned_by": "longhaul-simulator"})
}

pub(crate) async fn list(State(simulator): State<Simulator>) -> Response {
    if simulator.outages().window().hides_models() {
        return Failure::unavailable().respond(Endpoint::Chat);
    }
    Json(json!({"object": "list", "data": NAMES.map(model)})).into_response()
}

pub(crate) async fn retrieve(State(simulator): State<Simulator>, Path(id): Path<String>) -> Response {
    if simulator.outages().window().hides_models() {
        Failure::unavailable().respond(Endpoint::Chat)
    } else if id.starts_with("sim-") {
        Json(model(&id)).into_response()
    } else {
        Failure::model_not_found(&id).respond(Endpoint::Chat)
    }
}
