//! Health and metrics, if the configuration names an address: nothing here is for clients.

use crate::context::Context;
use axum::{Router, extract::State, routing::get};
use http::StatusCode;
use std::{net::SocketAddr, sync::Arc};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Binds the address.
///
/// # Errors
/// It cannot be bound.
pub(crate) async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| anyhow::anyhow!("cannot listen on {address}: {error}"))
}

/// Answers until `stop`.
pub(crate) async fn serve(listener: TcpListener, ctx: Arc<Context>, stop: CancellationToken) {
    let app = Router::new()
        .route("/livez", get(async || "ok"))
        .route("/readyz", get(ready))
        .route("/metrics", get(async || shared::telemetry::render()))
        .with_state(ctx);
    let served = axum::serve(listener, app).with_graceful_shutdown(stop.cancelled_owned());
    if let Err(error) = served.await {
        tracing::error!(error = &error as &dyn std::error::Error, "health and metrics are no longer served");
    }
}

/// Ready: its lease is good and it is not draining, so that it claims.
async fn ready(State(ctx): State<Arc<Context>>) -> (StatusCode, &'static str) {
    match *ctx.worker.borrow() {
        _ if ctx.drain.is_cancelled() => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
        Some(_) => (StatusCode::OK, "ok"),
        None => (StatusCode::SERVICE_UNAVAILABLE, "no lease"),
    }
}
