//! Batches: many requests with a common window, in OpenAI's form. A line is a task in the queue `batch`.

mod commit;

use crate::{
    error::{ApiError, Wrapped},
    fetch::{DEADLINE, patiently},
    lines::WantedBatch,
    list::{self, List, Pairs},
    parse::{self, JsonBody, MaybeJson},
    state::App,
    submit,
    view::{self, UsageView},
};
use axum::{
    extract::{Path, Query},
    response::Response,
};
use commit::commit;
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::Serialize;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use shared::{
    failpoint::{self, Point},
    store::{Batch, BatchState},
    task::{BatchId, Idempotency},
};
use tokio::time::timeout;

/// Tasks that a cancel stops at once; the sweep stops the rest.
const CANCEL_AT_ONCE: u32 = 1_000;

/// A batch, in OpenAI's form.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = Batch)]
pub(crate) struct BatchView<'a> {
    #[schema(value_type = String)]
    id: BatchId,
    object: &'static str,
    endpoint: &'a str,
    /// The model, if all requests share one.
    model: Option<&'a str>,
    /// What was wrong with the input of a `failed` batch.
    #[schema(value_type = Option<Object>)]
    errors: Option<&'a RawValue>,
    input_file_id: &'static str,
    completion_window: &'a str,
    status: &'static str,
    #[schema(value_type = Option<String>)]
    output_file_id: (),
    #[schema(value_type = Option<String>)]
    error_file_id: (),
    created_at: i64,
    in_progress_at: Option<i64>,
    expires_at: i64,
    finalizing_at: Option<i64>,
    completed_at: Option<i64>,
    failed_at: Option<i64>,
    expired_at: Option<i64>,
    cancelling_at: Option<i64>,
    cancelled_at: Option<i64>,
    request_counts: Counts,
    usage: Option<UsageView>,
    #[schema(value_type = Option<Object>)]
    metadata: Option<&'a RawValue>,
}

#[derive(Serialize, utoipa::ToSchema)]
struct Counts {
    total: u64,
    completed: u64,
    failed: u64,
}

impl<'a> BatchView<'a> {
    fn new(batch: &'a Batch) -> Self {
        let raw = |text: &'a Option<_>| -> Option<&'a RawValue> {
            text.as_deref().and_then(|text: &str| serde_json::from_str(text).ok())
        };
        let entered = |state| batch.finished_at.filter(|_| batch.state == state).map(|at| at.seconds());
        Self {
            id: batch.id,
            object: "batch",
            endpoint: &batch.endpoint,
            model: batch.model.as_deref(),
            errors: batch.errors.as_deref().and_then(|text| serde_json::from_str(text).ok()),
            // Strict clients want a text here; the requests came with the batch and not in a file.
            input_file_id: "",
            completion_window: &batch.completion_window,
            status: batch.state.as_str(),
            output_file_id: (),
            error_file_id: (),
            created_at: batch.created_at.seconds(),
            in_progress_at: batch.in_progress_at.map(|at| at.seconds()),
            expires_at: batch.expires_at.seconds(),
            finalizing_at: batch.finalizing_at.map(|at| at.seconds()),
            completed_at: entered(BatchState::Completed),
            failed_at: entered(BatchState::Failed),
            expired_at: entered(BatchState::Expired),
            cancelling_at: batch.cancelling_at.map(|at| at.seconds()),
            cancelled_at: entered(BatchState::Cancelled),
            request_counts: Counts { total: batch.total, completed: batch.completed, failed: batch.failed },
            usage: (batch.completed + batch.failed > 0).then(|| UsageView::new(batch.usage)),
            metadata: raw(&batch.metadata),
        }
    }
}

fn answer(batch: &Batch) -> Response {
    view::respond(StatusCode::OK, view::json(&BatchView::new(batch)))
}

/// Create a batch.
///
/// What is wrong with single requests is told by a batch that is `failed`, with every fault in `errors`.
#[utoipa::path(
    post, path = "/v1/batches", tag = "batches", operation_id = "create_batch",
    params(("Idempotency-Key" = Option<String>, Header, description = "One batch per key, for 24 hours.")),
    request_body = WantedBatch,
    responses(
        (status = 200, description = "Committed with all its tasks.", body = BatchView, headers(
            ("Idempotent-Replayed" = Option<String>, description = "`true` if the key stands for an earlier batch."),
        )),
        (status = 409, description = "A request with this idempotency key is under way: repeat.", body = Wrapped),
        (status = 422, description = "The idempotency key was used for another request.", body = Wrapped),
    )
)]
pub(crate) async fn create(
    app: App,
    headers: HeaderMap,
    JsonBody(bytes): JsonBody,
) -> Result<Response, ApiError> {
    let Some(key) = submit::idempotency_key(&headers)? else {
        return Ok(answer(&find(&app, commit(&app, &bytes, None).await?.0).await?));
    };
    let digest = Sha256::new().chain_update(b"batch\0").chain_update(&bytes).finalize();
    let idempotency = Idempotency { fingerprint: digest.into(), key };
    let earlier = timeout(DEADLINE, app.backends.store.keyed(app.project, &idempotency.key)).await??;
    let (id, replayed) = match earlier {
        Some((_, other)) if other != idempotency.fingerprint => return Err(ApiError::KeyReused),
        // Its fingerprint is a batch's: it is no task.
        Some((earlier, _)) => (BatchId(earlier.0), true),
        None => {
            let name = format!("{}/{}", app.project, idempotency.key);
            let _under_way = app.unanswered.begin(&name).ok_or(ApiError::KeyUnderWay)?;
            commit(&app, &bytes, Some(idempotency)).await?
        }
    };
    let mut response = answer(&find(&app, id).await?);
    if replayed {
        response.headers_mut().insert("idempotent-replayed", HeaderValue::from_static("true"));
    }
    Ok(response)
}

/// A batch, if the caller's project has it.
///
/// # Errors
/// 404, or the database is away.
pub(crate) async fn find(app: &App, id: BatchId) -> Result<Batch, ApiError> {
    timeout(DEADLINE, app.backends.store.batch(app.project, id)).await??.ok_or_else(|| parse::no_batch(id))
}

/// Get a batch.
#[utoipa::path(
    get, path = "/v1/batches/{id}", tag = "batches", operation_id = "get_batch",
    params(("id" = String, Path, description = "The batch.")),
    responses(
        (status = 200, description = "The batch with exact counts.", body = BatchView),
        (status = 404, description = "No such batch.", body = Wrapped),
    )
)]
pub(crate) async fn get(app: App, Path(id): Path<String>) -> Result<Response, ApiError> {
    Ok(answer(&find(&app, parse::batch_id(&id)?).await?))
}

/// List batches, newest first.
#[utoipa::path(
    get, path = "/v1/batches", tag = "batches", operation_id = "list_batches",
    params(
        ("limit" = Option<u32>, Query, description = "20 if not given.", minimum = 1, maximum = 100),
        ("after" = Option<String>, Query, description = "Only what follows this id."),
    ),
    responses(
        (status = 200, description = "A page.", body = List<BatchView>),
        (status = 400, description = "Not valid: `param` names the parameter.", body = Wrapped),
    )
)]
pub(crate) async fn list(app: App, Query(pairs): Query<Pairs>) -> Result<Response, ApiError> {
    let (limit, after) = list::place(&pairs)?;
    if let Some(after) = after {
        find(&app, after).await.map_err(|error| match error {
            ApiError::NotFound { .. } => list::unknown_cursor(after),
            other => other,
        })?;
    }
    let page = patiently(&app, app.backends.store.batches(app.project, after, limit)).await?;
    let list = List::of(&page, |batch| batch.id, BatchView::new);
    Ok(view::respond(StatusCode::OK, view::json(&list)))
}

/// Cancel a batch.
#[utoipa::path(
    post, path = "/v1/batches/{id}/cancel", tag = "batches", operation_id = "cancel_batch",
    params(("id" = String, Path, description = "The batch.")),
    responses(
        (status = 200, description = "It is being cancelled, or was.", body = BatchView),
        (status = 404, description = "No such batch.", body = Wrapped),
        (status = 409, description = "It is finished.", body = Wrapped),
    )
)]
pub(crate) async fn cancel(
    app: App,
    Path(id): Path<String>,
    MaybeJson(_): MaybeJson,
) -> Result<Response, ApiError> {
    let id = parse::batch_id(&id)?;
    let cancelled = timeout(DEADLINE, app.backends.store.cancel_batch(app.project, id)).await??;
    let batch = cancelled.ok_or_else(|| parse::no_batch(id))?;
    match batch.state {
        BatchState::Completed | BatchState::Failed | BatchState::Expired | BatchState::Finalizing => {
            Err(ApiError::Conflict(format!("Cannot cancel a batch with status '{}'.", batch.state.as_str())))
        }
        BatchState::Cancelling => {
            failpoint::pass(Point::BatchCancelling);
            let stopped = timeout(DEADLINE, app.backends.store.cancel_batch_tasks(CANCEL_AT_ONCE)).await;
            match stopped {
                Ok(Ok(changes)) => app.herald.changed(changes),
                Ok(Err(error)) => {
                    tracing::debug!(batch = %id, error = &error as &dyn std::error::Error, "the sweep stops its tasks")
                }
                Err(_) => tracing::debug!(batch = %id, "the sweep stops its tasks"),
            }
            Ok(answer(&batch))
        }
        _ => Ok(answer(&batch)),
    }
}
