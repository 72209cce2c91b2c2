//! The way out: claims tasks, calls the model server, finishes them.
//!
//! In: ids from the queue, rows from the store. Out: one call of a model server per attempt, one finish. Never here: HTTP from
//! clients, and decisions that the store takes.
//!
//! The way of a task: `claim` → `backend` → `run` (→ `moderate`) → `upstream` (→ `tell`) → `decide` → `finish`. What an upstream sends is
//! read by `sse` and `fold`, judged by `answer`, what it says of failures is read by `said`, rid of
//! what it repeats of the request by `echo`, and judged by `classify`.
//! Beside it: `lease` keeps the worker alive, `cancel` hears of cancelled tasks, `catalog` notes models, `breaker` judges upstreams by
//! their calls, `probe` tries those that fail, and `webhook` tells receivers of ends.

mod answer;
mod backend;
mod breaker;
mod cancel;
mod catalog;
mod claim;
mod classify;
mod context;
mod crew;
mod decide;
mod echo;
mod finish;
mod fold;
mod json;
mod lease;
mod listen;
mod moderate;
mod probe;
mod pulse;
mod quarantine;
mod run;
mod said;
mod sse;
mod tell;
#[cfg(test)]
mod tests;
mod upstream;
mod usage;
mod webhook;

use crate::{backend::Leases, context::Context, crew::Crew};
use shared::{backends::Backends, config::Config};
use std::sync::Arc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Runs a worker until `stop`, then drains: stop claiming, let running attempts finish within the grace time, hand over the rest.
///
/// # Errors
/// What made it end without being asked to.
pub async fn run(backends: Backends, config: Arc<Config>, stop: CancellationToken) -> anyhow::Result<()> {
    let mut commits = JoinSet::new();
    let ctx = Context::open(backends, config, stop.child_token(), &mut commits)?;
    let (hand, leases) = Leases::channel(context::slots(&ctx.config) + ctx.servers.len());
    let crew = Crew::start(&ctx, hand, leases.clone()).await?;
    backend::serve(&ctx, leases).await;
    crew.end(ctx, commits).await
}
