//! Endpoints: made, listed, changed, tried, removed.

use super::{
    TYPES_MAX, event_type, event_types,
    view::{EndpointView, Removed, Tested},
};
use crate::{
    docs::schema,
    error::{ApiError, Wrapped},
    fetch::DEADLINE,
    few::Few,
    list::{self, List, Pairs},
    parse::{self, JsonBody, MaybeJson},
    state::App,
    view,
};
use axum::{
    extract::{Path, Query},
    response::Response,
};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use shared::{
    clock::UnixMs,
    store::{ENDPOINTS_MAX, EndpointChange, NewEndpoint},
    task::{BatchId, DeliveryId, EndpointId, TaskId},
    webhook::{self, Attempt, Endpoint, EventType, Message, SigningSecret},
};
use std::time::Duration;
use tokio::time::timeout;

/// How long the old secret still signs after a rotation that asks for it.
const OVERLAP: Duration = Duration::from_secs(86_400);

/// An endpoint that is wanted.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewWebhookEndpoint)]
pub(crate) struct Wanted {
    /// What people call it.
    #[schema(schema_with = schema::name)]
    name: String,
    /// Where to: `https`, at a public address.
    #[schema(schema_with = schema::webhook_url)]
    url: String,
    /// Of what.
    #[schema(schema_with = schema::event_types)]
    event_types: Few<String, TYPES_MAX>,
}

/// What is to be changed of an endpoint.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = WebhookEndpointChange)]
pub(crate) struct Change {
    /// What people call it.
    #[serde(default)]
    #[schema(schema_with = schema::name_or_null)]
    name: Option<String>,
    /// Where to: `https`, at a public address.
    #[serde(default)]
    #[schema(schema_with = schema::webhook_url_or_null)]
    url: Option<String>,
    /// Of what.
    #[serde(default)]
    #[schema(schema_with = schema::event_types_or_null)]
    event_types: Option<Few<String, TYPES_MAX>>,
    /// Whether it is told of anything: `true` after it was disabled begins anew.
    #[serde(default)]
    enabled: Option<bool>,
}

/// How a secret is rotated.
#[derive(Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = WebhookRotation)]
pub(crate) struct Rotation {
    /// Whether requests are signed with the old secret as well for 24 hours.
    pub(super) keep_old_secret_active_for_24_hours: bool,
}

impl Rotation {
    pub(super) fn overlap(&self) -> Duration {
        if self.keep_old_secret_active_for_24_hours { OVERLAP } else { Duration::ZERO }
    }
}

/// What is to be tried.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = WebhookTest)]
pub(crate) struct Test {
    /// A type of event.
    #[schema(schema_with = schema::event_type)]
    event_type: String,
}

/// Create a webhook endpoint.
///
/// The answer is the only place where its secret is shown.
#[utoipa::path(
    post, path = "/v1/webhook_endpoints", tag = "webhooks", operation_id = "create_webhook_endpoint",
    request_body = Wanted,
    responses(
        (status = 200, description = "Made.", body = EndpointView),
        (status = 409, description = "The project has as many as it may have.", body = Wrapped),
    )
)]
pub(crate) async fn create(app: App, JsonBody(bytes): JsonBody) -> Result<Response, ApiError> {
    let Wanted { name, url, event_types: types } = parse::read(&bytes)?;
    let secret = SigningSecret::generate();
    let new = NewEndpoint {
        name: named(name)?,
        url: admitted(&app, "url", url)?,
        event_types: event_types("event_types", &types)?,
        secret: secret.clone(),
    };
    let actor = app.actor();
    let made = app.backends.webhooks.create_endpoint(&actor, app.project, &new);
    let made = timeout(DEADLINE, made).await??.ok_or_else(|| {
        ApiError::Conflict(format!("A project may have {ENDPOINTS_MAX} webhook endpoints: remove one first."))
    })?;
    Ok(EndpointView::shown(&made, &secret))
}

/// List webhook endpoints, newest first.
#[utoipa::path(
    get, path = "/v1/webhook_endpoints", tag = "webhooks", operation_id = "list_webhook_endpoints",
    params(
        ("limit" = Option<u32>, Query, description = "20 if not given.", minimum = 1, maximum = 100),
        ("after" = Option<String>, Query, description = "Only what follows this id."),
    ),
    responses(
        (status = 200, description = "A page.", body = List<EndpointView>),
        (status = 400, description = "Not valid: `param` names the parameter.", body = Wrapped),
    )
)]
pub(crate) async fn list(app: App, Query(pairs): Query<Pairs>) -> Result<Response, ApiError> {
    let (limit, after) = list::place(&pairs)?;
    let page = timeout(DEADLINE, app.backends.webhooks.endpoints(app.project, after, limit)).await??;
    let list = List::of(&page, |endpoint| endpoint.id, EndpointView::new);
    Ok(view::respond(StatusCode::OK, view::json(&list)))
}

/// Get a webhook endpoint.
#[utoipa::path(
    get, path = "/v1/webhook_endpoints/{id}", tag = "webhooks", operation_id = "get_webhook_endpoint",
    params(("id" = String, Path, description = "The endpoint's id.")),
    responses(
        (status = 200, description = "The endpoint.", body = EndpointView),
        (status = 404, description = "No such endpoint.", body = Wrapped),
    )
)]
pub(crate) async fn get(app: App, Path(id): Path<String>) -> Result<Response, ApiError> {
    let found = find(&app, &id).await?;
    Ok(view::respond(StatusCode::OK, view::json(&EndpointView::new(&found))))
}

/// Change a webhook endpoint.
///
/// What is left out stays as it is.
#[utoipa::path(
    post, path = "/v1/webhook_endpoints/{id}", tag = "webhooks", operation_id = "update_webhook_endpoint",
    params(("id" = String, Path, description = "The endpoint's id.")),
    request_body = Change,
    responses(
        (status = 200, description = "As it is now.", body = EndpointView),
        (status = 404, description = "No such endpoint.", body = Wrapped),
    )
)]
pub(crate) async fn update(
    app: App,
    Path(id): Path<String>,
    JsonBody(bytes): JsonBody,
) -> Result<Response, ApiError> {
    let wanted: Change = parse::read(&bytes)?;
    let types = wanted.event_types.as_ref().map(|types| event_types("event_types", types));
    let change = EndpointChange {
        name: wanted.name.map(named).transpose()?,
        url: wanted.url.map(|url| admitted(&app, "url", url)).transpose()?,
        event_types: types.transpose()?,
        enabled: wanted.enabled,
    };
    let (actor, endpoint) = (app.actor(), read(&app, &id)?);
    let changed = app.backends.webhooks.update_endpoint(&actor, app.project, endpoint, &change);
    let changed = timeout(DEADLINE, changed).await??.ok_or_else(|| missing(&id))?;
    Ok(view::respond(StatusCode::OK, view::json(&EndpointView::new(&changed))))
}

/// Remove a webhook endpoint.
///
/// Its deliveries go with it.
#[utoipa::path(
    delete, path = "/v1/webhook_endpoints/{id}", tag = "webhooks", operation_id = "delete_webhook_endpoint",
    params(("id" = String, Path, description = "The endpoint's id.")),
    responses(
        (status = 200, description = "Gone.", body = Removed),
        (status = 404, description = "No such endpoint.", body = Wrapped),
    )
)]
pub(crate) async fn delete(app: App, Path(id): Path<String>) -> Result<Response, ApiError> {
    let (actor, endpoint) = (app.actor(), read(&app, &id)?);
    let gone = app.backends.webhooks.delete_endpoint(&actor, app.project, endpoint);
    if !timeout(DEADLINE, gone).await?? {
        return Err(missing(&id));
    }
    let removed = Removed { id: endpoint, object: "webhook_endpoint.deleted", deleted: true };
    Ok(view::respond(StatusCode::OK, view::json(&removed)))
}

/// Give a webhook endpoint a new secret.
///
/// The answer is the only place where it is shown.
#[utoipa::path(
    post, path = "/v1/webhook_endpoints/{id}/rotate_secret", tag = "webhooks", operation_id = "rotate_webhook_secret",
    params(("id" = String, Path, description = "The endpoint's id.")),
    request_body = Option<Rotation>,
    responses(
        (status = 200, description = "With its new secret.", body = EndpointView),
        (status = 404, description = "No such endpoint.", body = Wrapped),
    )
)]
pub(crate) async fn rotate(
    app: App,
    Path(id): Path<String>,
    MaybeJson(body): MaybeJson,
) -> Result<Response, ApiError> {
    let rotation: Rotation = body.map_or(Ok(Rotation::default()), |body| parse::read(&body))?;
    let (actor, endpoint, secret) = (app.actor(), read(&app, &id)?, SigningSecret::generate());
    let webhooks = &app.backends.webhooks;
    let changed = webhooks.rotate_secret(&actor, app.project, endpoint, &secret, rotation.overlap());
    let changed = timeout(DEADLINE, changed).await??.ok_or_else(|| missing(&id))?;
    Ok(EndpointView::shown(&changed, &secret))
}

/// Try a webhook endpoint.
///
/// Sends one event about a task or batch that does not exist, and waits for the answer: up to 15 s.
#[utoipa::path(
    post, path = "/v1/webhook_endpoints/{id}/test", tag = "webhooks", operation_id = "test_webhook_endpoint",
    params(("id" = String, Path, description = "The endpoint's id.")),
    request_body = Test,
    responses(
        (status = 200, description = "What became of it.", body = Tested),
        (status = 404, description = "No such endpoint.", body = Wrapped),
    )
)]
pub(crate) async fn test(
    app: App,
    Path(id): Path<String>,
    JsonBody(bytes): JsonBody,
) -> Result<Response, ApiError> {
    let endpoint = find(&app, &id).await?;
    let Test { event_type: name } = parse::read(&bytes)?;
    let event_type = event_type("event_type", &name)?;
    let tested = tried(&app, &endpoint, event_type).await;
    Ok(view::respond(StatusCode::OK, view::json(&tested)))
}

async fn tried(app: &App, endpoint: &Endpoint, event_type: EventType) -> Tested {
    let id = DeliveryId::new();
    let data = match event_type.is_of_task() {
        true => sample(event_type),
        false => json!({ "id": BatchId::new() }),
    };
    let body = webhook::event(id, event_type, UnixMs::now(), &data);
    let message = Message { url: &endpoint.url, id: &id.to_string(), body: &body };
    let (success, status_code, error) =
        match app.webhooks.send(message, std::slice::from_ref(&endpoint.secret)).await {
            Attempt::Taken { status } => (true, Some(status), None),
            Attempt::Gone => (true, Some(410), Some("status 410 Gone".to_owned())),
            Attempt::Failed { status, error, .. } => (status.is_some(), status, Some(error)),
        };
    Tested {
        object: "webhook_endpoint.test",
        webhook_endpoint_id: endpoint.id,
        event_type: event_type.as_str(),
        success,
        status_code,
        error,
    }
}

/// A task as an event of this type tells of it, field by field.
fn sample(event_type: EventType) -> Value {
    let now = UnixMs::now();
    let status = event_type.as_str().trim_start_matches("task.");
    let answered = status == "completed";
    let usage = json!({
        "input_tokens": 3, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": 1,
        "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 4,
    });
    let body = json!({
        "id": "chatcmpl-test", "object": "chat.completion", "created": now.seconds(), "model": "test",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "test"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
    });
    let error = json!({
        "type": "server_error", "code": "upstream_failed", "message": "This is a test.", "param": null, "retryable": true,
        "attempt": 1, "upstream_status": 500, "upstream_code": "server_error", "upstream_message": "This is a test.",
    });
    let said =
        json!({"error": {"message": "This is a test.", "type": "server_error", "param": null, "code": null}});
    json!({
        "id": TaskId::new(), "object": "task", "status": status, "endpoint": "/v1/chat/completions", "model": "test",
        "queue": "default", "attempt": 1, "created_at": now, "finished_at": now, "metadata": {"test": "true"},
        "usage": answered.then_some(usage),
        "error": (!answered).then_some(error),
        "result": {"status_code": if answered { 200 } else { 500 }, "body": if answered { body } else { said }},
    })
}

/// List types of events.
#[utoipa::path(
    get, path = "/v1/webhook_event_types", tag = "webhooks", operation_id = "list_webhook_event_types",
    responses((status = 200, description = "All of them.", body = List<String>))
)]
pub(crate) async fn types(_: App) -> Response {
    let list = List::new(EventType::ALL.map(EventType::as_str).to_vec(), (None, None), false);
    view::respond(StatusCode::OK, view::json(&list))
}

async fn find(app: &App, id: &str) -> Result<Endpoint, ApiError> {
    let endpoint = read(app, id)?;
    let found = timeout(DEADLINE, app.backends.webhooks.endpoint(app.project, endpoint)).await??;
    found.ok_or_else(|| missing(id))
}

/// An endpoint's id; the project's own stands for what its tasks' own webhooks are signed with, and is none.
fn read(app: &App, id: &str) -> Result<EndpointId, ApiError> {
    let read: EndpointId = id.parse().map_err(|_| missing(id))?;
    if read.0 == app.project.0 { Err(missing(id)) } else { Ok(read) }
}

fn missing(id: &str) -> ApiError {
    let id: String = id.chars().take(64).collect();
    ApiError::NotFound {
        message: format!("No webhook endpoint found with id '{id}'."),
        code: "webhook_endpoint_not_found",
        param: Some("id"),
    }
}

fn named(name: String) -> Result<String, ApiError> {
    match shared::store::Key::is_name(&name) {
        true => Ok(name),
        false => Err(ApiError::invalid("name", "'name' may have at most 128 characters, and no U+0000.")),
    }
}

/// A URL that may be called, as far as can be told without looking its host up: in its one form, which is ASCII. As it came, it could
/// hold what no database reads back.
///
/// # Errors
/// 400.
pub(crate) fn admitted(app: &App, param: &str, url: String) -> Result<String, ApiError> {
    match app.webhooks.guard().url(&url) {
        Ok(url) => Ok(url.into()),
        Err(refused) => Err(ApiError::invalid(param, format!("'{param}' cannot be called: {refused}."))),
    }
}
