//! Chunks of a stream, folded into the body that an unstreamed call would have returned. Pure.
//!
//! Values are kept as the upstream wrote them; nothing passes through a number or a decoded string.

mod choices;
mod messages;
mod node;
#[cfg(test)]
mod tests;

use crate::{json::members, usage::look};
use choices::Choices;
use messages::Messages;
use serde_json::value::RawValue;
use shared::task::Usage;

/// The chunk is not what this endpoint streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a chunk of the stream is malformed")]
pub(crate) struct Malformed;

impl From<serde_json::Error> for Malformed {
    fn from(_: serde_json::Error) -> Self {
        Self
    }
}

/// The stream is over and there is no whole answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unfinished {
    /// It ended before its end.
    Truncated,
    /// The upstream gave up on it.
    Aborted,
}

/// What a chunk meant.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// More follow.
    More,
    /// It was the last one.
    End,
    /// It was this error object.
    Failed(String),
}

/// The answer so far.
#[derive(Debug)]
pub(crate) enum Fold {
    /// Chat completions and completions.
    Choices(Choices),
    /// Anthropic's messages.
    Messages(Messages),
    /// Responses: the terminal event carries the whole body.
    Responses(Option<(String, Option<Usage>)>),
}

impl Fold {
    /// The fold of an endpoint that streams; `None` for one that does not.
    pub(crate) fn of(endpoint: &str) -> Option<Self> {
        Some(match endpoint {
            "/v1/chat/completions" => Self::Choices(Choices::chat()),
            "/v1/completions" => Self::Choices(Choices::text()),
            "/v1/messages" => Self::Messages(Messages::default()),
            "/v1/responses" => Self::Responses(None),
            _ => return None,
        })
    }

    /// Takes one chunk, in order.
    pub(crate) fn push(&mut self, chunk: &str) -> Result<Progress, Malformed> {
        match self {
            Self::Choices(choices) => choices.push(chunk),
            Self::Messages(messages) => messages.push(chunk),
            Self::Responses(body) => {
                let members = members(chunk)?;
                let get = |wanted: &str| {
                    members.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.get())
                };
                match get("type").unwrap_or("") {
                    r#""response.completed""# | r#""response.incomplete""# | r#""response.failed""# => {
                        let response = get("response").ok_or(Malformed)?;
                        let usage = look(response.as_bytes())?.usage;
                        *body = Some((response.to_owned(), usage));
                        Ok(Progress::End)
                    }
                    r#""error""# => Ok(Progress::Failed(get("error").unwrap_or(chunk).to_owned())),
                    // A bare envelope is how most servers break off a stream of any kind.
                    "" => Ok(get("error").map_or(Progress::More, |error| Progress::Failed(error.to_owned()))),
                    _ => Ok(Progress::More),
                }
            }
        }
    }

    /// Tokens told so far.
    pub(crate) fn usage(&self) -> Option<Usage> {
        match self {
            Self::Choices(choices) => choices.usage,
            Self::Messages(messages) => messages.usage,
            Self::Responses(body) => body.as_ref().and_then(|(_, usage)| *usage),
        }
    }

    /// The body as it stands; `None`: it does not grow piece by piece, or nothing of it has come.
    pub(crate) fn so_far(&self) -> Option<String> {
        match self {
            Self::Choices(choices) => choices.so_far(),
            Self::Messages(messages) => messages.so_far(),
            Self::Responses(_) => None,
        }
    }

    /// The body.
    pub(crate) fn finish(self) -> Result<String, Unfinished> {
        match self {
            Self::Choices(choices) => choices.finish(),
            Self::Messages(messages) => messages.finish(),
            Self::Responses(body) => body.map(|(body, _)| body).ok_or(Unfinished::Truncated),
        }
    }
}

/// The answer so far as the data of a `task.snapshot`.
pub(crate) fn snapshot_data(fold: &Fold) -> Option<Box<RawValue>> {
    RawValue::from_string(format!(r#"{{"output":{}}}"#, fold.so_far()?)).ok()
}

/// A chunk as the data of its event.
pub(crate) fn event_data(chunk: &str) -> Result<Box<RawValue>, Malformed> {
    Ok(RawValue::from_string(format!(r#"{{"chunk":{chunk}}}"#))?)
}
