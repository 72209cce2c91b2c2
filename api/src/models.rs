//! The models that are served, in OpenAI's form.

use crate::{
    catalogue,
    error::{ApiError, Wrapped},
    list::List,
    state::App,
    view,
};
use axum::{extract::Path, response::Response};
use http::StatusCode;
use serde::Serialize;

/// A model, in OpenAI's form.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct Model {
    id: String,
    object: &'static str,
    created: i64,
    owned_by: String,
}

/// List models.
#[utoipa::path(
    get, path = "/v1/models", tag = "models", operation_id = "list_models",
    responses((status = 200, description = "Every model that is routed or that an upstream lists.", body = List<Model>))
)]
pub(crate) async fn list(app: App) -> Result<Response, ApiError> {
    let models = served(&app).await?;
    let ids = (models.first().map(|model| model.id.clone()), models.last().map(|model| model.id.clone()));
    Ok(view::respond(StatusCode::OK, view::json(&List::new(models, ids, false))))
}

/// Get a model.
#[utoipa::path(
    get, path = "/v1/models/{id}", tag = "models", operation_id = "get_model",
    params(("id" = String, Path, description = "The model's name, slashes and all.")),
    responses(
        (status = 200, description = "It is served.", body = Model),
        (status = 404, description = "It is not.", body = Wrapped),
    )
)]
pub(crate) async fn get(app: App, Path(id): Path<String>) -> Result<Response, ApiError> {
    let found = served(&app).await?.into_iter().find(|model| model.id == id);
    let Some(found) = found else {
        let message = catalogue::unserved(&app.config, &app.catalogue.notes().await?, &id);
        return Err(ApiError::NotFound { message, code: "model_not_found", param: Some("id") });
    };
    Ok(view::respond(StatusCode::OK, view::json(&found)))
}

async fn served(app: &App) -> Result<Vec<Model>, ApiError> {
    let all = catalogue::served(&app.config, &app.catalogue.notes().await?);
    let created = app.started_at.seconds();
    Ok(all.into_iter().map(|(id, owned_by)| Model { id, object: "model", created, owned_by }).collect())
}
