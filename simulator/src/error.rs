//! What the simulator answers instead of an answer: OpenAI's error envelope, or Anthropic's on `/v1/messages`.

use std::borrow::Cow;

use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use serde_json::{Value, json};

use crate::execute::Endpoint;
use crate::reply::{data, event};

/// A refusal, before it is put into an envelope.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) status: StatusCode,
    message: String,
    param: Option<&'static str>,
    code: Option<Cow<'static, str>>,
}

impl Failure {
    /// 400: a field is missing, of the wrong type or out of range.
    pub(crate) fn invalid(param: Option<&'static str>, message: impl Into<String>) -> Self {
        let code = Some("invalid_value".into());
        Self { status: StatusCode::BAD_REQUEST, message: message.into(), param, code }
    }

    /// 404: only models whose name starts with `sim-` exist.
    pub(crate) fn model_not_found(model: &str) -> Self {
        Self {
            status: StatusCode::NOT_FOUND,
            message: format!("The model '{model}' does not exist"),
            param: Some("model"),
            code: Some("model_not_found".into()),
        }
    }

    /// 413, or whatever else kept the body from being read.
    pub(crate) fn unreadable(status: StatusCode, message: String) -> Self {
        Self { status, message, param: None, code: None }
    }

    /// 503: an outage that extends to the list of models.
    pub(crate) fn unavailable() -> Self {
        Self::asked_for(StatusCode::SERVICE_UNAVAILABLE, None)
    }

    /// The failure a `sim` object asked for, with a code of its own if it named one.
    pub(crate) fn asked_for(status: StatusCode, code: Option<&str>) -> Self {
        let natural = match status.as_u16() {
            429 => Some("rate_limit_exceeded"),
            401 => Some("invalid_api_key"),
            _ => None,
        };
        let code = code.map(|code| code.to_owned().into()).or(natural.map(Cow::Borrowed));
        let message = match status {
            // The answer itself had begun.
            StatusCode::OK => "Simulated failure in the middle of an answer.".into(),
            _ => format!("Simulated failure with status {}.", status.as_u16()),
        };
        Self { status, message, param: None, code }
    }

    /// The failure as this endpoint's clients expect it.
    pub(crate) fn respond(self, endpoint: Endpoint) -> Response {
        let body = self.body(endpoint).to_string();
        (self.status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
    }

    /// The envelope of this endpoint's API.
    pub(crate) fn body(&self, endpoint: Endpoint) -> Value {
        match endpoint {
            Endpoint::Messages => {
                // This API has no codes; the type tells what went wrong.
                let kind = self.asked_code().unwrap_or(anthropic_type(self.status.as_u16()));
                json!({"type": "error", "error": {"type": kind, "message": self.message}, "request_id": null})
            }
            _ => {
                let kind = match self.code.as_deref() {
                    Some(quota @ "insufficient_quota") => quota,
                    _ => openai_type(self.status.as_u16()),
                };
                json!({"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}})
            }
        }
    }

    /// The failure as an event in the middle of a stream; `number` events came before it.
    pub(crate) fn event(&self, endpoint: Endpoint, number: usize) -> Vec<u8> {
        match endpoint {
            Endpoint::Messages => event("error", &self.body(endpoint)),
            Endpoint::Responses => event(
                "error",
                &json!({"type": "error", "code": self.code, "message": self.message, "param": null,
                        "sequence_number": number}),
            ),
            _ => data(&self.body(endpoint)),
        }
    }

    /// A code that somebody named, unlike those we give ourselves.
    fn asked_code(&self) -> Option<&str> {
        match &self.code {
            Some(Cow::Owned(code)) => Some(code),
            _ => None,
        }
    }
}

fn openai_type(status: u16) -> &'static str {
    match status {
        403 => "permission_error",
        429 => "rate_limit_error",
        // An answer that had begun fails on the server's side.
        200 | 500.. => "server_error",
        _ => "invalid_request_error",
    }
}

fn anthropic_type(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 => "not_found_error",
        409 => "conflict_error",
        429 => "rate_limit_error",
        504 => "timeout_error",
        529 => "overloaded_error",
        200 | 500.. => "api_error",
        _ => "invalid_request_error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_put_where_each_api_has_it() {
        let broke =
            |status| Failure::asked_for(StatusCode::from_u16(status).unwrap(), Some("insufficient_quota"));
        let openai = broke(429).body(Endpoint::Chat);
        assert_eq!(openai["error"]["code"], "insufficient_quota");
        assert_eq!(openai["error"]["type"], "insufficient_quota");
        assert_eq!(broke(429).body(Endpoint::Messages)["error"]["type"], "insufficient_quota");
        let natural = Failure::asked_for(StatusCode::TOO_MANY_REQUESTS, None);
        assert_eq!(natural.body(Endpoint::Chat)["error"]["code"], "rate_limit_exceeded");
        assert_eq!(natural.body(Endpoint::Messages)["error"]["type"], "rate_limit_error");
        let midway = Failure::asked_for(StatusCode::OK, None).event(Endpoint::Responses, 7);
        assert!(String::from_utf8(midway).unwrap().contains(r#""sequence_number":7"#));
    }
}
