//! Whether a body is an answer. Pure.
//!
//! Success is the presence of an answer, not the absence of a known error: each endpoint says what its answers have, whatever the label of the
//! body says.
//!
//! | endpoint | an answer has |
//! |---|---|
//! | `/v1/chat/completions` | choices, each with a `message` and a `finish_reason` |
//! | `/v1/completions` | choices, each with a `text` and a `finish_reason` |
//! | `/v1/embeddings` | as many vectors as inputs |
//! | `/v1/responses` | `status` `completed` or `incomplete`, and `output` |
//! | `/v1/messages` | `content` and a `stop_reason` |
//! | `/v1/moderations`, rerankers | results |
//! | `/v1/images/…` | images |
//! | `/v1/audio/speech` | bytes that are neither JSON, nor HTML, nor labelled as text |
//! | any other | bytes, and no `error` alone |

mod endpoints;
mod form;
#[cfg(test)]
mod tests;
mod wanted;

pub(crate) use form::{Form, form};
pub(crate) use wanted::Wanted;

use crate::{
    fold::{Fold, Progress, Unfinished},
    json::{member, members},
    sse::Decoder,
    usage::tokens,
};
use endpoints::{Top, is_known};
use serde_json::value::RawValue;
use shared::task::Usage;

/// Why a body is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoAnswer {
    /// An error stands in its place: what it says is somewhere in the body.
    Error,
    /// The upstream gave up on the request.
    Aborted,
    /// An answer that does not say that it is whole.
    Unfinished,
    /// Something else.
    Other(&'static str),
}

/// What is known of a body: the tokens that it tells, and whether it is an answer.
#[derive(Debug, PartialEq)]
pub(crate) struct Judged {
    /// Tokens, if it tells; also those of a failure.
    pub(crate) usage: Option<Usage>,
    /// The judgement.
    pub(crate) verdict: Result<(), NoAnswer>,
}

impl Judged {
    fn no(no: NoAnswer) -> Self {
        Self { usage: None, verdict: Err(no) }
    }
}

/// Judges the body of a success status.
pub(crate) fn judge(endpoint: &str, wanted: Wanted, content_type: &str, body: &[u8]) -> Judged {
    let form = form(body);
    match endpoint {
        _ if form == Form::Blank && content_type.contains("event-stream") => Judged::no(NoAnswer::Unfinished),
        _ if form == Form::Blank => Judged::no(NoAnswer::Other("the upstream's answer is empty")),
        "/v1/audio/speech" => speech(form, content_type, body),
        _ if form == Form::Stream => stream(endpoint, wanted, body),
        _ if form == Form::Json => json(endpoint, wanted, content_type, body),
        "/v1/audio/transcriptions" | "/v1/audio/translations" if form == Form::Bytes => {
            Judged { usage: None, verdict: Ok(()) }
        }
        _ if is_known(endpoint) => Judged::no(NoAnswer::Other(match form {
            Form::Markup => "the upstream sent a page in place of an answer",
            _ => "the upstream's answer is not JSON",
        })),
        _ if content_type.contains("json") => {
            Judged::no(NoAnswer::Other("the upstream's answer is not the JSON that it claims to be"))
        }
        _ => Judged { usage: None, verdict: Ok(()) },
    }
}

/// Whether what has come of a body is a whole answer, though its end has not come. Only where that can be told: no bytes that could follow
/// would belong to it.
pub(crate) fn is_whole(endpoint: &str, wanted: Wanted, content_type: &str, body: &[u8]) -> bool {
    let can_tell = match form(body) {
        Form::Json => is_known(endpoint),
        Form::Stream => Fold::of(endpoint, wanted.choices).is_some(),
        _ => false,
    };
    can_tell && judge(endpoint, wanted, content_type, body).verdict.is_ok()
}

fn speech(form: Form, content_type: &str, body: &[u8]) -> Judged {
    match form {
        Form::Json if is_error(body) => Judged::no(NoAnswer::Error),
        Form::Json | Form::Markup => Judged::no(NoAnswer::Other("the upstream's answer is no audio")),
        Form::Bytes if content_type.trim_start().starts_with("text/") => Judged::no(NoAnswer::Error),
        _ => Judged { usage: None, verdict: Ok(()) },
    }
}

fn is_error(body: &[u8]) -> bool {
    let text = std::str::from_utf8(body).unwrap_or("");
    member(text.trim_start_matches('\u{feff}'), "error").is_ok_and(|error| error.is_some())
}

/// A stream that was kept as it came, because the client asked for one itself.
fn stream(endpoint: &str, wanted: Wanted, body: &[u8]) -> Judged {
    let Some(mut fold) = Fold::of(endpoint, wanted.choices) else {
        return match is_known(endpoint) && !endpoint.starts_with("/v1/audio/") {
            true => Judged::no(NoAnswer::Other("the upstream's answer is not JSON")),
            false => Judged { usage: None, verdict: Ok(()) },
        };
    };
    let mut events = Vec::new();
    let fed = Decoder::new(body.len()).feed(body, &mut events);
    debug_assert!(fed.is_ok(), "no event is longer than the body");
    for event in events {
        let Ok(chunk) = std::str::from_utf8(&event) else { continue };
        if chunk.trim() == "[DONE]" {
            break;
        }
        let no = match fold.push(chunk.trim()) {
            Ok(Progress::End) => break,
            Ok(Progress::Failed(_)) => NoAnswer::Error,
            Ok(_) => continue,
            Err(_) => NoAnswer::Other("the upstream's stream has a chunk that cannot be read"),
        };
        // An answer that is whole is not spoilt by what comes after it.
        if fold.is_finished() {
            break;
        }
        return Judged { usage: fold.usage(), verdict: Err(no) };
    }
    let usage = fold.usage();
    match fold.finish() {
        Ok(body) => {
            let judged = json(endpoint, wanted, "application/json", body.as_bytes());
            Judged { usage: judged.usage.or(usage), ..judged }
        }
        Err(Unfinished::Aborted) => Judged { usage, verdict: Err(NoAnswer::Aborted) },
        Err(Unfinished::Truncated) => Judged { usage, verdict: Err(NoAnswer::Unfinished) },
    }
}

fn json(endpoint: &str, wanted: Wanted, content_type: &str, body: &[u8]) -> Judged {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let Ok(value) = serde_json::from_slice::<&RawValue>(body) else {
        // Where nobody knows what answers look like, `[` and `{` may begin anything.
        let is_json = is_known(endpoint) || content_type.contains("json");
        let verdict = if is_json {
            Err(NoAnswer::Other("the upstream's answer is not the JSON that it claims to be"))
        } else {
            Ok(())
        };
        return Judged { usage: None, verdict };
    };
    let top = Top(members(value.get()).unwrap_or_default());
    Judged {
        usage: top.get("usage").and_then(|usage| tokens(usage.get())),
        verdict: top.judge(endpoint, wanted, value),
    }
}
