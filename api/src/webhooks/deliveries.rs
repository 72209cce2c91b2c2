//! What became of deliveries, and sending one again.

use crate::{
    docs::schema,
    error::{ApiError, Wrapped},
    fetch::DEADLINE,
    list::{self, List, Pairs},
    parse::MaybeJson,
    state::App,
    view,
};
use axum::{
    extract::{Path, Query},
    response::Response,
};
use http::StatusCode;
use serde::Serialize;
use shared::{
    clock::UnixMs,
    store::DeliveryQuery,
    task::{BatchId, DeliveryId, EndpointId, TaskId},
    webhook::{Delivery, DeliveryState},
};
use tokio::time::timeout;

/// An event on its way to one receiver.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = WebhookDelivery)]
pub(crate) struct DeliveryView<'a> {
    /// Its id: what the receiver sees as `webhook-id`.
    #[schema(value_type = String)]
    id: DeliveryId,
    object: &'static str,
    /// The endpoint; null: the task's own webhook.
    #[schema(value_type = Option<String>)]
    endpoint_id: Option<EndpointId>,
    /// Of what.
    event_type: &'static str,
    /// The task.
    #[schema(value_type = Option<String>)]
    task_id: Option<TaskId>,
    /// The batch.
    #[schema(value_type = Option<String>)]
    batch_id: Option<BatchId>,
    /// Where it stands.
    #[schema(schema_with = schema::delivery_state)]
    status: &'static str,
    /// Attempts so far.
    attempts: u32,
    /// Unix seconds.
    #[schema(value_type = f64)]
    created_at: UnixMs,
    /// When it is tried next, Unix seconds.
    #[schema(value_type = Option<f64>)]
    next_attempt_at: Option<UnixMs>,
    /// When it was delivered or given up on, Unix seconds.
    #[schema(value_type = Option<f64>)]
    ended_at: Option<UnixMs>,
    /// Status of the last answer.
    last_status_code: Option<u16>,
    /// What was wrong with the last attempt.
    last_error: Option<&'a str>,
}

impl<'a> DeliveryView<'a> {
    fn new(row: &'a Delivery) -> Self {
        let of_task = row.event_type.is_of_task();
        Self {
            id: row.id,
            object: "webhook_delivery",
            endpoint_id: row.endpoint,
            event_type: row.event_type.as_str(),
            task_id: of_task.then_some(TaskId(row.subject)),
            batch_id: (!of_task).then_some(BatchId(row.subject)),
            status: row.state.as_str(),
            attempts: row.attempts,
            created_at: row.created_at,
            next_attempt_at: row.due_at,
            ended_at: row.ended_at,
            last_status_code: row.last_status,
            last_error: row.last_error.as_deref(),
        }
    }
}

/// List webhook deliveries, newest first.
///
/// Those that have ended are kept for a while: `webhooks.keep`.
#[utoipa::path(
    get, path = "/v1/webhook_deliveries", tag = "webhooks", operation_id = "list_webhook_deliveries",
    params(
        ("status" = Option<String>, Query, description = "Only those that stand so: `pending`, `delivered` or `failed`."),
        ("endpoint_id" = Option<String>, Query, description = "Only those to this endpoint."),
        ("limit" = Option<u32>, Query, description = "20 if not given.", minimum = 1, maximum = 100),
        ("after" = Option<String>, Query, description = "Only what follows this id."),
    ),
    responses(
        (status = 200, description = "A page.", body = List<DeliveryView>),
        (status = 400, description = "Not valid: `param` names the parameter.", body = Wrapped),
    )
)]
pub(crate) async fn list(app: App, Query(pairs): Query<Pairs>) -> Result<Response, ApiError> {
    let mut query = DeliveryQuery { limit: list::LIMIT, ..DeliveryQuery::default() };
    for (name, value) in &pairs {
        match name.as_str() {
            "status" => query.state = Some(state(value)?),
            "endpoint_id" => {
                let none =
                    || ApiError::invalid("endpoint_id", "'endpoint_id' must be the id of an endpoint.");
                query.endpoint = Some(value.parse().map_err(|_| none())?);
            }
            "limit" => query.limit = list::limit(value)?,
            "after" => query.after = Some(value.parse().map_err(|_| list::unknown_cursor(value))?),
            _ => return Err(list::unknown(name, &["status", "endpoint_id", "limit", "after"])),
        }
    }
    let page = timeout(DEADLINE, app.backends.webhooks.deliveries(app.project, &query)).await??;
    let list = List::of(&page, |delivery| delivery.id, DeliveryView::new);
    Ok(view::respond(StatusCode::OK, view::json(&list)))
}

/// Deliver again.
///
/// With the same id, at once, whatever became of it before.
#[utoipa::path(
    post, path = "/v1/webhook_deliveries/{id}/redeliver", tag = "webhooks", operation_id = "redeliver_webhook",
    params(("id" = String, Path, description = "The delivery's id.")),
    responses(
        (status = 200, description = "It is due.", body = DeliveryView),
        (status = 404, description = "No such delivery.", body = Wrapped),
    )
)]
pub(crate) async fn redeliver(
    app: App,
    Path(id): Path<String>,
    MaybeJson(_): MaybeJson,
) -> Result<Response, ApiError> {
    let delivery: DeliveryId = id.parse().map_err(|_| missing(&id))?;
    let due = timeout(DEADLINE, app.backends.webhooks.redeliver(app.project, delivery)).await??;
    let due = due.ok_or_else(|| missing(&id))?;
    Ok(view::respond(StatusCode::OK, view::json(&DeliveryView::new(&due))))
}

fn state(value: &str) -> Result<DeliveryState, ApiError> {
    let found = DeliveryState::ALL.into_iter().find(|state| state.as_str() == value);
    found.ok_or_else(|| ApiError::invalid("status", "'status' must be of pending, delivered, failed."))
}

fn missing(id: &str) -> ApiError {
    let id: String = id.chars().take(64).collect();
    ApiError::NotFound {
        message: format!("No webhook delivery found with id '{id}'."),
        code: "webhook_delivery_not_found",
        param: Some("id"),
    }
}
