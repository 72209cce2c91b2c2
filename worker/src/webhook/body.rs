//! What a webhook says: OpenAI's event object, with the task as GET shows it where it is small.

use crate::context::{Context, STORE_PATIENCE};
use serde_json::{Map, Value, json};
use shared::{
    store,
    task::{Answer, BatchId, Payload, Task, TaskError, TaskId, Usage},
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
    let data = if due.event_type.is_of_task() {
        let id = TaskId(due.subject);
        let found = timeout(STORE_PATIENCE, ctx.backends.store.whole(due.project, id)).await;
        match found.unwrap_or_else(|_| Err(store::Error::silent()))? {
            // It may have been started again since.
            Some((task, answer)) if task.state.is_terminal() => told(&task, answer.as_ref()),
            _ => json!({ "id": id }),
        }
    } else {
        json!({ "id": BatchId(due.subject) })
    };
    Ok(webhook::event(due.id, due.event_type, due.created_at, &data))
}

/// The fields of a task that has ended, named as in `GET /v1/tasks/{id}`.
fn told(task: &Task, answer: Option<&Answer>) -> Value {
    let object = |text: Option<&str>| -> Value {
        text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_else(|| Map::new().into())
    };
    json!({
        "id": task.id,
        "object": "task",
        "status": task.state.as_str(),
        "endpoint": task.endpoint,
        "model": task.model,
        "queue": task.queue,
        "attempt": task.attempt,
        "created_at": task.created_at,
        "finished_at": task.finished_at,
        "metadata": object(task.metadata.as_deref()),
        "usage": task.usage.map(usage),
        "error": task.error.as_ref().map(error),
        "result": answer.and_then(result),
    })
}

fn error(error: &TaskError) -> Value {
    let refused = error.upstream_status.is_some_and(|status| status < 500);
    json!({
        "type": if refused { "invalid_request_error" } else { "server_error" },
        "code": error.code.as_str(),
        "message": error.message,
        "param": null,
        "retryable": error.retryable,
        "attempt": error.attempt,
        "upstream_status": error.upstream_status,
    })
}

fn usage(usage: Usage) -> Value {
    json!({
        "input_tokens": usage.input_tokens,
        "input_tokens_details": { "cached_tokens": usage.cached_tokens },
        "output_tokens": usage.output_tokens,
        "output_tokens_details": { "reasoning_tokens": usage.reasoning_tokens },
        "total_tokens": usage.input_tokens + usage.output_tokens,
    })
}

/// The answer, if it is short, here and JSON.
fn result(answer: &Answer) -> Option<Value> {
    let Payload::Inline(bytes) = &answer.body else { return None };
    let body: Value = (bytes.len() <= ANSWER_MAX).then(|| serde_json::from_slice(bytes).ok())??;
    Some(json!({ "status_code": answer.status, "body": body }))
}
