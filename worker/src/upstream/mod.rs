//! One call of a model server: body out, answer in, as one reply or one failure.

mod body;
pub(crate) mod client;
mod relay_deltas;
mod relay_lifecycle;
mod request;
#[cfg(test)]
mod tests;
mod wish;

use crate::{
    answer::{Form, NoAnswer, Wanted, is_whole, judge},
    classify::{Failure, Kind, of_error, of_status, of_transport},
    fold::Fold,
    said::Said,
    tell::Teller,
};
use body::Body;
use bytes::Bytes;
use client::Server;
use http::{Method, header};
use reqwest::{RequestBuilder, Response};
use shared::{
    config,
    failpoint::{self, Point},
    store::Claimed,
    task::{ErrorCode, Relay, Usage},
};
use tokio::time::{Instant, timeout};
use wish::Wish;

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
        let wanted = Wanted::of(&self.claimed.endpoint, &self.body);
        let fold = match self.claimed.relay {
            Relay::Deltas => Fold::of(&self.claimed.endpoint, wanted.choices),
            Relay::Lifecycle => None,
        };
        let response = self.send(fold.is_some()).await?;
        failpoint::pass(Point::RunAnswered);
        metrics::histogram!("longhaul_upstream_ttft_seconds").record(begun.elapsed().as_secs_f64());
        let mut body = Body::of(response, self.limits);
        // Labels lie: the first bytes say whether it is a stream.
        let form = body.peek().await?;
        let reply = match fold {
            Some(fold) if form == Form::Stream => relay_deltas::relay(body, fold, &mut self).await?,
            _ => {
                let (endpoint, content_type) = (&self.claimed.endpoint, body.head().content_type);
                let whole = |body: &[u8]| is_whole(endpoint, wanted, &content_type, body);
                relay_lifecycle::read(body, whole).await?
            }
        };
        self.judge(wanted, reply)
    }

    /// Sends the request; asks for a stream if `streamed`, as far as the upstream takes that for this model. What is refused because of
    /// what Longhaul added is sent once more without: that is not the task's fault.
    async fn send(&self, streamed: bool) -> Result<Response, Failure> {
        let (memory, model) = (&self.server.wishes, &self.claimed.model);
        let mut wish = if streamed { memory.of(model) } else { Wish::Nothing };
        loop {
            let response = self.send_as(wish).await?;
            if response.status().is_success() {
                if streamed {
                    memory.note(model, wish);
                }
                return Ok(response);
            }
            let (status, headers) = (response.status().as_u16(), response.headers().clone());
            let reply = relay_lifecycle::read_refusal(Body::of(response, self.limits)).await;
            match wish.less(status, &reply.body) {
                Some(less) => wish = less,
                None => return Err(of_status(status, &headers, &reply.body).with(reply)),
            }
        }
    }

    async fn send_as(&self, wish: Wish) -> Result<Response, Failure> {
        let has_options = matches!(&*self.claimed.endpoint, "/v1/chat/completions" | "/v1/completions");
        let (body, accept) = match wish {
            Wish::Nothing => (self.body.clone(), "application/json, */*"),
            Wish::Stream | Wish::StreamWithUsage => {
                let options = has_options && wish == Wish::StreamWithUsage;
                let body = request::streamed(&self.body, options).map_err(|_| {
                    let message = "the request body is not a JSON object";
                    Failure::new(Kind::Permanent, ErrorCode::UpstreamRejected, message)
                })?;
                (body, "text/event-stream, application/json")
            }
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

    /// A success status is not yet a success.
    fn judge(self, wanted: Wanted, reply: Reply) -> Result<Reply, Failure> {
        let judged = judge(&self.claimed.endpoint, wanted, &reply.content_type, &reply.body);
        *self.spent = judged.usage.or(*self.spent);
        let failure = match judged.verdict {
            Ok(()) => return Ok(reply),
            Err(NoAnswer::Error) => of_error(&reply.body),
            Err(NoAnswer::Aborted) => gave_up(),
            Err(NoAnswer::Unfinished) => {
                let message = "the upstream's answer does not say that it is whole";
                Failure::new(Kind::Transient, ErrorCode::UpstreamTruncated, message)
            }
            Err(NoAnswer::Other(why)) => malformed(why).saying(Said::read(&reply.body)),
        };
        Err(failure.with(reply))
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
    let body = Body::of(response, limits);
    if (200..300).contains(&status) {
        return relay_lifecycle::read(body, |_| false).await;
    }
    Err(of_status(status, &headers, &relay_lifecycle::read_refusal(body).await.body))
}

fn silence(message: &str) -> Failure {
    Failure::new(Kind::Transient, ErrorCode::UpstreamTimeout, message)
}

fn malformed(message: &str) -> Failure {
    Failure::new(Kind::Transient, ErrorCode::UpstreamMalformed, message)
}

fn gave_up() -> Failure {
    Failure::new(Kind::Transient, ErrorCode::UpstreamFailed, "the upstream gave up on the request")
}
