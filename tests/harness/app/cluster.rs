//! Processes of an app that die, are asked to end, and come back, as an init system would have it.

use super::{App, Mode, ready};
use crate::Process;
use std::{
    path::PathBuf,
    process::{Command, ExitStatus},
    time::Duration,
};

/// Longest time for an API to end when it is asked to.
const API_END: Duration = Duration::from_secs(25);

impl Mode {
    /// Its name in tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Distributed => "distributed",
            Self::Apalis => "distributed, apalis",
        }
    }
}

/// Settings for this one start: what a former start was told of failpoints is forgotten.
fn with<'a>(env: &'a [(&'a str, &'a str)]) -> impl FnOnce(&mut Command) + 'a {
    move |command| {
        command.env_remove("FAILPOINTS").envs(env.iter().copied());
    }
}

impl App {
    /// The API process whose client is `apis[index]`; embedded: the only process.
    ///
    /// # Panics
    /// There is none.
    pub fn api_process(&mut self, index: usize) -> &mut Process {
        // The embedded mode has no servers: its worker is everything.
        if self.servers.is_empty() { &mut self.workers[index] } else { &mut self.servers[index] }
    }

    /// Kills an API process (embedded: the only one) if it still runs, starts it again on the same port and waits until it is ready.
    ///
    /// # Errors
    /// It does not start.
    pub async fn restart_api(&mut self, index: usize, env: &[(&str, &str)]) -> anyhow::Result<()> {
        let listen = self.apis[index].base().trim_start_matches("http://").to_owned();
        let process = self.api_process(index);
        process.restart(with(env))?;
        self.apis[index] = ready(process, &listen).await?;
        Ok(())
    }

    /// Asks an API process to end, and waits until it has.
    ///
    /// # Errors
    /// It does not end within 25 s.
    pub async fn stop_api(&mut self, index: usize) -> anyhow::Result<ExitStatus> {
        let process = self.api_process(index);
        process.signal("TERM")?;
        process.wait_end(API_END).await
    }

    /// Kills a worker if it still runs, and starts another one in its place.
    ///
    /// # Errors
    /// It does not start.
    pub fn replace_worker(&mut self, index: usize, env: &[(&str, &str)]) -> anyhow::Result<()> {
        self.workers[index].restart(with(env))
    }

    /// The data folder of the embedded mode, as the test sees it.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.disk.as_ref().map_or_else(|| self.folder().to_owned(), crate::SmallDisk::seen).join("data")
    }
}
