//! Tasks as clients see them. Pure. Bodies of others are passed on verbatim, and never parsed into values.

use crate::docs::schema;
use axum::{body::Body, response::Response};
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use serde_json::value::RawValue;
use shared::{
    clock::UnixMs,
    events::no_details,
    store::Kept,
    task::{BatchId, QueueName, Relay, State, Task, TaskError, TaskId, Usage},
};
use std::sync::{Arc, LazyLock};

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
struct ErrorView<'a> {
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

impl<'a> ErrorView<'a> {
    fn new(error: &'a TaskError) -> Self {
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
