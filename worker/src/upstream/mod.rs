//! One call of a model server: body out, answer in, as one reply or one failure.

pub(crate) mod client;
mod relay_deltas;
mod relay_lifecycle;
mod request;
mod sse;
#[cfg(test)]
mod tests;

use crate::{
    classify::{Failure, Kind, of_status, of_transport},
    fold::Fold,
    tell::Teller,
    usage::look,
};
use bytes::{Bytes, BytesMut};
use client::Server;
use http::{Method, header};
use reqwest::{RequestBuilder, Response};
use shared::{
    config,
    failpoint::{self, Point},
    store::Claimed,
    task::{ErrorCode, Relay, Usage},
};
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// What the upstream answered.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Reply {
    /// HTTP status.
    pub(crate) status: u16,
    /// `Content-Type` as sent.
    pub(crate) content_type: String,
    /// The upstream's request id.
    pub(crate) request_id: Option<String>,
    /// The body.
    pub(crate) body: Bytes,
}

/// One call and what it reports while it is under way: dropping the future closes the connection, and what was spent until
/// then stays known.
pub(crate) struct Call<'a> {
    /// The attempt.
    pub(crate) claimed: &'a Claimed,
    /// The client's body.
    pub(crate) body: Bytes,
    /// Whom to call.
    pub(crate) server: &'a Server,
    /// Limits of time and size.
    pub(crate) limits: &'a config::Worker,
    /// Where chunks are told.
    pub(crate) teller: &'a mut Teller,
    /// Tokens spent so far.
    pub(crate) spent: &'a mut Option<Usage>,
}

impl Call<'_> {
    /// Makes the call.
    ///
    /// # Cancel safety
    /// Dropping the future closes the upstream connection.
    pub(crate) async fn make(mut self) -> Result<Reply, Failure> {
        let begun = Instant::now();
        let fold = match self.claimed.relay {
            Relay::Deltas => Fold::of(&self.claimed.endpoint),
            Relay::Lifecycle => None,
        };
        let response = self.send(fold.is_some()).await?;
        failpoint::pass(Point::RunAnswered);
        metrics::histogram!("longhaul_upstream_ttft_seconds").record(begun.elapsed().as_secs_f64());
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        if !response.status().is_success() {
            let reply = relay_lifecycle::read(response, self.limits).await?;
            return Err(of_status(status, &headers, &reply.body).with(reply));
        }
        let is_stream = content_type(&response).trim_start().starts_with("text/event-stream");
        let reply = match fold {
            Some(fold) if is_stream => relay_deltas::relay(response, fold, &mut self).await?,
            _ => relay_lifecycle::read(response, self.limits).await?,
        };
        self.judge(reply)
    }

    async fn send(&self, streamed: bool) -> Result<Response, Failure> {
        let options = matches!(&*self.claimed.endpoint, "/v1/chat/completions" | "/v1/completions");
        let (body, accept) = if streamed {
            let body = request::streamed(&self.body, options).map_err(|_| {
                Failure::new(
                    Kind::Permanent,
                    ErrorCode::UpstreamRejected,
                    "the request body is not a JSON object",
                )
            })?;
            (body, "text/event-stream, application/json")
        } else {
            (self.body.clone(), "application/json, */*")
        };
        let request = self
            .server
            .request(Method::POST, &self.claimed.endpoint)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, accept)
            .header("Longhaul-Task-Id", self.claimed.task.to_string())
            .header("Longhaul-Attempt", self.claimed.attempt)
            .body(body);
        send(request, self.server, self.limits).await
    }

    /// A success status is not yet a success: an error object may stand in place of the answer.
    fn judge(self, reply: Reply) -> Result<Reply, Failure> {
        let Reply { content_type, body, .. } = &reply;
        let said = match look(body) {
            Ok(said) => said,
            // Anything but JSON is kept as it came, if it does not claim to be JSON.
            Err(_) if !content_type.contains("json") => return Ok(reply),
            Err(_) => return Err(malformed("the upstream's answer is not the JSON that it claims to be")),
        };
        *self.spent = said.usage.or(*self.spent);
        match said.error.map(crate::classify::of_error_object) {
            Some(failure) => Err(failure.with(reply)),
            None => Ok(reply),
        }
    }
}

/// Sends a request, and waits for the head of its answer.
async fn send(
    request: RequestBuilder,
    server: &Server,
    limits: &config::Worker,
) -> Result<Response, Failure> {
    let sent = match timeout(limits.first_byte_timeout, request.send()).await {
        Ok(sent) => sent.map_err(|error| of_transport(&error)),
        Err(_) => Err(silence("the upstream did not begin to answer within the time limit")),
    };
    let code = match &sent {
        Ok(response) => response.status().as_str().to_owned(),
        Err(failure) => failure.code.as_str().to_owned(),
    };
    let upstream = server.name.to_string();
    metrics::counter!("longhaul_upstream_requests_total", "upstream" => upstream, "code" => code)
        .increment(1);
    sent
}

/// Asks an upstream something of our own, that has a short answer.
///
/// # Cancel safety
/// Dropping the future closes the connection.
pub(crate) async fn post(
    server: &Server,
    limits: &config::Worker,
    path: &str,
    body: Bytes,
) -> Result<Reply, Failure> {
    let request =
        server.request(Method::POST, path).header(header::CONTENT_TYPE, "application/json").body(body);
    let response = send(request, server, limits).await?;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let reply = relay_lifecycle::read(response, limits).await?;
    if (200..300).contains(&status) { Ok(reply) } else { Err(of_status(status, &headers, &reply.body)) }
}

/// The next piece of the answer's body; `None` at its end.
async fn piece(response: &mut Response, limit: Duration) -> Result<Option<Bytes>, Failure> {
    match timeout(limit, response.chunk()).await {
        Ok(piece) => piece.map_err(|_| {
            // Whatever broke it, the answer has begun and not ended.
            Failure::new(Kind::Transient, ErrorCode::UpstreamTruncated, "the upstream's answer broke off")
        }),
        Err(_) => Err(silence("the upstream fell silent inside its answer")),
    }
}

/// An empty reply with the response's head.
fn head(response: &Response) -> Reply {
    let request_id = response.headers().get("x-request-id").or_else(|| response.headers().get("request-id"));
    Reply {
        status: response.status().as_u16(),
        content_type: content_type(response).to_owned(),
        request_id: request_id.and_then(|value| value.to_str().ok()).map(str::to_owned),
        body: Bytes::new(),
    }
}

fn content_type(response: &Response) -> &str {
    let value = response.headers().get(header::CONTENT_TYPE);
    value.and_then(|value| value.to_str().ok()).unwrap_or("application/octet-stream")
}

fn silence(message: &str) -> Failure {
    Failure::new(Kind::Transient, ErrorCode::UpstreamTimeout, message)
}

fn malformed(message: &str) -> Failure {
    Failure::new(Kind::Transient, ErrorCode::UpstreamMalformed, message)
}

/// Gathers a body up to a limit, without a copy if it is one piece.
#[derive(Default)]
struct Gathered {
    first: Bytes,
    rest: BytesMut,
}

impl Gathered {
    /// Adds a piece. Repeating a request whose answer is too long would only make another one.
    fn add(&mut self, piece: Bytes, bytes_max: usize) -> Result<(), Failure> {
        let len = self.first.len().max(self.rest.len()) + piece.len();
        if len > bytes_max {
            let message = format!("the upstream's answer is longer than {bytes_max} bytes");
            return Err(Failure::new(Kind::Permanent, ErrorCode::UpstreamMalformed, message));
        }
        if self.first.is_empty() && self.rest.is_empty() {
            self.first = piece;
            return Ok(());
        }
        if self.rest.is_empty() {
            self.rest.extend_from_slice(&std::mem::take(&mut self.first));
        }
        self.rest.extend_from_slice(&piece);
        Ok(())
    }

    fn into_bytes(self) -> Bytes {
        if self.rest.is_empty() { self.first } else { self.rest.freeze() }
    }
}
