//! Limits of a project or a key, in the place of those that the configuration gives to all of them.

use super::{keys, projects};
use crate::{
    error::{ApiError, Wrapped},
    fetch::DEADLINE,
    parse::{self, JsonBody},
    state::App,
    view,
};
use axum::{extract::Path, response::Response};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use shared::{identity::Quotas, store::Whose};
use tokio::time::timeout;

/// Limits; what is left out is as for all others.
#[derive(Debug, Default, Clone, Copy, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Limits {
    /// Requests in any minute.
    #[serde(default, deserialize_with = "parse::whole")]
    #[schema(minimum = 1, maximum = 1000000000)]
    requests_per_minute: Option<u32>,
    /// Tokens, in and out, in any minute.
    #[serde(default, deserialize_with = "parse::whole")]
    #[schema(minimum = 1, maximum = 1000000000)]
    tokens_per_minute: Option<u32>,
    /// Tasks that wait for a start; only a project has this one.
    #[serde(default, deserialize_with = "parse::whole")]
    #[schema(minimum = 1, maximum = 1000000000)]
    queued_tasks: Option<u32>,
    /// Tasks that run at once; only a project has this one.
    #[serde(default, deserialize_with = "parse::whole")]
    #[schema(minimum = 1, maximum = 1000000000)]
    concurrent_tasks: Option<u32>,
}

/// Limits of a key; what is left out is as for all others.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = KeyLimits)]
#[expect(dead_code, reason = "this is the description of the limits that a key may have")]
pub(crate) struct OfKey {
    /// Requests in any minute.
    #[serde(default, deserialize_with = "parse::whole")]
    #[schema(minimum = 1, maximum = 1000000000)]
    requests_per_minute: Option<u32>,
    /// Tokens, in and out, in any minute.
    #[serde(default, deserialize_with = "parse::whole")]
    #[schema(minimum = 1, maximum = 1000000000)]
    tokens_per_minute: Option<u32>,
}

impl From<Quotas> for Limits {
    fn from(quotas: Quotas) -> Self {
        let Quotas { requests_per_minute, tokens_per_minute, queued_tasks, concurrent_tasks } = quotas;
        Self { requests_per_minute, tokens_per_minute, queued_tasks, concurrent_tasks }
    }
}

impl Limits {
    /// The limits, if they are within theirs; `field` is where they stood.
    ///
    /// # Errors
    /// 400.
    pub(super) fn of_key(self, field: &str) -> Result<Quotas, ApiError> {
        let tasks = [("queued_tasks", self.queued_tasks), ("concurrent_tasks", self.concurrent_tasks)];
        if let Some((name, _)) = tasks.into_iter().find(|(_, limit)| limit.is_some()) {
            let param = format!("{field}{name}");
            let message = format!("'{param}' is a limit of projects: a key has none of its own.");
            return Err(ApiError::invalid(param, message));
        }
        self.of_project(field)
    }

    fn of_project(self, field: &str) -> Result<Quotas, ApiError> {
        let Self { requests_per_minute, tokens_per_minute, queued_tasks, concurrent_tasks } = self;
        let quotas = Quotas { requests_per_minute, tokens_per_minute, queued_tasks, concurrent_tasks };
        match quotas.stray() {
            Some(stray) => {
                let param = format!("{field}{stray}");
                let message = format!("'{param}' must be between 1 and {}.", Quotas::MAX);
                Err(ApiError::invalid(param, message))
            }
            None => Ok(quotas),
        }
    }
}

/// Limit a project.
///
/// Takes the place of all its limits so far, within 5 s everywhere.
#[utoipa::path(
    post, path = "/v1/admin/projects/{id}/limits", tag = "admin", operation_id = "limit_project",
    params(("id" = String, Path, description = "The project's id.")),
    request_body = Limits,
    responses(
        (status = 200, description = "Its limits.", body = Limits),
        (status = 404, description = "No such project.", body = Wrapped),
    )
)]
pub(crate) async fn project(
    app: App,
    Path(id): Path<String>,
    JsonBody(bytes): JsonBody,
) -> Result<Response, ApiError> {
    let quotas = parse::read::<Limits>(&bytes)?.of_project("")?;
    let missing = || projects::missing(&id);
    limit(&app, Whose::Project(id.parse().map_err(|_| missing())?), quotas, missing).await
}

/// Limit a key.
///
/// Takes the place of all its limits so far, within 5 s everywhere.
#[utoipa::path(
    post, path = "/v1/admin/keys/{id}/limits", tag = "admin", operation_id = "limit_key",
    params(("id" = String, Path, description = "The key's id.")),
    request_body = OfKey,
    responses(
        (status = 200, description = "Its limits.", body = Limits),
        (status = 404, description = "No such key.", body = Wrapped),
    )
)]
pub(crate) async fn key(
    app: App,
    Path(id): Path<String>,
    JsonBody(bytes): JsonBody,
) -> Result<Response, ApiError> {
    let quotas = parse::read::<Limits>(&bytes)?.of_key("")?;
    let missing = || keys::missing(&id);
    limit(&app, Whose::Key(id.parse().map_err(|_| missing())?), quotas, missing).await
}

async fn limit(
    app: &App,
    whose: Whose,
    quotas: Quotas,
    missing: impl Fn() -> ApiError,
) -> Result<Response, ApiError> {
    match timeout(DEADLINE, app.backends.registry.limit(&app.actor(), whose, &quotas)).await?? {
        true => Ok(view::respond(StatusCode::OK, view::json(&Limits::from(quotas)))),
        false => Err(missing()),
    }
}
