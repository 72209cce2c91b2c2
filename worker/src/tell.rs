//! What one attempt tells its watchers while it runs: the task's event log.
//!
//! A task that is over within [`QUIET`] never gets a log: its events derive from the row. Later the first chunk is told at once and
//! the following ones are gathered over [`GATHER`], one seq per chunk. Where chunks may have been lost, because nobody knows whether they
//! were told or because the log is gone, a `task.snapshot` with the answer so far makes it good; a long log has one now and then, for those
//! who come late.
//!
//! A seq means one event for ever: watchers come back with the last one that they have heard. Where an earlier attempt may have told
//! more than the row knows, and the log that did know is lost, the next one begins far beyond: see [`LEAP`].

use crate::{
    context::Shout,
    fold::{Fold, snapshot_data},
};
use serde_json::value::RawValue;
use shared::{
    clock::UnixMs,
    events::{Append, Appended, SNAPSHOT_EVERY, no_details},
    failpoint::{self, Point},
    store::Claimed,
    task::{EventKind, TaskId},
};
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

/// Tasks that end sooner have no log.
const QUIET: Duration = Duration::from_millis(50);
/// Chunks are gathered over this time.
const GATHER: Duration = Duration::from_millis(25);
/// Chunks that are told without waiting longer.
const CHUNKS_MAX: usize = 256;
/// Seqs that are left free for each attempt whose log is lost: more than any could have told.
const LEAP: i64 = 1 << 32;
/// Longest wait for the event log.
const PATIENCE: Duration = Duration::from_secs(2);
/// Wait after a failure, doubled with each, up to this: while nobody answers, the upstream is not read.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);

type Held = (EventKind, UnixMs, Arc<RawValue>);

/// What watchers and the log may lack.
#[derive(PartialEq, Eq)]
enum Lack {
    Nothing,
    /// There is no log any more.
    Log,
    /// Nobody knows whether the last chunks were told.
    Chunks,
}

/// The voice of one attempt.
pub(crate) struct Teller {
    shout: Shout,
    /// Cancelled when the log has seen a newer attempt.
    stop: CancellationToken,
    task: TaskId,
    attempt: u32,
    /// Seq of this attempt's `task.started`.
    started: i64,
    /// An earlier attempt may have told more than the row knows: see [`Claimed::floor_unknown`]; or the task was made before the logs were.
    has_a_past: bool,
    /// Seq of the last event in the log, once there is one.
    last: Option<i64>,
    held: Vec<Held>,
    /// Events told since the last snapshot.
    since: usize,
    lack: Lack,
    pause: Duration,
    /// Before this moment nothing is told.
    not_before: Instant,
    /// Another attempt speaks.
    mute: bool,
}

impl Teller {
    /// `stop` ends the attempt when it turns out to be an old one.
    pub(crate) fn new(shout: Shout, claimed: &Claimed, stop: CancellationToken) -> Self {
        let has_a_past = claimed.floor_unknown || claimed.task.made_at() < shout.events.born();
        Self {
            shout,
            stop,
            task: claimed.task,
            attempt: claimed.attempt,
            started: claimed.last_seq,
            has_a_past,
            last: None,
            held: Vec::new(),
            since: 0,
            lack: Lack::Nothing,
            pause: PAUSE,
            not_before: Instant::now() + QUIET,
            mute: false,
        }
    }

    /// Keeps a chunk until it is due.
    pub(crate) fn hold(&mut self, data: Box<RawValue>) {
        // While chunks are lacking, a snapshot will stand for this one as well.
        if !self.mute && self.lack != Lack::Chunks {
            self.held.push((EventKind::Delta, UnixMs::now(), data.into()));
        }
    }

    fn has_something(&self) -> bool {
        !self.mute && (!self.held.is_empty() || self.lack != Lack::Nothing)
    }

    /// Whether something should be told by now.
    pub(crate) fn is_due(&self) -> bool {
        let full = self.last.is_some() && self.held.len() >= CHUNKS_MAX && self.lack == Lack::Nothing;
        self.has_something() && (full || Instant::now() >= self.not_before)
    }

    /// Waits until something should be told; for ever if there is nothing.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub(crate) async fn due(&self) {
        if !self.has_something() {
            return std::future::pending().await;
        }
        sleep_until(self.not_before).await;
    }

    /// Tells what is held, of the answer so far.
    pub(crate) async fn flush(&mut self, so_far: &Fold) {
        if !self.has_something() {
            return;
        }
        self.not_before = Instant::now() + GATHER;
        let start = self.last.is_none() || self.lack != Lack::Nothing;
        let floor = match self.last {
            Some(last) => Some(last + 1),
            None => self.first_seq().await,
        };
        let Some(floor) = floor else { return self.rest() };
        let events = self.gather(so_far);
        let count = events.len();
        let append =
            Append { task: self.task, attempt: self.attempt, floor, start, events, topics: Vec::new() };
        match self.shout.append(append).await {
            Some(Appended::Last(seq)) => {
                failpoint::pass(Point::RunTold);
                (self.last, self.lack, self.pause) = (Some(seq), Lack::Nothing, PAUSE);
            }
            Some(Appended::Unkept(seq)) => (self.last, self.lack) = (Some(seq), Lack::Log),
            Some(Appended::Stale) => {
                metrics::counter!("longhaul_fenced_writes_total", "what" => "events").increment(1);
                self.mute = true;
                self.stop.cancel();
            }
            // If they were told, then with these seqs: the next ones are others.
            None => {
                (self.last, self.lack) = (Some(floor - 1 + count as i64), Lack::Chunks);
                self.rest();
            }
        }
    }

    fn rest(&mut self) {
        self.not_before = Instant::now() + self.pause;
        self.pause = (2 * self.pause).min(PAUSE_MAX);
    }

    /// The seq of this attempt's start in the log. `None`: nobody knows what earlier ones have told.
    async fn first_seq(&self) -> Option<i64> {
        if self.attempt == 1 || !self.has_a_past || self.has_log().await? {
            return Some(self.started);
        }
        Some(self.started.saturating_add(i64::from(self.attempt - 1).saturating_mul(LEAP)))
    }

    async fn has_log(&self) -> Option<bool> {
        let read = self.shout.events.read(self.task, Some(self.started));
        let log = timeout(PATIENCE, read).await.ok()?.ok()?;
        Some(log.first.is_some())
    }

    /// What is to be told now: before the first chunk, that the attempt has started and that what earlier ones have shown is taken
    /// back; then the chunks, unless a snapshot stands for them; then a snapshot where one is needed.
    fn gather(&mut self, so_far: &Fold) -> Vec<Held> {
        let now = |kind| (kind, UnixMs::now(), no_details());
        let mut events = Vec::with_capacity(self.held.len() + 2);
        if self.last.is_none() {
            events.push(now(EventKind::Started));
            events.extend((self.attempt > 1).then(|| now(EventKind::Reset)));
        }
        let chunks = std::mem::take(&mut self.held);
        self.since += chunks.len();
        if self.lack != Lack::Chunks {
            events.extend(chunks);
        }
        if self.lack != Lack::Nothing || self.since >= SNAPSHOT_EVERY {
            self.since = 0;
            let data = snapshot_data(so_far).map_or_else(no_details, Into::into);
            events.push((EventKind::Snapshot, UnixMs::now(), data));
        }
        events
    }

    /// Tells the rest, unless the attempt was over before it had anything to tell, or nobody has answered the last time: its end tells all.
    pub(crate) async fn close(&mut self, so_far: &Fold) {
        let begun = self.last.is_some() || Instant::now() >= self.not_before;
        if begun && self.lack != Lack::Chunks {
            self.flush(so_far).await;
        }
        self.held.clear();
    }

    /// Lowest seq that the terminal event may get.
    pub(crate) fn floor(&self) -> i64 {
        self.last.map_or(0, |seq| seq + 1)
    }
}
