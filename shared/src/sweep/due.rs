//! Scheduled tasks whose time has come: into their lane.

use super::{LIMIT, PATIENCE, Step, is_full, ring, tell};
use crate::{
    backends::Backends,
    failpoint::{self, Point},
    store::Bell,
    task::Change,
};
use tokio::time::timeout;

pub(super) async fn step(backends: &Backends) -> Step {
    let due = timeout(PATIENCE, backends.store.due(LIMIT)).await??;
    let (changes, bells): (Vec<Change>, Vec<Bell>) = due.into_iter().unzip();
    if !bells.is_empty() {
        failpoint::pass(Point::SweepDue);
    }
    // The news first: a worker that hears the bell has news of its own.
    tell(backends, &changes).await;
    ring(backends, &bells).await;
    Ok(is_full(bells.len()))
}
