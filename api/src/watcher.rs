//! Which tasks this process is watched for, and one look at all of their rows every second.
//!
//! A process may die between a commit and telling of it, and the event log may lose anything: this look heals both. It is one
//! statement for all watched tasks, however many watch them.

use shared::{
    store::Store,
    task::{Change, TaskId},
};
use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{sync::watch, task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

/// Time between two looks.
const PERIOD: Duration = Duration::from_secs(1);
/// Longest time for one look.
const DEADLINE: Duration = Duration::from_secs(5);
/// Tasks per statement.
const IDS_MAX: usize = 4_000;

/// What the last look saw.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Seen {
    /// There was none yet.
    Nothing,
    /// The row.
    Row(Change),
    /// There is no such row any more.
    Gone,
}

type Watched = Arc<Mutex<HashMap<TaskId, watch::Sender<Seen>>>>;

/// The register of watched tasks.
pub(crate) struct Watcher {
    watched: Watched,
}

/// One watch on one task: dropping it ends it.
pub(crate) struct Watch {
    id: TaskId,
    seen: Option<watch::Receiver<Seen>>,
    watched: Watched,
}

impl Watcher {
    /// Starts the looking on `tasks`, until `stop`.
    pub(crate) fn start(tasks: &mut JoinSet<()>, store: Arc<dyn Store>, stop: CancellationToken) -> Self {
        let watched = Watched::default();
        let looking = watched.clone();
        tasks.spawn(async move {
            let looks = look_on(store, looking);
            // Ends between two looks or inside one: a look only reads.
            stop.run_until_cancelled_owned(looks).await;
        });
        Self { watched }
    }

    /// Watches a task.
    pub(crate) fn watch(&self, id: TaskId) -> Watch {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let sender = watched.entry(id).or_insert_with(|| watch::Sender::new(Seen::Nothing));
        let mut seen = sender.subscribe();
        // What an earlier watcher was told may be new to this one.
        seen.mark_changed();
        Watch { id, seen: Some(seen), watched: self.watched.clone() }
    }
}

impl Watch {
    /// What the next look sees that differs from the last.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub(crate) async fn changed(&mut self) -> Seen {
        let Some(seen) = self.seen.as_mut() else { return std::future::pending().await };
        match seen.changed().await {
            Ok(()) => seen.borrow_and_update().clone(),
            // The register keeps the sender for as long as there is a receiver.
            Err(_) => std::future::pending().await,
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.seen = None;
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        if watched.get(&self.id).is_some_and(|sender| sender.receiver_count() == 0) {
            watched.remove(&self.id);
        }
    }
}

async fn look_on(store: Arc<dyn Store>, watched: Watched) {
    let mut tick = tokio::time::interval(PERIOD);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let ids: Vec<TaskId> =
            watched.lock().unwrap_or_else(PoisonError::into_inner).keys().copied().collect();
        for ids in ids.chunks(IDS_MAX) {
            match timeout(DEADLINE, store.glance(ids)).await {
                Ok(Ok(rows)) => note(&watched, ids, rows),
                Ok(Err(error)) => {
                    tracing::debug!(
                        error = &error as &dyn std::error::Error,
                        "watched tasks are looked at later"
                    );
                }
                Err(_) => tracing::debug!("watched tasks are looked at later: the database is slow"),
            }
        }
    }
}

fn note(watched: &Watched, asked: &[TaskId], rows: Vec<Change>) {
    let found: HashSet<TaskId> = rows.iter().map(|row| row.task).collect();
    let gone = asked.iter().filter(|id| !found.contains(id)).map(|id| (*id, Seen::Gone));
    let rows = rows.into_iter().map(|row| (row.task, Seen::Row(row)));
    let watched = watched.lock().unwrap_or_else(PoisonError::into_inner);
    for (id, seen) in rows.chain(gone) {
        if let Some(sender) = watched.get(&id) {
            sender.send_if_modified(|last| {
                let new = *last != seen;
                *last = seen;
                new
            });
        }
    }
}
