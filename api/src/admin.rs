//! What is here and how it is: models, queues, health, metrics.

use crate::{
    error::{ApiError, Wrapped},
    fetch::{DEADLINE, patiently},
    list::List,
    state::App,
    view::{self},
};
use axum::{
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use http::{StatusCode, header};
use serde::Serialize;
use shared::store::QueueFigures;
use std::{collections::BTreeMap, time::Duration};
use tokio::time::timeout;

/// Longest time for the check behind `/readyz`.
const CHECK_MAX: Duration = Duration::from_secs(2);

/// A model, in OpenAI's form.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct Model {
    id: String,
    object: &'static str,
    created: i64,
    owned_by: String,
}

/// One lane with its figures.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct Queue {
    /// Its name.
    name: String,
    object: &'static str,
    /// Its share against the other lanes.
    weight: u32,
    /// Ready tasks.
    queued: u64,
    /// Tasks waiting for a time.
    scheduled: u64,
    /// Tasks being run.
    in_progress: u64,
    /// Live workers that serve it.
    workers: usize,
    /// Age of the oldest ready task, seconds.
    oldest_age_s: Option<f64>,
}

/// How this process is.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct Health {
    /// `ok`, `draining` or `unavailable`.
    status: &'static str,
}

/// List models.
#[utoipa::path(
    get, path = "/v1/models", tag = "models", operation_id = "list_models",
    responses((status = 200, description = "Every model that is routed or that an upstream lists.", body = List<Model>))
)]
pub(crate) async fn models(State(app): State<App>) -> Result<Response, ApiError> {
    let models = served(&app).await?;
    let ids = (models.first().map(|model| model.id.clone()), models.last().map(|model| model.id.clone()));
    Ok(view::respond(StatusCode::OK, view::json(&List::new(models, ids, false))))
}

/// Get a model.
#[utoipa::path(
    get, path = "/v1/models/{id}", tag = "models", operation_id = "get_model",
    params(("id" = String, Path, description = "The model's name, slashes and all.")),
    responses(
        (status = 200, description = "It is served.", body = Model),
        (status = 404, description = "It is not.", body = Wrapped),
    )
)]
pub(crate) async fn model(State(app): State<App>, Path(id): Path<String>) -> Result<Response, ApiError> {
    let found = served(&app).await?.into_iter().find(|model| model.id == id);
    let found = found.ok_or_else(|| ApiError::NotFound {
        message: format!("The model '{id}' does not exist."),
        code: "model_not_found",
        param: Some("id"),
    })?;
    Ok(view::respond(StatusCode::OK, view::json(&found)))
}

async fn served(app: &App) -> Result<Vec<Model>, ApiError> {
    let notes = app.catalogue.notes().await?;
    let routed = app
        .config
        .routes
        .iter()
        .map(|route| (route.model.clone(), route.upstreams.first().cloned().unwrap_or_default()));
    let free = notes.iter().filter(|note| !app.config.is_routed(&note.upstream));
    let listed = free
        .flat_map(|note| note.models.iter().flatten().map(|model| (model.clone(), note.upstream.clone())));
    // A route's word goes before an upstream's own list.
    let all: BTreeMap<String, String> = listed.chain(routed).collect();
    let created = app.started_at.seconds();
    Ok(all.into_iter().map(|(id, owned_by)| Model { id, object: "model", created, owned_by }).collect())
}

/// List queues with their figures.
#[utoipa::path(
    get, path = "/v1/queues", tag = "queues", operation_id = "list_queues",
    responses((status = 200, description = "Every configured lane.", body = List<Queue>))
)]
pub(crate) async fn queues(State(app): State<App>) -> Result<Response, ApiError> {
    let figures = patiently(&app, app.backends.store.queues(Some(app.project))).await?;
    let workers = timeout(DEADLINE, app.backends.store.workers()).await??;
    let queues = app.config.lanes.iter().map(|lane| {
        let found = figures.iter().find(|figures| figures.queue == lane.name);
        let count = |pick: fn(&QueueFigures) -> u64| found.map_or(0, pick);
        Queue {
            name: lane.name.to_string(),
            object: "queue",
            weight: lane.weight,
            queued: count(|figures| figures.queued),
            scheduled: count(|figures| figures.scheduled),
            in_progress: count(|figures| figures.in_progress),
            workers: workers.iter().filter(|worker| worker.queues.contains(&lane.name)).count(),
            oldest_age_s: found.and_then(|figures| figures.oldest).map(|age| age.as_secs_f64()),
        }
    });
    Ok(view::respond(StatusCode::OK, view::json(&List::new(queues.collect(), (None, None), false))))
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
pub(crate) async fn readyz(State(app): State<App>) -> Response {
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
