//! Flags that several programs share, and what they become: the top layer of the configuration.

use clap::Args;
use std::path::PathBuf;

/// What flags set: a file, and values by the name of their setting.
#[derive(Debug, Default, Clone)]
pub struct Flags {
    /// The configuration file.
    pub file: Option<PathBuf>,
    /// Keep everything in one process, whatever URLs are set elsewhere.
    pub embedded: bool,
    /// Setting, flag, value.
    pub values: Vec<(&'static str, &'static str, String)>,
}

impl Flags {
    /// Sets one value, if there is one, in the name of a flag.
    #[must_use]
    pub fn with(mut self, key: &'static str, flag: &'static str, value: Option<String>) -> Self {
        self.values.extend(value.map(|value| (key, flag, value)));
        self
    }
}

/// Flags of every program.
#[derive(Debug, Clone, Default, Args)]
pub struct CommonArgs {
    /// Configuration file [env: LONGHAUL_CONFIG] [default: longhaul.toml, if there is one]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Folder for everything, without Postgres and Redis [default: longhaul-data]
    #[arg(long, value_name = "FOLDER")]
    pub data_dir: Option<String>,
    /// Postgres [env: DATABASE_URL]
    #[arg(long, value_name = "URL")]
    pub database_url: Option<String>,
    /// Redis [env: REDIS_URL]
    #[arg(long, value_name = "URL")]
    pub redis_url: Option<String>,
    /// Model server that speaks OpenAI's HTTP; may be repeated [env: LONGHAUL_UPSTREAM]
    #[arg(long, value_name = "URL")]
    pub upstream: Vec<String>,
}

impl CommonArgs {
    /// The layer they make.
    #[must_use]
    pub fn flags(&self) -> Flags {
        let upstreams = (!self.upstream.is_empty()).then(|| self.upstream.join(","));
        Flags { file: self.config.clone(), ..Flags::default() }
            .with("data_dir", "--data-dir", self.data_dir.clone())
            .with("database.url", "--database-url", self.database_url.clone())
            .with("redis.url", "--redis-url", self.redis_url.clone())
            .with("upstreams", "--upstream", upstreams)
    }
}

/// Flags of programs that serve the API.
#[derive(Debug, Clone, Default, Args)]
pub struct ApiArgs {
    /// Address of the API [env: PORT, LONGHAUL_API__LISTEN] [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<String>,
}

impl ApiArgs {
    /// `flags` with these on top.
    #[must_use]
    pub fn on(&self, flags: Flags) -> Flags {
        flags.with("api.listen", "--listen", self.listen.clone())
    }
}

/// Flags of programs that run tasks.
#[derive(Debug, Clone, Default, Args)]
pub struct WorkerArgs {
    /// Tasks at once [env: LONGHAUL_WORKER__SLOTS] [default: 64]
    #[arg(long, value_name = "NUMBER")]
    pub slots: Option<String>,
    /// Queues to serve, with commas [env: LONGHAUL_WORKER__QUEUES] [default: all]
    #[arg(long, value_name = "NAMES")]
    pub queues: Option<String>,
}

impl WorkerArgs {
    /// `flags` with these on top.
    #[must_use]
    pub fn on(&self, flags: Flags) -> Flags {
        flags.with("worker.slots", "--slots", self.slots.clone()).with(
            "worker.queues",
            "--queues",
            self.queues.clone(),
        )
    }
}

/// Where a worker that runs alone tells of its health.
#[derive(Debug, Clone, Default, Args)]
pub struct HealthArgs {
    /// Address for health and metrics [env: LONGHAUL_WORKER__LISTEN] [default: none]
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<String>,
}

impl HealthArgs {
    /// `flags` with these on top.
    #[must_use]
    pub fn on(&self, flags: Flags) -> Flags {
        flags.with("worker.listen", "--listen", self.listen.clone())
    }
}
