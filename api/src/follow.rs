//! Following one task: the engine behind the event stream, the socket and the long poll.
//!
//! ```text
//! subscribe and register → read the row → read the log (or derive from the row) → live
//!                              ↑                                                   │
//!                              └── a gap · fell behind · the row knows more ───────┘
//! ```
//! It tells every event of a run once and in order, and ends after the terminal one. Whatever may be lost on the way (a
//! publish, the log, the transport) shows as a gap or in the look at the row that the [`crate::watcher`] takes every second;
//! then the log and the row are read again. History that is gone is told as one `task.snapshot`.

use crate::{
    error::ApiError,
    fetch::DEADLINE,
    register::Watch,
    state::App,
    story::{Place, is_lost, place, since, snapshot, standing},
    watcher::Seen,
};
use shared::{
    events::{Log, Subscription},
    task::{Change, Event, Task, TaskId},
};
use std::{collections::VecDeque, sync::Arc, time::Duration};
use tokio::time::{sleep, timeout};

/// Pause while the database is away.
const PAUSE: Duration = Duration::from_secs(1);

/// One task, followed from a cursor.
pub(crate) struct Follow {
    app: App,
    id: TaskId,
    /// Seq of the newest event in `ready` or told.
    cursor: Option<i64>,
    ready: VecDeque<Arc<Event>>,
    live: Option<Subscription>,
    watch: Watch<TaskId, Seen>,
    /// The newest `last_seq` seen in the row: a terminal event before it belongs to an earlier run.
    row_seq: i64,
    /// Something was missed: read again.
    behind: bool,
    /// The event that showed it.
    ahead: Option<Arc<Event>>,
    /// The last event is in `ready`, or told.
    over: bool,
}

impl Follow {
    /// Starts after the event `after`, or at the beginning. `None`: the project has no such task.
    ///
    /// # Errors
    /// The database is away.
    pub(crate) async fn open(app: &App, id: TaskId, after: Option<i64>) -> Result<Option<Self>, ApiError> {
        // Both ears open before the first look, so that nothing falls between.
        let watch = app.watcher.watch(id);
        let live = subscribe(app, id).await;
        let Some(task) = timeout(DEADLINE, app.backends.store.get(app.project, id)).await?? else {
            return Ok(None);
        };
        let (app, ready) = (app.clone(), VecDeque::new());
        let mut follow = Self {
            app,
            id,
            cursor: after,
            ready,
            live,
            watch,
            row_seq: 0,
            behind: false,
            ahead: None,
            over: false,
        };
        follow.catch_up(&task).await;
        Ok(Some(follow))
    }

    /// Whether nothing is left to tell.
    pub(crate) fn is_over(&self) -> bool {
        self.over && self.ready.is_empty()
    }

    /// The next event; `None` after the terminal one.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub(crate) async fn next(&mut self) -> Option<Arc<Event>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            if self.over {
                return None;
            }
            if self.behind {
                self.look().await;
                continue;
            }
            tokio::select! {
                event = next_live(self.live.as_mut()) => match event {
                    Some(event) => self.hear(event),
                    None => self.behind = true,
                },
                seen = self.watch.changed() => match seen {
                    Seen::Row(row) => self.behind = self.is_behind(&row),
                    Seen::Gone => self.over = true,
                },
            }
        }
    }

    fn hear(&mut self, event: Arc<Event>) {
        match place(self.cursor, &event) {
            Place::Next => self.queue(event),
            Place::Gap => {
                self.behind = true;
                self.ahead = Some(event);
            }
            Place::Old => {}
        }
    }

    fn is_behind(&self, row: &Change) -> bool {
        row.state.is_terminal() || self.cursor.is_none_or(|cursor| row.seq > cursor)
    }

    fn queue(&mut self, event: Arc<Event>) {
        self.cursor = Some(event.seq);
        self.over |= event.kind.is_terminal() && event.seq >= self.row_seq;
        self.ready.push_back(event);
    }

    /// Reads row and log again.
    async fn look(&mut self) {
        if self.live.is_none() {
            self.live = subscribe(&self.app, self.id).await;
        }
        match timeout(DEADLINE, self.app.backends.store.get(self.app.project, self.id)).await {
            Ok(Ok(Some(task))) => {
                let read = self.catch_up(&task).await;
                self.behind = false;
                self.skip_to(&task, read);
            }
            Ok(Ok(None)) => self.over = true,
            Ok(Err(error)) => {
                tracing::debug!(task = %self.id, error = &error as &dyn std::error::Error, "followed on later");
                sleep(PAUSE).await;
            }
            Err(_) => tracing::debug!(task = %self.id, "followed on later: the database is slow"),
        }
    }

    /// What is published is in its log before. So if an event was heard, and the log that was read since does not lead to it, what
    /// came before it is lost.
    fn skip_to(&mut self, task: &Task, read: bool) {
        let Some(event) = self.ahead.take() else { return };
        let gap = place(self.cursor, &event) == Place::Gap && !event.kind.is_terminal();
        if read && gap && !self.over && event.attempt == task.attempt {
            self.queue(Arc::new(snapshot(task, event.seq - 1)));
            self.queue(event);
        }
    }

    /// Queues what row and log know after the cursor. Whether the log could be read.
    async fn catch_up(&mut self, task: &Task) -> bool {
        // From one before the cursor on: whether the cursor's own event is there tells whether the log is still the same.
        let Some(mut log) = self.log(self.cursor.map(|cursor| cursor - 1)).await else {
            // The log is away, which is not the same as lost: only what the row is sure of is told.
            self.row_seq = task.last_seq;
            if self.cursor.is_none_or(|cursor| cursor < task.last_seq) || task.state.is_terminal() {
                self.tell(task, Log::default());
            }
            return false;
        };
        self.row_seq = task.last_seq;
        if is_lost(self.cursor, task, &log) {
            self.queue(Arc::new(snapshot(task, standing(task))));
            log = self.log(self.cursor).await.unwrap_or_default();
        }
        self.tell(task, log);
        true
    }

    fn tell(&mut self, task: &Task, log: Log) {
        if is_lost(self.cursor, task, &log) && task.state.is_terminal() {
            self.queue(Arc::new(snapshot(task, standing(task))));
        }
        for event in since(self.cursor, task, log) {
            self.queue(Arc::new(event));
        }
        self.over |= task.state.is_terminal() && self.cursor.is_some_and(|cursor| cursor >= task.last_seq);
    }

    async fn log(&self, after: Option<i64>) -> Option<Log> {
        match timeout(DEADLINE, self.app.backends.events.read(self.id, after)).await {
            Ok(Ok(log)) => Some(log),
            Ok(Err(error)) => {
                tracing::debug!(task = %self.id, error = &error as &dyn std::error::Error, "the log is read later");
                None
            }
            Err(_) => None,
        }
    }
}

async fn subscribe(app: &App, id: TaskId) -> Option<Subscription> {
    match timeout(DEADLINE, app.backends.events.subscribe(shared::task::Topic::Task(id))).await {
        Ok(Ok(subscription)) => Some(subscription),
        Ok(Err(error)) => {
            tracing::debug!(task = %id, error = &error as &dyn std::error::Error, "followed by its row alone");
            None
        }
        Err(_) => None,
    }
}

/// The next live event; `None` if some were missed.
async fn next_live(live: Option<&mut Subscription>) -> Option<Arc<Event>> {
    match live {
        Some(live) => live.next().await.ok(),
        None => std::future::pending().await,
    }
}
