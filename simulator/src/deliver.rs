//! The last step of an execution: its pauses, the response's head, and the body on its course.

use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use shared::clock::UnixMs;

use crate::execute::Execution;
use crate::pace::Pace;
use crate::reply::{Answer, Content, Frame};
use crate::sending::{Course, Sending};
use crate::sim::{HangAt, Sim};

pub(crate) const JSON: &str = "application/json";
pub(crate) const EVENT_STREAM: &str = "text/event-stream; charset=utf-8";

/// An answer, an error or some raw bytes, ready to be sent.
pub(crate) struct Delivery {
    pub(crate) status: StatusCode,
    /// How the execution ends if nothing cuts it.
    pub(crate) how: &'static str,
    /// Unless the `sim` object names another.
    pub(crate) content_type: &'static str,
    pub(crate) answer: Answer,
    pub(crate) pace: Pace,
}

impl Delivery {
    /// Waits for the answer's time and sends it.
    pub(crate) async fn send(self, mut execution: Execution, sim: &Sim) -> Response {
        let Self { status, how, content_type, answer, mut pace } = self;
        let stream = matches!(answer.content, Content::Frames(_));
        hang(sim.hang(HangAt::Head, stream)).await;
        let body = match answer.content {
            Content::Frames(frames) => {
                execution.wait(pace.first()).await;
                Sending::new(frames, pace, Course::of_stream(sim), execution, how).into_body()
            }
            Content::Whole(whole) => {
                let time = pace.whole(answer.positions);
                execution.wait(time).await;
                let course = Course::of_whole(sim, whole.len());
                if course.is_plain() {
                    (execution.bytes, execution.tokens) = (whole.len() as u64, answer.tokens);
                    execution.end(how);
                    whole.into()
                } else {
                    let frames = std::iter::once(Frame { bytes: whole, tokens: answer.tokens });
                    Sending::new(Box::new(frames), pace, course, execution, how).into_body()
                }
            }
        };
        respond(status, content_type, sim, body)
    }
}

/// Waits, if asked to.
pub(crate) async fn hang(time: Option<Duration>) {
    if let Some(time) = time {
        tokio::time::sleep(time).await;
    }
}

fn respond(status: StatusCode, natural: &'static str, sim: &Sim, body: Body) -> Response {
    let asked = sim.content_type.as_ref().and_then(|asked| HeaderValue::try_from(asked).ok());
    let content_type = asked.unwrap_or(HeaderValue::from_static(natural));
    let mut response = (status, [(header::CONTENT_TYPE, content_type)], body).into_response();
    let headers = response.headers_mut();
    if natural == EVENT_STREAM {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform"));
        headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    }
    sim.put_headers(headers, UnixMs::now());
    response
}
