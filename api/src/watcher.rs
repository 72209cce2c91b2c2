//! Which tasks this process is watched for, and one look at all of their rows every second.
//!
//! A process may die between a commit and telling of it, and the event log may lose anything: this look heals both. It is one
//! statement for all watched tasks, however many watch them.

use crate::register::{Register, Watch};
use shared::{
    store::Store,
    task::{Change, TaskId},
};
use std::{collections::HashSet, sync::Arc, time::Duration};
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval, timeout},
};
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
    /// The row.
    Row(Change),
    /// There is no such row any more.
    Gone,
}

/// The watched tasks.
pub(crate) struct Watcher {
    register: Register<TaskId, Seen>,
}

impl Watcher {
    /// Starts the looking on `tasks`, until `stop`.
    pub(crate) fn start(tasks: &mut JoinSet<()>, store: Arc<dyn Store>, stop: CancellationToken) -> Self {
        let register = Register::default();
        let looks = look_on(store, register.clone());
        tasks.spawn(async move {
            // Ends between two looks or inside one: a look only reads.
            stop.run_until_cancelled_owned(looks).await;
        });
        Self { register }
    }

    /// Watches a task.
    pub(crate) fn watch(&self, id: TaskId) -> Watch<TaskId, Seen> {
        self.register.watch(id)
    }
}

async fn look_on(store: Arc<dyn Store>, register: Register<TaskId, Seen>) {
    let mut tick = interval(PERIOD);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        for ids in register.keys().chunks(IDS_MAX) {
            match timeout(DEADLINE, store.glance(ids)).await {
                Ok(Ok(rows)) => register.note(seen(ids, rows)),
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

fn seen(asked: &[TaskId], rows: Vec<Change>) -> Vec<(TaskId, Seen)> {
    let found: HashSet<TaskId> = rows.iter().map(|row| row.task).collect();
    let gone = asked.iter().filter(|id| !found.contains(id)).map(|id| (*id, Seen::Gone));
    rows.into_iter().map(|row| (row.task, Seen::Row(row))).chain(gone).collect()
}
