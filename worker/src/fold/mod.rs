//! Chunks of a stream, folded into the body that an unstreamed call would have returned. Pure.
//!
//! Values are kept as the upstream wrote them; nothing passes through a number or a decoded string.

mod calls;
mod choices;
mod cut;
mod messages;
mod node;
mod parts;
#[cfg(test)]
mod splits;
#[cfg(test)]
mod tests;

use crate::{
    json::{member, members},
    usage::tokens,
};
use choices::Choices;
use messages::Messages;
use node::Room;
use serde_json::value::RawValue;
use shared::task::Usage;

/// The chunk is not what this endpoint streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    /// It is no JSON object, or lacks what it must have.
    #[error("the upstream's stream has a chunk that cannot be read")]
    Unreadable,
    /// The answer would be made of more members than this.
    #[error("the upstream's stream makes an answer of more than {0} members")]
    TooManyMembers(usize),
}

impl From<serde_json::Error> for Malformed {
    fn from(_: serde_json::Error) -> Self {
        Self::Unreadable
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
    /// It added to the answer.
    More,
    /// It added nothing: a sign of life.
    Idle,
    /// It was the last one.
    End,
    /// It was this error.
    Failed(String),
}

/// The answer so far.
#[derive(Debug)]
pub(crate) struct Fold {
    dialect: Dialect,
    room: Room,
}

#[derive(Debug)]
enum Dialect {
    /// Chat completions and completions.
    Choices(Choices),
    /// Anthropic's messages.
    Messages(Messages),
    /// Responses: the terminal event carries the whole body.
    Responses(Option<(String, Option<Usage>)>),
}

impl Fold {
    /// The fold of an endpoint that streams, of so many `choices`; `None` for one that does not stream.
    pub(crate) fn of(endpoint: &str, choices: usize) -> Option<Self> {
        let dialect = match endpoint {
            "/v1/chat/completions" => Dialect::Choices(Choices::chat(choices)),
            "/v1/completions" => Dialect::Choices(Choices::text(choices)),
            "/v1/messages" => Dialect::Messages(Messages::default()),
            "/v1/responses" => Dialect::Responses(None),
            _ => return None,
        };
        Some(Self { dialect, room: Room::default() })
    }

    /// Takes one chunk, in order.
    pub(crate) fn push(&mut self, chunk: &str) -> Result<Progress, Malformed> {
        match &mut self.dialect {
            Dialect::Choices(choices) => choices.push(chunk, &mut self.room),
            Dialect::Messages(messages) => messages.push(chunk, &mut self.room),
            Dialect::Responses(body) => push_response(body, chunk),
        }
    }

    /// Tokens told so far.
    pub(crate) fn usage(&self) -> Option<Usage> {
        match &self.dialect {
            Dialect::Choices(choices) => choices.usage,
            Dialect::Messages(messages) => messages.usage,
            Dialect::Responses(body) => body.as_ref().and_then(|(_, usage)| *usage),
        }
    }

    /// Whether the answer has told that it is whole, if not yet that the stream is over.
    pub(crate) fn is_finished(&self) -> bool {
        match &self.dialect {
            Dialect::Choices(choices) => choices.is_finished(),
            Dialect::Messages(messages) => messages.is_finished(),
            Dialect::Responses(body) => body.is_some(),
        }
    }

    /// The body as it stands; `None`: it does not grow piece by piece, or nothing of it has come.
    pub(crate) fn so_far(&self) -> Option<String> {
        match &self.dialect {
            Dialect::Choices(choices) => choices.so_far(),
            Dialect::Messages(messages) => messages.so_far(),
            Dialect::Responses(_) => None,
        }
    }

    /// The body.
    pub(crate) fn finish(self) -> Result<String, Unfinished> {
        match self.dialect {
            Dialect::Choices(choices) => choices.finish(),
            Dialect::Messages(messages) => messages.finish(),
            Dialect::Responses(body) => body.map(|(body, _)| body).ok_or(Unfinished::Truncated),
        }
    }
}

fn push_response(body: &mut Option<(String, Option<Usage>)>, chunk: &str) -> Result<Progress, Malformed> {
    let members = members(chunk)?;
    let get = |wanted: &str| members.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.get());
    let kind = get("type").unwrap_or("").trim_matches('"');
    match kind {
        "response.completed" | "response.incomplete" | "response.failed" | "response.cancelled" => {
            let response = get("response").ok_or(Malformed::Unreadable)?;
            let usage = member(response, "usage")?.and_then(|usage| tokens(usage.get()));
            *body = Some((response.to_owned(), usage));
            Ok(Progress::End)
        }
        "error" => Ok(Progress::Failed(chunk.to_owned())),
        // A bare envelope is how most servers break off a stream of any kind.
        "" if get("error").is_some_and(|error| error != "null") => Ok(Progress::Failed(chunk.to_owned())),
        "" => Ok(Progress::Idle),
        _ => Ok(Progress::More),
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
