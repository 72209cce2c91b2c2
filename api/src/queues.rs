//! The lanes with their figures.

use crate::{
    error::ApiError,
    fetch::{DEADLINE, patiently},
    list::List,
    state::App,
    view,
};
use axum::response::Response;
use http::StatusCode;
use serde::Serialize;
use shared::store::QueueFigures;
use tokio::time::timeout;

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

/// List queues with their figures.
#[utoipa::path(
    get, path = "/v1/queues", tag = "queues", operation_id = "list_queues",
    responses((status = 200, description = "Every configured lane.", body = List<Queue>))
)]
pub(crate) async fn list(app: App) -> Result<Response, ApiError> {
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
