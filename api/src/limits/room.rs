//! How many tasks of a project wait, and whether there is room for more.
//!
//! The database is asked by one request for all of a project's; in between this process adds what it accepts. A count is used for
//! [`FRESH`], and while there is plenty of room for [`ROOMY`]. So each process may accept what the others have accepted in that time,
//! or one [`PART`]th of the room.

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
/// How long it is used at most while less than one [`PART`]th of the room was taken since.
const ROOMY: Duration = Duration::from_secs(5);
const PART: u32 = 16;
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
    count: Option<Count>,
}

/// What was counted last.
#[derive(Clone, Copy)]
struct Count {
    waiting: u32,
    fresh_until: Instant,
    roomy_until: Instant,
}

impl Room {
    /// Whether the last count is good enough to take so many more.
    fn is_known(&self, quota: u32, more: u32, now: Instant) -> bool {
        self.count.is_some_and(|count| {
            let roomy = quota.saturating_sub(count.waiting) / PART;
            let taken = self.waiting.saturating_add(more).saturating_sub(count.waiting);
            now < count.fresh_until || (now < count.roomy_until && taken < roomy)
        })
    }

    fn take(&mut self, quota: u32, more: u32) -> Result<(), ApiError> {
        let waiting = self.waiting.saturating_add(more);
        if waiting > quota {
            return Err(ApiError::QueueFull { quota, never: more > quota });
        }
        self.waiting = waiting;
        Ok(())
    }
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
        let room = self.room(project);
        let mut room = match room.try_lock() {
            Ok(room) => room,
            Err(_) => timeout(DEADLINE, room.lock()).await?,
        };
        if more <= quota && !room.is_known(quota, more, Instant::now()) {
            let asked = Instant::now();
            let waiting = timeout(DEADLINE, self.store.waiting(project, &self.queues, quota)).await??;
            let (now, took) = (Instant::now(), asked.elapsed());
            let count = Count { waiting, fresh_until: now + FRESH.max(10 * took), roomy_until: now + ROOMY };
            *room = Room { waiting, count: Some(count) };
        }
        room.take(quota, more)
    }

    /// Gives room back: there is no task.
    pub(super) async fn leave(&self, project: ProjectId) {
        let room = self.room(project);
        let mut room = room.lock().await;
        room.waiting = room.waiting.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_used_for_longer_while_there_is_plenty_of_room() {
        let now = Instant::now();
        let count = Count { waiting: 200, fresh_until: now + FRESH, roomy_until: now + ROOMY };
        let known = |waiting, more, after: Duration| {
            Room { waiting, count: Some(count) }.is_known(1_000, more, now + after)
        };
        assert!(!Room::default().is_known(1_000, 1, now), "nobody has counted");
        assert!(known(990, 1, FRESH / 2), "just counted");
        assert!(known(200, 49, FRESH) && known(248, 1, FRESH * 2), "less than a sixteenth of 800");
        assert!(!known(200, 50, FRESH) && !known(249, 1, FRESH));
        assert!(!known(200, 1, ROOMY));
    }

    #[test]
    fn what_does_not_fit_takes_nothing() {
        let mut room = Room::default();
        assert!(room.take(10, 6).is_ok());
        assert!(matches!(room.take(10, 5), Err(ApiError::QueueFull { quota: 10, never: false })));
        assert!(matches!(room.take(10, 11), Err(ApiError::QueueFull { quota: 10, never: true })));
        assert!(room.take(10, 4).is_ok() && room.waiting == 10);
        assert!(room.take(10, u32::MAX).is_err() && room.take(10, 0).is_ok());
    }
}
