//! The whole URL table on one page: every operation with what it needs of its caller.

use crate::{
    admin, batches, browser, docs,
    error::ApiError,
    gate, health, home, list, models, queues, results,
    state::Shared,
    stream, submit, tasks,
    webhooks::{deliveries, endpoints, secret},
    ws,
};
use axum::{Router, extract::State, handler::Handler, middleware::from_fn_with_state, routing::MethodRouter};
use http::{Method, Uri};
use shared::identity::Scope;
use std::{collections::HashMap, sync::LazyLock};

/// What an operation needs of its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Needs {
    /// Nothing: everybody may.
    Nothing,
    /// A credential.
    Caller,
    /// A credential with this scope.
    Scope(Scope),
}

/// A path with its operations.
struct Place {
    path: &'static str,
    needs: Vec<(Method, Needs)>,
    methods: MethodRouter<Shared>,
}

/// A path without operations yet.
fn at(path: &'static str) -> Place {
    Place { path, needs: Vec::new(), methods: MethodRouter::new() }
}

/// One method of a [`Place`].
macro_rules! method {
    ($name:ident, $method:ident) => {
        fn $name<H: Handler<T, Shared>, T: 'static>(mut self, needs: Needs, handler: H) -> Self {
            self.needs.push((Method::$method, needs));
            self.methods = self.methods.$name(handler);
            self
        }
    };
}

impl Place {
    method!(get, GET);
    method!(post, POST);
    method!(delete, DELETE);
}

const SUBMIT: Needs = Needs::Scope(Scope::Submit);
const READ: Needs = Needs::Scope(Scope::Read);
const BATCH: Needs = Needs::Scope(Scope::Batch);
const WEBHOOKS: Needs = Needs::Scope(Scope::Webhooks);
const ADMIN: Needs = Needs::Scope(Scope::Admin);
const NOTHING: Needs = Needs::Nothing;

/// Every path, but the pages that show the documentation.
fn table() -> Vec<Place> {
    vec![
        // Tasks
        at("/v1/tasks").post(SUBMIT, submit::create).get(READ, list::tasks),
        at("/v1/tasks/{id}").get(READ, tasks::get).delete(SUBMIT, tasks::delete),
        at("/v1/tasks/{id}/result").get(READ, tasks::result),
        at("/v1/tasks/{id}/events").get(READ, stream::events),
        at("/v1/tasks/{id}/cancel").post(SUBMIT, tasks::cancel),
        at("/v1/tasks/{id}/retry").post(SUBMIT, tasks::retry),
        at("/v1/ws").get(READ, ws::open),
        at("/v1/ws_tickets").post(READ, ws::ticket::create),
        // Batches
        at("/v1/batches").post(BATCH, batches::create).get(READ, batches::list),
        at("/v1/batches/{id}").get(READ, batches::get),
        at("/v1/batches/{id}/cancel").post(BATCH, batches::cancel),
        at("/v1/batches/{id}/results").get(READ, results::results),
        // Webhooks
        at("/v1/webhook_endpoints").post(WEBHOOKS, endpoints::create).get(WEBHOOKS, endpoints::list),
        at("/v1/webhook_endpoints/{id}")
            .get(WEBHOOKS, endpoints::get)
            .post(WEBHOOKS, endpoints::update)
            .delete(WEBHOOKS, endpoints::delete),
        at("/v1/webhook_endpoints/{id}/rotate_secret").post(WEBHOOKS, endpoints::rotate),
        at("/v1/webhook_endpoints/{id}/test").post(WEBHOOKS, endpoints::test),
        at("/v1/webhook_event_types").get(WEBHOOKS, endpoints::types),
        at("/v1/webhook_deliveries").get(WEBHOOKS, deliveries::list),
        at("/v1/webhook_deliveries/{id}/redeliver").post(WEBHOOKS, deliveries::redeliver),
        at("/v1/webhook_secret").get(WEBHOOKS, secret::get),
        at("/v1/webhook_secret/rotate").post(WEBHOOKS, secret::rotate),
        // What is here
        at("/v1/models").get(READ, models::list),
        at("/v1/models/{*id}").get(READ, models::get),
        at("/v1/queues").get(READ, queues::list),
        // Who there is
        at("/v1/admin/projects").post(ADMIN, admin::projects::create).get(ADMIN, admin::projects::list),
        at("/v1/admin/projects/{id}/limits").post(ADMIN, admin::limits::project),
        at("/v1/admin/keys").post(ADMIN, admin::keys::create).get(ADMIN, admin::keys::list),
        at("/v1/admin/keys/{id}/rotate").post(ADMIN, admin::keys::rotate),
        at("/v1/admin/keys/{id}/revoke").post(ADMIN, admin::keys::revoke),
        at("/v1/admin/keys/{id}/limits").post(ADMIN, admin::limits::key),
        at("/v1/admin/audit").get(ADMIN, admin::audit::list),
        // Health, for whoever runs this
        at("/livez").get(NOTHING, health::livez),
        at("/readyz").get(NOTHING, health::readyz),
        at("/healthz").get(NOTHING, health::livez),
        at("/metrics").get(ADMIN, health::metrics),
        at("/openapi.json").get(NOTHING, docs::openapi),
    ]
}

/// What the operation needs; a path that is not in the table needs a caller, so that strangers do not learn what is there.
pub(crate) fn needs(path: Option<&str>, method: &Method) -> Needs {
    static NEEDS: LazyLock<HashMap<&str, Vec<(Method, Needs)>>> =
        LazyLock::new(|| table().into_iter().map(|place| (place.path, place.needs)).collect());
    let method = if method == Method::HEAD { &Method::GET } else { method };
    match path {
        Some(path) if docs::is_page(path) => Needs::Nothing,
        Some(path) => NEEDS
            .get(path)
            .and_then(|needs| needs.iter().find(|(known, _)| known == method))
            .map_or(Needs::Caller, |(_, needs)| *needs),
        None => Needs::Caller,
    }
}

/// A path of the description as the table has it: OpenAPI has no word for a parameter that spans slashes.
pub(crate) fn routed(path: &str) -> String {
    path.replace("/v1/models/{id}", "/v1/models/{*id}")
}

/// Every path without a parameter: what a typing error may have meant.
pub(crate) fn paths() -> &'static [&'static str] {
    static PATHS: LazyLock<Vec<&str>> = LazyLock::new(|| {
        let paths = table().into_iter().map(|place| place.path).filter(|path| !path.contains('{'));
        paths.chain(["/docs", "/redoc"]).collect()
    });
    &PATHS
}

/// The routes with the gate around them.
pub(crate) fn router(app: Shared) -> Router {
    let routes =
        table().into_iter().fold(Router::new(), |router, place| router.route(place.path, place.methods));
    let cors = browser::cors(&app.config.api);
    let routes = routes
        .merge(docs::pages())
        .fallback(async |State(app): State<Shared>, method: Method, uri: Uri| {
            home::nowhere(&app.config, &method, &uri)
        })
        .method_not_allowed_fallback(async || ApiError::Method)
        .layer(from_fn_with_state(app.clone(), gate::gate))
        .with_state(app);
    match cors {
        Some(cors) => routes.layer(cors),
        None => routes,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    #[test]
    fn the_description_covers_every_operation() {
        let described = serde_json::from_str::<serde_json::Value>(&crate::docs::description_json())
            .expect("a description is JSON");
        let paths = described["paths"].as_object().expect("an object").iter();
        let described: BTreeSet<(String, String)> = paths
            .flat_map(|(path, operations)| {
                let methods = operations.as_object().expect("an object").keys();
                methods.map(|method| (path.clone(), method.to_uppercase()))
            })
            .collect();
        let routed = super::table().into_iter().flat_map(|place| {
            let path = place.path.replace("{*", "{");
            assert_eq!(super::routed(&path), place.path);
            place.needs.into_iter().map(move |(method, _)| (path.clone(), method.to_string()))
        });
        assert_eq!(described, routed.collect());
    }
}
