//! What a task came to, as clients read it: the answer, the error, and the tokens.

use super::raw;
use crate::docs::schema;
use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;
use shared::{
    store::Kept,
    task::{TaskError, Usage},
};

/// The upstream's answer.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = TaskResult)]
pub(crate) struct ResultView<'a> {
    /// HTTP status.
    status_code: u16,
    /// The upstream's request id.
    request_id: Option<&'a str>,
    /// The body, verbatim; null if it is not JSON.
    #[schema(schema_with = schema::answer)]
    body: Option<&'a RawValue>,
    /// Set if the body is not here.
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<&'a str>,
    /// Set if the body is not here: where to get it.
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'static str>,
    /// In events: set if the body is left out because it is long, or because lifecycle events alone are wanted.
    #[serde(skip_serializing_if = "Option::is_none")]
    omitted: Option<bool>,
}

/// A kept answer, with its bytes unless they are left out.
pub(crate) struct Shown {
    /// What is known of it.
    pub(crate) kept: Kept,
    /// Its bytes.
    pub(crate) body: Option<Bytes>,
}

impl Shown {
    /// Without its bytes.
    pub(crate) fn omitted(kept: Kept) -> Self {
        Self { kept, body: None }
    }
}

#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = TaskError)]
pub(super) struct ErrorView<'a> {
    /// Kind of error.
    r#type: &'static str,
    /// Stable code.
    code: &'static str,
    /// One sentence.
    message: &'a str,
    /// Always null: the request was well formed.
    #[schema(value_type = Option<String>)]
    param: (),
    /// Whether another run may succeed.
    retryable: bool,
    /// The attempt it belongs to.
    attempt: u32,
    /// HTTP status of the upstream, if it answered.
    upstream_status: Option<u16>,
    /// The upstream's own code or type for what went wrong.
    #[schema(max_length = 128)]
    upstream_code: Option<&'a str>,
    /// What the upstream said went wrong, shortened and without keys.
    upstream_message: Option<&'a str>,
}

/// Tokens, in OpenAI's form.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = Usage)]
pub(crate) struct UsageView {
    input_tokens: i64,
    input_tokens_details: InputDetails,
    output_tokens: i64,
    output_tokens_details: OutputDetails,
    total_tokens: i64,
}

#[derive(Serialize, utoipa::ToSchema)]
struct InputDetails {
    cached_tokens: i64,
}

#[derive(Serialize, utoipa::ToSchema)]
struct OutputDetails {
    reasoning_tokens: i64,
}

impl UsageView {
    /// The wire form.
    pub(crate) fn new(usage: Usage) -> Self {
        Self {
            input_tokens: usage.input_tokens,
            input_tokens_details: InputDetails { cached_tokens: usage.cached_tokens },
            output_tokens: usage.output_tokens,
            output_tokens_details: OutputDetails { reasoning_tokens: usage.reasoning_tokens },
            total_tokens: usage.input_tokens + usage.output_tokens,
        }
    }
}

impl<'a> ResultView<'a> {
    /// The answer with its body inside, if that is JSON.
    pub(crate) fn new(Shown { kept, body: bytes }: &'a Shown) -> Self {
        let body = bytes.as_deref().and_then(raw);
        let hint = match (bytes, body) {
            (_, Some(_)) => None,
            (Some(_), None) => Some("the answer is not JSON: GET the task's /result for its bytes"),
            (None, None) => Some("the answer is not in this event: GET the task's /result for its bytes"),
        };
        Self {
            status_code: kept.status,
            request_id: kept.request_id.as_deref(),
            body,
            content_type: hint.map(|_| kept.content_type.as_str()),
            hint,
            omitted: bytes.is_none().then_some(true),
        }
    }
}

impl<'a> ErrorView<'a> {
    /// The wire form.
    pub(super) fn new(error: &'a TaskError) -> Self {
        Self {
            r#type: if error.upstream_status.is_some_and(|status| status < 500) {
                "invalid_request_error"
            } else {
                "server_error"
            },
            code: error.code.as_str(),
            message: &error.message,
            param: (),
            retryable: error.retryable,
            attempt: error.attempt,
            upstream_status: error.upstream_status,
            upstream_code: error.upstream_code.as_deref(),
            upstream_message: error.upstream_message.as_deref(),
        }
    }
}
