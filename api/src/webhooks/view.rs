//! Endpoints as clients see them. A secret is in the answer to its making, and nowhere after.

use crate::view;
use axum::response::Response;
use http::StatusCode;
use serde::Serialize;
use shared::{
    clock::UnixMs,
    task::EndpointId,
    webhook::{Endpoint, SigningSecret},
};

/// An endpoint.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = WebhookEndpoint)]
pub(crate) struct EndpointView<'a> {
    /// Its id.
    #[schema(value_type = String)]
    id: EndpointId,
    object: &'static str,
    /// Whole Unix seconds.
    created_at: i64,
    /// Whole Unix seconds.
    updated_at: i64,
    /// What people call it.
    name: &'a str,
    /// Where to.
    url: &'a str,
    /// Of what.
    event_types: Vec<&'static str>,
    /// Whether it is told of anything: not after it has answered 410, or has failed for five days.
    enabled: bool,
    /// Since when every delivery has failed, Unix seconds.
    #[schema(value_type = Option<f64>)]
    failing_since: Option<UnixMs>,
    /// The end of its secret.
    signing_secret_hint: String,
    /// The secret itself: only in the answer to its making.
    #[serde(skip_serializing_if = "Option::is_none")]
    signing_secret: Option<&'a str>,
}

impl<'a> EndpointView<'a> {
    pub(super) fn new(row: &'a Endpoint) -> Self {
        Self {
            id: row.id,
            object: "webhook_endpoint",
            created_at: row.created_at.seconds(),
            updated_at: row.updated_at.seconds(),
            name: &row.name,
            url: &row.url,
            event_types: row.event_types.iter().map(|kind| kind.as_str()).collect(),
            enabled: row.disabled_at.is_none(),
            failing_since: row.failing_since,
            signing_secret_hint: row.secret.hint(),
            signing_secret: None,
        }
    }

    /// With its secret.
    pub(super) fn shown(row: &'a Endpoint, secret: &'a SigningSecret) -> Response {
        let shown = Self { signing_secret: Some(secret.expose()), ..Self::new(row) };
        view::respond_once(StatusCode::OK, view::json(&shown))
    }
}

/// That an endpoint is gone.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = WebhookEndpointDeleted)]
pub(crate) struct Removed {
    /// Its id.
    #[schema(value_type = String)]
    pub(super) id: EndpointId,
    pub(super) object: &'static str,
    /// Always true.
    pub(super) deleted: bool,
}

/// What became of a test.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = WebhookTested)]
pub(crate) struct Tested {
    pub(super) object: &'static str,
    /// The endpoint.
    #[schema(value_type = String)]
    pub(super) webhook_endpoint_id: EndpointId,
    /// What it was told.
    pub(super) event_type: &'static str,
    /// Whether it answered: `status_code` says what.
    pub(super) success: bool,
    /// Its status, if it answered.
    pub(super) status_code: Option<u16>,
    /// What was wrong.
    pub(super) error: Option<String>,
}
