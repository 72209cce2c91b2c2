//! News of commits, told beside the work: bells to the queue, changes to the watchers, each process's in the order of its commits.
//!
//! Best effort by design: what is lost here the sweep and the watchers' own look at the rows bring back. So a full pipeline
//! drops news instead of making a client or a slot wait for them.

use crate::{
    backends::Backends,
    events::announce,
    failpoint::{self, Point},
    store::{Bell, Served, Submitted},
    task::{Change, State, Task},
};
use std::{collections::BTreeSet, time::Duration};
use tokio::{
    sync::mpsc,
    task::{JoinSet, yield_now},
    time::timeout,
};

/// News waiting at most, in messages.
const BACKLOG: usize = 256;
/// Messages that are told together.
const TOGETHER: usize = 64;
/// Tasks of a project and lane that are rung for together, because others have ended: so many for each of those and so many more, since
/// other processes ring for the same ones at the same time.
const FREED_EACH: usize = 4;
const FREED_MORE: usize = 16;
const FREED_MAX: usize = 256;
/// Longest time for telling them.
const DEADLINE: Duration = Duration::from_secs(1);

/// What one commit has to tell.
#[derive(Debug, Default)]
pub struct News {
    /// Tasks that are ready.
    pub bells: Vec<Bell>,
    /// Tasks that changed.
    pub changes: Vec<Change>,
}

/// Takes news. When the last clone is gone, what is there is told, and the telling ends.
#[derive(Clone)]
pub struct Herald {
    sender: mpsc::Sender<News>,
}

impl Herald {
    /// Starts the telling on `tasks`.
    pub fn start(tasks: &mut JoinSet<()>, backends: &Backends) -> Self {
        let (sender, receiver) = mpsc::channel(BACKLOG);
        tasks.spawn(run(receiver, backends.clone()));
        Self { sender }
    }

    /// Hands news in and does not wait.
    pub fn tell(&self, news: News) {
        if self.sender.try_send(news).is_err() {
            metrics::counter!("longhaul_news_dropped_total").increment(1);
        }
    }

    /// Hands in news of changes that ring no bell.
    pub fn changed(&self, changes: Vec<Change>) {
        if !changes.is_empty() {
            self.tell(News { bells: Vec::new(), changes });
        }
    }
}

impl News {
    /// News of tasks that were just accepted.
    #[must_use]
    pub fn of_submits(answers: &[Submitted]) -> Self {
        let accepted = answers.iter().filter_map(|answer| match answer {
            Submitted::Accepted(task) => Some(task.as_ref()),
            _ => None,
        });
        let (bells, changes): (Vec<_>, Vec<_>) = accepted.map(|task| (bell(task), change(task))).unzip();
        Self { bells: bells.into_iter().flatten().collect(), changes }
    }
}

fn bell(task: &Task) -> Option<Bell> {
    let ready = task.state == State::Queued;
    ready.then(|| Bell {
        task: task.id,
        project: task.project,
        queue: task.queue.clone(),
        priority: task.priority,
        orphan: false,
    })
}

fn change(task: &Task) -> Change {
    Change {
        task: task.id,
        project: task.project,
        batch: task.batch.as_ref().map(|line| line.batch),
        attempt: task.attempt,
        seq: task.last_seq,
        state: task.state,
        at: Some(task.created_at),
    }
}

/// What may run because other tasks of its project no longer do: only so many of them may at once.
async fn freed(backends: &Backends, changes: &[Change]) -> Vec<Bell> {
    let left = || changes.iter().filter(|change| !matches!(change.state, State::Queued | State::InProgress));
    let projects: BTreeSet<_> = left().map(|change| change.project).collect();
    let limit = (FREED_EACH * left().count() + FREED_MORE).min(FREED_MAX) as u32;
    let capped = backends.caps.known().only(projects.into_iter());
    if capped.is_nobody() {
        return Vec::new();
    }
    let served = Served { capped, ..backends.served() };
    backends.store.ready_capped(&backends.lanes, limit, &served).await.unwrap_or_else(|error| {
        tracing::debug!(error = &error as &dyn std::error::Error, "the sweep rings for what may run now");
        Vec::new()
    })
}

async fn ring(backends: &Backends, bells: &[Bell]) {
    if bells.is_empty() {
        return;
    }
    match backends.queue.push(bells).await {
        Ok(_) => failpoint::pass(Point::NewsRung),
        Err(error) => tracing::debug!(
            error = &error as &dyn std::error::Error,
            "the sweep rings for {} tasks",
            bells.len()
        ),
    }
}

async fn run(mut receiver: mpsc::Receiver<News>, backends: Backends) {
    let backends = &backends;
    let mut gathered = Vec::new();
    while receiver.recv_many(&mut gathered, TOGETHER).await > 0 {
        let mut all = News::default();
        for news in gathered.drain(..) {
            all.bells.extend(news.bells);
            all.changes.extend(news.changes);
        }
        let ring_more = async { ring(backends, &freed(backends, &all.changes).await).await };
        // The bell goes first: Redis does one thing after the other, and a worker waits for it.
        let announce = async {
            yield_now().await;
            announce(&*backends.events, &all.changes).await;
        };
        let telling = async { tokio::join!(ring(backends, &all.bells), announce, ring_more) };
        if timeout(DEADLINE, telling).await.is_err() {
            tracing::debug!("queue or event log too slow: the sweep and the watchers catch up");
        }
        failpoint::pass(Point::NewsTold);
    }
}
