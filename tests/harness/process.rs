//! Real processes: started, signalled and stopped by their pid; what they say goes to a file.

use anyhow::{Context, bail};
use std::{
    ffi::OsStr,
    fs::File,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
};

/// A child process. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    name: String,
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
        let child =
            start.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).spawn().with_context(|| {
                format!("cannot start {}: run `cargo build --workspace --bins` first", program.display())
            })?;
        Ok(Self { name: name.to_owned(), child, log })
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
        let sent = Command::new("kill").arg(format!("-{signal}")).arg(self.pid().to_string()).status()?;
        anyhow::ensure!(sent.success(), "cannot send {signal} to {}", self.name);
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

    /// Fails, with its last words, if it has ended although nobody asked it to.
    ///
    /// # Errors
    /// It has ended.
    pub fn must_run(&mut self) -> anyhow::Result<()> {
        let Some(status) = self.ended()? else { return Ok(()) };
        bail!("{} ended ({status}):\n{}", self.name, last_words(&self.log))
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

/// An address of this machine at which nobody listens at the moment.
///
/// # Errors
/// No port is free.
pub fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}
