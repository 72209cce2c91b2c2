//! `GET /v1/batches/{id}/results`: the lines of a batch that have ended, one JSON object per line, in OpenAI's form.

use crate::{
    batches,
    error::{ApiError, Wrapped},
    fetch::{self, patiently},
    held::Held,
    parse,
    state::App,
    view::{self, Shown},
};
use axum::{
    body::{Body, Bytes},
    extract::Path,
    response::{IntoResponse, Response},
};
use futures_util::stream;
use http::header;
use serde::Serialize;
use serde_json::value::RawValue;
use shared::{
    store::{ListQuery, SHORT_BYTES},
    task::{BatchId, ErrorCode, RequestId, State as TaskState, Task, TaskId},
};
use std::collections::VecDeque;

/// Rows per read.
const PAGE: u32 = 100;
/// Text that is gathered before it is written; a longer line goes alone.
const TEXT_BYTES: usize = 64 << 10;

#[derive(Serialize)]
struct ResultLine<'a> {
    id: String,
    custom_id: &'a str,
    response: Option<Answered<'a>>,
    error: Option<Unanswered<'a>>,
}

#[derive(Serialize)]
struct Answered<'a> {
    status_code: u16,
    request_id: String,
    body: Option<&'a RawValue>,
}

#[derive(Serialize)]
struct Unanswered<'a> {
    code: &'a str,
    message: &'a str,
}

struct Pages {
    app: App,
    batch: BatchId,
    after: Option<TaskId>,
    over: bool,
    /// Tasks that have been read, and not their answers.
    page: VecDeque<Task>,
    /// Room for the long line that was written last.
    held: Option<Held>,
}

/// Get what has ended of a batch.
///
/// One line per request that has ended, as in OpenAI's output and error files together.
#[utoipa::path(
    get, path = "/v1/batches/{id}/results", tag = "batches", operation_id = "get_batch_results",
    params(("id" = String, Path, description = "The batch.")),
    responses(
        (status = 200, description = "One JSON object per line.", body = String, content_type = "application/x-ndjson"),
        (status = 404, description = "No such batch.", body = Wrapped),
    )
)]
pub(crate) async fn results(app: App, Path(id): Path<String>) -> Result<Response, ApiError> {
    let batch = batches::find(&app, parse::batch_id(&id)?).await?.id;
    let pages = Pages { app, batch, after: None, over: false, page: VecDeque::new(), held: None };
    let body = stream::try_unfold(pages, |mut pages| async {
        let text = pages.lines().await?;
        Ok::<_, ApiError>(text.map(|text| (text, pages)))
    });
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(body)).into_response())
}

impl Pages {
    /// The next page of tasks.
    async fn next(&mut self) -> Result<Option<VecDeque<Task>>, ApiError> {
        if self.over {
            return Ok(None);
        }
        if !self.app.visitor.is_good() {
            return Err(ApiError::Unauthorized);
        }
        let query = ListQuery {
            states: TaskState::ALL.into_iter().filter(|state| state.is_terminal()).collect(),
            batch: Some(self.batch),
            ascending: true,
            limit: PAGE,
            after: self.after,
            ..ListQuery::default()
        };
        let page = patiently(&self.app, self.app.backends.store.list(self.app.project, &query)).await?;
        self.over = page.more_after.is_none();
        self.after = page.more_after;
        Ok(Some(page.items.into()))
    }

    /// Lines, as many as there is room for: of long ones a single one, with the room that it takes.
    async fn lines(&mut self) -> Result<Option<Bytes>, ApiError> {
        // What the reader has taken makes room for what is next.
        self.held = None;
        let mut text = String::new();
        while text.len() < TEXT_BYTES {
            let Some(task) = self.page.front() else {
                match self.next().await? {
                    Some(page) => self.page = page,
                    None => break,
                }
                continue;
            };
            let kept = fetch::kept(&self.app, task, None).await?;
            let is_long = kept.as_ref().is_some_and(|kept| kept.len > u64::from(SHORT_BYTES));
            if is_long && !text.is_empty() {
                break;
            }
            let (answer, held) = match kept {
                Some(kept) => {
                    let (shown, held) = fetch::answer(&self.app, task.id, kept).await?;
                    (Some(shown), held)
                }
                None => (None, None),
            };
            let answer = answer.as_ref().map(|Shown { kept, body }| Answered {
                status_code: kept.status,
                request_id: kept.request_id.clone().unwrap_or_else(|| RequestId(task.id.0).to_string()),
                body: body.as_deref().and_then(view::raw),
            });
            text += &view::one_line(view::text(&line(task, answer)));
            text.push('\n');
            self.held = self.held.take().or(held);
            self.page.pop_front();
        }
        Ok((!text.is_empty()).then(|| text.into()))
    }
}

fn line<'a>(task: &'a Task, response: Option<Answered<'a>>) -> ResultLine<'a> {
    // Who got an answer of the model, be it an error, has it in `response`; `error` is for the others.
    let error = task.error.as_ref().filter(|_| response.is_none()).map(|error| Unanswered {
        code: match error.code {
            ErrorCode::DeadlineExceeded | ErrorCode::QueueTimeout => "batch_expired",
            ErrorCode::Cancelled => "batch_cancelled",
            ErrorCode::UpstreamTimeout => "request_timeout",
            other => other.as_str(),
        },
        message: &error.message,
    });
    ResultLine {
        id: task.id.to_string().replacen("task_", "batch_req_", 1),
        custom_id: task.batch.as_ref().map_or("", |line| &line.custom_id),
        response,
        error,
    }
}
