//! Postgres and Redis. `scripts/test` starts them and names them in the environment.
//!
//! Every app gets a database of its own, cloned from a migrated template, and a Redis process of its own: tests neither wait
//! for nor see each other, and a test may stop its Redis. One that wants to stop its Postgres starts [its own](crate::Postgres).

use crate::{Process, eventually, free_address, process};
use anyhow::Context;
use redis::aio::MultiplexedConnection;
use reqwest::Url;
use shared::store::{PostgresStore, Store};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};
use tempfile::TempDir;
use tokio::sync::OnceCell;

#[expect(clippy::disallowed_methods, reason = "the harness is told of its services by scripts/test")]
pub(crate) fn env(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Whether the distributed mode can be tested. Without services its tests are skipped with a line on stderr, in CI they fail.
///
/// # Panics
/// In CI, if there are no services.
#[must_use]
pub fn available() -> bool {
    let found = env("LONGHAUL_TEST_DATABASE_URL").is_some();
    found_or_skipped(found, "no Postgres and Redis", "use scripts/test")
}

/// Says so if a test is skipped for want of something; in CI that is a failure.
pub(crate) fn found_or_skipped(found: bool, missing: &str, remedy: &str) -> bool {
    assert!(found || env("CI").is_none(), "{missing}: CI must test this ({remedy})");
    if !found {
        skipped(missing);
    }
    found
}

/// A program that `scripts/clients` brings. Without it its tests are skipped with a line on stderr, in CI they fail.
///
/// # Panics
/// In CI, if it is not there.
#[must_use]
pub fn foreign(program: &str) -> Option<PathBuf> {
    let path = env("LONGHAUL_TEST_CLIENTS").map(|folder| Path::new(&folder).join(program));
    let path = path.filter(|path| path.exists());
    found_or_skipped(path.is_some(), &format!("no {program}"), "use scripts/test");
    path
}

/// Whether processes can be killed at named places. Without them such tests are skipped with a line on stderr, in CI they fail.
///
/// # Panics
/// In CI, if the failpoints are not compiled in.
#[must_use]
pub fn failpoints() -> bool {
    let found = shared::failpoint::ENABLED;
    assert!(found || env("CI").is_none(), "no failpoints: CI must run the tests by scripts/test");
    if !found {
        skipped("no failpoints");
    }
    found
}

fn skipped(why: &str) {
    // Not `eprintln!`: the test runner would hide it.
    use std::io::Write as _;
    writeln!(std::io::stderr(), "SKIPPED, {why}: use scripts/test").ok();
}

fn server_url() -> anyhow::Result<String> {
    env("LONGHAUL_TEST_DATABASE_URL").context("no Postgres: use scripts/test")
}

/// `url` with another database name.
fn named(url: &str, database: &str) -> anyhow::Result<String> {
    let (server, _) = url.rsplit_once('/').context("LONGHAUL_TEST_DATABASE_URL names no database")?;
    Ok(format!("{server}/{database}"))
}

/// The password of whoever needs none: Postgres lets everybody in, and the programs under test do not know that.
pub(crate) const PASSWORD: &str = "the-password-of-all-tests";

/// `url` with a password, if it has none.
fn with_password(url: &str) -> anyhow::Result<String> {
    let mut url = Url::parse(url)?;
    if url.password().is_none() {
        url.set_password(Some(PASSWORD)).ok().context("the URL takes no password")?;
    }
    Ok(url.into())
}

async fn run(statement: String) -> anyhow::Result<()> {
    let mut connection = PgConnection::connect(&server_url()?).await?;
    connection.execute(AssertSqlSafe(statement)).await?;
    Ok(connection.close().await?)
}

const TEMPLATE: &str = "longhaul_template";

async fn template() -> anyhow::Result<()> {
    static MADE: OnceCell<()> = OnceCell::const_new();
    let make = async || {
        run(format!("drop database if exists {TEMPLATE} with (force)")).await?;
        run(format!("create database {TEMPLATE}")).await?;
        PostgresStore::open(&named(&server_url()?, TEMPLATE)?, 1).await?.migrate().await?;
        anyhow::Ok(())
    };
    MADE.get_or_try_init(make).await.copied()
}

/// The URL of a new, migrated and empty database. It stays until its server goes.
///
/// # Errors
/// Postgres is away, or the migrations fail.
pub async fn fresh_database() -> anyhow::Result<String> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    template().await.context("cannot make the template database")?;
    let name = format!("longhaul_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    run(format!("create database {name} template {TEMPLATE}"))
        .await
        .context("cannot make a test database")?;
    with_password(&named(&server_url()?, &name)?)
}

/// A Redis process of one's own.
#[derive(Debug)]
pub struct Redis {
    /// The process: it may be stopped and killed.
    pub process: Process,
    /// Where it listens.
    pub url: String,
    _folder: TempDir,
}

impl Redis {
    /// Starts one without persistence and with a password, and waits until it answers.
    ///
    /// # Errors
    /// It does not start.
    pub async fn start(logs: &Path) -> anyhow::Result<Self> {
        let settings = ["--appendonly", "no", "--requirepass", PASSWORD];
        Self::with(&settings, &format!(":{PASSWORD}@"), logs).await
    }

    /// Starts one as operators run it: every write is in a file within a second.
    ///
    /// # Errors
    /// It does not start.
    pub async fn durable(logs: &Path) -> anyhow::Result<Self> {
        Self::with(&["--appendonly", "yes", "--appendfsync", "everysec"], "", logs).await
    }

    /// Gives it the processor before all others, so that its clock counts its own work and nobody else's. Whether the system
    /// lets us.
    ///
    /// # Errors
    /// There is no `chrt`.
    pub fn favour(&self) -> anyhow::Result<bool> {
        let pid = self.process.pid().to_string();
        let mut chrt = Command::new("chrt");
        let allowed = chrt.args(["--all-tasks", "--fifo", "--pid", "1", &pid]).stderr(Stdio::null()).status();
        Ok(allowed.context("there is no chrt")?.success())
    }

    async fn with(more: &[&str], login: &str, logs: &Path) -> anyhow::Result<Self> {
        let server = env("LONGHAUL_TEST_REDIS_SERVER").map_or("redis-server".into(), PathBuf::from);
        let folder = tempfile::tempdir()?;
        let port = free_address()?.port().to_string();
        let settings = ["--bind", "127.0.0.1", "--save", "", "--maxmemory-policy", "noeviction"];
        let command = |command: &mut Command| {
            command.args(["--port", &port]).args(settings).args(more).arg("--dir").arg(folder.path());
        };
        let process = Process::start("redis", &server, command, logs)?;
        let mut redis = Self { process, url: format!("redis://{login}127.0.0.1:{port}"), _folder: folder };
        eventually("Redis answers", async || redis.answers().await).await?;
        Ok(redis)
    }

    async fn answers(&mut self) -> anyhow::Result<Option<()>> {
        self.process.must_run()?;
        let Ok(mut connection) = self.connection().await else { return Ok(None) };
        // One that still loads its file accepts connections already.
        Ok(redis::cmd("PING").exec_async(&mut connection).await.ok())
    }

    /// Kills it if it still runs, starts it again on the same port and waits until it answers. What it knew is lost, unless it is
    /// [durable](Self::durable).
    ///
    /// # Errors
    /// It does not start.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        self.process.restart(|_| {})?;
        eventually("Redis answers again", async || self.answers().await).await
    }

    /// Stops its clock: it keeps its connections and says nothing.
    ///
    /// # Errors
    /// It is gone.
    pub async fn freeze(&self) -> anyhow::Result<()> {
        self.process.signal("STOP")?;
        process::stands_still(self.process.pid()).await
    }

    /// Goes on after [`freeze`](Self::freeze), with what was asked of it meanwhile.
    ///
    /// # Errors
    /// It is gone.
    pub fn thaw(&self) -> anyhow::Result<()> {
        self.process.signal("CONT")
    }

    /// A connection to it.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn connection(&self) -> anyhow::Result<MultiplexedConnection> {
        Ok(redis::Client::open(self.url.as_str())?.get_multiplexed_async_connection().await?)
    }

    /// Loses everything but the scripts.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn flush(&self) -> anyhow::Result<()> {
        Ok(redis::cmd("FLUSHALL").exec_async(&mut self.connection().await?).await?)
    }

    /// Loses the scripts.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn script_flush(&self) -> anyhow::Result<()> {
        Ok(redis::cmd("SCRIPT").arg("FLUSH").exec_async(&mut self.connection().await?).await?)
    }

    /// Changes a setting until it is started again: `config("maxmemory", "1mb")`.
    ///
    /// # Errors
    /// It does not answer, or does not know the setting.
    pub async fn config(&self, name: &str, value: &str) -> anyhow::Result<()> {
        let mut set = redis::cmd("CONFIG");
        set.arg("SET").arg(name).arg(value);
        Ok(set.exec_async(&mut self.connection().await?).await?)
    }
}
