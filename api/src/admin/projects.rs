//! Projects: tenants that see nothing of each other.

use super::limits::Limits;
use crate::{
    error::{ApiError, Wrapped},
    fetch::DEADLINE,
    list::List,
    parse::{self, JsonBody},
    state::App,
    view,
};
use axum::response::Response;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use shared::{clock::UnixMs, store::Project, task::ProjectId};
use tokio::time::timeout;

/// A project that is wanted.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewProject)]
pub(crate) struct Wanted {
    /// 1 to 64 of a-z, 0-9, _, - and ., starting with a letter or digit, but not as ids do.
    #[schema(pattern = "^(?!proj_)[a-z0-9][a-z0-9_.-]{0,63}$")]
    name: String,
}

/// A project.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = Project)]
pub(crate) struct ProjectView {
    /// Its id.
    #[schema(value_type = String)]
    id: ProjectId,
    object: &'static str,
    /// Its name.
    name: String,
    /// Unix seconds.
    #[schema(value_type = f64)]
    created_at: UnixMs,
    /// Its limits, where they are not those of all projects.
    limits: Limits,
}

impl ProjectView {
    fn new(project: &Project) -> Self {
        Self {
            id: project.id,
            object: "project",
            name: project.name.clone(),
            created_at: project.created_at,
            limits: project.quotas.into(),
        }
    }
}

/// Create a project.
#[utoipa::path(
    post, path = "/v1/admin/projects", tag = "admin", operation_id = "create_project",
    request_body = Wanted,
    responses(
        (status = 201, description = "Made.", body = ProjectView),
        (status = 409, description = "The name is taken.", body = Wrapped),
    )
)]
pub(crate) async fn create(app: App, JsonBody(bytes): JsonBody) -> Result<Response, ApiError> {
    let Wanted { name } = parse::read(&bytes)?;
    if !Project::is_name(&name) {
        let message = "'name' must have 1 to 64 of a-z, 0-9, _, - and ., starting with a letter or digit, but not \
                       with proj_.";
        return Err(ApiError::invalid("name", message));
    }
    let actor = app.actor();
    let made = app.backends.registry.create_project(&actor, ProjectId::new(), &name);
    let made = timeout(DEADLINE, made).await??;
    let made =
        made.ok_or_else(|| ApiError::Conflict(format!("There is a project named '{name}' already.")))?;
    Ok(view::respond(StatusCode::CREATED, view::json(&ProjectView::new(&made))))
}

/// List projects, by name.
#[utoipa::path(
    get, path = "/v1/admin/projects", tag = "admin", operation_id = "list_projects",
    responses((status = 200, description = "All of them.", body = List<ProjectView>))
)]
pub(crate) async fn list(app: App) -> Result<Response, ApiError> {
    let projects = timeout(DEADLINE, app.backends.registry.projects()).await??;
    let list = List::new(projects.iter().map(ProjectView::new).collect(), (None, None), false);
    Ok(view::respond(StatusCode::OK, view::json(&list)))
}

pub(super) fn missing(id: &str) -> ApiError {
    let id: String = id.chars().take(64).collect();
    ApiError::NotFound {
        message: format!("No project found with id '{id}'."),
        code: "project_not_found",
        param: Some("id"),
    }
}
