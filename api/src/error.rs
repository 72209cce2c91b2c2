//! What goes wrong, as clients see it: one enum, one match from it to status, type, code and parameter.
//!
//! A handler returns an [`ApiError`]; the gate, which knows the request's id and what the client accepts, renders it: as
//! OpenAI's envelope, or as `application/problem+json` when that is asked for.

mod causes;

use crate::{health::Looks, limits::Allowance};
use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Serialize;
use shared::{
    identity::Scope,
    redact::elide,
    task::{RequestId, TaskError},
};
use std::{error::Error as StdError, sync::Arc, time::Duration};

type Cause = Arc<dyn StdError + Send + Sync>;

/// Why a request is not answered as the client hoped.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum ApiError {
    /// The request is not well formed, or asks for something that cannot be.
    #[error("{message}")]
    Invalid {
        /// One sentence that names the field.
        message: String,
        /// Stable code.
        code: &'static str,
        /// Path of the field.
        param: Option<String>,
    },
    /// Nobody knows the caller: nothing shown, or nothing that is good. Which of them is nobody's business.
    #[error(
        "no valid API key or token: send one as Authorization: Bearer <key>. `longhaul keys create` makes keys; without any, only \
         callers on this machine are served."
    )]
    Unauthorized,
    /// The caller's credential is not for this.
    #[error("this needs a key with the scope {}", .0.as_str())]
    Forbidden(Scope),
    /// A page from elsewhere.
    #[error("pages of this origin may not open sockets: api.cors_origins names those that may")]
    Origin,
    /// A limit of the caller is reached.
    #[error(
        "limit reached: {} {} a minute for {whose}; this fits in {:.1} s", .allowance.quota(), .allowance.unit(),
        .allowance.wait().as_secs_f64()
    )]
    Limited {
        /// Whose limit.
        whose: &'static str,
        /// The limit.
        allowance: Allowance,
    },
    /// More than a limit of the caller ever gives.
    #[error(
        "this may come to {cost} {unit}, and the limit for {whose} is {quota} a minute: ask for less, e.g. by max_tokens"
    )]
    NeverFits {
        /// Whose limit.
        whose: &'static str,
        /// What is counted.
        unit: &'static str,
        /// The limit.
        quota: u32,
        /// What it may come to.
        cost: i64,
    },
    /// The project's readers hold as much as they may, and take nothing.
    #[error(
        "limit reached: {limit} bytes of answers are on their way to readers of this project, who do not take them"
    )]
    ReadersSlow {
        /// The limit, bytes.
        limit: usize,
    },
    /// As many listings of the project are under way as may, and take long.
    #[error("limit reached: {} listings of this project at once", crate::list::AT_ONCE)]
    ListsBusy,
    /// As many tasks of the project wait as may.
    #[error("limit reached: at most {quota} tasks of this project may wait")]
    QueueFull {
        /// The limit.
        quota: u32,
        /// So many at once will never fit.
        never: bool,
    },
    /// Too many bad keys and tokens came from there.
    #[error("too many invalid API keys or tokens from this address: come again in {:.0} s", .wait.as_secs_f64().ceil())]
    Suspicious {
        /// Until the next is looked at.
        wait: Duration,
    },
    /// There is no such thing, or it is another project's.
    #[error("{message}")]
    NotFound {
        /// One sentence.
        message: String,
        /// Stable code.
        code: &'static str,
        /// Path of the field that named it.
        param: Option<&'static str>,
    },
    /// The path is known, the method is not.
    #[error("this path does not take this method: the allow header lists those it takes")]
    Method,
    /// The body did not arrive in time.
    #[error("the request body did not arrive in time")]
    Slow,
    /// The state of the thing does not allow it; repeating the request changes nothing.
    #[error("{0}")]
    Conflict(String),
    /// It was there once.
    #[error("{message}")]
    Gone {
        /// One sentence.
        message: String,
        /// Stable code.
        code: &'static str,
    },
    /// The body is longer than we take.
    #[error("the request body is longer than {limit} bytes")]
    TooLarge {
        /// Bytes we take.
        limit: usize,
    },
    /// The body is not declared as JSON.
    #[error("send the body as content-type: application/json")]
    MediaType,
    /// The body is compressed. Nothing that a stranger sends is expanded.
    #[error("send the body as it is, without a content-encoding")]
    Encoding,
    /// An idempotency key that stands for another request.
    #[error("this Idempotency-Key was used for another request: use a new key for a new request")]
    KeyReused,
    /// An idempotency key whose first request is not answered yet.
    #[error("a request with this Idempotency-Key is under way: repeat it in a moment")]
    KeyUnderWay,
    /// The task failed, and its result was asked for.
    #[error("{}", .0.message)]
    Upstream(TaskError),
    /// Something we stand on is away: the same request will work later.
    #[error("temporarily unavailable: repeat the request")]
    Unavailable(#[source] Cause),
    /// No room for anything new: the same request will work when there is.
    #[error("out of storage space: repeat the request later")]
    Full(#[source] Cause),
    /// A fault of ours.
    #[error("an internal error: the log has the details under this request id")]
    Internal(#[source] Cause),
}

/// What one match makes of an error.
struct Parts<'a> {
    status: StatusCode,
    kind: &'static str,
    code: &'a str,
    param: Option<&'a str>,
}

impl ApiError {
    /// A field with an unacceptable value.
    pub(crate) fn invalid(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Invalid { message: message.into(), code: "invalid_value", param: Some(param.into()) }
    }

    /// No such thing.
    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::NotFound { message: message.into(), code: "not_found", param: None }
    }

    fn parts(&self) -> Parts<'_> {
        use StatusCode as S;
        let (status, kind, code, param) = match self {
            Self::Invalid { code, param, .. } => (S::BAD_REQUEST, INVALID, *code, param.as_deref()),
            Self::Unauthorized => (S::UNAUTHORIZED, "authentication_error", "invalid_api_key", None),
            Self::Forbidden(_) => (S::FORBIDDEN, "permission_error", "insufficient_scope", None),
            Self::Origin => (S::FORBIDDEN, "permission_error", "origin_not_allowed", Some("Origin")),
            Self::Limited { .. } | Self::NeverFits { .. } => {
                (S::TOO_MANY_REQUESTS, LIMIT, "rate_limit_exceeded", None)
            }
            Self::ListsBusy => (S::TOO_MANY_REQUESTS, LIMIT, "too_many_lists", None),
            Self::ReadersSlow { .. } => (S::TOO_MANY_REQUESTS, LIMIT, "too_many_reads", None),
            Self::QueueFull { .. } => (S::TOO_MANY_REQUESTS, LIMIT, "queue_full", None),
            Self::Suspicious { .. } => (S::TOO_MANY_REQUESTS, LIMIT, "too_many_failed_logins", None),
            Self::NotFound { code, param, .. } => (S::NOT_FOUND, INVALID, *code, *param),
            Self::Method => (S::METHOD_NOT_ALLOWED, INVALID, "method_not_allowed", None),
            Self::Slow => (S::REQUEST_TIMEOUT, INVALID, "request_timeout", None),
            Self::Conflict(_) => (S::CONFLICT, INVALID, "conflict", None),
            Self::Gone { code, .. } => (S::GONE, INVALID, *code, None),
            Self::TooLarge { .. } => (S::PAYLOAD_TOO_LARGE, INVALID, "body_too_large", None),
            Self::MediaType => (S::UNSUPPORTED_MEDIA_TYPE, INVALID, "unsupported_media_type", None),
            Self::Encoding => {
                let param = Some("Content-Encoding");
                (S::UNSUPPORTED_MEDIA_TYPE, INVALID, "unsupported_content_encoding", param)
            }
            Self::KeyReused => {
                (S::UNPROCESSABLE_ENTITY, INVALID, "idempotency_key_reused", Some("Idempotency-Key"))
            }
            Self::KeyUnderWay => (S::CONFLICT, INVALID, "idempotency_key_under_way", Some("Idempotency-Key")),
            Self::Upstream(error) => (S::BAD_GATEWAY, "server_error", error.code.as_str(), None),
            Self::Unavailable(_) => (S::SERVICE_UNAVAILABLE, "server_error", "unavailable", None),
            Self::Full(_) => (S::INSUFFICIENT_STORAGE, "server_error", "storage_full", None),
            Self::Internal(_) => (S::INTERNAL_SERVER_ERROR, "server_error", "internal_error", None),
        };
        Parts { status, kind, code, param }
    }

    /// The envelope, for places that answer without HTTP.
    pub(crate) fn envelope(&self) -> Envelope<'_> {
        let parts = self.parts();
        Envelope {
            message: elide(self.to_string()),
            r#type: parts.kind,
            param: parts.param,
            code: Some(parts.code),
            request_id: None,
        }
    }

    /// Writes the one log line of an error that is ours: of an outage one when it begins, and the rest for those who ask for all.
    pub(crate) fn log(&self, request_id: RequestId, looks: &Looks) {
        match self {
            Self::Unavailable(cause) if looks.away.met() => {
                tracing::warn!(%request_id, error = cause.as_ref() as &dyn StdError, "answered 503, the first of an outage");
            }
            Self::Unavailable(cause) => {
                tracing::debug!(%request_id, error = cause.as_ref() as &dyn StdError, "answered 503");
            }
            Self::Full(cause) if looks.full.met() => {
                tracing::error!(%request_id, error = cause.as_ref() as &dyn StdError, "answered 507, the first of an outage");
            }
            Self::Full(cause) => {
                tracing::debug!(%request_id, error = cause.as_ref() as &dyn StdError, "answered 507");
            }
            Self::Internal(cause) => {
                tracing::error!(%request_id, error = cause.as_ref() as &dyn StdError, "answered 500");
            }
            _ => {}
        }
    }

    /// The response, in the form that the client accepts.
    pub(crate) fn render(&self, request_id: RequestId, problem: bool) -> Response {
        let parts = self.parts();
        let body = if problem {
            serde_json::to_vec(&Problem {
                r#type: "about:blank",
                title: parts.status.canonical_reason().unwrap_or("error"),
                status: parts.status.as_u16(),
                detail: elide(self.to_string()),
                code: parts.code,
                param: parts.param,
                request_id,
            })
        } else {
            serde_json::to_vec(&Wrapped {
                error: Envelope { request_id: Some(request_id), ..self.envelope() },
            })
        };
        let mut response = Response::new(Body::from(body.expect("an envelope of strings is JSON")));
        *response.status_mut() = parts.status;
        let headers = response.headers_mut();
        let kind = if problem { PROBLEM } else { "application/json" };
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        self.hint(headers);
        response
    }

    /// Headers that tell clients what to do next.
    fn hint(&self, headers: &mut HeaderMap) {
        match self {
            Self::Unauthorized => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
            }
            Self::Forbidden(scope) => {
                let challenge = format!(r#"Bearer error="insufficient_scope", scope="{}""#, scope.as_str());
                let challenge = HeaderValue::try_from(challenge).expect("scopes are ASCII");
                headers.insert(header::WWW_AUTHENTICATE, challenge)
            }
            Self::Limited { allowance, .. } => {
                allowance.tell(headers);
                headers.insert(header::RETRY_AFTER, seconds(allowance.wait()))
            }
            Self::Suspicious { wait } => headers.insert(header::RETRY_AFTER, seconds(*wait)),
            Self::QueueFull { never: false, .. } => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("5"))
            }
            // OpenAI's clients repeat every 409 and 429 unless told that it changes nothing.
            Self::Conflict(_) | Self::NeverFits { .. } | Self::QueueFull { never: true, .. } => {
                headers.insert("x-should-retry", HeaderValue::from_static("false"))
            }
            Self::Unavailable(_) | Self::KeyUnderWay | Self::ReadersSlow { .. } | Self::ListsBusy => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"))
            }
            Self::Full(_) => headers.insert(header::RETRY_AFTER, HeaderValue::from_static("10")),
            // The rest of the body may still be on its way: it is not worth more reading.
            Self::TooLarge { .. } | Self::Slow => {
                headers.insert(header::CONNECTION, HeaderValue::from_static("close"))
            }
            Self::Encoding => headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity")),
            _ => None,
        };
    }
}

/// Whole seconds, at least one.
fn seconds(wait: Duration) -> HeaderValue {
    HeaderValue::from(wait.as_secs_f64().ceil().max(1.0) as u64)
}

/// Marks a response that is an upstream's own, whatever its status: no envelope is put around it.
#[derive(Clone, Copy)]
pub(crate) struct Verbatim;

const INVALID: &str = "invalid_request_error";
const LIMIT: &str = "rate_limit_error";

/// The media type of RFC 9457.
pub(crate) const PROBLEM: &str = "application/problem+json";

/// OpenAI's error object.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Error)]
pub(crate) struct Envelope<'a> {
    /// One sentence for a person.
    message: String,
    /// Kind of error, e.g. `invalid_request_error`.
    r#type: &'static str,
    /// Path of the field that is wrong.
    param: Option<&'a str>,
    /// Stable code.
    code: Option<&'a str>,
    /// The request's id, as in `x-request-id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String)]
    request_id: Option<RequestId>,
}

/// The body of every error.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = ErrorResponse)]
pub(crate) struct Wrapped<'a> {
    /// The error.
    error: Envelope<'a>,
}

/// The same in RFC 9457's form: for who accepts `application/problem+json`.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct Problem<'a> {
    /// Always `about:blank`.
    r#type: &'static str,
    /// The status in words.
    title: &'static str,
    /// The status.
    status: u16,
    /// One sentence for a person.
    detail: String,
    /// Stable code.
    code: &'a str,
    /// Path of the field that is wrong.
    param: Option<&'a str>,
    /// The request's id, as in `x-request-id`.
    #[schema(value_type = String)]
    request_id: RequestId,
}

impl IntoResponse for ApiError {
    /// An empty response that carries the error to the gate.
    fn into_response(self) -> Response {
        let mut response = self.parts().status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}
