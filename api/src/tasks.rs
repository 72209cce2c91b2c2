//! Tasks after their submission: read, list, cancel, retry, delete.

use crate::{
    docs::schema,
    error::{ApiError, Verbatim, Wrapped},
    fetch::{self, DEADLINE, DEADLINE_BODY, patiently},
    held::holding,
    judge::{Judged, judge},
    limits::Admitted,
    parse::{self, MaybeJson},
    state::App,
    view::{self, Beside, TaskView},
    wait::{self, Until},
};
use axum::{
    body::Body,
    extract::{Path, Query, rejection::QueryRejection},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Deserialize;
use shared::{
    failpoint::{self, Point},
    news::News,
    store::{Cancelled, Deleted, Kept, Rerun, Retried},
    task::{self, Payload, Task, TaskId},
};
use std::time::Duration;
use tokio::time::timeout;

/// Longest `?wait=`.
const WAIT_MAX: f64 = 60.0;

/// The query of a task.
#[derive(Deserialize)]
pub(crate) struct Look {
    wait: Option<f64>,
    until: Option<String>,
    include: Option<String>,
}

/// The library names the parameter in its sentence alone.
fn ill_formed(error: &QueryRejection) -> ApiError {
    let text = error.body_text();
    let mut parts = text.splitn(3, ": ").skip(1);
    let (name, why) = (parts.next().unwrap_or("query"), parts.next().unwrap_or("not well formed"));
    ApiError::invalid(name, format!("Invalid value for '{name}': {why}."))
}

/// Get a task.
///
/// With `wait` the answer comes when `until` is met, or with the task as it stands when the wait is over.
#[utoipa::path(
    get, path = "/v1/tasks/{id}", tag = "tasks", operation_id = "get_task",
    params(
        ("id" = String, Path, description = "The task."),
        ("wait" = Option<f64>, Query, description = "Seconds to wait.", minimum = 0, maximum = 60),
        ("until" = Option<String>, Query, description = "`terminal` (default), `started` or `change`."),
        ("include" = Option<String>, Query, description = "`input`: with the request body."),
        ("If-None-Match" = Option<String>, Header, description = "An ETag: 304 if nothing has changed."),
    ),
    responses(
        (status = 200, description = "The task.", body = TaskView, headers(
            ("ETag" = String, description = "Changes with every change of the task."),
            ("Retry-After" = Option<u32>, description = "Set until the task is finished."),
        )),
        (status = 304, description = "Nothing has changed."),
        (status = 404, description = "No such task.", body = Wrapped),
    )
)]
pub(crate) async fn get(
    app: App,
    Path(id): Path<String>,
    query: Result<Query<Look>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let id = parse::task_id(&id)?;
    let look = query.map_err(|error| ill_formed(&error))?.0;
    let until = look.until.as_deref().map_or(Ok(Until::Terminal), Until::parse)?;
    let wants_input = match look.include.as_deref() {
        None => false,
        Some("input") => true,
        Some(_) => return Err(ApiError::invalid("include", "'include' must be input.")),
    };
    let known = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    let (mut task, mut kept) = match known {
        // Who knows the task already is told so without its answer being read.
        Some(_) => (fetch::find(&app, id).await?, None),
        None => fetch::whole(&app, id).await?.ok_or_else(|| parse::no_task(id))?,
    };
    if let Some(seconds) = look.wait {
        if !(0.0..=WAIT_MAX).contains(&seconds) {
            return Err(ApiError::invalid(
                "wait",
                format!("'wait' must be between 0 and {WAIT_MAX} seconds."),
            ));
        }
        if !until.is_met_by(task.state) && seconds > 0.0 {
            (task, kept) = wait::until(&app, &task, until, Duration::from_secs_f64(seconds)).await?;
        }
    }
    let etag = format!("\"v{}\"", task.last_seq);
    let mut response = match known {
        Some(known) if known.split(',').any(|tag| tag.trim().trim_start_matches("W/") == etag) => {
            StatusCode::NOT_MODIFIED.into_response()
        }
        _ => view::respond(StatusCode::OK, in_full(&app, &task, kept, wants_input).await?),
    };
    response.headers_mut().insert(header::ETAG, HeaderValue::try_from(etag).expect("digits are ASCII"));
    view::ask_again(&mut response, &task);
    Ok(response)
}

async fn in_full(app: &App, task: &Task, known: Option<Kept>, wants_input: bool) -> Result<Body, ApiError> {
    let mut beside = Beside::default();
    let kept = fetch::kept(app, task, known).await?;
    let input = match wants_input {
        true => timeout(DEADLINE, app.backends.store.payload(app.project, task.id)).await??,
        false => None,
    };
    // Room for both at once: who held it for one of them and waited for the other could wait for others who do the same.
    let bytes = kept.as_ref().map_or(0, |kept| kept.len) + input.as_ref().map_or(0, Payload::len);
    let held = fetch::room(app, bytes).await?;
    if let Some(kept) = kept {
        beside.answer = Some(fetch::short(app, task.id, kept).await?);
    }
    if task.state == task::State::Queued {
        beside.position = patiently(app, app.backends.store.position(app.project, task.id)).await?;
    }
    if let Some(payload) = input {
        beside.input = Some(timeout(DEADLINE_BODY, app.backends.objects.open(&payload)).await??);
    }
    Ok(holding(view::json(&TaskView::new(task, &beside)), held))
}

/// Get a task's answer, verbatim.
///
/// Status, content type and bytes are the upstream's.
#[utoipa::path(
    get, path = "/v1/tasks/{id}/result", tag = "tasks", operation_id = "get_task_result",
    params(("id" = String, Path, description = "The task.")),
    responses(
        (status = 202, description = "Not finished yet.", body = TaskView),
        (status = 404, description = "No such task.", body = Wrapped),
        (status = 409, description = "It was cancelled.", body = Wrapped),
        (status = 410, description = "It expired, or its answer is gone.", body = Wrapped),
        (status = 502, description = "It failed.", body = Wrapped),
    )
)]
pub(crate) async fn result(app: App, Path(id): Path<String>) -> Result<Response, ApiError> {
    use task::State as S;
    let task = fetch::find(&app, parse::task_id(&id)?).await?;
    let gone = |message: &str, code| ApiError::Gone { message: message.to_owned(), code };
    let verbatim = match task.state {
        S::Scheduled | S::Queued | S::InProgress => {
            let body = view::json(&TaskView::new(&task, &Beside::default()));
            let mut response = view::respond(StatusCode::ACCEPTED, body);
            view::ask_again(&mut response, &task);
            return Ok(response);
        }
        S::Cancelled => return Err(ApiError::Conflict("The task was cancelled: it has no result.".into())),
        S::Expired => {
            return Err(gone("The task expired before it was done: it has no result.", "deadline_exceeded"));
        }
        S::Completed => true,
        S::Failed => task.answer_status.is_some_and(|status| (400..500).contains(&status)),
    };
    match fetch::kept(&app, &task, None).await? {
        Some(kept) if verbatim => {
            let (status, kind, len) = (kept.status, HeaderValue::try_from(&kept.content_type), kept.len);
            let mut response = Response::new(fetch::verbatim(&app, task.id, kept).await?);
            *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
            response.extensions_mut().insert(Verbatim);
            let headers = response.headers_mut();
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(len));
            headers.insert(
                header::CONTENT_TYPE,
                kind.unwrap_or(HeaderValue::from_static("application/octet-stream")),
            );
            // What a model wrote is data: a browser shall not run it as a page of ours.
            headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
            headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox"));
            Ok(response)
        }
        _ => Err(task.error.map_or_else(|| gone("The result is gone.", "body_missing"), ApiError::Upstream)),
    }
}

/// Cancel a task.
///
/// Final once answered. A task that is already finished stays as it is.
#[utoipa::path(
    post, path = "/v1/tasks/{id}/cancel", tag = "tasks", operation_id = "cancel_task",
    params(("id" = String, Path, description = "The task.")),
    request_body = Option<Reason>,
    responses(
        (status = 200, description = "The task.", body = TaskView),
        (status = 404, description = "No such task.", body = Wrapped),
    )
)]
pub(crate) async fn cancel(
    app: App,
    Path(id): Path<String>,
    MaybeJson(body): MaybeJson,
) -> Result<Response, ApiError> {
    let id = parse::task_id(&id)?;
    let reason: Reason = body.as_deref().map_or(Ok(Reason { reason: None }), parse::read)?;
    let task = stop(&app, id, reason.reason.as_deref()).await?;
    Ok(view::respond(StatusCode::OK, fetch::in_full(&app, &task, None).await?))
}

/// The optional body of a cancel.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Reason {
    /// Why, for people: up to 512 characters.
    #[serde(default)]
    #[schema(schema_with = schema::reason)]
    reason: Option<String>,
}

/// Cancels a task, if it is not finished already, and returns it.
///
/// # Errors
/// 404, or the database is away.
pub(crate) async fn stop(app: &App, id: TaskId, reason: Option<&str>) -> Result<Task, ApiError> {
    let reason = reason.unwrap_or("Cancelled by its owner.");
    if reason.chars().count() > 512 || reason.contains('\0') {
        return Err(ApiError::invalid(
            "reason",
            "'reason' may have at most 512 characters, none of them U+0000.",
        ));
    }
    let cancelled = timeout(DEADLINE, app.backends.store.cancel(app.project, id, reason)).await?;
    let cancelled = failpoint::reply(Point::CancelReply, cancelled)?;
    failpoint::pass(Point::CancelCommitted);
    if let Cancelled::Applied(change) = cancelled.ok_or_else(|| parse::no_task(id))? {
        app.herald.changed(vec![change]);
    }
    fetch::find(app, id).await
}

/// Run a failed, cancelled or expired task again.
#[utoipa::path(
    post, path = "/v1/tasks/{id}/retry", tag = "tasks", operation_id = "retry_task",
    params(("id" = String, Path, description = "The task.")),
    responses(
        (status = 202, description = "Queued again.", body = TaskView),
        (status = 404, description = "No such task.", body = Wrapped),
        (status = 409, description = "Its state does not allow it.", body = Wrapped),
        (status = 410, description = "Its request body is gone.", body = Wrapped),
    )
)]
pub(crate) async fn retry(
    app: App,
    Path(id): Path<String>,
    MaybeJson(body): MaybeJson,
) -> Result<Response, ApiError> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Nothing {}
    let id = parse::task_id(&id)?;
    let Nothing {} = body.as_deref().map_or(Ok(Nothing {}), parse::read)?;
    let task = fetch::find(&app, id).await?;
    let (admitted, rerun) = rerun(&app, &task).await?;
    let retried = timeout(DEADLINE, app.backends.store.retry(app.project, id, &rerun)).await??;
    if !matches!(retried, Some(Retried::Applied(..))) {
        app.limiter.give_back(&admitted).await;
    }
    match retried.ok_or_else(|| parse::no_task(id))? {
        Retried::Applied(change, bell) => {
            failpoint::pass(Point::RetryCommitted);
            app.herald.tell(News { bells: vec![bell], changes: vec![change] });
        }
        Retried::Refused(state) => {
            return Err(not_ended(state));
        }
        Retried::BatchClosed => {
            return Err(ApiError::Conflict(
                "Cannot retry a task whose batch is no longer in progress.".into(),
            ));
        }
    }
    let task = fetch::find(&app, id).await?;
    let mut response =
        view::respond(StatusCode::ACCEPTED, view::json(&TaskView::new(&task, &Beside::default())));
    view::ask_again(&mut response, &task);
    Ok(response)
}

fn not_ended(state: task::State) -> ApiError {
    let message =
        format!("Cannot retry a task with status '{state}': only failed, cancelled and expired ones.");
    ApiError::Conflict(message)
}

/// Another run is charged and judged like a task that is made now: limits and rules may have changed.
async fn rerun(app: &App, task: &Task) -> Result<(Admitted, Rerun), ApiError> {
    if !matches!(task.state, task::State::Failed | task::State::Cancelled | task::State::Expired) {
        return Err(not_ended(task.state));
    }
    let payload = timeout(DEADLINE, app.backends.store.payload(app.project, task.id)).await??;
    let payload = payload.ok_or_else(|| parse::no_task(task.id))?;
    let body = timeout(DEADLINE_BODY, app.backends.objects.open(&payload)).await??;
    let admitted = app.limiter.admit(&app.visitor, &task.endpoint, &[parse::read_at(&body, "body")?]).await?;
    let judged = judge(app, &task.endpoint, vec![Judged { model: task.model.clone(), body }]).await;
    let verdict =
        judged.and_then(|verdicts| Ok(verdicts.into_iter().next().transpose()?.unwrap_or_default()));
    match verdict {
        Ok(moderation) => {
            let reserved = admitted.reserved(0);
            Ok((admitted, Rerun { reserved, moderation }))
        }
        Err(refusal) => {
            app.limiter.give_back(&admitted).await;
            Err(refusal)
        }
    }
}

/// The query of a delete.
#[derive(Deserialize)]
pub(crate) struct Force {
    #[serde(default)]
    force: bool,
}

/// Delete a task with its bodies.
#[utoipa::path(
    delete, path = "/v1/tasks/{id}", tag = "tasks", operation_id = "delete_task",
    params(
        ("id" = String, Path, description = "The task."),
        ("force" = Option<bool>, Query, description = "Also if it is not finished."),
    ),
    responses(
        (status = 200, description = "It is gone.", body = Object, example = json!({"id": "task_…", "object": "task.deleted", "deleted": true})),
        (status = 404, description = "No such task.", body = Wrapped),
        (status = 409, description = "It is not finished.", body = Wrapped),
    )
)]
pub(crate) async fn delete(
    app: App,
    Path(id): Path<String>,
    query: Result<Query<Force>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, ApiError> {
    let id = parse::task_id(&id)?;
    let force = query.map_err(|_| ApiError::invalid("force", "'force' must be true or false."))?.0.force;
    let deleted = timeout(DEADLINE, app.backends.store.delete(app.project, id, force)).await??;
    match deleted.ok_or_else(|| parse::no_task(id))? {
        Deleted::Applied(objects) => {
            // The rows are gone: what stays behind in the object store costs space, and nobody can read it.
            if let Ok(Err(error)) = timeout(DEADLINE_BODY, app.backends.objects.remove(&objects)).await {
                tracing::warn!(task = %id, error = &error as &dyn std::error::Error, "objects of a deleted task stay behind");
            }
            // What is not heard now, the sweep does when the log is back.
            if let Ok(Err(error)) = timeout(DEADLINE, app.backends.events.remove(id)).await {
                tracing::debug!(task = %id, error = &error as &dyn std::error::Error, "the event log is removed later");
            }
            let body = format!(r#"{{"id":"{id}","object":"task.deleted","deleted":true}}"#);
            Ok(view::respond(StatusCode::OK, body))
        }
        Deleted::Active(state) => Err(ApiError::Conflict(format!(
            "Cannot delete a task with status '{state}': cancel it first, or use force=true."
        ))),
    }
}
