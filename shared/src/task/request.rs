//! What a client asked for.

use super::{BatchId, Payload, ProjectId, TaskId, retry::Backoff};
use crate::clock::UnixMs;
use serde::{Deserialize, Serialize};
use std::{fmt, sync::Arc, time::Duration};

/// The name of a queue: 1 to 64 of `[a-z0-9_-]`, starting with a letter.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct QueueName(Arc<str>);

impl QueueName {
    /// Checks the form. `None` if `name` is not one.
    #[must_use]
    pub fn new(name: &str) -> Option<Self> {
        let fits =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-');
        let starts = name.as_bytes().first().is_some_and(u8::is_ascii_lowercase);
        (starts && name.len() <= 64 && name.bytes().all(fits)).then(|| Self(name.into()))
    }

    /// The name itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for QueueName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for QueueName {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let name = std::borrow::Cow::<'de, str>::deserialize(from)?;
        Self::new(&name).ok_or_else(|| {
            serde::de::Error::custom("expected 1 to 64 of a-z, 0-9, _ and -, starting with a letter")
        })
    }
}

/// How an answer travels from the upstream to the watchers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Relay {
    /// The body goes out as it came and the answer is kept byte for byte; watchers see state changes.
    Lifecycle,
    /// `stream` and `stream_options` are spliced into the body; watchers see every chunk, and the chunks are folded into
    /// the body that an unstreamed call would have returned.
    Deltas,
}

impl Relay {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lifecycle => "lifecycle",
            Self::Deltas => "deltas",
        }
    }
}

/// Time limits and retries of one task; defaults come from the configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// Longest wait for the first attempt; `None`: only the deadline counts.
    pub queue_timeout: Option<Duration>,
    /// Longest time one attempt may take.
    pub execution_timeout: Duration,
    /// From accepted (or `/retry`) to the deadline.
    pub ttl: Duration,
    /// Failures at which the task is given up on, 1 to 100.
    pub max_attempts: u32,
    /// Waits between attempts.
    pub backoff: Backoff,
    /// How long a finished task is kept.
    pub result_ttl: Duration,
}

/// SHA-256 of what an idempotency key stands for.
pub type Fingerprint = [u8; 32];

/// A client's promise that repeats of a request mean the same task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idempotency {
    /// The key, 1 to 255 characters, unique within the project.
    pub key: String,
    /// What the key was first used for: the same key with another fingerprint is refused.
    pub fingerprint: Fingerprint,
}

/// A task's place in its batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchLine {
    /// The batch.
    pub batch: BatchId,
    /// 0-based line number.
    pub line: u32,
    /// The client's name for the line, unique within the batch.
    pub custom_id: Arc<str>,
}

/// A validated task on its way into the store.
#[derive(Debug, Clone)]
pub struct NewTask {
    /// Made by the API, so that a lost reply is repeated with the same id.
    pub id: TaskId,
    /// The tenant.
    pub project: ProjectId,
    /// The lane.
    pub queue: QueueName,
    /// −100 to 100.
    pub priority: i16,
    /// Upstream path.
    pub endpoint: Arc<str>,
    /// Model named in the body.
    pub model: Arc<str>,
    /// The request body.
    pub payload: Payload,
    /// Kind of relay.
    pub relay: Relay,
    /// Start after this wait, counted on the database's clock; zero: at once.
    pub delay: Duration,
    /// Start at this moment, if the client named one: it wins over `delay`.
    pub run_at: Option<UnixMs>,
    /// Limits.
    pub policy: Policy,
    /// The client's key-value pairs, a JSON object.
    pub metadata: Option<Arc<str>>,
    /// Set when the client sent `Idempotency-Key`.
    pub idempotency: Option<Idempotency>,
    /// Set for a line of a batch.
    pub batch: Option<BatchLine>,
    /// What was charged for it before it ran, as the worker's settlement reads it: JSON.
    pub reserved: Option<Arc<str>>,
    /// Names of the input rules whose moderation model must pass it.
    pub moderation: Vec<String>,
    /// Who is to be told of its end, beside the project's endpoints: [`crate::webhook::OwnWebhook`] as JSON.
    pub webhook: Option<Arc<str>>,
}
