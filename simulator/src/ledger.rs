//! The ledger: what was really executed, for tests that hold a platform to its word.
//!
//! One entry per execution, written when it starts and completed when it ends, however it ends. Everything here is
//! bounded: the oldest entries, bodies and counters make room for new ones.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use serde::{Serialize, Serializer};
use shared::clock::UnixMs;

use crate::text::hex;

const MAX_ENTRIES: usize = 200_000;
const MAX_COUNTERS: usize = 200_000;
const MAX_BODIES: usize = 1_000;
const MAX_BODY: usize = 1 << 20;
const MAX_ALL_BODIES: usize = 256 << 20;

/// How an execution that has not ended yet reads.
pub(crate) const RUNNING: &str = "running";

/// One execution.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Entry {
    /// The `Longhaul-Task-Id` header.
    pub task: Option<Arc<str>>,
    /// The `Longhaul-Attempt` header.
    pub attempt: Option<u64>,
    /// When the whole request had arrived.
    pub started_at: UnixMs,
    /// When the last byte of the answer was handed over, or the client had gone.
    pub ended_at: Option<UnixMs>,
    /// `running`, `finished`, `client_closed`, `rejected`, or the name of the fault that was asked for; the README has
    /// them all.
    pub how: &'static str,
    /// Bytes of answer body sent.
    pub bytes: u64,
    /// Tokens sent.
    pub tokens: u64,
    /// Of the request body.
    #[serde(serialize_with = "as_hex")]
    pub body_sha256: [u8; 32],
    /// The path called.
    pub endpoint: &'static str,
    /// Whether a stream was asked for.
    pub streamed: bool,
}

/// A request body as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) task: Option<Arc<str>>,
    pub(crate) attempt: Option<u64>,
    pub(crate) endpoint: &'static str,
    pub(crate) body: Bytes,
}

/// Everything remembered. Entries are numbered from the start of the process; the number outlives a clearing.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    entries: VecDeque<Entry>,
    /// The number of the oldest entry still here.
    first: u64,
    bodies: VecDeque<Received>,
    body_bytes: usize,
    executions: HashMap<Arc<str>, u32>,
    counted: VecDeque<Arc<str>>,
}

impl Ledger {
    /// Opens an entry and returns its number.
    pub(crate) fn start(&mut self, entry: Entry) -> u64 {
        if self.entries.len() == MAX_ENTRIES {
            self.entries.pop_front();
            self.first += 1;
        }
        self.entries.push_back(entry);
        self.first + self.entries.len() as u64 - 1
    }

    /// Ends the entry of this number, unless it has been cleared away.
    pub(crate) fn end(&mut self, number: u64, how: &'static str, bytes: u64, tokens: u64) {
        let index = number.checked_sub(self.first).and_then(|index| usize::try_from(index).ok());
        if let Some(entry) = index.and_then(|index| self.entries.get_mut(index)) {
            *entry = Entry { ended_at: Some(UnixMs::now()), how, bytes, tokens, ..entry.clone() };
        }
    }

    /// How many entries there are.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Keeps a body that is not too large.
    pub(crate) fn keep(&mut self, mut received: Received) {
        if received.body.len() > MAX_BODY {
            return;
        }
        // A copy, because the bytes that arrived may hold on to a much larger buffer.
        received.body = Bytes::copy_from_slice(&received.body);
        self.body_bytes += received.body.len();
        self.bodies.push_back(received);
        while self.bodies.len() > MAX_BODIES || self.body_bytes > MAX_ALL_BODIES {
            let oldest = self.bodies.pop_front();
            self.body_bytes -= oldest.map_or(0, |oldest| oldest.body.len());
        }
    }

    /// Counts one more execution under this key and returns how many there are now.
    pub(crate) fn count(&mut self, key: Arc<str>) -> u32 {
        if !self.executions.contains_key(&key) {
            if self.counted.len() == MAX_COUNTERS
                && let Some(oldest) = self.counted.pop_front()
            {
                self.executions.remove(&oldest);
            }
            self.counted.push_back(key.clone());
        }
        let count = self.executions.entry(key).or_default();
        *count += 1;
        *count
    }

    /// The newest `limit` entries, oldest first, of one task or of all; and how many there are without the limit.
    pub(crate) fn entries(&self, task: Option<&str>, limit: usize) -> (Vec<Entry>, usize) {
        let of_task = || {
            self.entries.iter().filter(|entry| task.is_none_or(|task| entry.task.as_deref() == Some(task)))
        };
        let total = of_task().count();
        (of_task().skip(total.saturating_sub(limit)).cloned().collect(), total)
    }

    /// The bodies kept, oldest first, of one task or of all.
    pub(crate) fn bodies(&self, task: Option<&str>) -> Vec<Received> {
        let of_task = |body: &&Received| task.is_none_or(|task| body.task.as_deref() == Some(task));
        self.bodies.iter().filter(of_task).cloned().collect()
    }

    /// Forgets everything; executions still running will not come back when they end.
    pub(crate) fn clear(&mut self) {
        *self = Self { first: self.first + self.entries.len() as u64, ..Self::default() };
    }
}

fn as_hex<S: Serializer>(bytes: &[u8; 32], to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&hex(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(task: &str) -> Entry {
        Entry {
            task: Some(task.into()),
            attempt: Some(1),
            started_at: UnixMs(0),
            ended_at: None,
            how: RUNNING,
            bytes: 0,
            tokens: 0,
            body_sha256: [0; 32],
            endpoint: "/v1/chat/completions",
            streamed: false,
        }
    }

    #[test]
    fn an_entry_ends_once_and_not_after_a_clearing() {
        let mut ledger = Ledger::default();
        let (a, b) = (ledger.start(entry("a")), ledger.start(entry("b")));
        ledger.end(b, "finished", 10, 2);
        assert_eq!(ledger.entries(Some("b"), 9).0[0].how, "finished");
        assert_eq!(ledger.entries(Some("a"), 9).0[0].how, RUNNING);
        ledger.clear();
        let c = ledger.start(entry("c"));
        ledger.end(a, "finished", 0, 0);
        assert_eq!(ledger.entries(None, 9).0[0].how, RUNNING);
        ledger.end(c, "client_closed", 0, 0);
        assert_eq!(ledger.entries(None, 9).0[0].how, "client_closed");
        assert_eq!(ledger.entries(None, 0), (Vec::new(), 1));
    }

    #[test]
    fn bodies_are_bounded() {
        let mut ledger = Ledger::default();
        let received =
            |size| Received { task: None, attempt: None, endpoint: "/", body: Bytes::from(vec![0; size]) };
        ledger.keep(received(MAX_BODY + 1));
        assert!(ledger.bodies(None).is_empty());
        (0..MAX_BODIES + 5).for_each(|_| ledger.keep(received(1)));
        assert_eq!((ledger.bodies.len(), ledger.body_bytes), (MAX_BODIES, MAX_BODIES));
        (0..300).for_each(|_| ledger.keep(received(MAX_BODY)));
        assert!(ledger.body_bytes <= MAX_ALL_BODIES);
    }
}
