//! The values of everything that nobody set.

use super::{Api, Config, Jwt, Lease, Limits, Mode, Objects, Webhooks, Worker};
use crate::{
    identity::Quotas,
    queue::{Lane, Transport},
    task::{Backoff, Policy, QueueName},
};
use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

impl Config {
    /// The defaults in this mode.
    ///
    /// # Panics
    /// Never: the names of the default lanes are well formed.
    #[must_use]
    pub fn new(mode: Mode) -> Self {
        let lanes: Vec<Lane> = [("interactive", 8), ("default", 4), ("batch", 1)]
            .map(|(name, weight)| Lane {
                name: QueueName::new(name).expect("a lane's name is well formed"),
                weight,
            })
            .into();
        Self {
            mode,
            api: Api {
                listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
                tls_cert: None,
                tls_key: None,
                key: None,
                cors_origins: Vec::new(),
                trusted_proxies: Vec::new(),
                body_bytes_max: 16 << 20,
                connections_max: 16_384,
                header_timeout: Duration::from_secs(10),
                idle_timeout: Duration::from_secs(75),
                body_timeout: Duration::from_secs(20),
                write_timeout: Duration::from_secs(20),
                read_bytes_max: 256 << 20,
                project_read_bytes_max: 64 << 20,
                drain_delay: Duration::ZERO,
                grace: Duration::from_secs(10),
            },
            jwt: Jwt {
                issuer: None,
                audience: None,
                jwks: None,
                algorithms: ["RS256", "ES256", "EdDSA"].map(str::to_owned).into(),
                project_claim: "project".to_owned(),
                scopes_claim: "scope".to_owned(),
            },
            worker: Worker {
                slots: 64,
                queues: lanes.iter().map(|lane| lane.name.clone()).collect(),
                listen: None,
                grace: Duration::from_secs(30),
                connect_timeout: Duration::from_secs(5),
                first_byte_timeout: Duration::from_secs(600),
                idle_timeout: Duration::from_secs(120),
                answer_bytes_max: 64 << 20,
                shards: 4,
                breaker_failures: 5,
                probe_period: Duration::from_secs(5),
            },
            lanes,
            transport: Transport::Sorted,
            window: 4_000,
            lease: Lease { heartbeat: Duration::from_secs(2), ttl: Duration::from_secs(10), crashes_max: 3 },
            sweep_period: Duration::from_secs(1),
            policy: Policy {
                queue_timeout: None,
                execution_timeout: Duration::from_secs(3_600),
                ttl: Duration::from_secs(24 * 3_600),
                max_attempts: 3,
                backoff: Backoff { base: Duration::from_secs(1), max: Duration::from_secs(60) },
                result_ttl: Duration::from_secs(7 * 24 * 3_600),
            },
            objects: Objects { url: None, inline_bytes_max: 256 << 10 },
            limits: limits(),
            events_keep: Duration::from_secs(15 * 60),
            webhooks: Webhooks { private_networks: Vec::new(), keep: Duration::from_secs(7 * 24 * 3_600) },
            upstreams: Vec::new(),
            routes: Vec::new(),
            input_rules: Vec::new(),
            database_connections: 16,
        }
    }
}

/// Nobody is limited, but who tries keys.
fn limits() -> Limits {
    Limits {
        project: Quotas::default(),
        key: Quotas::default(),
        user: Quotas::default(),
        ip_requests_per_minute: None,
        ip_failed_logins_per_minute: Some(60),
        output_tokens: 1_000,
    }
}
