//! The audit log: every administrative act, by whom and on what.

use crate::{
    error::{ApiError, Wrapped},
    fetch::DEADLINE,
    list::{self, List, Pairs},
    state::App,
    view,
};
use axum::{extract::Query, response::Response};
use http::StatusCode;
use serde::Serialize;
use serde_json::value::RawValue;
use shared::{
    clock::UnixMs,
    store::Act,
    task::{ActId, ProjectId},
};
use std::sync::Arc;
use tokio::time::timeout;

/// An administrative act.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = Act)]
pub(crate) struct ActView<'a> {
    /// Its id.
    #[schema(value_type = String)]
    id: ActId,
    object: &'static str,
    /// Unix seconds.
    #[schema(value_type = f64)]
    at: UnixMs,
    /// Who: a key's id, a user, `operator`, `local`, or `command line`.
    #[schema(value_type = String)]
    actor: Arc<str>,
    /// What, e.g. `key.create`.
    #[schema(value_type = String)]
    action: Arc<str>,
    /// Of which project.
    #[schema(value_type = Option<String>)]
    project_id: Option<ProjectId>,
    /// On what: an id.
    #[schema(value_type = String)]
    target: Arc<str>,
    /// Names and values, never a secret.
    #[schema(value_type = Object)]
    detail: Option<&'a RawValue>,
}

impl<'a> ActView<'a> {
    fn new(act: &'a Act) -> Self {
        Self {
            id: act.id,
            object: "act",
            at: act.at,
            actor: act.actor.clone(),
            action: act.action.clone(),
            project_id: act.project,
            target: act.target.clone(),
            detail: view::raw(act.detail.as_bytes()),
        }
    }
}

/// List administrative acts, newest first.
#[utoipa::path(
    get, path = "/v1/admin/audit", tag = "admin", operation_id = "list_acts",
    params(
        ("limit" = Option<u32>, Query, description = "20 if not given.", minimum = 1, maximum = 100),
        ("after" = Option<String>, Query, description = "Only what follows this id."),
    ),
    responses(
        (status = 200, description = "A page.", body = List<ActView>),
        (status = 400, description = "Not valid: `param` names the parameter.", body = Wrapped),
    )
)]
pub(crate) async fn list(app: App, Query(pairs): Query<Pairs>) -> Result<Response, ApiError> {
    let (limit, after) = list::place(&pairs)?;
    let page = timeout(DEADLINE, app.backends.registry.acts(after, limit)).await??;
    let list = List::of(&page, |act| act.id, ActView::new);
    Ok(view::respond(StatusCode::OK, view::json(&list)))
}
