//! The ways from Longhaul's processes to what they use, each with a proxy on it if the test wishes so.

use crate::{Fault, FaultProxy};
use anyhow::{Context, anyhow};
use reqwest::Url;
use std::ops::Deref;

/// The proxy on one way. It is used as a [`FaultProxy`].
#[derive(Debug, Default)]
pub struct Edge(Option<FaultProxy>);

impl Deref for Edge {
    type Target = FaultProxy;

    fn deref(&self) -> &FaultProxy {
        self.0.as_ref().expect("the app was started with `proxied()`, and its mode has this way")
    }
}

impl Edge {
    /// Puts a proxy before the server that `url` names; gives the URL of what it named behind the proxy.
    async fn before(&mut self, url: &str) -> anyhow::Result<String> {
        let mut through = Url::parse(url)?;
        let target = through.socket_addrs(|| None)?.into_iter().find(std::net::SocketAddr::is_ipv4);
        let proxy = FaultProxy::start(target.with_context(|| format!("{url} has no address"))?).await?;
        let address = proxy.address();
        let cannot = |()| anyhow!("{url} cannot have another address");
        through.set_ip_host(address.ip()).map_err(cannot)?;
        through.set_port(Some(address.port())).map_err(cannot)?;
        self.0 = Some(proxy);
        Ok(through.as_str().trim_end_matches('/').to_owned())
    }
}

/// Every way. The embedded mode has only the one to the upstream.
#[derive(Debug, Default)]
pub struct Edges {
    /// From the API processes to the database.
    pub api_database: Edge,
    /// From the workers to the database.
    pub worker_database: Edge,
    /// From the API processes to Redis.
    pub api_redis: Edge,
    /// From the workers to Redis.
    pub worker_redis: Edge,
    /// From the workers to the upstream.
    pub upstream: Edge,
}

impl Edges {
    /// Puts a proxy on every way and bends the ways through them.
    pub(super) async fn put(&mut self, ways: &mut Ways) -> anyhow::Result<()> {
        ways.upstream = self.upstream.before(&ways.upstream).await?;
        let bends = [
            (&mut self.api_database, &mut ways.api_database),
            (&mut self.worker_database, &mut ways.worker_database),
            (&mut self.api_redis, &mut ways.api_redis),
            (&mut self.worker_redis, &mut ways.worker_redis),
        ];
        for (edge, way) in bends {
            if let Some(url) = way {
                *url = edge.before(url).await?;
            }
        }
        Ok(())
    }

    /// The same fault on every way that there is.
    ///
    /// # Errors
    /// A proxy is stuck.
    pub async fn set_all(&self, fault: Fault) -> anyhow::Result<()> {
        let all =
            [&self.api_database, &self.worker_database, &self.api_redis, &self.worker_redis, &self.upstream];
        for proxy in all.into_iter().filter_map(|edge| edge.0.as_ref()) {
            proxy.set(fault).await?;
        }
        Ok(())
    }
}

/// The URLs by which processes find what they use.
#[derive(Debug, Default)]
pub(super) struct Ways {
    pub(super) upstream: String,
    pub(super) api_database: Option<String>,
    pub(super) worker_database: Option<String>,
    pub(super) api_redis: Option<String>,
    pub(super) worker_redis: Option<String>,
}

impl Ways {
    pub(super) fn of_api(&self) -> Vec<(String, String)> {
        settings(self.api_database.as_ref(), self.api_redis.as_ref())
    }

    pub(super) fn of_worker(&self) -> Vec<(String, String)> {
        settings(self.worker_database.as_ref(), self.worker_redis.as_ref())
    }
}

fn settings(database: Option<&String>, redis: Option<&String>) -> Vec<(String, String)> {
    let both = [("DATABASE_URL", database), ("REDIS_URL", redis)];
    both.into_iter().filter_map(|(name, url)| Some((name.to_owned(), url?.clone()))).collect()
}
