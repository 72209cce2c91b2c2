//! Webhooks: who is told of what by a request of ours, how it is signed, and where it may go.
//!
//! In: ends of tasks and batches, as the store has written them down for each endpoint. Out: signed requests, at least one for each, with
//! the same id every time. Never here: when a delivery is claimed and settled (the worker), and who may have endpoints (the API).

mod guard;
mod schedule;
mod secret;
mod sender;

pub use guard::{Guard, Refused, URL_MAX};
pub use schedule::wait;
pub use secret::SigningSecret;
pub use sender::{Attempt, Message, Sender};

use crate::{
    clock::UnixMs,
    task::{DeliveryId, EndpointId, ProjectId},
};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use std::{fmt, str::FromStr, sync::Arc};
use url::Url;
use uuid::Uuid;

/// What webhooks tell of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EventType {
    /// A task has its answer.
    TaskCompleted,
    /// It was given up on.
    TaskFailed,
    /// Its owner cancelled it.
    TaskCancelled,
    /// Its time was over.
    TaskExpired,
    /// All lines of a batch have ended.
    BatchCompleted,
    /// Its owner cancelled it, and all lines have ended.
    BatchCancelled,
    /// Its window passed before all lines had ended.
    BatchExpired,
}

/// A text is no type of event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no such event type")]
pub struct UnknownType;

impl EventType {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::TaskCompleted,
        Self::TaskFailed,
        Self::TaskCancelled,
        Self::TaskExpired,
        Self::BatchCompleted,
        Self::BatchCancelled,
        Self::BatchExpired,
    ];

    /// The name on the wire and in rows.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TaskCompleted => "task.completed",
            Self::TaskFailed => "task.failed",
            Self::TaskCancelled => "task.cancelled",
            Self::TaskExpired => "task.expired",
            Self::BatchCompleted => "batch.completed",
            Self::BatchCancelled => "batch.cancelled",
            Self::BatchExpired => "batch.expired",
        }
    }

    /// Whether it tells of a task, and not of a batch.
    #[must_use]
    pub fn is_of_task(self) -> bool {
        self.as_str().starts_with("task.")
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for EventType {
    type Err = UnknownType;

    fn from_str(text: &str) -> Result<Self, UnknownType> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or(UnknownType)
    }
}

/// Where a project wants to be told of some events.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Its id.
    pub id: EndpointId,
    /// What people call it.
    pub name: String,
    /// Where to.
    pub url: String,
    /// Of what.
    pub event_types: Vec<EventType>,
    /// What its requests are signed with.
    pub secret: SigningSecret,
    /// When it was made.
    pub created_at: UnixMs,
    /// When it was changed last.
    pub updated_at: UnixMs,
    /// Since when every delivery has failed.
    pub failing_since: Option<UnixMs>,
    /// Since when it is told of nothing.
    pub disabled_at: Option<UnixMs>,
}

/// Where a delivery stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryState {
    /// It will be tried, perhaps again.
    Pending,
    /// The receiver took it.
    Delivered,
    /// It was given up on.
    Failed,
}

impl DeliveryState {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Pending, Self::Delivered, Self::Failed];

    /// The name on the wire and in rows.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Failed => "failed",
        }
    }
}

/// An event on its way to one receiver.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// Its id, which receivers see as `webhook-id`.
    pub id: DeliveryId,
    /// The endpoint; `None`: the task's own webhook.
    pub endpoint: Option<EndpointId>,
    /// Of what.
    pub event_type: EventType,
    /// The task or batch.
    pub subject: Uuid,
    /// When it happened.
    pub created_at: UnixMs,
    /// Where it stands.
    pub state: DeliveryState,
    /// Attempts so far.
    pub attempts: u32,
    /// When it is tried next.
    pub due_at: Option<UnixMs>,
    /// Status of the last answer.
    pub last_status: Option<u16>,
    /// What was wrong with the last attempt.
    pub last_error: Option<String>,
    /// When it was delivered or given up on.
    pub ended_at: Option<UnixMs>,
}

/// A delivery that is to be tried now.
#[derive(Debug, Clone)]
pub struct Due {
    /// Its id.
    pub id: DeliveryId,
    /// Whose it is.
    pub project: ProjectId,
    /// Deliveries with the same one share a receiver.
    pub target: Uuid,
    /// Where to.
    pub url: String,
    /// One, or two while a rotation overlaps.
    pub secrets: Vec<SigningSecret>,
    /// Of what.
    pub event_type: EventType,
    /// The task or batch.
    pub subject: Uuid,
    /// When it happened.
    pub created_at: UnixMs,
    /// Which attempt this is, from 1.
    pub attempt: u32,
}

/// Who is told of one task's end, beside its project's endpoints.
#[derive(Debug, Clone, Serialize)]
pub struct OwnWebhook {
    url: String,
    /// A project's receivers at one origin share it.
    target: Uuid,
    /// As the store looks for them: names, a space before and after each.
    event_types: String,
}

impl OwnWebhook {
    /// `url` has been judged by the [`Guard`].
    #[must_use]
    pub fn new(project: ProjectId, url: &str, event_types: &[EventType]) -> Self {
        let origin = Url::parse(url).map(|url| url.origin().ascii_serialization()).unwrap_or_default();
        // Nobody waits for what another project sends there.
        let digest = Sha256::digest(format!("{project} {origin}"));
        Self {
            url: url.to_owned(),
            target: Uuid::new_v8(std::array::from_fn(|place| digest[place])),
            event_types: event_types.iter().fold(" ".to_owned(), |text, kind| text + kind.as_str() + " "),
        }
    }

    /// As it is kept beside the task.
    ///
    /// # Panics
    /// Never: texts are JSON.
    #[must_use]
    pub fn to_json(&self) -> Arc<str> {
        serde_json::to_string(self).expect("texts are JSON").into()
    }
}

/// The body of a webhook: OpenAI's event object around `data`.
///
/// # Panics
/// `data` is no JSON.
#[must_use]
pub fn event(id: DeliveryId, event_type: EventType, created_at: UnixMs, data: &impl Serialize) -> Vec<u8> {
    #[derive(Serialize)]
    struct Event<'a, T> {
        id: DeliveryId,
        object: &'static str,
        r#type: &'static str,
        created_at: i64,
        data: &'a T,
    }
    let (r#type, created_at) = (event_type.as_str(), created_at.seconds());
    serde_json::to_vec(&Event { id, object: "event", r#type, created_at, data })
        .expect("what is told is JSON")
}
