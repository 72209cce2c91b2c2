//! API keys: made, listed, rotated, revoked. The key itself is in the answer to its making, and nowhere after.

use super::limits::{Limits, OfKey};
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
use serde::{Deserialize, Serialize};
use shared::{
    clock::UnixMs,
    identity::{ApiKey, Scopes},
    store::{Grant, Key, NewKey, Project},
    task::{KeyId, ProjectId},
};
use std::time::Duration;
use tokio::time::timeout;

/// Longest life of a key that ends by itself, and longest overlap of a rotation.
const LIFE_MAX: u64 = 10 * 366 * 86_400;
/// Overlap of a rotation that names none.
const OVERLAP: u64 = 86_400;

/// Scopes that a caller may list; there are fewer.
pub(crate) const SCOPES_MAX: usize = 16;

/// A key that is wanted.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewKey)]
pub(crate) struct Wanted {
    /// Name or id of its project.
    project: String,
    /// What people call it, at most 128 characters.
    #[serde(default)]
    #[schema(schema_with = schema::name)]
    name: String,
    /// What it may do: one or more of submit, read, batch, webhooks and admin.
    #[schema(schema_with = schema::scopes)]
    scopes: Few<String, SCOPES_MAX>,
    /// Seconds after which it ends; without it, it lives until it is revoked.
    #[serde(default, deserialize_with = "parse::whole")]
    #[schema(minimum = 1, maximum = 316224000)]
    expires_in_s: Option<u64>,
    /// Its limits.
    #[serde(default)]
    #[schema(value_type = OfKey)]
    limits: Limits,
}

/// How a key is rotated.
#[derive(Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rotation {
    /// Seconds for which the old key still works, 86400 if not given.
    #[serde(default, deserialize_with = "parse::whole")]
    #[schema(minimum = 0, maximum = 316224000)]
    overlap_s: Option<u64>,
}

/// A key.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = Key)]
pub(crate) struct KeyView<'a> {
    /// Its id: opens nothing.
    #[schema(value_type = String)]
    id: KeyId,
    object: &'static str,
    /// The name of its project.
    project: &'a str,
    /// The id of its project.
    #[schema(value_type = String)]
    project_id: ProjectId,
    /// What people call it.
    name: &'a str,
    /// Its first characters.
    hint: &'a str,
    /// What it may do.
    #[schema(value_type = Vec<String>)]
    scopes: Scopes,
    /// Unix seconds.
    #[schema(value_type = f64)]
    created_at: UnixMs,
    /// Unix seconds; null: until it is revoked.
    #[schema(value_type = Option<f64>)]
    expires_at: Option<UnixMs>,
    /// Unix seconds.
    #[schema(value_type = Option<f64>)]
    revoked_at: Option<UnixMs>,
    /// Unix seconds, to the minute.
    #[schema(value_type = Option<f64>)]
    used_at: Option<UnixMs>,
    /// Its limits, where they are not those of all keys.
    limits: Limits,
    /// The key itself: only in the answer to its making.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
}

impl<'a> KeyView<'a> {
    fn new(row: &'a Key, key: Option<&'a ApiKey>) -> Self {
        Self {
            id: row.id,
            object: "api_key",
            project: &row.project_name,
            project_id: row.project,
            name: &row.name,
            hint: &row.hint,
            scopes: row.scopes,
            created_at: row.created_at,
            expires_at: row.expires_at,
            revoked_at: row.revoked_at,
            used_at: row.used_at,
            limits: row.quotas.into(),
            key: key.map(ApiKey::expose),
        }
    }
}

/// Create a key.
///
/// The answer is the only place where the key itself is shown.
#[utoipa::path(
    post, path = "/v1/admin/keys", tag = "admin", operation_id = "create_key",
    request_body = Wanted,
    responses(
        (status = 201, description = "Made.", body = KeyView),
        (status = 404, description = "No such project.", body = Wrapped),
    )
)]
pub(crate) async fn create(app: App, JsonBody(bytes): JsonBody) -> Result<Response, ApiError> {
    let wanted: Wanted = parse::read(&bytes)?;
    let scopes: Scopes = wanted
        .scopes
        .0
        .iter()
        .map(|name| name.parse::<shared::identity::Scope>())
        .collect::<Result<_, _>>()
        .map_err(|error| ApiError::invalid("scopes", format!("{error}.")))?;
    if scopes.is_empty() {
        return Err(ApiError::invalid("scopes", "'scopes' must name at least one scope."));
    }
    if !Key::is_name(&wanted.name) {
        return Err(ApiError::invalid("name", "'name' may have at most 128 characters, and no U+0000."));
    }
    let lives = wanted.expires_in_s.map(|s| seconds("expires_in_s", s, 1)).transpose()?;
    let quotas = wanted.limits.of_key("limits.")?;
    let project = project(&app, &wanted.project).await?;
    let grant = Grant { project, name: wanted.name, scopes, lives, quotas };
    let (actor, (key, new)) = (app.actor(), NewKey::generate());
    let made = app.backends.registry.create_key(&actor, &new, &grant);
    let made = timeout(DEADLINE, made).await??.ok_or_else(|| no_project(&wanted.project))?;
    Ok(shown(&KeyView::new(&made, Some(&key))))
}

/// List keys, newest first, those that have ended too.
#[utoipa::path(
    get, path = "/v1/admin/keys", tag = "admin", operation_id = "list_keys",
    params(
        ("limit" = Option<u32>, Query, description = "20 if not given.", minimum = 1, maximum = 100),
        ("after" = Option<String>, Query, description = "Only what follows this id."),
    ),
    responses(
        (status = 200, description = "A page.", body = List<KeyView>),
        (status = 400, description = "Not valid: `param` names the parameter.", body = Wrapped),
    )
)]
pub(crate) async fn list(app: App, Query(pairs): Query<Pairs>) -> Result<Response, ApiError> {
    let (limit, after) = list::place(&pairs)?;
    let page = timeout(DEADLINE, app.backends.registry.keys(after, limit)).await??;
    let list = List::of(&page, |key| key.id, |key| KeyView::new(key, None));
    Ok(view::respond(StatusCode::OK, view::json(&list)))
}

/// Rotate a key.
///
/// Makes a new key with the same rights. The old one still works for a while.
#[utoipa::path(
    post, path = "/v1/admin/keys/{id}/rotate", tag = "admin", operation_id = "rotate_key",
    params(("id" = String, Path, description = "The key's id.")),
    request_body = Option<Rotation>,
    responses(
        (status = 201, description = "The new key.", body = KeyView),
        (status = 404, description = "No such key.", body = Wrapped),
        (status = 409, description = "It was revoked, or has expired.", body = Wrapped),
    )
)]
pub(crate) async fn rotate(
    app: App,
    Path(id): Path<String>,
    MaybeJson(body): MaybeJson,
) -> Result<Response, ApiError> {
    let rotation: Rotation = body.map_or(Ok(Rotation::default()), |body| parse::read(&body))?;
    let overlap = seconds("overlap_s", rotation.overlap_s.unwrap_or(OVERLAP), 0)?;
    let old: KeyId = id.parse().map_err(|_| missing(&id))?;
    let (actor, (key, new)) = (app.actor(), NewKey::generate());
    let made = app.backends.registry.rotate_key(&actor, old, &new, overlap);
    let Some(made) = timeout(DEADLINE, made).await?? else {
        let ended = timeout(DEADLINE, app.backends.registry.key(old)).await??.is_some();
        let conflict = || ApiError::Conflict("Cannot rotate a key that was revoked or has expired.".into());
        return Err(if ended { conflict() } else { missing(&id) });
    };
    Ok(shown(&KeyView::new(&made, Some(&key))))
}

/// Revoke a key.
///
/// It is refused everywhere within 5 s, and its open streams end.
#[utoipa::path(
    post, path = "/v1/admin/keys/{id}/revoke", tag = "admin", operation_id = "revoke_key",
    params(("id" = String, Path, description = "The key's id.")),
    responses(
        (status = 200, description = "Revoked, now or earlier.", body = KeyView),
        (status = 404, description = "No such key.", body = Wrapped),
    )
)]
pub(crate) async fn revoke(
    app: App,
    Path(id): Path<String>,
    MaybeJson(_): MaybeJson,
) -> Result<Response, ApiError> {
    let key: KeyId = id.parse().map_err(|_| missing(&id))?;
    let actor = app.actor();
    let revoked = timeout(DEADLINE, app.backends.registry.revoke_key(&actor, key)).await??;
    let revoked = revoked.ok_or_else(|| missing(&id))?;
    Ok(view::respond(StatusCode::OK, view::json(&KeyView::new(&revoked, None))))
}

fn shown(key: &KeyView<'_>) -> Response {
    view::respond_once(StatusCode::CREATED, view::json(key))
}

/// A project by its name or id.
async fn project(app: &App, named: &str) -> Result<ProjectId, ApiError> {
    if let Ok(id) = named.parse() {
        return Ok(id);
    }
    if !Project::is_name(named) {
        return Err(no_project(named));
    }
    let found = timeout(DEADLINE, app.backends.registry.project(named)).await??;
    found.map(|project| project.id).ok_or_else(|| no_project(named))
}

fn no_project(named: &str) -> ApiError {
    let named: String = named.chars().take(64).collect();
    ApiError::NotFound {
        message: format!("No project found with name or id '{named}'."),
        code: "project_not_found",
        param: Some("project"),
    }
}

pub(super) fn missing(id: &str) -> ApiError {
    let id: String = id.chars().take(64).collect();
    ApiError::NotFound {
        message: format!("No API key found with id '{id}'."),
        code: "key_not_found",
        param: Some("id"),
    }
}

fn seconds(param: &str, value: u64, least: u64) -> Result<Duration, ApiError> {
    match (least..=LIFE_MAX).contains(&value) {
        true => Ok(Duration::from_secs(value)),
        false => Err(ApiError::invalid(param, format!("'{param}' must be between {least} and {LIFE_MAX}."))),
    }
}
