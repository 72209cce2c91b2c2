//! The lane's window, filled from the backlog: what was too much when it was submitted, and what the queue has lost.

use super::{Error, PATIENCE, PATIENCE_BELL, ring};
use crate::{backends::Backends, task::QueueName};
use tokio::time::timeout;

/// Fills a lane that is less than half full. Ids that are there already stay as they are, so that it may run anywhere, any time.
pub(super) async fn step(backends: &Backends, lane: &QueueName, window: usize) -> Result<(), Error> {
    match timeout(PATIENCE_BELL, backends.queue.depth(lane)).await {
        Ok(Ok(depth)) if depth < window.div_ceil(2) => {}
        Ok(Ok(_)) => return Ok(()),
        failed => {
            // Workers claim straight from the database while the queue is away.
            super::unheard(failed.ok().and_then(Result::err), 0);
            return Ok(());
        }
    }
    let limit = u32::try_from(window).unwrap_or(u32::MAX);
    let bells = timeout(PATIENCE, backends.store.ready(lane, limit)).await??;
    ring(backends, &bells).await;
    Ok(())
}
