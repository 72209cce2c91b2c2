//! What an app was trusted with must not be in what its processes say. Every app is searched at its end, whatever its test is
//! about; [`Builder::trace`](super::Builder::trace) makes its processes say all they can.

use super::App;
use crate::Canaries;
use std::sync::{MutexGuard, PoisonError};

impl App {
    /// A new word that no process may say, which stands for this.
    pub fn plant(&self, what: &'static str) -> String {
        self.words().plant(what)
    }

    /// A word that no process may say, which is this.
    pub fn secret(&self, what: &'static str, word: &str) {
        self.words().add(what, word);
    }

    /// A setting that all processes were started with; empty if there is none.
    #[must_use]
    pub fn setting(&self, name: &str) -> String {
        let mut found = self.env.iter().rev().filter(|(known, _)| known == name);
        found.next().map(|(_, value)| value.clone()).unwrap_or_default()
    }

    /// All words that no process may say.
    #[must_use]
    pub fn canaries(&self) -> Canaries {
        self.words().clone()
    }

    fn words(&self) -> MutexGuard<'_, Canaries> {
        self.canaries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Kills all of its processes and gives the places in their logs where such words are.
    pub(super) fn gossip(&mut self) -> anyhow::Result<Vec<String>> {
        for process in self.workers.iter_mut().chain(&mut self.servers) {
            // Who is gone already has said all there is.
            process.kill_9().ok();
        }
        self.canaries().net().found_below(&self.logs)
    }
}
