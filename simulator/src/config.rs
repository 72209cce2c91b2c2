//! `/_sim/config`: outages over HTTP, for tests in another process. `POST` replaces the current one, `GET` shows it.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use bytes::Bytes;
use http::{HeaderValue, header};
use serde_json::{Value, json};

use crate::Simulator;
use crate::error::Failure;
use crate::execute::Endpoint;
use crate::line::Line;
use crate::outage::Outage;

pub(crate) async fn show(State(simulator): State<Simulator>) -> Json<Value> {
    Json(simulator.outages().window().shown())
}

pub(crate) async fn set(
    State(simulator): State<Simulator>,
    Extension(line): Extension<Line>,
    body: Bytes,
) -> Response {
    let outage = match read(&body) {
        Ok(outage) => outage,
        Err(message) => return Failure::invalid(None, message).respond(Endpoint::Chat),
    };
    let refuses = outage.as_ref().is_some_and(Outage::refuses);
    if refuses {
        // Every connection is about to be cut; this one ends with its answer.
        line.spare();
    }
    simulator.outage(outage).await;
    let mut response = show(State(simulator)).await.into_response();
    if refuses {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Reads a body; nothing, `null` and an object without a fault end the outage.
fn read(body: &[u8]) -> Result<Option<Outage>, String> {
    let given = match body {
        [] => Value::Null,
        body => serde_json::from_slice(body)
            .map_err(|error| format!("We could not read the JSON body: {error}."))?,
    };
    let outage = if given.is_null() { Outage::parse(&json!({})) } else { Outage::parse(&given) }?;
    if outage.refuses() && outage.is_endless() {
        return Err("Missing 'for_ms': nobody could reach us to end 'refuse'.".into());
    }
    Ok(Some(outage))
}
