//! Tasks whose deadline or queue timeout has passed. A worker that still runs one hears of it with its next heartbeat.

use super::{LIMIT, PATIENCE, Step, is_full, tell};
use crate::{
    backends::Backends,
    failpoint::{self, Point},
};
use tokio::time::timeout;

pub(super) async fn step(backends: &Backends) -> Step {
    let changes = timeout(PATIENCE, backends.store.expire(LIMIT)).await??;
    if !changes.is_empty() {
        failpoint::pass(Point::SweepExpired);
    }
    tell(backends, &changes).await;
    Ok(is_full(changes.len()))
}
