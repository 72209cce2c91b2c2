//! HTTP clients of the configured upstreams. An HTTP/2 upstream is one connection per client: several clients take turns.

use super::wish::Wishes;
use crate::pulse::Pulse;
use http::HeaderValue;
use reqwest::{Client, redirect::Policy};
use shared::config::{Config, Upstream};
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::sync::Semaphore;

/// How long an unused connection is kept. Shorter than what servers usually keep, so that we close first.
const UNUSED: Duration = Duration::from_secs(30);

/// One upstream, ready to be called.
#[derive(Debug)]
pub(crate) struct Server {
    /// Its configured name.
    pub(crate) name: Arc<str>,
    base: String,
    authorization: Option<HeaderValue>,
    /// How its calls went.
    pub(crate) pulse: Pulse,
    /// The slot of the one task that tries it while it fails.
    pub(crate) trial: Arc<Semaphore>,
    /// What may be added to its requests.
    pub(super) wishes: Wishes,
    clients: Vec<Client>,
    turn: AtomicUsize,
}

/// An upstream's settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unusable {
    /// Its key has characters that no header can carry.
    #[error("the key of upstream {0} has characters that no HTTP header can carry")]
    Key(String),
    /// No HTTP client could be made.
    #[error("cannot make an HTTP client for upstream {0}")]
    Client(String, #[source] reqwest::Error),
}

impl Server {
    fn open(upstream: &Upstream, config: &Config) -> Result<Self, Unusable> {
        let authorization = upstream.key.as_ref().map(|key| {
            let mut value = HeaderValue::from_str(&format!("Bearer {}", key.expose()))
                .map_err(|_| Unusable::Key(upstream.name.clone()))?;
            value.set_sensitive(true);
            Ok(value)
        });
        let client = || {
            Client::builder()
                .redirect(Policy::none())
                .no_proxy()
                .tcp_nodelay(true)
                .connect_timeout(config.worker.connect_timeout)
                .pool_max_idle_per_host(usize::MAX)
                .pool_idle_timeout(UNUSED)
                .user_agent(concat!("longhaul/", env!("CARGO_PKG_VERSION")))
                .build()
                .map_err(|error| Unusable::Client(upstream.name.clone(), error))
        };
        let base = upstream.url.trim_end_matches('/');
        Ok(Self {
            name: upstream.name.as_str().into(),
            base: base.strip_suffix("/v1").unwrap_or(base).to_owned(),
            authorization: authorization.transpose()?,
            clients: (0..config.worker.shards.max(1)).map(|_| client()).collect::<Result<_, _>>()?,
            turn: AtomicUsize::new(0),
            wishes: Wishes::default(),
            pulse: Pulse::default(),
            trial: Arc::new(Semaphore::new(1)),
        })
    }

    /// A request to one of its paths, signed.
    pub(crate) fn request(&self, method: http::Method, path: &str) -> reqwest::RequestBuilder {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % self.clients.len();
        let request = self.clients[turn].request(method, format!("{}{path}", self.base));
        match &self.authorization {
            Some(value) => request.header(http::header::AUTHORIZATION, value.clone()),
            None => request,
        }
    }
}

/// Every configured upstream, by name.
pub(crate) fn open(config: &Config) -> Result<HashMap<String, Server>, Unusable> {
    let open = |upstream: &Upstream| Ok((upstream.name.clone(), Server::open(upstream, config)?));
    config.upstreams.iter().map(open).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::config::Mode;

    #[test]
    fn urls_with_and_without_v1_lead_to_the_same_place() {
        let config = Config::new(Mode::Embedded { data_dir: "unused".into() });
        for url in ["http://h:1", "http://h:1/", "http://h:1/v1", "http://h:1/v1/"] {
            let upstream = Upstream {
                name: "u".into(),
                url: url.into(),
                key: None,
                endpoints: Vec::new(),
                any_model: false,
            };
            let request = Server::open(&upstream, &config).unwrap().request(http::Method::GET, "/v1/models");
            assert_eq!(request.build().unwrap().url().as_str(), "http://h:1/v1/models");
        }
    }
}
