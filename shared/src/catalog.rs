//! Which upstreams serve a model at an endpoint. Pure: configuration and the workers' notes come in.

use crate::{
    config::{Config, Upstream},
    store::UpstreamModels,
};

/// Nobody serves it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The path is served by no upstream.
    #[error("unknown endpoint: the configured ones are {}", .0.join(", "))]
    Endpoint(Vec<String>),
    /// The model is served by no upstream.
    #[error("the model is not served here: GET /v1/models lists those that are")]
    Model,
}

/// Checks a submission. `noted` is what workers noted of their upstreams' `/v1/models`.
///
/// A model passes if a route names it, if an upstream lists it, or if an upstream without routes has no list at the moment
/// (then the upstream decides).
///
/// # Errors
/// Why nobody serves it.
pub fn admit(config: &Config, noted: &[UpstreamModels], endpoint: &str, model: &str) -> Result<(), Refusal> {
    let endpoints = config.endpoints();
    if !endpoints.iter().any(|known| known == endpoint) {
        return Err(Refusal::Endpoint(endpoints));
    }
    let routed = config.routes.iter().any(|route| route.model == model);
    let free = config.upstreams.iter().filter(|upstream| !config.is_routed(&upstream.name));
    let mut listed = free.map(|upstream| lists(noted, &upstream.name, model));
    // An API without upstreams of its own goes by what the workers noted.
    let elsewhere = config.upstreams.is_empty()
        && (noted.is_empty() || noted.iter().any(|note| lists(noted, &note.upstream, model)));
    if routed || elsewhere || listed.any(|yes| yes) { Ok(()) } else { Err(Refusal::Model) }
}

/// The upstreams that can serve `model` at `endpoint`, in the configured order.
#[must_use]
pub fn route<'a>(
    config: &'a Config,
    noted: &[UpstreamModels],
    endpoint: &str,
    model: &str,
) -> Vec<&'a Upstream> {
    let serves = |upstream: &&Upstream| upstream.endpoints.iter().any(|path| path == endpoint);
    if let Some(route) = config.routes.iter().find(|route| route.model == model) {
        let named = route.upstreams.iter().filter_map(|name| config.upstream(name));
        return named.filter(serves).collect();
    }
    let free = config.upstreams.iter().filter(|upstream| !config.is_routed(&upstream.name));
    free.filter(serves).filter(|upstream| lists(noted, &upstream.name, model)).collect()
}

/// Whether the upstream takes the model: its list has it, or there is no list.
fn lists(noted: &[UpstreamModels], upstream: &str, model: &str) -> bool {
    match noted.iter().find(|note| note.upstream == upstream).and_then(|note| note.models.as_ref()) {
        Some(models) => models.iter().any(|known| known == model),
        None => true,
    }
}
