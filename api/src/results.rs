//! `GET /v1/batches/{id}/results`: the lines of a batch that have ended, one JSON object per line, in OpenAI's form.

use crate::{
    batches,
    error::{ApiError, Wrapped},
    fetch::{self, patiently},
    parse,
    state::App,
    view::{self},
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
    store::ListQuery,
    task::{BatchId, ErrorCode, RequestId, State as TaskState, Task, TaskId},
};

/// Rows per read.
const PAGE: u32 = 100;

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
    let pages = Pages { app, batch, after: None, over: false };
    let body = stream::try_unfold(pages, |mut pages| async {
        let page = pages.next().await?;
        Ok::<_, ApiError>(page.map(|page| (page, pages)))
    });
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(body)).into_response())
}

impl Pages {
    async fn next(&mut self) -> Result<Option<Bytes>, ApiError> {
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
        self.over = !page.has_more;
        self.after = page.items.last().map(|task| task.id);
        let mut text = Vec::new();
        for task in &page.items {
            let answer = fetch::answer(&self.app, task, None).await?;
            let answer = answer.as_ref().map(|(answer, body)| Answered {
                status_code: answer.status,
                request_id: answer.request_id.clone().unwrap_or_else(|| RequestId(task.id.0).to_string()),
                body: view::raw(body),
            });
            text.extend(view::one_line(view::json(&line(task, answer))));
            text.push(b'\n');
        }
        Ok(Some(text.into()))
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
