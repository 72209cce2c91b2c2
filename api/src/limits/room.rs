//! How many tasks of a project wait, and whether there is room for more.
//!
//! The database is asked at most every [`FRESH`]; in between this process adds what it accepts. So each process may accept what the others
//! have accepted in that time.

use crate::{error::ApiError, fetch::DEADLINE};
use shared::{
    store::Store,
    task::{ProjectId, QueueName},
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::{Instant, timeout};

/// How long a count is used.
const FRESH: Duration = Duration::from_millis(250);
/// Counts that are kept before old ones go.
const KEPT: usize = 4_096;

/// Counts of waiting tasks.
pub(super) struct Rooms {
    store: Arc<dyn Store>,
    queues: Vec<QueueName>,
    counts: Mutex<HashMap<ProjectId, (u32, Instant)>>,
}

impl Rooms {
    pub(super) fn new(store: Arc<dyn Store>, queues: Vec<QueueName>) -> Self {
        Self { store, queues, counts: Mutex::default() }
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<ProjectId, (u32, Instant)>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes room for so many.
    ///
    /// # Errors
    /// There is none, or the database is away.
    pub(super) async fn take(&self, project: ProjectId, quota: u32, more: u32) -> Result<(), ApiError> {
        let known = self.counts().get(&project).copied();
        if known.is_none_or(|(_, at)| at.elapsed() >= FRESH) {
            let waiting = timeout(DEADLINE, self.store.waiting(project, &self.queues, quota)).await??;
            let mut counts = self.counts();
            if counts.len() >= KEPT {
                counts.retain(|_, (_, at)| at.elapsed() < FRESH);
            }
            counts.insert(project, (waiting, Instant::now()));
        }
        let mut counts = self.counts();
        let (waiting, _) = counts.entry(project).or_insert((0, Instant::now()));
        if waiting.saturating_add(more) > quota {
            return Err(ApiError::QueueFull { quota });
        }
        *waiting += more;
        Ok(())
    }
}
