//! A Postgres server of one's own: it may be killed, frozen, started again and filled up.
//!
//! The first one of a test run makes a template: a data folder with a migrated database. Every server starts on a copy of it.
//! Postgres refuses to be root; its processes leave the group in which they were started and may outlive the first of them, so
//! they are known by the folder in which they live.

use crate::{
    Process, SmallDisk, eventually, free_address, process,
    services::{PASSWORD, env},
};
use anyhow::{Context, ensure};
use shared::store::{PostgresStore, Store};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use std::{
    net::SocketAddr,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
};
use tempfile::TempDir;
use tokio::sync::OnceCell;

/// How every server is started; fsync is on by default. Little is kept of the log of writes: disks are small.
const SETTINGS: [&str; 5] = [
    "listen_addresses=127.0.0.1",
    "unix_socket_directories=",
    "shared_buffers=32MB",
    "min_wal_size=2MB",
    "max_wal_size=32MB",
];

/// A server of one's own. Dropping it kills it.
#[derive(Debug)]
pub struct Postgres {
    /// The URL of its migrated and empty database, for a role that is no superuser: three connections are kept from it.
    pub url: String,
    process: Process,
    address: SocketAddr,
    data: PathBuf,
    disk: Option<SmallDisk>,
    _folder: TempDir,
}

impl Postgres {
    /// Starts a server and waits until it answers.
    ///
    /// # Errors
    /// There is no Postgres, or it does not start.
    pub async fn start(logs: &Path) -> anyhow::Result<Self> {
        Self::with(logs, &[]).await
    }

    /// As [`start`](Self::start), with options: `"-c max_connections=20"`.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn with(logs: &Path, options: &[&str]) -> anyhow::Result<Self> {
        let template = template().await.context("cannot make the template server")?;
        let folder = folder()?;
        let data = folder.path().join("data");
        copy(template, &data).await?;
        Self::launch(folder, data, None, options, logs).await
    }

    /// As [`start`](Self::start), on a disk of this many megabytes, of which the empty database takes some 40.
    ///
    /// # Errors
    /// As [`start`](Self::start), or it cannot be mounted: see [`can_mount`](crate::can_mount).
    pub async fn on_small_disk(logs: &Path, megabytes: u32) -> anyhow::Result<Self> {
        let template = template().await.context("cannot make the template server")?;
        let disk = SmallDisk::mount(megabytes, logs).await?;
        copy(template, &disk.seen().join("data")).await?;
        let data = disk.path().join("data");
        Self::launch(folder()?, data, Some(disk), &[], logs).await
    }

    async fn launch(
        folder: TempDir,
        data: PathBuf,
        disk: Option<SmallDisk>,
        options: &[&str],
        logs: &Path,
    ) -> anyhow::Result<Self> {
        let address = free_address()?;
        let server = programs()?.join("postgres");
        let (program, before) = as_owner(&server)?;
        let command = |command: &mut Command| {
            command.args(before).arg("-D").arg(&data).arg("-p").arg(address.port().to_string());
            command.args(SETTINGS.iter().flat_map(|setting| ["-c", setting]));
            command.args(options.iter().flat_map(|option| option.split_whitespace()));
        };
        let process = match &disk {
            Some(disk) => disk.start("postgres", &program, command, logs)?,
            None => Process::start("postgres", &program, command, logs)?,
        };
        let url = format!("postgres://app:{PASSWORD}@{address}/longhaul");
        let mut postgres = Self { url, process, address, data, disk, _folder: folder };
        eventually("Postgres answers", async || {
            postgres.process.must_run()?;
            Ok(postgres.connect("postgres").await.ok())
        })
        .await?;
        Ok(postgres)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it has said so far.
    ///
    /// # Errors
    /// The file is not readable.
    pub fn said(&self) -> anyhow::Result<String> {
        self.process.said()
    }

    /// A superuser's connection to its `longhaul` database.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn admin(&self) -> anyhow::Result<PgConnection> {
        self.connect("longhaul").await
    }

    async fn connect(&self, database: &str) -> anyhow::Result<PgConnection> {
        let url = format!("postgres://longhaul@{}/{database}", self.address);
        let connected = tokio::time::timeout(crate::PATIENCE, PgConnection::connect(&url)).await;
        connected.context("Postgres does not answer")?.context("Postgres lets nobody in")
    }

    /// Kills all of its processes, as a crash of the machine would.
    ///
    /// # Errors
    /// They do not die.
    pub async fn kill_9(&mut self) -> anyhow::Result<()> {
        if self.process.ended()?.is_none() {
            // It starts no others from now on.
            self.process.signal("STOP")?;
            process::stands_still(self.process.pid()).await?;
        }
        let all = process::living_in(&self.data)?;
        // Who is gone already needs no signal.
        process::send("KILL", &all)?;
        self.process.kill_9()?;
        for pid in all {
            process::is_gone(pid).await?;
        }
        Ok(())
    }

    /// Kills the first process alone, as the kernel may when memory is short. The others end by themselves,
    /// unless they are frozen.
    ///
    /// # Errors
    /// It does not die.
    pub fn kill_first(&mut self) -> anyhow::Result<()> {
        self.process.kill_9()
    }

    /// Kills the process of one client's connection: Postgres then throws out all clients and recovers.
    ///
    /// # Errors
    /// The `longhaul` database has no client.
    pub async fn kill_backend(&self) -> anyhow::Result<()> {
        let one = "select pid from pg_stat_activity where datname = 'longhaul' and backend_type = 'client backend' limit 1";
        let mut admin = self.connect("postgres").await?;
        let pid: Option<i32> = sqlx::query_scalar(one).fetch_optional(&mut admin).await?;
        let pid = u32::try_from(pid.context("nobody is connected")?)?;
        ensure!(process::send("KILL", &[pid])?, "cannot kill process {pid} of Postgres");
        process::is_gone(pid).await
    }

    /// Ends the connections of all clients, as an administrator would; gives how many they were.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn terminate_backends(&self) -> anyhow::Result<u64> {
        let all = "select pg_terminate_backend(pid) from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()";
        let mut admin = self.connect("postgres").await?;
        let ended: Vec<bool> = sqlx::query_scalar(all).fetch_all(&mut admin).await?;
        Ok(ended.len() as u64)
    }

    /// Stops its clock: connections stay, nobody is answered.
    ///
    /// # Errors
    /// It is gone.
    pub async fn freeze(&self) -> anyhow::Result<()> {
        self.process.signal("STOP")?;
        process::stands_still(self.process.pid()).await?;
        let all = process::living_in(&self.data)?;
        ensure!(process::send("STOP", &all)?, "Postgres is gone");
        for pid in all {
            process::stands_still(pid).await?;
        }
        Ok(())
    }

    /// Goes on after [`freeze`](Self::freeze), with what was asked of it meanwhile.
    ///
    /// # Errors
    /// It is gone.
    pub fn thaw(&self) -> anyhow::Result<()> {
        ensure!(process::send("CONT", &process::living_in(&self.data)?)?, "Postgres is gone");
        Ok(())
    }

    /// Asks it to end in good order, clients or not; gives how it ended.
    ///
    /// # Errors
    /// It does not end.
    pub async fn stop(&mut self) -> anyhow::Result<ExitStatus> {
        self.process.signal("INT")?;
        self.process.wait_end(crate::PATIENCE).await
    }

    /// Kills what still runs, starts it again on the same port and waits until it answers.
    ///
    /// # Errors
    /// It does not start; its last words are in the error.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        self.kill_9().await?;
        self.process.restart(|_| {})?;
        let again = eventually("Postgres answers again", async || {
            // It refuses to start as long as processes of its former life are there.
            if self.process.ended()?.is_some() {
                self.process.restart(|_| {})?;
                return Ok(None);
            }
            Ok(self.connect("postgres").await.ok())
        });
        let answers = again.await.map(drop);
        answers.with_context(|| self.process.last_words())
    }

    /// Fills its disk to the last block.
    ///
    /// # Errors
    /// It is not on a small disk.
    pub fn fill_disk(&self) -> anyhow::Result<u64> {
        self.small_disk()?.fill()
    }

    /// Gives back what [`fill_disk`](Self::fill_disk) took.
    ///
    /// # Errors
    /// It was not filled.
    pub fn free_disk(&self) -> anyhow::Result<()> {
        self.small_disk()?.free()
    }

    fn small_disk(&self) -> anyhow::Result<&SmallDisk> {
        self.disk.as_ref().context("this Postgres is not on a small disk")
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Twice: the first process may start others until it is gone. Failing that, they end by themselves.
        for _ in 0..2 {
            let all = process::living_in(&self.data).unwrap_or_default();
            if !all.is_empty() {
                process::send("KILL", &all).ok();
            }
            self.process.kill_9().ok();
        }
    }
}

fn programs() -> anyhow::Result<PathBuf> {
    Ok(env("LONGHAUL_TEST_POSTGRES_BIN").context("no Postgres of one's own: use scripts/test")?.into())
}

/// The folder for data. It belongs to whom Postgres runs as.
fn home() -> anyhow::Result<PathBuf> {
    Ok(env("LONGHAUL_TEST_POSTGRES_FOLDER").context("no Postgres of one's own: use scripts/test")?.into())
}

fn folder() -> anyhow::Result<TempDir> {
    // Its true name: processes are known by it.
    let folder = tempfile::tempdir_in(home()?.canonicalize()?)?;
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o711))?;
    Ok(folder)
}

/// The program to start so that `server` runs as who owns the folder, and its first arguments.
fn as_owner(server: &Path) -> anyhow::Result<(PathBuf, Vec<String>)> {
    let (owner, own) = (home()?.metadata()?, std::fs::metadata("/proc/self")?.uid());
    if own != 0 {
        return Ok((server.to_owned(), Vec::new()));
    }
    let who = [format!("--reuid={}", owner.uid()), format!("--regid={}", owner.gid())];
    // It must not outlive the tests, however they end.
    let rest = ["--clear-groups", "--pdeathsig", "KILL", "--"].map(str::to_owned);
    let server = server.display().to_string();
    Ok(("setpriv".into(), who.into_iter().chain(rest).chain([server]).collect()))
}

async fn run(program: impl AsRef<Path>, args: impl IntoIterator<Item = String>) -> anyhow::Result<()> {
    let program = program.as_ref();
    let mut command = tokio::process::Command::new(program);
    let output = command.args(args).stdin(Stdio::null()).kill_on_drop(true).output();
    let output = tokio::time::timeout(crate::PATIENCE, output).await??;
    ensure!(output.status.success(), "{}: {}", program.display(), String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Copies a data folder, owner and all.
async fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    run("cp", ["-a".into(), from.display().to_string(), to.display().to_string()]).await
}

/// The data folder that every server starts with a copy of. Made once.
async fn template() -> anyhow::Result<&'static Path> {
    static MADE: OnceCell<PathBuf> = OnceCell::const_new();
    let make = async || {
        let data = home()?.canonicalize()?.join(format!("template-{}", std::process::id()));
        let (program, before) = as_owner(&programs()?.join("initdb"))?;
        let args =
            ["-U", "longhaul", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync", "--wal-segsize=1"];
        let args = args.map(str::to_owned).into_iter().chain(["-D".into(), data.display().to_string()]);
        run(program, before.into_iter().chain(args)).await?;
        migrate(&data).await?;
        anyhow::Ok(data)
    };
    MADE.get_or_try_init(make).await.map(PathBuf::as_path)
}

/// Starts a server on the data folder for as long as it takes to make the database.
async fn migrate(data: &Path) -> anyhow::Result<()> {
    let logs = tempfile::tempdir()?;
    let mut server =
        Postgres::launch(folder()?, data.to_owned(), None, &["-c fsync=off"], logs.path()).await?;
    let mut admin = server.connect("postgres").await?;
    for statement in ["create role app login", "create database longhaul owner app"] {
        admin.execute(AssertSqlSafe(statement)).await?;
    }
    admin.close().await?;
    PostgresStore::open(&server.url, 1).await?.migrate().await?;
    let status = server.stop().await?;
    ensure!(status.success(), "the template server ended badly: {status}");
    Ok(())
}
