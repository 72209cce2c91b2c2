//! What one attempt tells its watchers while it runs: the task's event log.
//!
//! A task that is over within [`QUIET`] never gets a log: its events derive from the row. Later the first chunk is told at once and
//! the following ones are gathered over [`GATHER`], one seq per chunk. Telling is best effort: after a failure this attempt
//! tells nothing more, because a gap or a repeat would be worse than silence before the final answer.
//!
//! A seq means one event for ever: watchers come back with the last one that they have heard. Where an earlier attempt may have told
//! more than the row knows, and the log that did know is lost, the next one begins far beyond: see [`LEAP`].

use crate::context::Shout;
use serde_json::value::RawValue;
use shared::{
    clock::UnixMs,
    events::{Append, Appended, no_details},
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

/// The voice of one attempt.
pub(crate) struct Teller {
    shout: Shout,
    /// Cancelled when the log has seen a newer attempt.
    stop: CancellationToken,
    task: TaskId,
    attempt: u32,
    /// Seq of this attempt's `task.started`.
    started: i64,
    /// An attempt of this task has died, or was made before the logs were: what it has told is not in its row.
    has_a_past: bool,
    /// Seq of the last event in the log, once there is one.
    last: Option<i64>,
    held: Vec<(EventKind, UnixMs, Arc<RawValue>)>,
    /// Before this moment nothing is told.
    not_before: Instant,
    mute: bool,
}

impl Teller {
    /// `stop` ends the attempt when it turns out to be an old one.
    pub(crate) fn new(shout: Shout, claimed: &Claimed, stop: CancellationToken) -> Self {
        let has_a_past = claimed.crashes > 0 || claimed.task.made_at() < shout.events.born();
        Self {
            shout,
            stop,
            task: claimed.task,
            attempt: claimed.attempt,
            started: claimed.last_seq,
            has_a_past,
            last: None,
            held: Vec::new(),
            not_before: Instant::now() + QUIET,
            mute: false,
        }
    }

    /// Keeps a chunk until it is due.
    pub(crate) fn hold(&mut self, data: Box<RawValue>) {
        if !self.mute {
            self.held.push((EventKind::Delta, UnixMs::now(), data.into()));
        }
    }

    /// Whether chunks should be told by now.
    pub(crate) fn is_due(&self) -> bool {
        let full = self.last.is_some() && self.held.len() >= CHUNKS_MAX;
        !self.held.is_empty() && (full || Instant::now() >= self.not_before)
    }

    /// Waits until chunks should be told; for ever if there are none.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub(crate) async fn due(&self) {
        if self.held.is_empty() {
            return std::future::pending().await;
        }
        sleep_until(self.not_before).await;
    }

    /// Tells what is held.
    pub(crate) async fn flush(&mut self) {
        let mut events = std::mem::take(&mut self.held);
        if events.is_empty() || self.mute {
            return;
        }
        self.not_before = Instant::now() + GATHER;
        let start = self.last.is_none();
        let floor = match self.last {
            Some(last) => Some(last + 1),
            None => self.begin(&mut events).await,
        };
        let Some(floor) = floor else {
            self.mute = true;
            return;
        };
        let append =
            Append { task: self.task, attempt: self.attempt, floor, start, events, topics: Vec::new() };
        match self.shout.append(append).await {
            Some(Appended::Last(seq)) => {
                failpoint::pass(Point::RunTold);
                self.last = Some(seq);
            }
            Some(Appended::Stale) => {
                metrics::counter!("longhaul_fenced_writes_total", "what" => "events").increment(1);
                self.mute = true;
                self.stop.cancel();
            }
            None => self.mute = true,
        }
    }

    /// What the log needs before the first chunk, and the first seq of all that: the attempt's start, unless the log knows of it,
    /// and where an earlier attempt has told something, that this is taken back. `None`: nobody knows whether one has.
    async fn begin(&self, events: &mut Vec<(EventKind, UnixMs, Arc<RawValue>)>) -> Option<i64> {
        let former = i64::from(self.attempt.saturating_sub(1));
        let (resets, leap) = match former > 0 {
            false => (false, 0),
            true => match self.has_log().await? {
                true => (true, 0),
                false if self.has_a_past => (true, former.saturating_mul(LEAP)),
                false => (false, 0),
            },
        };
        let before = [EventKind::Started].into_iter().chain(resets.then_some(EventKind::Reset));
        events.splice(0..0, before.map(|kind| (kind, UnixMs::now(), no_details())));
        Some(self.started.saturating_add(leap))
    }

    async fn has_log(&self) -> Option<bool> {
        let read = self.shout.events.read(self.task, Some(self.started));
        let log = timeout(PATIENCE, read).await.ok()?.ok()?;
        Some(log.first.is_some())
    }

    /// Tells the rest, unless the attempt was over before it had anything to tell.
    pub(crate) async fn close(&mut self) {
        if self.last.is_some() || Instant::now() >= self.not_before {
            self.flush().await;
        }
        self.held.clear();
    }

    /// Lowest seq that the terminal event may get.
    pub(crate) fn floor(&self) -> i64 {
        self.last.map_or(0, |seq| seq + 1)
    }
}
