//! What the simulator answers instead of an answer: OpenAI's error envelope, or Anthropic's on `/v1/messages`.

use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use serde_json::json;

use crate::execute::Endpoint;

/// A refusal, before it is put into an envelope.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) status: StatusCode,
    message: String,
    param: Option<&'static str>,
    code: Option<&'static str>,
    retry_after_s: Option<f64>,
}

impl Failure {
    /// 400: a field is missing, of the wrong type or out of range.
    pub(crate) fn invalid(param: Option<&'static str>, message: impl Into<String>) -> Self {
        let code = Some("invalid_value");
        Self { status: StatusCode::BAD_REQUEST, message: message.into(), param, code, retry_after_s: None }
    }

    /// 404: only models whose name starts with `sim-` exist.
    pub(crate) fn model_not_found(model: &str) -> Self {
        Self {
            status: StatusCode::NOT_FOUND,
            message: format!("The model '{model}' does not exist"),
            param: Some("model"),
            code: Some("model_not_found"),
            retry_after_s: None,
        }
    }

    /// 413, or whatever else kept the body from being read.
    pub(crate) fn unreadable(status: StatusCode, message: String) -> Self {
        Self { status, message, param: None, code: None, retry_after_s: None }
    }

    /// The failure a request's `sim` object asked for.
    pub(crate) fn asked_for(status: StatusCode, retry_after_s: Option<f64>) -> Self {
        let code = match status.as_u16() {
            429 => Some("rate_limit_exceeded"),
            401 => Some("invalid_api_key"),
            _ => None,
        };
        let message = format!("Simulated failure with status {}.", status.as_u16());
        Self { status, message, param: None, code, retry_after_s }
    }

    /// The failure as this endpoint's clients expect it.
    pub(crate) fn respond(self, endpoint: Endpoint) -> Response {
        let error = match endpoint {
            Endpoint::Messages => {
                let kind = anthropic_type(self.status.as_u16());
                json!({"type": "error", "error": {"type": kind, "message": self.message}, "request_id": null})
            }
            _ => {
                let kind = openai_type(self.status.as_u16());
                json!({"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}})
            }
        };
        let body = error.to_string();
        let mut response = (self.status, [(header::CONTENT_TYPE, "application/json")], body).into_response();
        if let Some(seconds) = self.retry_after_s {
            // The plain header knows whole seconds only; the SDKs prefer the other one.
            let headers = response.headers_mut();
            headers.insert(header::RETRY_AFTER, (seconds.ceil() as u64).into());
            headers.insert("retry-after-ms", ((seconds * 1000.0) as u64).into());
        }
        response
    }
}

fn openai_type(status: u16) -> &'static str {
    match status {
        403 => "permission_error",
        429 => "rate_limit_error",
        500.. => "server_error",
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
        500.. => "api_error",
        _ => "invalid_request_error",
    }
}
