//! Real processes: started, signalled and stopped by their pid; what they say goes to a file.

use crate::{eventually, within};
use anyhow::{Context, bail};
use std::{
    ffi::OsStr,
    fs::File,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

/// A child process. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    name: String,
    command: Command,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `program`; both of its outputs go to `<logs>/<name>.log`.
    ///
    /// # Errors
    /// It could not be started.
    pub fn start(
        name: &str,
        program: &Path,
        command: impl FnOnce(&mut Command),
        logs: &Path,
    ) -> anyhow::Result<Self> {
        std::fs::create_dir_all(logs)?;
        let log = logs.join(format!("{name}.log"));
        let file = File::create(&log)?;
        let mut start = Command::new(program);
        command(&mut start);
        start.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child = start.spawn().with_context(|| {
            format!("cannot start {}: run `cargo build --workspace --bins` first", program.display())
        })?;
        Ok(Self { name: name.to_owned(), command: start, child, log })
    }

    /// Kills it if it still runs and starts the same command again, which may be changed before, for good. What it says goes on
    /// in the same file.
    ///
    /// # Errors
    /// It could not be started.
    pub fn restart(&mut self, change: impl FnOnce(&mut Command)) -> anyhow::Result<()> {
        self.kill_9()?;
        change(&mut self.command);
        self.child = self.command.spawn().with_context(|| format!("cannot start {} again", self.name))?;
        Ok(())
    }

    /// Its pid.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has said so far.
    ///
    /// # Errors
    /// The file is not readable.
    pub fn said(&self) -> anyhow::Result<String> {
        Ok(String::from_utf8_lossy(&std::fs::read(&self.log)?).into_owned())
    }

    /// Sends a signal: `TERM`, `STOP`, `CONT`.
    ///
    /// # Errors
    /// The process is gone.
    pub fn signal(&self, signal: &str) -> anyhow::Result<()> {
        anyhow::ensure!(send(signal, &[self.pid()])?, "cannot send {signal} to {}", self.name);
        Ok(())
    }

    /// Kills it as a crash or the kernel would: no chance to say goodbye.
    ///
    /// # Errors
    /// The process is gone.
    pub fn kill_9(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// How it ended, if it did.
    ///
    /// # Errors
    /// The system does not know it.
    pub fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// How it ended, once it has.
    ///
    /// # Errors
    /// It still runs after `patience`.
    pub async fn wait_end(&mut self, patience: Duration) -> anyhow::Result<ExitStatus> {
        let what = format!("{} ends", self.name);
        within(patience, &what, async || self.ended()).await
    }

    /// Fails, with its last words, if it has ended although nobody asked it to.
    ///
    /// # Errors
    /// It has ended.
    pub fn must_run(&mut self) -> anyhow::Result<()> {
        let Some(status) = self.ended()? else { return Ok(()) };
        bail!("{} ended ({status}):\n{}", self.name, self.last_words())
    }

    /// The last lines of what it has said.
    #[must_use]
    pub fn last_words(&self) -> String {
        last_words(&self.log)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Already gone is as good as killed.
        if self.child.kill().is_ok() {
            self.child.wait().ok();
        }
    }
}

/// Sends a signal to processes; whether all of them were there to get it.
pub(crate) fn send(signal: &str, pids: &[u32]) -> anyhow::Result<bool> {
    let pids = pids.iter().map(u32::to_string);
    let kill = Command::new("kill").arg(format!("-{signal}")).args(pids).stderr(Stdio::null()).status();
    Ok(kill?.success())
}

/// The processes whose current folder this is.
pub(crate) fn living_in(folder: &Path) -> anyhow::Result<Vec<u32>> {
    let all = std::fs::read_dir("/proc")?.flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let lives_there =
        |pid: &u32| std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == folder);
    Ok(pids.filter(lives_there).collect())
}

/// A process's state as the kernel names it; `None` if it is gone.
fn state(pid: u32) -> Option<char> {
    // `pid (name) state …`; the name may hold anything.
    let line = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    line.rsplit_once(')')?.1.trim_start().chars().next()
}

/// Waits until a process stands still by `STOP`, or has ended.
pub(crate) async fn stands_still(pid: u32) -> anyhow::Result<()> {
    let still = async || Ok(state(pid).is_none_or(|state| matches!(state, 'T' | 'Z' | 'X')).then_some(()));
    eventually(&format!("process {pid} stands still"), still).await
}

/// Waits until a process is gone: its files and sockets are closed.
pub(crate) async fn is_gone(pid: u32) -> anyhow::Result<()> {
    let gone = async || Ok(state(pid).is_none_or(|state| matches!(state, 'Z' | 'X')).then_some(()));
    eventually(&format!("process {pid} is gone"), gone).await
}

/// The last lines of a log file.
pub(crate) fn last_words(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}

/// A program of this workspace, as built beside the running one.
///
/// # Errors
/// The running program is not in cargo's target folder.
pub fn program(name: &str) -> anyhow::Result<PathBuf> {
    Ok(profile_folder()?.join(name))
}

/// `target/<profile>`: a running test is in its `deps`.
pub(crate) fn profile_folder() -> anyhow::Result<PathBuf> {
    let running = std::env::current_exe()?;
    let mut folders = running.ancestors().skip(1).skip_while(|folder| folder.ends_with("deps"));
    Ok(folders.next().context("the running program is not in cargo's target folder")?.to_owned())
}

/// Runs `longhaul` to its end, within 30 s.
///
/// # Errors
/// It could not be started or did not end.
pub async fn output(args: &[&str], env: &[(&str, &str)]) -> anyhow::Result<Output> {
    let mut command = tokio::process::Command::new(program("longhaul")?);
    command.env_clear().envs(env.iter().copied()).args(args.iter().map(OsStr::new)).kill_on_drop(true);
    command.stdin(Stdio::null());
    tokio::time::timeout(crate::PATIENCE, command.output())
        .await
        .with_context(|| format!("longhaul {} did not end", args.join(" ")))?
        .with_context(|| format!("longhaul {}", args.join(" ")))
}

/// An address of this machine at which nobody listens at the moment; no other caller in this process gets it.
///
/// Its port is below those that outgoing connections use: one that is closed for a while is still free when its server comes
/// back, and nobody who tries to connect to it meanwhile is connected to himself.
///
/// # Errors
/// No port is free.
pub fn free_address() -> anyhow::Result<SocketAddr> {
    const PORTS: std::ops::Range<u16> = 12_000..32_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Other test runs on this machine begin elsewhere.
    let first = std::process::id().wrapping_mul(7_919);
    for _ in PORTS {
        let nth = u32::from(NEXT.fetch_add(1, Ordering::Relaxed)).wrapping_add(first);
        let port = PORTS.start + u16::try_from(nth % PORTS.len() as u32)?;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok((Ipv4Addr::LOCALHOST, port).into());
        }
    }
    bail!("no port is free")
}
