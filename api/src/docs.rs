//! The API's description and the pages that show it. Everything is served from here: nothing is loaded from elsewhere.

mod complete;
pub(crate) mod schema;

use crate::{
    admin, batches, error, health, home, lines, list, models, queues, results,
    routes::{self, Needs},
    state::Shared,
    stream, submit, tasks, view,
    webhooks::{deliveries, endpoints, secret},
    ws,
};
use axum::{
    Router,
    extract::State,
    response::{Html, IntoResponse, Response},
    routing::get,
};
use bytes::Bytes;
use complete::{Complete, refuse};
use http::{Method, StatusCode, header};
use shared::config::{Config, Mode};
use utoipa::{
    Modify, OpenApi,
    openapi::{
        PathItem,
        path::Operation,
        security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme},
    },
};
use utoipa_swagger_ui::SwaggerUi;

const REDOC: &[u8] = include_bytes!("docs/vendor/redoc.standalone.js");

const REDOC_PAGE: &str = r#"<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Longhaul API</title></head>
<body style="margin:0"><redoc spec-url="/openapi.json" disable-search="false"></redoc><script src="/redoc.js"></script></body>
</html>
"#;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Longhaul",
        description = "Inference that takes longer than an HTTP request should: submit a task, have a durable 202, and hear of its end by event stream, socket, webhook or poll."
    ),
    paths(
        submit::create, list::tasks, tasks::get, tasks::delete, tasks::result, stream::events, tasks::cancel,
        tasks::retry, ws::open, ws::ticket::create, batches::create, batches::list, batches::get, batches::cancel, results::results,
        endpoints::create, endpoints::list, endpoints::get, endpoints::update, endpoints::delete, endpoints::rotate, endpoints::test,
        endpoints::types, deliveries::list, deliveries::redeliver, secret::get, secret::rotate,
        models::list, models::get, queues::list, admin::projects::create, admin::projects::list, admin::keys::create,
        admin::keys::list, admin::keys::rotate, admin::keys::revoke, admin::limits::project, admin::limits::key, admin::audit::list, health::livez, health::readyz,
        health::healthz, health::metrics, openapi,
    ),
    components(schemas(error::Problem, lines::Line)),
    modifiers(&Security, &Complete),
    tags(
        (name = "tasks", description = "One request to a model each."),
        (name = "batches", description = "Many requests with a common window, in OpenAI's form."),
        (name = "webhooks", description = "Who is told of ends by a signed request, in OpenAI's form."),
        (name = "models", description = "What is served, in OpenAI's form."),
        (name = "queues", description = "The lanes that tasks wait in."),
        (name = "admin", description = "Projects and keys: for the operator."),
        (name = "health", description = "For whoever runs this."),
    ),
)]
struct Description;

/// Who may: every operation with the scope it needs, and what it answers to those who have it not.
struct Security;

impl Modify for Security {
    fn modify(&self, description: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer);
        let scheme = scheme.description(Some(
            "An API key, or a token of the identity provider. The scopes are those that it needs.",
        ));
        let components = description.components.get_or_insert_default();
        components.add_security_scheme("key", SecurityScheme::Http(scheme.build()));
        for (path, item) in &mut description.paths.paths {
            for (method, operation) in operations(item) {
                secure(operation, routes::needs(Some(&routes::routed(path)), &method));
            }
        }
    }
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = (Method, &mut Operation)> {
    let all =
        [(Method::GET, &mut item.get), (Method::POST, &mut item.post), (Method::DELETE, &mut item.delete)];
    all.into_iter().filter_map(|(method, operation)| Some((method, operation.as_mut()?)))
}

fn secure(operation: &mut Operation, needs: Needs) {
    let scopes = match needs {
        Needs::Nothing => {
            operation.security = Some(vec![SecurityRequirement::default()]);
            return;
        }
        Needs::Caller => Vec::new(),
        Needs::Scope(scope) => vec![scope.as_str()],
    };
    operation.security = Some(vec![SecurityRequirement::new("key", scopes)]);
    let refusals = [
        ("401", "No valid key or token."),
        ("403", "The key has not the scope for this."),
        ("429", "A limit of the caller is reached: `Retry-After` says when to come again."),
        ("500", "A fault of ours: the log has it under the request's id."),
        ("503", "The database is away: repeat."),
    ];
    for (status, why) in refusals {
        refuse(operation, status, why);
    }
}

/// Whether a route is one of the pages for people.
pub(crate) fn is_page(route: &str) -> bool {
    matches!(route, "/" | "/redoc" | "/redoc.js" | "/docs") || route.starts_with("/docs/")
}

/// The API's description, with the lanes and endpoints of this configuration.
pub(crate) fn description(config: &Config) -> utoipa::openapi::OpenApi {
    let mut description = Description::openapi();
    complete::configure(&mut description, config);
    description
}

/// What `GET /openapi.json` answers.
pub(crate) fn served(config: &Config) -> Bytes {
    description(config).to_pretty_json().expect("a description is JSON").into()
}

/// The API's description as OpenAPI 3.1 JSON: what `GET /openapi.json` answers where nothing is configured.
///
/// # Panics
/// Never: a description is JSON.
#[must_use]
pub fn description_json() -> String {
    let config = Config::new(Mode::Embedded { data_dir: "unused".into() });
    description(&config).to_pretty_json().expect("a description is JSON")
}

/// This description.
#[utoipa::path(
    get, path = "/openapi.json", tag = "health", operation_id = "openapi",
    responses((status = 200, description = "OpenAPI 3.1.", body = Object))
)]
pub(crate) async fn openapi(State(app): State<Shared>) -> Response {
    view::respond(StatusCode::OK, app.description.clone())
}

/// The page at `/`, Swagger UI at `/docs`, Redoc at `/redoc`.
pub(crate) fn pages() -> Router<Shared> {
    let config = utoipa_swagger_ui::Config::new(["/openapi.json"]).validator_url("none");
    let script = async || ([(header::CONTENT_TYPE, "text/javascript; charset=utf-8")], REDOC).into_response();
    Router::from(SwaggerUi::new("/docs").config(config))
        .route("/", get(home::home))
        .route("/redoc", get(async || Html(REDOC_PAGE)))
        .route("/redoc.js", get(script))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_committed_description_is_current() {
        let committed = include_str!("../../docs/openapi.json");
        let current = super::description_json();
        assert!(
            committed.trim_end() == current.trim_end(),
            "docs/openapi.json is old: run `cargo run -p api --example openapi > docs/openapi.json`"
        );
    }
}
