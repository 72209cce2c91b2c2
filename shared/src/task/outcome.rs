//! What an attempt came to.

use super::State;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// A request or answer body: in the database, or in the object store under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// The bytes themselves.
    Inline(Bytes),
    /// Kept in the object store.
    Object {
        /// Its key there.
        key: String,
        /// Its length in bytes.
        len: u64,
    },
}

impl Payload {
    /// Its length in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        match self {
            Self::Inline(bytes) => bytes.len() as u64,
            Self::Object { len, .. } => *len,
        }
    }

    /// Whether it has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Tokens spent, as the upstream reported them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens of the prompt.
    pub input_tokens: i64,
    /// The part of them served from the upstream's cache.
    pub cached_tokens: i64,
    /// Tokens of the answer.
    pub output_tokens: i64,
    /// The part of them spent on reasoning.
    pub reasoning_tokens: i64,
}

/// What the upstream answered: kept as it came, of any content type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// `Content-Type` as sent; `application/json` for folded bodies.
    pub content_type: String,
    /// The upstream's request id, if it named one.
    pub request_id: Option<String>,
    /// The body.
    pub body: Payload,
}

/// Why a task or an attempt failed: stable codes, each explained in `docs/errors.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The upstream refused the request; repeating it would not help.
    UpstreamRejected,
    /// The upstream asked for fewer requests.
    UpstreamThrottled,
    /// The upstream failed (5xx, or an error object in place of an answer).
    UpstreamFailed,
    /// No connection, or it broke before the answer.
    UpstreamUnreachable,
    /// The stream ended before its end.
    UpstreamTruncated,
    /// A time limit of the attempt passed.
    UpstreamTimeout,
    /// What came back is no answer of the wanted kind.
    UpstreamMalformed,
    /// The worker died while it ran the task.
    WorkerCrashed,
    /// The attempt panicked in the worker.
    WorkerPanicked,
    /// No configured upstream serves the model at this endpoint.
    NoUpstream,
    /// The deadline passed.
    DeadlineExceeded,
    /// It waited longer than its queue timeout.
    QueueTimeout,
    /// Stopped by its owner.
    Cancelled,
    /// The request or answer body is gone from the object store.
    BodyMissing,
    /// A moderation model flagged the prompt.
    InputRefused,
}

impl ErrorCode {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UpstreamRejected => "upstream_rejected",
            Self::UpstreamThrottled => "upstream_throttled",
            Self::UpstreamFailed => "upstream_failed",
            Self::UpstreamUnreachable => "upstream_unreachable",
            Self::UpstreamTruncated => "upstream_truncated",
            Self::UpstreamTimeout => "upstream_timeout",
            Self::UpstreamMalformed => "upstream_malformed",
            Self::WorkerCrashed => "worker_crashed",
            Self::WorkerPanicked => "worker_panicked",
            Self::NoUpstream => "no_upstream",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::QueueTimeout => "queue_timeout",
            Self::Cancelled => "cancelled",
            Self::BodyMissing => "body_missing",
            Self::InputRefused => "input_refused",
        }
    }
}

/// An error as clients see it. Never holds keys, and of prompts and answers no more than the upstream itself repeats in its error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskError {
    /// Stable code.
    pub code: ErrorCode,
    /// One sentence for a person.
    pub message: String,
    /// Whether another run may succeed.
    pub retryable: bool,
    /// The attempt it belongs to.
    pub attempt: u32,
    /// HTTP status of the upstream, if it answered.
    pub upstream_status: Option<u16>,
    /// The upstream's own code or type for what went wrong, if it named one: at most 128 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream_code: Option<String>,
    /// What the upstream said went wrong, shortened and without logins and keys. It may repeat what the client has sent: for the task's own
    /// project, never for a log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream_message: Option<String>,
}

/// How a run ends: what `finish` writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// A terminal state.
    pub state: State,
    /// The upstream's answer: with `completed` always, with `failed` if it answered.
    pub answer: Option<Answer>,
    /// Set unless `completed`.
    pub error: Option<TaskError>,
    /// Tokens spent.
    pub usage: Option<Usage>,
}
