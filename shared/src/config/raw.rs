//! Every setting by name, and the step from what a person typed to a [`Config`] that holds.
//!
//! One row per setting: its name, how its value is read and shown, its limits. Precedence, unknown names, `config show` and
//! error messages all follow from this table; the defaults are those of [`Config::new`] and stand nowhere else.

use super::{
    Config, ENDPOINTS, Mode, Route, Secret, Upstream,
    codec::{
        Address, Algorithms, Bytes, Codec, Count, FilePath, Hidden, Jwks, Maybe, Networks, Origins, Queues,
        Text, Time, Transports, quoted, spelled,
    },
};
use crate::{
    identity::Quotas,
    queue::{APALIS_WINDOW_MAX, Lane, Transport},
    redact::without_value,
    task::QueueName,
};
use serde::Deserialize;
use std::{collections::BTreeSet, path::PathBuf, time::Duration};
use toml::Value;

/// One setting.
pub(super) struct Key {
    /// `section.key`, as in the file.
    pub(super) name: &'static str,
    /// Whether its value is masked, and may come from a file named by the environment.
    pub(super) secret: bool,
    /// Reads a value into the configuration, or says what was expected.
    pub(super) read: fn(&mut Config, &Value) -> Result<(), String>,
    /// The effective value as TOML; `None`: it plays no part.
    pub(super) show: fn(&Config) -> Option<String>,
}

const MS: Duration = Duration::from_millis(1);
const DAY: Duration = Duration::from_secs(86_400);
const LONG: Time = Time(MS, Duration::from_secs(366 * 86_400));
const SHORT: Time = Time(MS, DAY);
const LIMIT: Maybe<Count> = Maybe(Count(1, Quotas::MAX as u64));

macro_rules! key {
    ($name:literal, $($field:ident).+, $codec:expr) => {
        Key {
            name: $name,
            secret: false,
            read: |config, value| {
                config.$($field).+ = $codec.read(value)?;
                Ok(())
            },
            show: |config| $codec.show(&config.$($field).+),
        }
    };
}

/// Settings that the mode is made of: [`mode`] has read them before a configuration exists.
macro_rules! mode_key {
    ($name:literal, $secret:literal, $pattern:pat => $value:expr) => {
        Key {
            name: $name,
            secret: $secret,
            read: |_, _| Ok(()),
            show: |config| match &config.mode {
                $pattern => $value,
                _ => None,
            },
        }
    };
}

/// Every setting, in the order in which they are shown.
pub(super) const KEYS: &[Key] = &[
    mode_key!("data_dir", false, Mode::Embedded { data_dir } => Some(quoted(&data_dir.display().to_string()))),
    mode_key!("database.url", true, Mode::Distributed { database_url, .. } => Hidden.show(database_url)),
    key!("database.connections", database_connections, Count(2, 1_000)),
    mode_key!("redis.url", true, Mode::Distributed { redis_url, .. } => Hidden.show(redis_url)),
    key!("api.listen", api.listen, Address),
    key!("api.tls_cert", api.tls_cert, Maybe(FilePath)),
    key!("api.tls_key", api.tls_key, Maybe(FilePath)),
    Key { secret: true, ..key!("api.key", api.key, Maybe(Hidden)) },
    key!("api.cors_origins", api.cors_origins, Origins),
    key!("api.trusted_proxies", api.trusted_proxies, Networks),
    key!("api.body_bytes_max", api.body_bytes_max, Bytes(1 << 10, 1 << 30)),
    key!("api.connections_max", api.connections_max, Count(1, 1_000_000)),
    key!("api.header_timeout", api.header_timeout, SHORT),
    key!("api.idle_timeout", api.idle_timeout, SHORT),
    key!("api.body_timeout", api.body_timeout, SHORT),
    key!("api.write_timeout", api.write_timeout, SHORT),
    key!("api.read_bytes_max", api.read_bytes_max, Bytes(1 << 20, 1 << 40)),
    key!("api.project_read_bytes_max", api.project_read_bytes_max, Bytes(1 << 20, 1 << 40)),
    key!("api.drain_delay", api.drain_delay, Time(Duration::ZERO, DAY)),
    key!("api.grace", api.grace, SHORT),
    key!("jwt.issuer", jwt.issuer, Maybe(Text)),
    key!("jwt.audience", jwt.audience, Maybe(Text)),
    key!("jwt.jwks", jwt.jwks, Maybe(Jwks)),
    key!("jwt.algorithms", jwt.algorithms, Algorithms),
    key!("jwt.project_claim", jwt.project_claim, Text),
    key!("jwt.scopes_claim", jwt.scopes_claim, Text),
    key!("worker.slots", worker.slots, Count(1, 100_000)),
    key!("worker.queues", worker.queues, Queues),
    key!("worker.listen", worker.listen, Maybe(Address)),
    key!("worker.grace", worker.grace, SHORT),
    key!("worker.connect_timeout", worker.connect_timeout, SHORT),
    key!("worker.first_byte_timeout", worker.first_byte_timeout, SHORT),
    key!("worker.idle_timeout", worker.idle_timeout, SHORT),
    key!("worker.answer_bytes_max", worker.answer_bytes_max, Bytes(1 << 10, 4 << 30)),
    key!("worker.shards", worker.shards, Count(1, 64)),
    key!("worker.breaker_failures", worker.breaker_failures, Count(1, 10_000)),
    key!("worker.probe_period", worker.probe_period, SHORT),
    Key { show: show_transport, ..key!("queue.transport", transport, Transports) },
    key!("queue.window", window, Count(1, 100_000)),
    key!("lease.heartbeat", lease.heartbeat, SHORT),
    key!("lease.ttl", lease.ttl, SHORT),
    key!("lease.crashes_max", lease.crashes_max, Count(1, 100)),
    key!("sweep.period", sweep_period, Time(MS, Duration::from_secs(60))),
    key!("task.queue_timeout", policy.queue_timeout, Maybe(LONG)),
    key!("task.execution_timeout", policy.execution_timeout, LONG),
    key!("task.ttl", policy.ttl, LONG),
    key!("task.max_attempts", policy.max_attempts, Count(1, 100)),
    key!("task.backoff_base", policy.backoff.base, SHORT),
    key!("task.backoff_max", policy.backoff.max, SHORT),
    key!("task.result_ttl", policy.result_ttl, LONG),
    key!("limits.project_requests_per_minute", limits.project.requests_per_minute, LIMIT),
    key!("limits.project_tokens_per_minute", limits.project.tokens_per_minute, LIMIT),
    key!("limits.project_queued_tasks", limits.project.queued_tasks, LIMIT),
    key!("limits.project_concurrent_tasks", limits.project.concurrent_tasks, LIMIT),
    key!("limits.key_requests_per_minute", limits.key.requests_per_minute, LIMIT),
    key!("limits.key_tokens_per_minute", limits.key.tokens_per_minute, LIMIT),
    key!("limits.user_requests_per_minute", limits.user.requests_per_minute, LIMIT),
    key!("limits.user_tokens_per_minute", limits.user.tokens_per_minute, LIMIT),
    key!("limits.ip_requests_per_minute", limits.ip_requests_per_minute, LIMIT),
    key!("limits.ip_failed_logins_per_minute", limits.ip_failed_logins_per_minute, LIMIT),
    key!("limits.output_tokens", limits.output_tokens, Count(1, 1_000_000)),
    key!("events.keep", events_keep, SHORT),
    key!("webhooks.private_networks", webhooks.private_networks, Networks),
    key!("webhooks.keep", webhooks.keep, LONG),
    key!("objects.url", objects.url, Maybe(Text)),
    key!("objects.inline_bytes_max", objects.inline_bytes_max, Bytes(0, 16 << 20)),
    Key { name: "queues", secret: false, read: read_lanes, show: show_lanes },
    // Their keys are in it.
    Key { name: "upstreams", secret: true, read: read_upstreams, show: show_upstreams },
    Key { name: "routes", secret: false, read: read_routes, show: show_routes },
    Key { name: "input_rules", secret: false, read: read_input_rules, show: show_input_rules },
];

/// Where the truth is kept, from the three settings that decide it.
pub(super) fn mode(
    data_dir: Option<&str>,
    database_url: Option<&str>,
    redis_url: Option<&str>,
) -> Result<Mode, &'static str> {
    match (database_url, redis_url) {
        (None, None) => Ok(Mode::Embedded { data_dir: PathBuf::from(data_dir.unwrap_or("longhaul-data")) }),
        (Some(database), Some(redis)) => {
            let (database_url, redis_url) = (Secret::new(database), Secret::new(redis));
            Ok(Mode::Distributed { database_url, redis_url })
        }
        (Some(_), None) => {
            Err("the database URL is set but the Redis URL is not: set REDIS_URL too, or neither")
        }
        (None, Some(_)) => {
            Err("the Redis URL is set but the database URL is not: set DATABASE_URL too, or neither")
        }
    }
}

/// What does not hold between settings: each setting with what was expected of it.
pub(super) fn check(config: &Config) -> Vec<(&'static str, String)> {
    let mut faults = Vec::new();
    let lease = config.lease;
    if lease.ttl < lease.heartbeat * 3 {
        let least = spelled(lease.heartbeat * 3);
        faults.push(("lease.ttl", format!("expected at least 3 × lease.heartbeat = {least}")));
    }
    if config.policy.backoff.max < config.policy.backoff.base {
        let least = spelled(config.policy.backoff.base);
        faults.push(("task.backoff_max", format!("expected at least task.backoff_base = {least}")));
    }
    let moderated = config.input_rules.iter().filter_map(|rule| rule.moderation.as_ref());
    // An API without upstreams of its own leaves it to the workers.
    let mut lost = moderated.filter(|_| !config.upstreams.is_empty()).map(|moderation| &moderation.upstream);
    if let Some(lost) = lost.find(|name| config.upstream(name).is_none()) {
        faults.push(("input_rules", format!("there is no upstream {} for its moderation", quoted(lost))));
    }
    if config.api.tls_cert.is_some() != config.api.tls_key.is_some() {
        let (set, unset) = match config.api.tls_cert {
            Some(_) => ("api.tls_cert", "api.tls_key"),
            None => ("api.tls_key", "api.tls_cert"),
        };
        faults.push((unset, format!("expected a file, because {set} names one")));
    }
    let jwt = &config.jwt;
    for (key, set) in [
        ("jwt.issuer", jwt.issuer.is_some()),
        ("jwt.audience", jwt.audience.is_some()),
        ("jwt.jwks", jwt.jwks.is_some()),
    ] {
        if !set && (jwt.issuer.is_some() || jwt.audience.is_some() || jwt.jwks.is_some()) {
            let expected =
                "expected a value, because tokens need all of jwt.issuer, jwt.audience and jwt.jwks";
            faults.push((key, expected.to_owned()));
        }
    }
    let by_apalis = config.transport == Transport::Apalis && matches!(config.mode, Mode::Distributed { .. });
    if by_apalis && config.window > APALIS_WINDOW_MAX {
        let expected = format!("expected at most {APALIS_WINDOW_MAX} with queue.transport = \"apalis\"");
        faults.push(("queue.window", expected));
    }
    let lanes: Vec<&str> = config.lanes.iter().map(|lane| lane.name.as_str()).collect();
    if let Some(stray) = config.worker.queues.iter().find(|queue| !lanes.contains(&queue.as_str())) {
        let expected = format!("{stray} is no queue, the queues are {}", lanes.join(", "));
        faults.push(("worker.queues", expected));
    }
    let known: Vec<&str> = config.upstreams.iter().map(|upstream| upstream.name.as_str()).collect();
    for route in &config.routes {
        if let Some(stray) = route.upstreams.iter().find(|name| !known.contains(&name.as_str())) {
            let expected = format!(
                "the route of model {} names upstream {stray}, the upstreams are: {}",
                route.model,
                if known.is_empty() { "none".to_owned() } else { known.join(", ") }
            );
            faults.push(("routes", expected));
        }
    }
    faults
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLane {
    name: QueueName,
    weight: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawUpstream {
    name: String,
    url: String,
    key: Option<String>,
    endpoints: Option<Vec<String>>,
    #[serde(default)]
    any_model: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRoute {
    model: String,
    upstreams: Vec<String>,
}

/// Reads a list of tables item by item, so that a refusal names the item (from 1, as a person counts them).
fn items<T: for<'de> Deserialize<'de>>(value: &Value) -> Result<Vec<T>, String> {
    let items = value.as_array().ok_or("expected a list of tables")?;
    let read = |(i, item): (usize, &Value)| {
        T::deserialize(item.clone())
            .map_err(|error| format!("number {}: {}", i + 1, without_value(error.message())))
    };
    all(items.iter().enumerate().map(read))
}

/// All of them, or everything that is wrong with any.
fn all<T>(items: impl Iterator<Item = Result<T, String>>) -> Result<Vec<T>, String> {
    let (mut good, mut wrong) = (Vec::new(), Vec::new());
    for item in items {
        match item {
            Ok(item) => good.push(item),
            Err(why) => wrong.push(why),
        }
    }
    if wrong.is_empty() { Ok(good) } else { Err(wrong.join("; ")) }
}

fn no_repeat<'a>(names: impl Iterator<Item = &'a str>) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    names
        .into_iter()
        .find(|name| !seen.insert(*name))
        .map_or(Ok(()), |twice| Err(format!("{twice} is there twice")))
}

fn read_lanes(config: &mut Config, value: &Value) -> Result<(), String> {
    let raw: Vec<RawLane> = items(value)?;
    if raw.is_empty() {
        return Err("expected at least one queue".to_owned());
    }
    if let Some(lane) = raw.iter().find(|lane| !(1..=1_000).contains(&lane.weight)) {
        return Err(format!("the weight of {} is {}, expected 1 to 1000", lane.name, lane.weight));
    }
    no_repeat(raw.iter().map(|lane| lane.name.as_str()))?;
    config.lanes = raw.into_iter().map(|RawLane { name, weight }| Lane { name, weight }).collect();
    config.lanes.sort_by_key(|lane| std::cmp::Reverse(lane.weight));
    config.worker.queues = config.lanes.iter().map(|lane| lane.name.clone()).collect();
    Ok(())
}

fn read_upstreams(config: &mut Config, value: &Value) -> Result<(), String> {
    config.upstreams = all(items(value)?.into_iter().map(upstream))?;
    no_repeat(config.upstreams.iter().map(|upstream| upstream.name.as_str()))
}

fn upstream(raw: RawUpstream) -> Result<Upstream, String> {
    let name = raw.name;
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if !(1..=64).contains(&name.len()) || !name.chars().all(fits) {
        return Err(format!("{} is no name, expected 1 to 64 letters, digits, -, _ and .", quoted(&name)));
    }
    let url = raw.url.trim().trim_end_matches('/');
    let url = url.strip_suffix("/v1").unwrap_or(url);
    let parsed = url.parse::<http::Uri>().ok();
    let speaks =
        parsed.filter(|uri| uri.host().is_some() && matches!(uri.scheme_str(), Some("http" | "https")));
    if speaks
        .is_none_or(|uri| uri.query().is_some() || uri.authority().is_some_and(|a| a.as_str().contains('@')))
    {
        return Err(format!("the url of {name} is no base URL, expected one such as http://127.0.0.1:8000"));
    }
    let endpoints = raw.endpoints.unwrap_or_else(|| ENDPOINTS.map(str::to_owned).to_vec());
    if let Some(stray) = endpoints.iter().find(|path| !path.starts_with('/')) {
        return Err(format!("endpoint {} of {name}: expected a path such as /v1/embeddings", quoted(stray)));
    }
    let key = raw.key.filter(|key| !key.is_empty()).map(Secret::new);
    Ok(Upstream { name, url: url.to_owned(), key, endpoints, any_model: raw.any_model })
}

fn read_routes(config: &mut Config, value: &Value) -> Result<(), String> {
    let raw: Vec<RawRoute> = items(value)?;
    if let Some(route) = raw.iter().find(|route| route.upstreams.is_empty()) {
        return Err(format!("the route of model {} names no upstream", route.model));
    }
    let inner = |route: &&RawRoute| route.model.strip_suffix('*').unwrap_or(&route.model).contains('*');
    if let Some(route) = raw.iter().find(inner) {
        return Err(format!("the route of model {}: a * may only be the last character", route.model));
    }
    no_repeat(raw.iter().map(|route| route.model.as_str()))?;
    config.routes = raw.into_iter().map(|RawRoute { model, upstreams }| Route { model, upstreams }).collect();
    Ok(())
}

fn read_input_rules(config: &mut Config, value: &Value) -> Result<(), String> {
    config.input_rules = items(value)?;
    no_repeat(config.input_rules.iter().map(|rule| rule.name.as_str()))
}

fn show_input_rules(config: &Config) -> Option<String> {
    list(config.input_rules.iter().filter_map(|rule| Value::try_from(rule).ok()).map(|rule| rule.to_string()))
}

fn list(items: impl Iterator<Item = String>) -> Option<String> {
    Some(format!("[{}]", items.collect::<Vec<_>>().join(", ")))
}

fn show_transport(config: &Config) -> Option<String> {
    match config.mode {
        Mode::Embedded { .. } => None,
        Mode::Distributed { .. } => Transports.show(&config.transport),
    }
}

fn show_lanes(config: &Config) -> Option<String> {
    let show = |lane: &Lane| format!("{{ name = {}, weight = {} }}", quoted(lane.name.as_str()), lane.weight);
    list(config.lanes.iter().map(show))
}

fn show_upstreams(config: &Config) -> Option<String> {
    let show = |upstream: &Upstream| {
        let key = upstream.key.as_ref().map_or(String::new(), |_| format!(", key = {}", quoted("***")));
        let usual = upstream.endpoints == ENDPOINTS;
        let paths = list(upstream.endpoints.iter().map(|path| quoted(path))).filter(|_| !usual);
        let paths = paths.map_or(String::new(), |paths| format!(", endpoints = {paths}"));
        let any = if upstream.any_model { ", any_model = true" } else { "" };
        format!("{{ name = {}, url = {}{key}{paths}{any} }}", quoted(&upstream.name), quoted(&upstream.url))
    };
    list(config.upstreams.iter().map(show))
}

fn show_routes(config: &Config) -> Option<String> {
    let show = |route: &Route| {
        let upstreams = list(route.upstreams.iter().map(|name| quoted(name))).unwrap_or_default();
        format!("{{ model = {}, upstreams = {upstreams} }}", quoted(&route.model))
    };
    list(config.routes.iter().map(show))
}
