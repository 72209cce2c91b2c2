//! The lanes' windows, filled from the backlog: what was too much when it was submitted, and what the queue has lost.
//!
//! A walk of its own, ten times as quick as the other duties while there is a backlog: workers empty a window faster than once
//! a second.

use super::{Error, PATIENCE, PATIENCE_BELL, ring, uneven};
use crate::{
    backends::Backends,
    config::Config,
    failpoint::{self, Point},
    store::Open,
    task::QueueName,
};
use tokio::time::{sleep, timeout};

/// Fills windows for ever.
pub(super) async fn walk(backends: &Backends, config: &Config) {
    loop {
        let mut backlog = false;
        for lane in &config.lanes {
            match step(backends, &lane.name, config.window).await {
                Ok(more) => backlog |= more,
                // The other duties' walk tells of outages.
                Err(error) => tracing::debug!(error = &error as &dyn std::error::Error, "no refill"),
            }
        }
        sleep(uneven(if backlog { config.sweep_period / 10 } else { config.sweep_period })).await;
    }
}

/// Fills a lane that is less than half full; tells whether more waits than a window holds, as far as one can see. Ids that are
/// there already stay as they are, so that it may run anywhere, any time.
async fn step(backends: &Backends, lane: &QueueName, window: usize) -> Result<bool, Error> {
    match timeout(PATIENCE_BELL, backends.queue.depth(lane)).await {
        Ok(Ok(depth)) if depth < window.div_ceil(2) => {}
        Ok(Ok(_)) => return Ok(true),
        failed => {
            // Workers claim straight from the database while the queue is away.
            super::unheard(failed.ok().and_then(Result::err), 0);
            return Ok(false);
        }
    }
    let served = backends.served();
    if served.open.is_nothing() {
        return Ok(false);
    }
    let limit = u32::try_from(window).unwrap_or(u32::MAX);
    let mut bells = timeout(PATIENCE, backends.store.ready(lane, limit, &served)).await??;
    let full = bells.len() >= window;
    if !served.capped.is_nobody() {
        bells.extend(
            timeout(PATIENCE, backends.store.ready_capped(std::slice::from_ref(lane), limit, &served))
                .await??,
        );
    }
    let more = ring(backends, &bells).await && full;
    if !bells.is_empty() {
        failpoint::pass(Point::SweepRefilled);
    }
    // What is not served has to be read past, which may be much.
    Ok(more && *served.open == Open::All)
}
