//! How this process is: for whoever runs it.

use crate::{state::Shared, view};
use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::{StatusCode, header};
use serde::Serialize;
use shared::{
    outage::{Outage, Over},
    store::{Error, Store},
};
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// Longest time for the check behind `/readyz`.
const CHECK_MAX: Duration = Duration::from_secs(2);

/// How long a look is good for: however many ask, the database is not asked more often.
const FRESH: Duration = Duration::from_millis(500);

/// What is known of the database.
#[derive(Default)]
pub(crate) struct Looks {
    /// When it was last looked at, and whether it was ready.
    last: tokio::sync::Mutex<Option<(Instant, bool)>>,
    /// Requests found the database away.
    pub(crate) away: Outage,
    /// Requests found no space. A row that is written over and over may still find some.
    pub(crate) full: Outage,
}

impl Looks {
    /// A request was answered: says once that an outage is over.
    pub(crate) fn answered(&self) {
        for (status, outage) in [(503, &self.away), (507, &self.full)] {
            if let Some(Over { times, lasted }) = outage.fine() {
                tracing::info!(status, times, seconds = lasted.as_secs_f64(), "the outage is over");
            }
        }
    }

    async fn is_ready(&self, store: &dyn Store) -> bool {
        // Those who ask meanwhile hear what the first one finds.
        let mut last = self.last.lock().await;
        let known = last.filter(|(at, _)| at.elapsed() < FRESH);
        let (_, was_ready) = last.unwrap_or((Instant::now(), true));
        let ready = match known {
            Some((_, ready)) => ready,
            None => {
                let ready = look(store, was_ready).await;
                *last = Some((Instant::now(), ready));
                ready
            }
        };
        ready && !self.full.is_on()
    }
}

/// Looks at schema and a write; says once that it has become unready, and once that it is ready again.
async fn look(store: &dyn Store, was_ready: bool) -> bool {
    let looked = timeout(CHECK_MAX, async {
        store.check().await?;
        store.check_writing().await
    });
    let error = match looked.await {
        Ok(Ok(())) => {
            if !was_ready {
                tracing::info!("ready again");
            }
            return true;
        }
        Ok(Err(error)) => error,
        Err(_) => Error::silent(),
    };
    if was_ready {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "not ready: the database cannot be read or written"
        );
    }
    false
}

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

/// Whether this process can take requests: the database takes a write, its schema fits, and we are not about to end.
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
        if app.looks.is_ready(&*app.backends.store).await { "ok" } else { "unavailable" }
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
