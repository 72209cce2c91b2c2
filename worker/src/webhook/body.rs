//! What a webhook says: OpenAI's event object, with the task as GET shows it where it is small.

use crate::context::{Context, STORE_PATIENCE};
use serde::Serialize;
use serde_json::{json, value::RawValue};
use shared::{
    clock::UnixMs,
    store::{self, Kept},
    task::{BatchId, Payload, Task, TaskError, TaskId, Usage},
    webhook::{self, Due},
};
use tokio::time::timeout;

/// Longest answer that goes along, bytes: receivers are promised 20 kB in all. A longer one is fetched with GET.
const ANSWER_MAX: usize = 12 << 10;

/// The body of this delivery.
///
/// # Errors
/// The database is away.
pub(super) async fn of(ctx: &Context, due: &Due) -> store::Result<Vec<u8>> {
    if !due.event_type.is_of_task() {
        return Ok(event(due, &json!({ "id": BatchId(due.subject) })));
    }
    let id = TaskId(due.subject);
    let found = timeout(STORE_PATIENCE, ctx.backends.store.whole(due.project, id)).await;
    Ok(match found.unwrap_or_else(|_| Err(store::Error::silent()))? {
        // It may have been started again since.
        Some((task, answer)) if task.state.is_terminal() => event(due, &Told::new(&task, answer.as_ref())),
        _ => event(due, &json!({ "id": id })),
    })
}

fn event(due: &Due, data: &impl Serialize) -> Vec<u8> {
    webhook::event(due.id, due.event_type, due.created_at, data)
}

/// A task that has ended: fields of `GET /v1/tasks/{id}`, by their names.
#[derive(Serialize)]
struct Told<'a> {
    id: TaskId,
    object: &'static str,
    status: &'static str,
    endpoint: &'a str,
    model: &'a str,
    queue: &'a str,
    attempt: u32,
    created_at: UnixMs,
    finished_at: Option<UnixMs>,
    metadata: &'a RawValue,
    usage: Option<Spent>,
    error: Option<Failure<'a>>,
    result: Option<Answered<'a>>,
}

#[derive(Serialize)]
struct Spent {
    input_tokens: i64,
    input_tokens_details: Cached,
    output_tokens: i64,
    output_tokens_details: Reasoning,
    total_tokens: i64,
}

#[derive(Serialize)]
struct Cached {
    cached_tokens: i64,
}

#[derive(Serialize)]
struct Reasoning {
    reasoning_tokens: i64,
}

#[derive(Serialize)]
struct Failure<'a> {
    r#type: &'static str,
    code: &'static str,
    message: &'a str,
    param: (),
    retryable: bool,
    attempt: u32,
    upstream_status: Option<u16>,
    upstream_code: Option<&'a str>,
    upstream_message: Option<&'a str>,
}

/// The answer, byte for byte.
#[derive(Serialize)]
struct Answered<'a> {
    status_code: u16,
    body: &'a RawValue,
}

impl<'a> Told<'a> {
    fn new(task: &'a Task, answer: Option<&'a Kept>) -> Self {
        Self {
            id: task.id,
            object: "task",
            status: task.state.as_str(),
            endpoint: &task.endpoint,
            model: &task.model,
            queue: task.queue.as_str(),
            attempt: task.attempt,
            created_at: task.created_at,
            finished_at: task.finished_at,
            metadata: raw(task.metadata.as_deref().unwrap_or("{}").as_bytes()).unwrap_or(RawValue::NULL),
            usage: task.usage.map(spent),
            error: task.error.as_ref().map(failure),
            result: answer.and_then(result),
        }
    }
}

fn spent(usage: Usage) -> Spent {
    Spent {
        input_tokens: usage.input_tokens,
        input_tokens_details: Cached { cached_tokens: usage.cached_tokens },
        output_tokens: usage.output_tokens,
        output_tokens_details: Reasoning { reasoning_tokens: usage.reasoning_tokens },
        total_tokens: usage.input_tokens + usage.output_tokens,
    }
}

fn failure(error: &TaskError) -> Failure<'_> {
    let refused = error.upstream_status.is_some_and(|status| status < 500);
    Failure {
        r#type: if refused { "invalid_request_error" } else { "server_error" },
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

/// The answer, if it is short, here and JSON.
fn result(answer: &Kept) -> Option<Answered<'_>> {
    let Some(Payload::Inline(bytes)) = &answer.body else { return None };
    let short = bytes.len() <= ANSWER_MAX;
    Some(Answered { status_code: answer.status, body: short.then(|| raw(bytes)).flatten()? })
}

fn raw(bytes: &[u8]) -> Option<&RawValue> {
    serde_json::from_slice(bytes).ok()
}
