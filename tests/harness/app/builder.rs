//! What a test wishes of its app, and the start of it.

use super::{App, Edges, Mode, edges::Ways, logs_folder};
use crate::{Canaries, Names, Postgres, Redis, SmallDisk, eventually, fresh_database, services};
use reqwest::Url;
use simulator::{Behaviour, Simulator};
use std::{
    path::{Path, PathBuf},
    sync::Mutex,
};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

/// What a test wishes for.
#[derive(Debug)]
pub struct Builder {
    mode: Mode,
    apis: usize,
    workers: usize,
    upstream: Option<String>,
    own_postgres: bool,
    proxied: bool,
    small_disk: Option<u32>,
    objects: bool,
    names: Option<PathBuf>,
    file: Option<String>,
    env: Vec<(String, String)>,
    canaries: Canaries,
}

impl Builder {
    pub(super) fn new(mode: Mode) -> Self {
        let builder = Self {
            mode,
            apis: 1,
            workers: 1,
            upstream: None,
            own_postgres: false,
            proxied: false,
            small_disk: None,
            objects: false,
            names: None,
            file: None,
            env: Vec::new(),
            canaries: Canaries::default(),
        };
        let builder = match services::env("LONGHAUL_TEST_LOG") {
            Some(filter) => builder.env("LONGHAUL_LOG", &filter),
            None => builder,
        };
        builder
            .secret("key of the upstream", "LONGHAUL_UPSTREAM_KEY")
            .env("LONGHAUL_DATABASE__CONNECTIONS", "8")
            .env("LONGHAUL_QUEUE__TRANSPORT", if mode == Mode::Apalis { "apalis" } else { "sorted" })
    }

    /// This many API processes; embedded apps have one.
    #[must_use]
    pub fn apis(self, apis: usize) -> Self {
        Self { apis, ..self }
    }

    /// This many workers; embedded apps have one.
    #[must_use]
    pub fn workers(self, workers: usize) -> Self {
        Self { workers, ..self }
    }

    /// Attempts at once, per worker.
    #[must_use]
    pub fn slots(self, slots: u32) -> Self {
        self.env("LONGHAUL_WORKER__SLOTS", &slots.to_string())
    }

    /// Another upstream than the simulator.
    #[must_use]
    pub fn upstream(self, url: &str) -> Self {
        Self { upstream: Some(url.to_owned()), ..self }
    }

    /// Distributed: a Postgres server of its own, [`App::postgres`].
    #[must_use]
    pub fn own_postgres(self) -> Self {
        Self { own_postgres: true, ..self }
    }

    /// A proxy on every way between its processes and what they use, [`App::edges`].
    #[must_use]
    pub fn proxied(self) -> Self {
        Self { proxied: true, ..self }
    }

    /// A folder for large bodies that all processes share.
    #[must_use]
    pub fn objects(self) -> Self {
        Self { objects: true, ..self }
    }

    /// A disk of this many megabytes: for the data folder, [`App::disk`], or for a Postgres of its own. See
    /// [`can_mount`](crate::can_mount).
    #[must_use]
    pub fn small_disk(self, megabytes: u32) -> Self {
        Self { small_disk: Some(megabytes), ..self }
    }

    /// Crashes are noticed within a second or so: short leases, frequent sweeps.
    #[must_use]
    pub fn quick(self) -> Self {
        self.env("LONGHAUL_LEASE__HEARTBEAT", "200ms")
            .env("LONGHAUL_LEASE__TTL", "1s")
            .env("LONGHAUL_SWEEP__PERIOD", "200ms")
    }

    /// Its processes ask this server for names and no other. See [`can_mount`](crate::can_mount).
    #[must_use]
    pub fn names(self, names: &Names) -> Self {
        Self { names: Some(names.resolv_conf()), ..self }
    }

    /// Settings as a configuration file has them. Upstreams that it names are all that there are.
    #[must_use]
    pub fn file(self, toml: &str) -> Self {
        Self { file: Some(toml.to_owned()), ..self }
    }

    /// A setting.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A secret that is new, by its variable.
    #[must_use]
    pub fn secret(mut self, what: &'static str, name: &str) -> Self {
        let word = self.canaries.plant(what);
        self.env(name, &word)
    }

    /// All processes say all they can.
    #[must_use]
    pub fn trace(self) -> Self {
        self.env("LONGHAUL_LOG", "trace")
    }

    /// Starts everything and waits until every API is ready.
    ///
    /// # Errors
    /// Something did not start: its last words are in the error.
    pub async fn start(mut self) -> anyhow::Result<App> {
        let logs = logs_folder()?;
        std::fs::remove_dir_all(&logs).ok();
        let (model, mut serving) = (Simulator::new(Behaviour::instant()), JoinSet::new());
        let simulated = self.upstream.is_none();
        let upstream = match self.upstream.take() {
            Some(url) => url,
            None => serve(&model, &mut serving).await?,
        };
        let services = self.services(&logs).await?;
        services.passwords(&mut self.canaries)?;
        let mut ways = services.ways(&upstream);
        let mut edges = Edges::default();
        if self.proxied {
            edges.put(&mut ways).await?;
        }
        let folder = tempfile::tempdir()?;
        if self.objects {
            let url = format!("file://{}", folder.path().join("objects").display());
            self.env.push(("LONGHAUL_OBJECTS__URL".into(), url));
        }
        if let Some(toml) = &self.file {
            let path = folder.path().join("longhaul.toml");
            std::fs::write(&path, toml)?;
            self.env.push(("LONGHAUL_CONFIG".into(), path.display().to_string()));
        }
        let mut app = App {
            mode: self.mode,
            apis: Vec::new(),
            model,
            upstream,
            own_upstreams: self.file.as_ref().is_some_and(|toml| toml.contains("[[upstreams]]")),
            workers: Vec::new(),
            servers: Vec::new(),
            edges,
            redis: services.redis,
            database: services.database,
            postgres: services.postgres,
            disk: services.disk,
            names: self.names,
            canaries: Mutex::new(self.canaries),
            ways,
            env: self.env,
            logs,
            folder,
            serving,
        };
        match self.mode {
            Mode::Embedded => app.add_all_in_one().await?,
            Mode::Distributed | Mode::Apalis => {
                for _ in 0..self.apis {
                    app.add_api().await?;
                }
                for _ in 0..self.workers {
                    app.add_worker()?;
                }
            }
        }
        if simulated && !app.workers.is_empty() {
            models_are_known(&app).await?;
        }
        Ok(app)
    }

    /// What the mode and the wishes need.
    async fn services(&self, logs: &Path) -> anyhow::Result<Services> {
        let mut services = Services::default();
        if self.mode == Mode::Embedded {
            anyhow::ensure!(!self.own_postgres, "an embedded app has no Postgres");
            if let Some(megabytes) = self.small_disk {
                services.disk = Some(SmallDisk::mount(megabytes, logs).await?);
            }
            return Ok(services);
        }
        services.redis = Some(Redis::start(logs).await?);
        services.postgres = match (self.small_disk, self.own_postgres) {
            (Some(megabytes), _) => Some(Postgres::on_small_disk(logs, megabytes).await?),
            (None, true) => Some(Postgres::start(logs).await?),
            (None, false) => None,
        };
        services.database = Some(match &services.postgres {
            Some(postgres) => postgres.url.clone(),
            None => fresh_database().await?,
        });
        Ok(services)
    }
}

#[derive(Default)]
struct Services {
    redis: Option<Redis>,
    database: Option<String>,
    postgres: Option<Postgres>,
    disk: Option<SmallDisk>,
}

impl Services {
    /// Looks for their passwords too.
    fn passwords(&self, canaries: &mut Canaries) -> anyhow::Result<()> {
        let redis = self.redis.as_ref().map(|redis| &redis.url);
        let both = [("password of the database", self.database.as_ref()), ("password of Redis", redis)];
        for (what, url) in both.into_iter().filter_map(|(what, url)| Some((what, url?))) {
            canaries.add(what, Url::parse(url)?.password().unwrap_or_default());
        }
        Ok(())
    }

    /// The straight ways to them.
    fn ways(&self, upstream: &str) -> Ways {
        let (database, redis) = (self.database.clone(), self.redis.as_ref().map(|redis| redis.url.clone()));
        Ways {
            upstream: upstream.to_owned(),
            api_database: database.clone(),
            worker_database: database,
            api_redis: redis.clone(),
            worker_redis: redis,
        }
    }
}

async fn models_are_known(app: &App) -> anyhow::Result<()> {
    let listed = async || {
        let reply = app.client().get("/v1/models").await?;
        // An app that asks for a key is asked by its own test.
        if reply.status == 401 {
            return Ok(Some(()));
        }
        let models = reply.expect(200)?;
        Ok(models["data"].as_array().is_some_and(|models| !models.is_empty()).then_some(()))
    };
    eventually("a worker has noted the models", listed).await
}

async fn serve(model: &Simulator, serving: &mut JoinSet<anyhow::Result<()>>) -> anyhow::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let model = model.clone();
    serving.spawn(async move { model.serve(listener, CancellationToken::new()).await });
    Ok(url)
}
