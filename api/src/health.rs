//! How this process is: for whoever runs it.

use crate::{state::Shared, view};
use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::{StatusCode, header};
use serde::Serialize;
use std::time::Duration;
use tokio::time::timeout;

/// Longest time for the check behind `/readyz`.
const CHECK_MAX: Duration = Duration::from_secs(2);

/// How this process is.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct Health {
    /// `ok`, `draining` or `unavailable`.
    status: &'static str,
}

/// Whether this process runs.
#[utoipa::path(
    get, path = "/livez", tag = "health", operation_id = "live",
    responses((status = 200, description = "It does.", body = Health))
)]
pub(crate) async fn livez() -> Response {
    view::respond(StatusCode::OK, view::json(&Health { status: "ok" }))
}

/// The same as `/livez`.
#[utoipa::path(
    get, path = "/healthz", tag = "health", operation_id = "health",
    responses((status = 200, description = "It runs.", body = Health))
)]
#[expect(dead_code, reason = "the route is served by livez: this is its description")]
fn healthz() {}

/// Whether this process can take requests: the database answers, its schema fits, and we are not about to end.
#[utoipa::path(
    get, path = "/readyz", tag = "health", operation_id = "ready",
    responses(
        (status = 200, description = "It can.", body = Health),
        (status = 503, description = "It cannot now.", body = Health),
    )
)]
pub(crate) async fn readyz(State(app): State<Shared>) -> Response {
    let status = if app.stop.is_cancelled() {
        "draining"
    } else {
        match timeout(CHECK_MAX, app.backends.store.check()).await {
            Ok(Ok(())) => "ok",
            Ok(Err(error)) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "not ready");
                "unavailable"
            }
            Err(_) => "unavailable",
        }
    };
    let code = if status == "ok" { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    view::respond(code, view::json(&Health { status }))
}

/// Figures for Prometheus.
#[utoipa::path(
    get, path = "/metrics", tag = "health", operation_id = "metrics",
    responses((status = 200, description = "Prometheus' text format.", body = String, content_type = "text/plain"))
)]
pub(crate) async fn metrics() -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], shared::telemetry::render()).into_response()
}
