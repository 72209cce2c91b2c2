//! Tasks as clients see them. Pure. Bodies of others are passed on verbatim, and never parsed into values.

mod outcome;

use crate::docs::schema;
use axum::{body::Body, response::Response};
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use outcome::ErrorView;
use serde::Serialize;
use serde_json::value::RawValue;
use shared::{
    clock::UnixMs,
    events::no_details,
    task::{BatchId, QueueName, Relay, State, Task, TaskId},
};
use std::sync::{Arc, LazyLock};

pub(crate) use outcome::{ResultView, Shown, UsageView};

static EMPTY_OBJECT: LazyLock<Arc<RawValue>> = LazyLock::new(no_details);

/// A task.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = Task)]
pub(crate) struct TaskView<'a> {
    /// Its id.
    #[schema(value_type = String, example = "task_01jd3v8m0e7q3t5w9x2y4z6a8b")]
    id: TaskId,
    /// Always `task`.
    object: &'static str,
    /// Where it stands.
    #[schema(schema_with = schema::state)]
    status: State,
    /// The upstream path.
    endpoint: &'a str,
    /// The model named in the body.
    model: &'a str,
    /// The lane it waits in.
    #[schema(value_type = String)]
    queue: &'a QueueName,
    /// Place inside the queue, higher first.
    priority: i16,
    /// How the answer is relayed: `deltas` or `lifecycle`.
    #[schema(value_type = String)]
    events: Relay,
    /// Number of the newest attempt.
    attempt: u32,
    /// Attempts of this run that count against `max_attempts`.
    failures: u32,
    /// Failures at which the task is given up on.
    max_attempts: u32,
    /// Tasks before this one, approximately, while it is queued.
    queue_position: Option<u64>,
    /// When it was accepted, Unix seconds.
    #[schema(value_type = f64)]
    created_at: UnixMs,
    /// When it becomes ready, while `scheduled`.
    #[schema(value_type = Option<f64>)]
    scheduled_at: Option<UnixMs>,
    /// Start of the newest attempt.
    #[schema(value_type = Option<f64>)]
    started_at: Option<UnixMs>,
    /// When it reached its terminal state.
    #[schema(value_type = Option<f64>)]
    finished_at: Option<UnixMs>,
    /// The deadline.
    #[schema(value_type = f64)]
    expires_at: UnixMs,
    /// When task and result may be removed.
    #[schema(value_type = Option<f64>)]
    result_expires_at: Option<UnixMs>,
    /// How far it is.
    progress: Progress,
    /// The upstream's answer. Listings leave it out.
    result: Option<ResultView<'a>>,
    /// Why it did not complete, or why the last attempt did not.
    error: Option<ErrorView<'a>>,
    /// Tokens spent.
    usage: Option<UsageView>,
    /// The client's own key-value pairs.
    #[schema(value_type = Object)]
    metadata: &'a RawValue,
    /// Its batch.
    #[schema(value_type = Option<String>)]
    batch_id: Option<BatchId>,
    /// Its name in the batch.
    custom_id: Option<&'a str>,
    /// Where to go from here.
    urls: Urls,
    /// What was asked for: `{endpoint, body}`, with `?include=input`.
    #[serde(skip_serializing_if = "Option::is_none")]
    input: Option<Input<'a>>,
}

#[derive(Serialize, utoipa::ToSchema)]
struct Progress {
    /// Place of the newest event that the row knows of.
    last_seq: i64,
}

/// The request as it came.
#[derive(Serialize, utoipa::ToSchema)]
struct Input<'a> {
    /// The body, verbatim.
    #[schema(value_type = Object)]
    body: Option<&'a RawValue>,
}

#[derive(Serialize, utoipa::ToSchema)]
struct Urls {
    /// The task.
    #[serde(rename = "self")]
    task: String,
    /// The answer, verbatim.
    result: String,
    /// Its events.
    events: String,
    /// POST here to cancel.
    cancel: String,
}

/// What is known of a task beside its row.
#[derive(Default)]
pub(crate) struct Beside {
    /// The kept answer.
    pub(crate) answer: Option<Shown>,
    /// Tasks before this one.
    pub(crate) position: Option<u64>,
    /// The request body, if it was asked for.
    pub(crate) input: Option<Bytes>,
}

/// The bytes as they are, if they are JSON.
pub(crate) fn raw(bytes: &[u8]) -> Option<&RawValue> {
    serde_json::from_slice(bytes).ok()
}

impl<'a> TaskView<'a> {
    /// The wire form of a row and of what is known beside it.
    pub(crate) fn new(task: &'a Task, beside: &'a Beside) -> Self {
        let this = format!("/v1/tasks/{}", task.id);
        let metadata = task.metadata.as_deref().and_then(|pairs| serde_json::from_str(pairs).ok());
        Self {
            id: task.id,
            object: "task",
            status: task.state,
            endpoint: &task.endpoint,
            model: &task.model,
            queue: &task.queue,
            priority: task.priority,
            events: task.relay,
            attempt: task.attempt,
            failures: task.failures,
            max_attempts: task.max_attempts,
            queue_position: beside.position,
            created_at: task.created_at,
            scheduled_at: task.run_at,
            started_at: task.started_at,
            finished_at: task.finished_at,
            expires_at: task.expires_at,
            result_expires_at: task.result_expires_at,
            progress: Progress { last_seq: task.last_seq },
            result: beside.answer.as_ref().map(ResultView::new),
            error: task.error.as_ref().map(ErrorView::new),
            usage: task.usage.map(UsageView::new),
            metadata: metadata.unwrap_or(EMPTY_OBJECT.as_ref()),
            batch_id: task.batch.as_ref().map(|line| line.batch),
            custom_id: task.batch.as_ref().map(|line| line.custom_id.as_ref()),
            urls: Urls {
                result: format!("{this}/result"),
                events: format!("{this}/events"),
                cancel: format!("{this}/cancel"),
                task: this,
            },
            input: beside.input.as_deref().map(|body| Input { body: raw(body) }),
        }
    }
}

/// A value of ours as JSON.
pub(crate) fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("a view has string keys only")
}

/// A value of ours as JSON text.
pub(crate) fn text(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("a view has string keys only")
}

/// A value of ours as JSON inside of JSON.
pub(crate) fn raw_of(value: &impl Serialize) -> Box<RawValue> {
    serde_json::value::to_raw_value(value).expect("a view has string keys only")
}

/// JSON on one line, for formats that end things with a newline. Outside of strings a line break is as good as a blank, and
/// inside of them there is none, but for three that JSON lets stand and many readers of lines take for an end: they are escaped.
pub(crate) fn one_line(json: String) -> String {
    let stray = |c: char| matches!(c, '\n' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}');
    let Some(first) = json.find(stray) else { return json };
    let (head, tail) = json.split_at(first);
    let mut line = String::with_capacity(json.len() + 64);
    line.push_str(head);
    for c in tail.chars() {
        match c {
            '\n' | '\r' => line.push(' '),
            '\u{85}' => line.push_str("\\u0085"),
            '\u{2028}' => line.push_str("\\u2028"),
            '\u{2029}' => line.push_str("\\u2029"),
            _ => line.push(c),
        }
    }
    line
}

/// A response with a JSON body.
pub(crate) fn respond(status: StatusCode, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A response with a secret in its JSON body: nothing on the way may keep it.
pub(crate) fn respond_once(status: StatusCode, body: impl Into<Body>) -> Response {
    let mut response = respond(status, body);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// How long a client should wait before it asks again.
pub(crate) fn ask_again(response: &mut Response, task: &Task) {
    if !task.state.is_terminal() {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use shared::store::Kept;

    /// A task of which nothing is known yet.
    pub(crate) fn task(state: State, last_seq: i64) -> Task {
        Task {
            id: TaskId::new(),
            project: shared::task::ProjectId::DEFAULT,
            queue: QueueName::new("default").expect("a lane's name is well formed"),
            priority: 0,
            state,
            endpoint: "/v1/chat/completions".into(),
            model: "m".into(),
            relay: Relay::Lifecycle,
            attempt: 0,
            failures: 0,
            crashes: 0,
            max_attempts: 3,
            last_seq,
            created_at: UnixMs(1_763_640_000_123),
            run_at: None,
            started_at: None,
            finished_at: None,
            expires_at: UnixMs(1_763_726_400_000),
            result_expires_at: None,
            worker: None,
            batch: None,
            metadata: None,
            error: None,
            usage: None,
            answer_status: None,
        }
    }

    /// An answer with its body.
    pub(crate) fn shown(body: Bytes) -> Shown {
        let (content_type, len) = ("application/json".to_owned(), body.len() as u64);
        Shown {
            kept: Kept { status: 200, content_type, request_id: None, len, body: None },
            body: Some(body),
        }
    }

    fn answer(body: &'static [u8]) -> Shown {
        shown(Bytes::from_static(body))
    }

    #[test]
    fn answers_stay_verbatim() {
        let body = br#"{"n":12345678901234567890123,"x": [1.0],"id":"a"}"#;
        let beside = Beside { answer: Some(answer(body)), ..Beside::default() };
        let text = String::from_utf8(json(&TaskView::new(&task(State::Completed, 2), &beside)))
            .expect("JSON is UTF-8");
        assert!(text.contains(std::str::from_utf8(body).expect("the body is UTF-8")), "{text}");
        assert!(
            text.contains(r#""created_at":1763640000.123"#) && text.contains(r#""metadata":{}"#),
            "{text}"
        );
    }

    #[test]
    fn one_line_is_one_line() {
        assert_eq!(one_line("{\"a\":\r\n \"b\\n\"}".to_owned()), "{\"a\":   \"b\\n\"}");
        let text = "\u{2028}a\u{2029}\u{85}\\\u{e9}\u{2027}\u{1F600}\u{2028}";
        let json = serde_json::to_string(&[text, text]).expect("strings");
        let line = one_line(json);
        assert!(!line.contains(['\u{85}', '\u{2028}', '\u{2029}']), "{line}");
        assert_eq!(serde_json::from_str::<[String; 2]>(&line).expect("JSON"), [text, text]);
    }

    #[test]
    fn answers_that_are_not_json_are_pointed_at() {
        let beside = Beside { answer: Some(answer(b"\xff")), ..Beside::default() };
        let text = String::from_utf8(json(&TaskView::new(&task(State::Completed, 2), &beside)))
            .expect("JSON is UTF-8");
        assert!(text.contains(r#""body":null,"content_type":"application/json","hint":""#), "{text}");
    }
}
