//! What tasks' own webhooks are signed with: one secret of the project, for receivers that no endpoint is made for.

use super::{
    TYPES_MAX,
    endpoints::{Rotation, admitted},
    event_types,
};
use crate::{
    docs::schema,
    error::{ApiError, Wrapped},
    fetch::DEADLINE,
    few::Few,
    parse::{self, MaybeJson},
    state::App,
    view,
};
use axum::response::Response;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use shared::{
    task::EndpointId,
    webhook::{Endpoint, EventType, OwnWebhook, SigningSecret},
};
use std::sync::Arc;
use tokio::time::timeout;

/// The project's secret.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = WebhookSecret)]
pub(crate) struct SecretView<'a> {
    object: &'static str,
    /// Whole Unix seconds.
    created_at: i64,
    /// Whole Unix seconds.
    updated_at: i64,
    /// Its end.
    signing_secret_hint: String,
    /// The secret itself: only in the answer to its making.
    #[serde(skip_serializing_if = "Option::is_none")]
    signing_secret: Option<&'a str>,
}

impl<'a> SecretView<'a> {
    fn new(row: &'a Endpoint, signing_secret: Option<&'a str>) -> Self {
        Self {
            object: "webhook_secret",
            created_at: row.created_at.seconds(),
            updated_at: row.updated_at.seconds(),
            signing_secret_hint: row.secret.hint(),
            signing_secret,
        }
    }
}

/// Who is to be told of a task's end.
#[derive(Debug, Deserialize, Serialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = OwnWebhook)]
pub(crate) struct Wanted {
    /// Where to: `https`, at a public address. Signed with the project's secret: `POST /v1/webhook_secret/rotate` makes one.
    #[schema(schema_with = schema::webhook_url)]
    url: String,
    /// Of what; all ends of the task if not given.
    #[serde(default)]
    #[schema(schema_with = schema::event_types_or_null)]
    event_types: Option<Few<String, TYPES_MAX>>,
}

/// Get the project's webhook secret, but for itself.
#[utoipa::path(
    get, path = "/v1/webhook_secret", tag = "webhooks", operation_id = "get_webhook_secret",
    responses(
        (status = 200, description = "When it was made, and its end.", body = SecretView),
        (status = 404, description = "There is none yet.", body = Wrapped),
    )
)]
pub(crate) async fn get(app: App) -> Result<Response, ApiError> {
    let found = find(&app).await?.ok_or_else(|| ApiError::NotFound {
        message: "The project has no webhook secret yet: POST /v1/webhook_secret/rotate makes one.".into(),
        code: "webhook_secret_not_found",
        param: None,
    })?;
    Ok(view::respond(StatusCode::OK, view::json(&SecretView::new(&found, None))))
}

/// Make a new webhook secret for the project.
///
/// It signs tasks' own webhooks. The answer is the only place where it is shown.
#[utoipa::path(
    post, path = "/v1/webhook_secret/rotate", tag = "webhooks", operation_id = "rotate_project_webhook_secret",
    request_body = Option<Rotation>,
    responses((status = 200, description = "With the secret.", body = SecretView))
)]
pub(crate) async fn rotate(app: App, MaybeJson(body): MaybeJson) -> Result<Response, ApiError> {
    let rotation: Rotation = body.map_or(Ok(Rotation::default()), |body| parse::read(&body))?;
    let (actor, secret) = (app.actor(), SigningSecret::generate());
    let webhooks = &app.backends.webhooks;
    let made = webhooks.rotate_secret(&actor, app.project, own(&app), &secret, rotation.overlap());
    let made = timeout(DEADLINE, made)
        .await??
        .ok_or_else(|| ApiError::Conflict("Somebody else makes it at this moment: try again.".into()))?;
    let shown = SecretView::new(&made, Some(secret.expose()));
    Ok(view::respond_once(StatusCode::OK, view::json(&shown)))
}

/// The webhook of a task, as it is kept with it, if it has one.
///
/// # Errors
/// 400: it cannot be called, or there is nothing to sign it with.
pub(crate) async fn of_task(app: &App, wanted: Option<&Wanted>) -> Result<Option<Arc<str>>, ApiError> {
    let Some(wanted) = wanted else { return Ok(None) };
    let url = admitted(app, "webhook.url", wanted.url.clone())?;
    let types = match &wanted.event_types {
        Some(names) => event_types("webhook.event_types", names)?,
        None => EventType::ALL.into_iter().filter(|kind| kind.is_of_task()).collect(),
    };
    if find(app).await?.is_none() {
        let message = "'webhook' needs a secret to be signed with: POST /v1/webhook_secret/rotate makes one.";
        return Err(ApiError::invalid("webhook", message));
    }
    Ok(Some(OwnWebhook::new(app.project, &url, &types).to_json()))
}

async fn find(app: &App) -> Result<Option<Endpoint>, ApiError> {
    Ok(timeout(DEADLINE, app.backends.webhooks.endpoint(app.project, own(app))).await??)
}

/// What the store calls it.
fn own(app: &App) -> EndpointId {
    EndpointId(app.project.0)
}
