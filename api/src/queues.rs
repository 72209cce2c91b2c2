//! The lanes with their figures.

use crate::{error::ApiError, fetch::patiently, list::List, state::App, view};
use axum::response::Response;
use http::StatusCode;
use serde::Serialize;
use shared::{
    backends::Backends,
    store::{self, Worker},
    task::{ProjectId, QueueName},
};
use std::time::Duration;

/// How many tasks stand where.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct Counters {
    scheduled: u64,
    queued: u64,
    in_progress: u64,
    workers: usize,
    oldest_age_s: Option<f64>,
}

/// The counters of a project.
#[derive(Debug, PartialEq)]
pub(crate) struct Figures {
    /// Of each lane, in the order of the configuration.
    pub(crate) lanes: Vec<(QueueName, Counters)>,
    /// Of all lanes together.
    pub(crate) all: Counters,
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

/// List queues with their figures.
#[utoipa::path(
    get, path = "/v1/queues", tag = "queues", operation_id = "list_queues",
    responses((status = 200, description = "Every configured lane.", body = List<Queue>))
)]
pub(crate) async fn list(app: App) -> Result<Response, ApiError> {
    let figures = patiently(&app, figures(&app.backends, app.project)).await?;
    let queues = app.config.lanes.iter().zip(figures.lanes).map(|(lane, (name, counters))| Queue {
        name: name.to_string(),
        object: "queue",
        weight: lane.weight,
        queued: counters.queued,
        scheduled: counters.scheduled,
        in_progress: counters.in_progress,
        workers: counters.workers,
        oldest_age_s: counters.oldest_age_s,
    });
    Ok(view::respond(StatusCode::OK, view::json(&List::new(queues.collect(), (None, None), false))))
}

/// Counts a project's tasks.
///
/// # Errors
/// The database is away.
pub(crate) async fn figures(backends: &Backends, project: ProjectId) -> store::Result<Figures> {
    let found = backends.store.queues(Some(project)).await?;
    let workers = backends.store.workers().await?;
    let serving = |lane: &QueueName| workers.iter().filter(|worker| worker.queues.contains(lane)).count();
    let lane = |lane: &QueueName| {
        let found = found.iter().find(|figures| figures.queue == *lane);
        let counters = found.map_or_else(Counters::default, |figures| Counters {
            scheduled: figures.scheduled,
            queued: figures.queued,
            in_progress: figures.in_progress,
            workers: 0,
            oldest_age_s: figures.oldest.as_ref().map(Duration::as_secs_f64),
        });
        (lane.clone(), Counters { workers: serving(lane), ..counters })
    };
    let lanes: Vec<_> = backends.lanes.iter().map(lane).collect();
    let all = all(lanes.iter().map(|(_, counters)| counters), &workers);
    Ok(Figures { lanes, all })
}

fn all<'a>(lanes: impl Iterator<Item = &'a Counters>, workers: &[Worker]) -> Counters {
    let none = Counters { workers: workers.len(), ..Counters::default() };
    lanes.fold(none, |all, lane| Counters {
        scheduled: all.scheduled + lane.scheduled,
        queued: all.queued + lane.queued,
        in_progress: all.in_progress + lane.in_progress,
        workers: all.workers,
        // The older of the two; a lane where nothing is ready has none.
        oldest_age_s: all.oldest_age_s.into_iter().chain(lane.oldest_age_s).reduce(f64::max),
    })
}

impl Counters {
    /// The same to somebody who looks: ages are told by the second.
    pub(crate) fn looks_like(&self, other: &Self) -> bool {
        let by_the_second = |counters: &Self| Self {
            oldest_age_s: counters.oldest_age_s.map(f64::floor),
            ..counters.clone()
        };
        by_the_second(self) == by_the_second(other)
    }
}
