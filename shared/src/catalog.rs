//! Which upstreams serve a model at an endpoint. Pure: configuration and the workers' notes come in.
//!
//! What a server lists is a hint, and names are compared as servers mean them: `name` and `name:latest` are one model, a `*` at the end
//! stands for any ending, and an empty or missing list takes any name. Whether a model is really there, the server says when it is called.

use crate::{
    config::{Config, Route, Upstream},
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

/// A note with this name takes any model.
pub const ANY: &str = "*";

/// The tag that a name without one means.
pub(crate) const LATEST: &str = ":latest";

/// Checks a submission. `noted` is what workers noted of their upstreams' `/v1/models`.
///
/// A model passes if a route fits it, if an upstream lists it, or if an upstream without routes has no list at the moment
/// (then the upstream decides).
///
/// # Errors
/// Why nobody serves it.
pub fn admit(config: &Config, noted: &[UpstreamModels], endpoint: &str, model: &str) -> Result<(), Refusal> {
    let endpoints = config.endpoints();
    if !endpoints.iter().any(|known| known == endpoint) {
        return Err(Refusal::Endpoint(endpoints));
    }
    let free = config.upstreams.iter().filter(|upstream| !config.is_routed(&upstream.name));
    let mut listed = free.map(|upstream| lists(noted, &upstream.name, model));
    // An API without upstreams of its own goes by what the workers noted.
    let elsewhere = config.upstreams.is_empty()
        && (noted.is_empty() || noted.iter().any(|note| lists(noted, &note.upstream, model)));
    if route_of(config, model).is_some() || elsewhere || listed.any(|yes| yes) {
        Ok(())
    } else {
        Err(Refusal::Model)
    }
}

/// The upstreams that can serve `model` at `endpoint`, in the configured order, those first that list it. A model that was accepted and
/// that nobody lists any more is for all of them to refuse.
#[must_use]
pub fn route<'a>(
    config: &'a Config,
    noted: &[UpstreamModels],
    endpoint: &str,
    model: &str,
) -> Vec<&'a Upstream> {
    let serves = |upstream: &&Upstream| upstream.endpoints.iter().any(|path| path == endpoint);
    if let Some(route) = route_of(config, model) {
        let named = route.upstreams.iter().filter_map(|name| config.upstream(name));
        return named.filter(serves).collect();
    }
    let free = config.upstreams.iter().filter(|upstream| !config.is_routed(&upstream.name));
    let free: Vec<&Upstream> = free.filter(serves).collect();
    let mut takes: Vec<&Upstream> =
        free.iter().copied().filter(|upstream| lists(noted, &upstream.name, model)).collect();
    takes.sort_by_key(|upstream| !names(noted, &upstream.name).iter().any(|name| fits(name, model)));
    if takes.is_empty() { free } else { takes }
}

/// One name for all spellings of a model.
#[must_use]
pub fn canonical(model: &str) -> &str {
    model.strip_suffix(LATEST).filter(|name| !name.is_empty()).unwrap_or(model)
}

/// What a name that ends with a `*` stands for: every model that begins so.
pub(crate) fn prefix(name: &str) -> Option<&str> {
    name.strip_suffix('*')
}

/// Whether a listed or routed name stands for the model.
fn fits(name: &str, model: &str) -> bool {
    match prefix(name) {
        Some(prefix) => model.starts_with(prefix),
        None => canonical(name) == canonical(model),
    }
}

/// The route that fits best: the one of the very name, one of another spelling, or else the one with the longest beginning.
fn route_of<'a>(config: &'a Config, model: &str) -> Option<&'a Route> {
    let fitting = config.routes.iter().filter(|route| fits(&route.model, model));
    fitting.max_by_key(|route| (route.model == model, prefix(&route.model).is_none(), route.model.len()))
}

/// The names that an upstream lists; none where it has no list.
fn names<'a>(noted: &'a [UpstreamModels], upstream: &str) -> &'a [String] {
    let note = noted.iter().find(|note| note.upstream == upstream);
    note.and_then(|note| note.models.as_deref()).unwrap_or_default()
}

/// Whether the upstream takes the model: its list has it, or is empty or missing.
fn lists(noted: &[UpstreamModels], upstream: &str, model: &str) -> bool {
    let names = names(noted, upstream);
    names.is_empty() || names.iter().any(|name| fits(name, model))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Mode;

    fn config(upstreams: &[&str], routes: &[(&str, &str)]) -> Config {
        let mut config = Config::new(Mode::Embedded { data_dir: "unused".into() });
        let upstream = |name: &&str| Upstream {
            name: (*name).into(),
            url: "http://h:1".into(),
            key: None,
            endpoints: vec!["/e".into()],
            any_model: false,
        };
        config.upstreams = upstreams.iter().map(upstream).collect();
        let route =
            |(model, to): &(&str, &str)| Route { model: (*model).into(), upstreams: vec![(*to).into()] };
        config.routes = routes.iter().map(route).collect();
        config
    }

    fn note(upstream: &str, models: &[&str]) -> UpstreamModels {
        let models = models.iter().map(|model| (*model).into()).collect();
        UpstreamModels { upstream: upstream.into(), models: Some(models) }
    }

    #[test]
    fn what_is_listed_is_a_hint() {
        let config = config(&["a"], &[]);
        for (listed, asked, taken) in [
            (&["llama3.2:latest"][..], "llama3.2", true),
            (&["llama3.2"], "llama3.2:latest", true),
            (&["llama3.2:1b"], "llama3.2", false),
            (&["llama3.2:latest"], "llama3.2:1b", false),
            (&["llama3.2"], "llama3.25", false),
            (&["openai/*", "m"], "openai/gpt-4o", true),
            (&["openai/*"], "anthropic/c", false),
            (&["gpt-*"], "gpt-4o", true),
            (&["m", "*"], "anything", true),
            (&[], "anything", true),
            (&[":latest"], "", false),
        ] {
            let admitted = admit(&config, &[note("a", listed)], "/e", asked).is_ok();
            assert_eq!(admitted, taken, "{listed:?} {asked}");
        }
        let none = UpstreamModels { upstream: "a".into(), models: None };
        assert_eq!(admit(&config, &[none], "/e", "anything"), Ok(()));
    }

    #[test]
    fn an_api_without_upstreams_goes_by_the_same_rules() {
        let config = config(&[], &[]);
        let admitted = |listed, asked| admit(&config, &[note("a", listed)], ENDPOINT, asked).is_ok();
        assert!(admitted(&["m:latest"], "m") && admitted(&["o/*"], "o/x") && admitted(&[], "x"));
        assert!(!admitted(&["m"], "x"));
    }

    const ENDPOINT: &str = "/v1/chat/completions";

    #[test]
    fn the_closest_route_counts() {
        let routes =
            [("*", "a"), ("openai/*", "b"), ("openai/gpt:latest", "c"), ("m", "d"), ("m:latest", "e")];
        let config = config(&["a", "b", "c", "d", "e"], &routes);
        for (model, to) in [
            ("other", "a"),
            ("openai/o3", "b"),
            ("openai/gpt", "c"),
            ("openai/gpt:latest", "c"),
            ("openai/gpt:8b", "b"),
            ("m", "d"),
            ("m:latest", "e"),
        ] {
            let names: Vec<_> = route(&config, &[], "/e", model).iter().map(|up| up.name.clone()).collect();
            assert_eq!(names, [to], "{model}");
            assert_eq!(admit(&config, &[], "/e", model), Ok(()), "{model}");
        }
    }

    #[test]
    fn those_that_list_it_come_first_and_what_nobody_lists_is_tried() {
        let config = config(&["a", "b", "c"], &[]);
        let notes = [note("a", &["x"]), note("b", &[]), note("c", &["m:latest"])];
        let to = |notes: &[UpstreamModels], model| -> Vec<String> {
            route(&config, notes, "/e", model).iter().map(|up| up.name.clone()).collect()
        };
        assert_eq!(to(&notes, "m"), ["c", "b"]);
        assert_eq!(to(&notes, "unknown"), ["b"]);
        let notes = [note("a", &["x"]), note("b", &["y"]), note("c", &["z"])];
        assert_eq!(to(&notes, "unknown"), ["a", "b", "c"], "accepted when it was listed");
    }
}
