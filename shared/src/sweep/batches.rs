//! Batches on their way out: tasks of those that are being cancelled, and the closing of those without an unfinished task.

use super::{LIMIT, PATIENCE, Step, is_full, tell};
use crate::{
    backends::Backends,
    failpoint::{self, Point},
};
use tokio::time::timeout;

/// Cancels tasks of `cancelling` batches; telling it also tells the workers that run them.
pub(super) async fn cancel(backends: &Backends) -> Step {
    let changes = timeout(PATIENCE, backends.store.cancel_batch_tasks(LIMIT)).await??;
    if !changes.is_empty() {
        failpoint::pass(Point::SweepCancelled);
    }
    tell(backends, &changes).await;
    Ok(is_full(changes.len()))
}

/// Closes batches whose last task has ended.
pub(super) async fn close(backends: &Backends) -> Step {
    let closed = timeout(PATIENCE, backends.store.close_batches(LIMIT)).await??;
    if !closed.is_empty() {
        failpoint::pass(Point::SweepClosed);
    }
    for batch in &closed {
        tracing::info!(%batch, "closed");
    }
    Ok(is_full(closed.len()))
}
