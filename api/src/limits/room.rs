//! How many tasks of a project wait, and whether there is room for more.
//!
//! The database is asked by one request for all of a project's; in between this process adds what it accepts. A count is used for
//! [`FRESH`], and while there is plenty of room for [`ROOMY`]; by half of that one request counts anew, and the others go on. So each process may accept what the others have accepted in that time,
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
    sync::{Mutex, OwnedMutexGuard},
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
    /// Somebody counts anew; meanwhile the last count is used.
    recounted: bool,
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

    /// Whether it is time for somebody to count anew, although the last count is still used.
    fn is_old(&self, now: Instant) -> bool {
        let old = |count: Count| now >= count.fresh_until && now + ROOMY / 2 >= count.roomy_until;
        !self.recounted && self.count.is_some_and(old)
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
        let (mut room, now) = (self.enter(project).await?, Instant::now());
        if more <= quota && !room.is_known(quota, more, now) {
            let count = self.count(project, quota).await?;
            *room = Room { waiting: count.waiting, count: Some(count), recounted: false };
        } else if more <= quota && room.is_old(now) {
            // Where much waits counting takes long: the others do not wait for it.
            let before = room.waiting;
            room.recounted = true;
            drop(room);
            let count = self.count(project, quota).await?;
            room = self.enter(project).await?;
            // Some of these may have been counted.
            let meanwhile = room.waiting.saturating_sub(before);
            let waiting = count.waiting.saturating_add(meanwhile);
            *room = Room { waiting, count: Some(count), recounted: false };
        }
        room.take(quota, more)
    }

    async fn enter(&self, project: ProjectId) -> Result<OwnedMutexGuard<Room>, ApiError> {
        match self.room(project).try_lock_owned() {
            Ok(room) => Ok(room),
            Err(_) => Ok(timeout(DEADLINE, self.room(project).lock_owned()).await?),
        }
    }

    async fn count(&self, project: ProjectId, quota: u32) -> Result<Count, ApiError> {
        let asked = Instant::now();
        let waiting = timeout(DEADLINE, self.store.waiting(project, &self.queues, quota)).await??;
        let (now, took) = (Instant::now(), asked.elapsed());
        Ok(Count { waiting, fresh_until: now + FRESH.max(10 * took), roomy_until: now + ROOMY })
    }

    /// Gives room back for so many: there are no tasks.
    pub(super) async fn leave(&self, project: ProjectId, tasks: u32) {
        let room = self.room(project);
        let mut room = room.lock().await;
        room.waiting = room.waiting.saturating_sub(tasks);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::store::SqliteStore;

    #[test]
    fn a_count_is_used_for_longer_while_there_is_plenty_of_room() {
        let now = Instant::now();
        let count = Count { waiting: 200, fresh_until: now + FRESH, roomy_until: now + ROOMY };
        let known = |waiting, more, after: Duration| {
            Room { waiting, count: Some(count), recounted: false }.is_known(1_000, more, now + after)
        };
        assert!(!Room::default().is_known(1_000, 1, now), "nobody has counted");
        assert!(known(990, 1, FRESH / 2), "just counted");
        assert!(known(200, 49, FRESH) && known(248, 1, FRESH * 2), "less than a sixteenth of 800");
        assert!(!known(200, 50, FRESH) && !known(249, 1, FRESH));
        assert!(!known(200, 1, ROOMY));
        let old = |recounted, after: Duration| {
            Room { waiting: 200, count: Some(count), recounted }.is_old(now + after)
        };
        assert!(!old(false, ROOMY / 3) && old(false, ROOMY / 2) && !old(true, ROOMY / 2));
    }

    /// A request that left while it counted stops nobody: once the count is too old to be used, the next one counts.
    #[tokio::test]
    async fn others_go_on_while_one_counts_anew() {
        let (_folder, rooms) = rooms().await;
        let (project, now) = (ProjectId::new(), Instant::now());
        let count = Count { waiting: 5, fresh_until: now, roomy_until: now + ROOMY / 2 };
        *rooms.room(project).lock().await = Room { waiting: 6, count: Some(count), recounted: true };
        assert!(rooms.take(project, 1_000, 1).await.is_ok());
        assert_eq!(rooms.room(project).lock().await.waiting, 7, "nobody was asked");
        rooms.room(project).lock().await.recounted = false;
        assert!(rooms.take(project, 1_000, 1).await.is_ok());
        assert_eq!(rooms.room(project).lock().await.waiting, 1, "nothing waits in the database");
        let count = Count { roomy_until: now, ..count };
        *rooms.room(project).lock().await = Room { waiting: 6, count: Some(count), recounted: true };
        assert!(rooms.take(project, 1_000, 1).await.is_ok());
        assert_eq!(rooms.room(project).lock().await.waiting, 1);
    }

    #[test]
    fn what_does_not_fit_takes_nothing() {
        let mut room = Room::default();
        assert!(room.take(10, 6).is_ok());
        for more in [5, 10] {
            assert!(matches!(room.take(10, more), Err(ApiError::QueueFull { quota: 10, never: false })));
        }
        assert!(matches!(room.take(10, 11), Err(ApiError::QueueFull { quota: 10, never: true })));
        assert!(room.take(10, 4).is_ok() && room.waiting == 10);
        assert!(room.take(10, u32::MAX).is_err() && room.take(10, 0).is_ok());
    }

    async fn rooms() -> (tempfile::TempDir, Rooms) {
        let folder = tempfile::tempdir().expect("a folder");
        let store = SqliteStore::open(&folder.path().join("t.db")).await.expect("a store");
        store.migrate().await.expect("a schema");
        (folder, Rooms::new(Arc::new(store), vec![QueueName::new("default").expect("a name")]))
    }

    #[tokio::test]
    async fn the_database_is_asked_once_and_the_rest_is_counted_here() {
        let (_folder, rooms) = rooms().await;
        let (project, begun) = (ProjectId::new(), Instant::now());
        assert!(rooms.take(project, 10, 6).await.is_ok());
        let count = rooms.room(project).lock().await.count.expect("it was counted");
        assert!(count.fresh_until >= begun + FRESH && count.roomy_until >= begun + ROOMY);
        // Whatever the machine's pace: still fresh.
        let fresh = Count { fresh_until: begun + DEADLINE * 100, ..count };
        rooms.room(project).lock().await.count = Some(fresh);
        let full = rooms.take(project, 10, 5).await;
        assert!(matches!(full, Err(ApiError::QueueFull { quota: 10, never: false })));
        rooms.leave(project, 1).await;
        assert!(rooms.take(project, 10, 5).await.is_ok() && rooms.take(project, 10, 1).await.is_err());
        let other = ProjectId::new();
        assert!(matches!(rooms.take(other, 10, 11).await, Err(ApiError::QueueFull { never: true, .. })));
        assert!(rooms.room(other).lock().await.count.is_none(), "nobody had to be asked");
        assert!(rooms.take(other, 10, 10).await.is_ok());
    }

    #[tokio::test]
    async fn rooms_that_nobody_uses_go_once_there_are_many() {
        let (_folder, rooms) = rooms().await;
        let (kept, used) = (ProjectId::new(), ProjectId::new());
        rooms.room(kept).lock().await.waiting = 7;
        for _ in 2..KEPT {
            rooms.room(ProjectId::new());
        }
        assert_eq!(rooms.room(kept).lock().await.waiting, 7, "not many");
        let held = rooms.room(used);
        rooms.room(ProjectId::new());
        assert!(Arc::ptr_eq(&held, &rooms.room(used)));
        assert_eq!(rooms.rooms.lock().expect("a lock").len(), 2);
    }
}
