//! The whole URL table on one page.

use crate::{
    admin, batches, docs, error::ApiError, gate, list, results, state::App, stream, submit, tasks, ws,
};
use axum::{
    Router,
    middleware::from_fn_with_state,
    routing::{MethodRouter, get, post},
};

/// Every path, but the pages that show the documentation.
fn table() -> Vec<(&'static str, MethodRouter<App>)> {
    vec![
        // Tasks
        ("/v1/tasks", post(submit::create).get(list::tasks)),
        ("/v1/tasks/{id}", get(tasks::get).delete(tasks::delete)),
        ("/v1/tasks/{id}/result", get(tasks::result)),
        ("/v1/tasks/{id}/events", get(stream::events)),
        ("/v1/tasks/{id}/cancel", post(tasks::cancel)),
        ("/v1/tasks/{id}/retry", post(tasks::retry)),
        ("/v1/ws", get(ws::open)),
        // Batches
        ("/v1/batches", post(batches::create).get(batches::list)),
        ("/v1/batches/{id}", get(batches::get)),
        ("/v1/batches/{id}/cancel", post(batches::cancel)),
        ("/v1/batches/{id}/results", get(results::results)),
        // What is here
        ("/v1/models", get(admin::models)),
        ("/v1/models/{*id}", get(admin::model)),
        ("/v1/queues", get(admin::queues)),
        // Health, for whoever runs this
        ("/livez", get(admin::livez)),
        ("/readyz", get(admin::readyz)),
        ("/healthz", get(admin::livez)),
        ("/metrics", get(admin::metrics)),
        ("/openapi.json", get(docs::openapi)),
    ]
}

/// The routes with the gate around them.
pub(crate) fn router(app: App) -> Router {
    let routes =
        table().into_iter().fold(Router::new(), |router, (path, methods)| router.route(path, methods));
    routes
        .merge(docs::pages())
        .fallback(async || ApiError::not_found("No such path: GET /openapi.json lists those that there are."))
        .method_not_allowed_fallback(async || ApiError::Method)
        .layer(from_fn_with_state(app.clone(), gate::gate))
        .with_state(app)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    #[test]
    fn the_description_covers_every_route() {
        let described = serde_json::to_value(crate::docs::description()).expect("a description is JSON");
        let described: BTreeSet<String> =
            described["paths"].as_object().expect("an object").keys().cloned().collect();
        // OpenAPI has no word for a parameter that spans slashes.
        let routed = super::table().into_iter().map(|(path, _)| path.replace("{*", "{")).collect();
        assert_eq!(described, routed);
    }
}
