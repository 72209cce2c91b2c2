//! What one attempt tells its watchers while it runs: the task's event log.
//!
//! A task that is over within [`QUIET`] never gets a log: its events derive from the row. Later the first chunk is told at once and
//! the following ones are gathered over [`GATHER`], one seq per chunk. Where chunks may have been lost, because nobody knows whether they
//! were told or because the log is gone, a `task.snapshot` with the answer so far makes it good; a long log has one now and then, for those
//! who come late.
//!
//! A seq means one event for ever: watchers come back with the last one that they have heard. Where an earlier attempt may have told
//! more than the row knows, and the log that did know is lost or does not answer, the next one begins far beyond: see [`LEAP`].
//!
//! The row must not let a watcher believe that it has heard all when it has not: [`Teller::floor`] leaves a seq free in front of the end
//! wherever output is not known to have been told, or output of an earlier attempt is not known to have been taken back. Nobody
//! has heard an event of that seq, so that every watcher, at every API and at any later time, sees a gap there and is told the
//! whole answer in its place.

use crate::{
    context::Shout,
    fold::{Fold, snapshot_data},
};
use serde_json::value::RawValue;
use shared::{
    clock::UnixMs,
    events::{Append, Appended, Events, SNAPSHOT_EVERY, no_details},
    failpoint::{self, Point},
    store::Claimed,
    task::{BatchId, EventKind, ProjectId, Relay, TaskId, Topic},
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
/// Seqs that are left free for each attempt before one whose log is lost: more than any run could have told.
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

/// Lowest seqs of the events that may follow an attempt.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Floor {
    /// Of another attempt's announcement.
    pub(crate) again: i64,
    /// Of an end without an answer.
    pub(crate) end: i64,
    /// Of an end with one: whoever has not heard all of the answer finds a gap before it.
    pub(crate) answer: i64,
}

/// Whether an earlier attempt may have told more than the row knows: see [`Claimed::floor_unknown`]; or the task was made before the
/// logs were. Only what is told in deltas can be more than the row knows.
pub(crate) fn has_a_past(claimed: &Claimed, events: &dyn Events) -> bool {
    claimed.relay == Relay::Deltas
        && claimed.attempt > 1
        && (claimed.floor_unknown || claimed.task.made_at() < events.born())
}

/// The voice of one attempt.
pub(crate) struct Teller {
    shout: Shout,
    /// Cancelled when the log has seen a newer attempt.
    stop: CancellationToken,
    task: TaskId,
    project: ProjectId,
    batch: Option<BatchId>,
    attempt: u32,
    /// Seq and time of this attempt's `task.started`, as the row has them.
    started: (i64, UnixMs),
    /// Whether it has any output to tell.
    has_output: bool,
    /// See [`has_a_past`].
    has_a_past: bool,
    /// Seq of the last event that may have been told, once there is one.
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
        let has_a_past = has_a_past(claimed, &*shout.events);
        Self {
            shout,
            stop,
            task: claimed.task,
            project: claimed.project,
            batch: claimed.batch,
            attempt: claimed.attempt,
            started: (claimed.last_seq, claimed.started_at),
            has_output: claimed.relay == Relay::Deltas,
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

    /// Where only the log knows the next seq, this attempt says by itself that it has begun: two speakers would choose two seqs.
    pub(crate) async fn begin(&mut self) {
        if self.has_a_past {
            self.append(None).await;
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
        if self.has_something() {
            self.append(Some(so_far)).await;
        }
    }

    async fn append(&mut self, so_far: Option<&Fold>) {
        self.not_before = Instant::now() + GATHER;
        let start = self.last.is_none() || self.lack != Lack::Nothing;
        let floor = match self.last {
            Some(last) => Some(last + 1),
            None => self.first_seq().await,
        };
        let Some(floor) = floor else { return self.rest() };
        let topics = match self.has_a_past && self.last.is_none() {
            true => [Some(Topic::Project(self.project)), self.batch.map(Topic::Batch)],
            false => [None, None],
        };
        let topics = topics.into_iter().flatten().collect();
        let events = self.gather(so_far);
        let count = events.len() as i64;
        // Until it is answered, nobody knows whether this is told, nor what an old log has given the first of it: what comes next has
        // other seqs. It stays so where this future is dropped.
        let highest = match self.last {
            None if self.has_a_past => floor.max(self.beyond()),
            _ => floor,
        };
        (self.last, self.lack) = (Some(highest - 1 + count), Lack::Chunks);
        let append = Append { task: self.task, attempt: self.attempt, floor, start, events, topics };
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
            None => self.rest(),
        }
    }

    fn rest(&mut self) {
        self.not_before = Instant::now() + self.pause;
        self.pause = (2 * self.pause).min(PAUSE_MAX);
    }

    /// The seq of this attempt's start in the log. `None`: nobody knows what earlier ones have told.
    async fn first_seq(&self) -> Option<i64> {
        if !self.has_a_past || self.has_log().await? {
            return Some(self.started.0);
        }
        Some(self.beyond())
    }

    /// A seq beyond all that earlier attempts may have told.
    fn beyond(&self) -> i64 {
        self.started.0.max(i64::from(self.attempt - 1).saturating_mul(LEAP))
    }

    async fn has_log(&self) -> Option<bool> {
        let read = self.shout.events.read(self.task, Some(self.started.0));
        let log = timeout(PATIENCE, read).await.ok()?.ok()?;
        Some(log.first.is_some())
    }

    /// What is to be told now: before the first chunk, that the attempt has started and that what earlier ones have shown is taken
    /// back; then the chunks, unless a snapshot stands for them; then a snapshot where one is needed.
    fn gather(&mut self, so_far: Option<&Fold>) -> Vec<Held> {
        let mut events = Vec::with_capacity(self.held.len() + 2);
        if self.last.is_none() {
            events.push((EventKind::Started, self.started.1, no_details()));
            events.extend((self.attempt > 1).then(|| (EventKind::Reset, UnixMs::now(), no_details())));
        }
        let chunks = std::mem::take(&mut self.held);
        self.since += chunks.len();
        if self.lack != Lack::Chunks {
            events.extend(chunks);
        }
        if let Some(so_far) = so_far
            && (self.lack != Lack::Nothing || self.since >= SNAPSHOT_EVERY)
        {
            self.since = 0;
            let data = snapshot_data(so_far).map_or_else(no_details, Into::into);
            events.push((EventKind::Snapshot, UnixMs::now(), data));
        }
        events
    }

    /// Tells the rest, unless the attempt was over before it had anything to tell, or nobody has answered the last time: then the
    /// end tells all, see [`Teller::floor`].
    pub(crate) async fn close(&mut self, so_far: &Fold) {
        let rests = self.pause > PAUSE;
        let begun = self.last.is_some() || Instant::now() >= self.not_before;
        if begun && !rests && self.lack != Lack::Chunks {
            self.flush(so_far).await;
        }
        if self.pause > PAUSE && !self.held.is_empty() {
            self.lack = Lack::Chunks;
        }
        self.held.clear();
    }

    /// Lowest seqs of what may follow.
    pub(crate) fn floor(&self) -> Floor {
        let gap = i64::from(self.lack == Lack::Chunks);
        match self.last {
            Some(last) => Floor { again: last + 1, end: last + 1 + gap, answer: last + 1 + gap },
            None if !self.has_output => Floor::default(),
            None if self.has_a_past => Floor { again: 0, end: self.beyond() + 2, answer: self.beyond() + 2 },
            // What an earlier attempt has told is not taken back, or what this one held was not told.
            None if self.attempt > 1 || gap > 0 => {
                let next = self.started.0 + 1;
                Floor { again: 0, end: next + gap, answer: next + 1 }
            }
            None => Floor::default(),
        }
    }
}
