//! The configuration, valid by construction. `raw.rs` holds what a person typed and where it came from.
//!
//! Per field: flag > environment > file > default. The only module that reads the environment.

pub mod args;
mod codec;
mod defaults;
mod error;
mod file;
mod layers;
mod logging;
mod raw;
mod secret;
mod show;
#[cfg(test)]
mod tests;

pub use args::Flags;
pub use codec::duration;
use error::nearest;
pub use error::{Error, Origin};
pub use layers::{Database, Settings, api_key, load};
pub use logging::{LogFormat, Logging};
pub use secret::Secret;
pub use show::show;

use crate::{
    identity::Quotas,
    input::InputRule,
    queue::{Lane, Transport},
    task::{Policy, QueueName},
};
use ipnet::IpNet;
use std::{net::SocketAddr, path::PathBuf, time::Duration};

/// Where the truth is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// One process: SQLite and files in a folder, queue and events in memory.
    Embedded {
        /// The folder.
        data_dir: PathBuf,
    },
    /// Many processes: Postgres and Redis.
    Distributed {
        /// `postgres://…`
        database_url: Secret,
        /// `redis://…` or `rediss://…`
        redis_url: Secret,
    },
}

/// Everything that can be set.
#[derive(Debug, Clone)]
pub struct Config {
    /// Embedded or distributed.
    pub mode: Mode,
    /// The API.
    pub api: Api,
    /// Tokens of an identity provider.
    pub jwt: Jwt,
    /// The worker.
    pub worker: Worker,
    /// The lanes, heaviest first.
    pub lanes: Vec<Lane>,
    /// The queue's way through Redis; the embedded mode has none.
    pub transport: Transport,
    /// Most ids of one lane in the queue.
    pub window: usize,
    /// Leases of worker incarnations.
    pub lease: Lease,
    /// Period of the sweep.
    pub sweep_period: Duration,
    /// Limits of tasks that name none.
    pub policy: Policy,
    /// Large bodies.
    pub objects: Objects,
    /// Limits of callers.
    pub limits: Limits,
    /// How long the event log of a task is kept after its end.
    pub events_keep: Duration,
    /// Webhooks.
    pub webhooks: Webhooks,
    /// Model servers.
    pub upstreams: Vec<Upstream>,
    /// Models that are bound to upstreams.
    pub routes: Vec<Route>,
    /// What tasks may ask of models.
    pub input_rules: Vec<InputRule>,
    /// Connections to the database, at most.
    pub database_connections: u32,
}

/// The API's settings.
#[derive(Debug, Clone)]
pub struct Api {
    /// Where it listens.
    pub listen: SocketAddr,
    /// A file with the certificate and those above it, PEM; with `tls_key` the API speaks TLS.
    pub tls_cert: Option<PathBuf>,
    /// A file with its private key, PEM.
    pub tls_key: Option<PathBuf>,
    /// The key that callers must show; `None`: loopback callers only.
    pub key: Option<Secret>,
    /// Origins whose pages may call, as browsers write them.
    pub cors_origins: Vec<String>,
    /// Proxies that are believed when they say for whom they call.
    pub trusted_proxies: Vec<IpNet>,
    /// Longest request body, bytes.
    pub body_bytes_max: usize,
    /// Connections at once.
    pub connections_max: usize,
    /// Time for a request's head.
    pub header_timeout: Duration,
    /// Time a connection may stay without a request.
    pub idle_timeout: Duration,
    /// Silence inside a request body, and time after which it must have come at the minimum rate.
    pub body_timeout: Duration,
    /// Time in which a client must take something of what was written to it.
    pub write_timeout: Duration,
    /// Bytes of answers on their way to readers at once.
    pub read_bytes_max: usize,
    /// The part of them that readers of one project may hold.
    pub project_read_bytes_max: usize,
    /// After a signal to end: how long new connections are still taken, while `/readyz` already says no.
    pub drain_delay: Duration,
    /// Time for running requests at shutdown.
    pub grace: Duration,
}

/// Which tokens of an identity provider are taken: none, unless `issuer`, `audience` and `jwks` are set.
#[derive(Debug, Clone)]
pub struct Jwt {
    /// What `iss` must be.
    pub issuer: Option<String>,
    /// What must be in `aud`.
    pub audience: Option<String>,
    /// Where the public keys are.
    pub jwks: Option<KeySource>,
    /// Signature algorithms, all of them asymmetric.
    pub algorithms: Vec<String>,
    /// The claim that names the project.
    pub project_claim: String,
    /// The claim that lists the scopes.
    pub scopes_claim: String,
}

/// Where a JWK set is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// In a file.
    File(PathBuf),
    /// At an `https` URL, or an `http` one on this machine.
    Url(String),
}

/// The worker's settings.
#[derive(Debug, Clone)]
pub struct Worker {
    /// Attempts at once.
    pub slots: u32,
    /// Lanes it serves.
    pub queues: Vec<QueueName>,
    /// Health and metrics, if wanted.
    pub listen: Option<SocketAddr>,
    /// Time for running attempts at shutdown.
    pub grace: Duration,
    /// Limit: connection to the upstream.
    pub connect_timeout: Duration,
    /// Limit: first byte of the answer.
    pub first_byte_timeout: Duration,
    /// Limit: silence inside the answer.
    pub idle_timeout: Duration,
    /// Longest answer, bytes.
    pub answer_bytes_max: usize,
    /// HTTP clients per upstream: an HTTP/2 upstream gets this many connections.
    pub shards: usize,
    /// Failures in a row after which an upstream is paused for everyone.
    pub breaker_failures: u32,
    /// Time between two trials of an upstream that is failing.
    pub probe_period: Duration,
}

/// Leases of worker incarnations.
#[derive(Debug, Clone, Copy)]
pub struct Lease {
    /// Time between heartbeats.
    pub heartbeat: Duration,
    /// Time without one after which a worker counts as dead; at least three heartbeats.
    pub ttl: Duration,
    /// Crashes after which a task is given up on.
    pub crashes_max: u32,
}

/// Limits of callers. Projects and keys may have other ones of their own.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Of each project.
    pub project: Quotas,
    /// Of each key.
    pub key: Quotas,
    /// Of each user of the identity provider.
    pub user: Quotas,
    /// Requests in any minute from each address.
    pub ip_requests_per_minute: Option<u32>,
    /// Bad keys and tokens in any minute from each address.
    pub ip_failed_logins_per_minute: Option<u32>,
    /// Tokens that a task is taken to write if it sets no maximum.
    pub output_tokens: u32,
}

/// Webhooks.
#[derive(Debug, Clone)]
pub struct Webhooks {
    /// Networks that may be called although they are not public, without TLS as well.
    pub private_networks: Vec<IpNet>,
    /// How long deliveries that have ended are kept.
    pub keep: Duration,
}

/// Large bodies.
#[derive(Debug, Clone)]
pub struct Objects {
    /// `file:///folder` or `s3://bucket/prefix`; the embedded mode has a folder of its own.
    pub url: Option<String>,
    /// Bodies up to this many bytes stay in the database.
    pub inline_bytes_max: usize,
}

/// A model server: anything that speaks OpenAI's HTTP.
#[derive(Debug, Clone)]
pub struct Upstream {
    /// Its name in logs, metrics and rows.
    pub name: String,
    /// Base URL without the endpoint path, e.g. `http://127.0.0.1:8000`. A trailing `/v1` is dropped when it is read.
    pub url: String,
    /// Sent as `Authorization: Bearer …`.
    pub key: Option<Secret>,
    /// Paths it serves.
    pub endpoints: Vec<String>,
    /// It takes any model, whatever it lists.
    pub any_model: bool,
}

/// A model bound to upstreams.
#[derive(Debug, Clone)]
pub struct Route {
    /// Model name as clients write it; a `*` at its end stands for any ending.
    pub model: String,
    /// Names of upstreams, first choice first.
    pub upstreams: Vec<String>,
}

/// Paths that an upstream serves unless it says otherwise.
pub const ENDPOINTS: [&str; 5] =
    ["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses", "/v1/messages"];

impl Config {
    /// The upstream of that name.
    #[must_use]
    pub fn upstream(&self, name: &str) -> Option<&Upstream> {
        self.upstreams.iter().find(|upstream| upstream.name == name)
    }

    /// Whether any route names this upstream: then only its routes lead there.
    #[must_use]
    pub fn is_routed(&self, upstream: &str) -> bool {
        self.routes.iter().any(|route| route.upstreams.iter().any(|name| name == upstream))
    }

    /// Every path that an upstream serves; the usual ones where no upstream is configured.
    #[must_use]
    pub fn endpoints(&self) -> Vec<String> {
        if self.upstreams.is_empty() {
            return ENDPOINTS.map(str::to_owned).to_vec();
        }
        let mut all: Vec<String> =
            self.upstreams.iter().flat_map(|upstream| upstream.endpoints.clone()).collect();
        all.sort();
        all.dedup();
        all
    }
}
