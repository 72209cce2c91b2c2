//! `GET /v1/tasks/{id}/events`: the events of one task as a server-sent event stream, or as JSON lines for who asks for them.
//!
//! ```text
//! retry: 2000                       in the first frame only
//! id: 3                             the event's seq: send it back as Last-Event-ID
//! event: task.output.delta
//! data: {"type":…,"seq":3,…}
//!
//! : ka                              every 15 s of silence
//! ```
//! The keep-alive comment ends with one newline: some clients take the blank line after a comment for an event, and die of its
//! missing data. The stream ends after the terminal event; a client that comes back with its seq gets a 204, which tells
//! browsers to stop.
//!
//! With `Accept: application/x-ndjson` each event is a line of JSON, and silence is filled with empty ones.

use crate::{
    error::{ApiError, Wrapped},
    follow::Follow,
    parse,
    state::App,
    wire::{Bodies, wire},
};
use axum::{
    body::{Body, Bytes},
    extract::{Path, Query},
    response::{IntoResponse, Response},
};
use futures_util::stream;
use http::{HeaderMap, StatusCode, header};
use serde::Deserialize;
use std::{convert::Infallible, time::Duration};
use tokio::time::timeout;

/// Silence after which a comment shows that the line is alive.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// The last seq that every JSON reader can tell from its neighbours.
pub(crate) const SEQ_MAX: i64 = (1 << 53) - 1;

/// One open stream of this kind, for as long as it lives.
pub(crate) struct Open(&'static str);

impl Open {
    /// Counts one in.
    pub(crate) fn new(kind: &'static str) -> Self {
        metrics::gauge!("longhaul_streams", "kind" => kind).increment(1.0);
        Self(kind)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        metrics::gauge!("longhaul_streams", "kind" => self.0).decrement(1.0);
    }
}

/// The query of an event stream.
#[derive(Deserialize)]
pub(crate) struct Cursor {
    after: Option<String>,
}

/// How events are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Frames,
    Lines,
}

impl Form {
    /// The one that the caller names first.
    fn wanted(headers: &HeaderMap) -> Self {
        let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let named =
            accept.split(',').filter_map(|kind| match kind.split(';').next().unwrap_or_default().trim() {
                "application/x-ndjson" => Some(Self::Lines),
                "text/event-stream" => Some(Self::Frames),
                _ => None,
            });
        named.into_iter().next().unwrap_or(Self::Frames)
    }

    fn content_type(self) -> &'static str {
        match self {
            Self::Frames => "text/event-stream; charset=utf-8",
            Self::Lines => "application/x-ndjson",
        }
    }
}

struct Line {
    app: App,
    form: Form,
    follow: Follow,
    begun: bool,
    said_farewell: bool,
    _open: Open,
}

/// Follow a task's events.
#[utoipa::path(
    get, path = "/v1/tasks/{id}/events", tag = "tasks", operation_id = "stream_task_events",
    params(
        ("id" = String, Path, description = "The task."),
        ("Last-Event-ID" = Option<i64>, Header, description = "Only events after this one."),
        ("after" = Option<i64>, Query, description = "The same, for clients that cannot set headers."),
    ),
    responses(
        (status = 200, description = "Server-sent events until the terminal one, or JSON lines for who accepts them.", content_type = "text/event-stream"),
        (status = 204, description = "The run is over and you have seen its end."),
        (status = 404, description = "No such task.", body = Wrapped),
    )
)]
pub(crate) async fn events(
    app: App,
    Path(id): Path<String>,
    Query(query): Query<Cursor>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let id = parse::task_id(&id)?;
    let sent = headers.get("last-event-id").map(|value| value.to_str().unwrap_or("?"));
    let read = |text: Option<&str>| text.filter(|text| !text.is_empty()).map(cursor).transpose();
    let (sent, asked) = (read(sent)?, read(query.after.as_deref())?);
    let after = sent.or(asked);
    let follow = Follow::open(&app, id, after).await?.ok_or_else(|| parse::no_task(id))?;
    if follow.is_over() {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let form = Form::wanted(&headers);
    let line = Line { app, form, follow, begun: false, said_farewell: false, _open: Open::new("sse") };
    let frames = stream::unfold(line, |mut line| async {
        let frame = line.frame().await?;
        Some((Ok::<_, Infallible>(Bytes::from(frame)), line))
    });
    let headers = [
        (header::CONTENT_TYPE, form.content_type()),
        (header::CACHE_CONTROL, "no-cache, no-transform"),
        (http::HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    Ok((headers, Body::from_stream(frames)).into_response())
}

/// A cursor from text: the seq of an event.
fn cursor(text: &str) -> Result<i64, ApiError> {
    let seq = text.parse().ok().filter(|seq| (-1..=SEQ_MAX).contains(seq));
    seq.ok_or_else(|| ApiError::invalid("after", "'after' (or Last-Event-ID) must be the seq of an event."))
}

impl Line {
    /// The last words of a process that ends: no event, so no id. `None` once they are said.
    fn farewell(&mut self) -> Option<Vec<u8>> {
        let wait = fastrand::u64(250..1_500);
        let words = match self.form {
            Form::Frames => {
                format!("retry: {wait}\nevent: draining\ndata: {{\"reconnect_after_ms\":{wait}}}\n\n")
            }
            Form::Lines => format!("{{\"type\":\"draining\",\"reconnect_after_ms\":{wait}}}\n"),
        };
        (!std::mem::replace(&mut self.said_farewell, true)).then(|| words.into_bytes())
    }

    /// The next piece of the stream; `None` ends it.
    async fn frame(&mut self) -> Option<Vec<u8>> {
        let next = timeout(KEEP_ALIVE, self.follow.next());
        let told = tokio::select! {
            told = next => told,
            // The client comes back with its cursor, to another process. Not all at once.
            () = self.app.stop.cancelled() => return self.farewell(),
            () = self.app.visitor.leaves() => return None,
        };
        let event = match told {
            Ok(event) => event?,
            Err(_) if self.form == Form::Lines => return Some(b"\n".to_vec()),
            Err(_) => return Some(b": ka\n".to_vec()),
        };
        let json = wire(&self.app, &event, Bodies::Short).await;
        if self.form == Form::Lines {
            return Some((json + "\n").into_bytes());
        }
        let retry = if std::mem::replace(&mut self.begun, true) { "" } else { "retry: 2000\n" };
        let head = format!("{retry}id: {}\nevent: {}\ndata: ", event.seq, event.kind.as_str());
        Some([head.as_str(), &json, "\n\n"].concat().into_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_named_first_counts() {
        let wanted = |accept: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, http::HeaderValue::from_static(accept));
            Form::wanted(&headers)
        };
        for accept in ["", "*/*", "application/json", "text/event-stream, application/x-ndjson"] {
            assert_eq!(wanted(accept), Form::Frames, "{accept}");
        }
        for accept in ["application/x-ndjson", "*/*;q=0.1, application/x-ndjson; q=1, text/event-stream"] {
            assert_eq!(wanted(accept), Form::Lines, "{accept}");
        }
        assert_eq!(Form::wanted(&HeaderMap::new()), Form::Frames);
    }
}
