//! How many tasks of a project wait, and whether there is room for more.
//!
//! The database is asked at most every [`FRESH`], by one request for all of a project's; in between this process adds what it accepts. So
//! each process may accept what the others have accepted in that time.

use crate::{error::ApiError, fetch::DEADLINE};
use shared::{
    store::Store,
    task::{ProjectId, QueueName},
};
use std::{
    collections::HashMap,
    sync::{Arc, PoisonError},
    time::Duration,
};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};

/// How long a count is used; longer where counting takes long.
const FRESH: Duration = Duration::from_millis(250);
/// Projects that are kept before those that nobody uses go.
const KEPT: usize = 4_096;

/// Counts of waiting tasks.
pub(super) struct Rooms {
    store: Arc<dyn Store>,
    queues: Vec<QueueName>,
    rooms: std::sync::Mutex<HashMap<ProjectId, Arc<Mutex<Room>>>>,
}

#[derive(Default)]
struct Room {
    waiting: u32,
    good_until: Option<Instant>,
}

impl Rooms {
    pub(super) fn new(store: Arc<dyn Store>, queues: Vec<QueueName>) -> Self {
        Self { store, queues, rooms: std::sync::Mutex::default() }
    }

    fn room(&self, project: ProjectId) -> Arc<Mutex<Room>> {
        let mut rooms = self.rooms.lock().unwrap_or_else(PoisonError::into_inner);
        if rooms.len() >= KEPT {
            rooms.retain(|_, room| Arc::strong_count(room) > 1);
        }
        rooms.entry(project).or_default().clone()
    }

    /// Takes room for so many.
    ///
    /// # Errors
    /// There is none, or the database is away.
    pub(super) async fn take(&self, project: ProjectId, quota: u32, more: u32) -> Result<(), ApiError> {
        if more > quota {
            return Err(ApiError::QueueFull { quota, never: true });
        }
        let room = self.room(project);
        let mut room = timeout(DEADLINE, room.lock()).await?;
        if room.good_until.is_none_or(|until| until <= Instant::now()) {
            let asked = Instant::now();
            room.waiting = timeout(DEADLINE, self.store.waiting(project, &self.queues, quota)).await??;
            room.good_until = Some(Instant::now() + FRESH.max(10 * asked.elapsed()));
        }
        if room.waiting.saturating_add(more) > quota {
            return Err(ApiError::QueueFull { quota, never: false });
        }
        room.waiting += more;
        Ok(())
    }

    /// Gives room back: there is no task.
    pub(super) async fn leave(&self, project: ProjectId) {
        let room = self.room(project);
        let mut room = room.lock().await;
        room.waiting = room.waiting.saturating_sub(1);
    }
}
