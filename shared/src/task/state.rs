//! The states of a task and the one function that moves between them. `docs/lifecycle.md` draws it; a test compares the two.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// Where a task stands: the same words in URL, Rust, SQL, logs and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Waiting for a time: submitted for later, or between two attempts.
    Scheduled,
    /// Ready to be claimed.
    Queued,
    /// An attempt is running.
    InProgress,
    /// The upstream answered with success.
    Completed,
    /// Given up on.
    Failed,
    /// Stopped by its owner.
    Cancelled,
    /// A deadline passed first.
    Expired,
}

/// What can happen to a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Its time has come.
    Due,
    /// A worker claimed it.
    Claim,
    /// The attempt ended with success.
    Complete,
    /// The attempt ended for good without success.
    Fail,
    /// The attempt ended; another one follows later.
    Again,
    /// The worker gave the claim back, or died.
    Release,
    /// The owner stopped it.
    Cancel,
    /// A deadline passed.
    Expire,
    /// The owner asked for another run.
    Retry,
}

impl State {
    /// Every state, in the order of a task's life.
    pub const ALL: [Self; 7] = [
        Self::Scheduled,
        Self::Queued,
        Self::InProgress,
        Self::Completed,
        Self::Failed,
        Self::Cancelled,
        Self::Expired,
    ];

    /// The state after `step`, or `None` where that step cannot happen.
    #[must_use]
    pub fn next(self, step: Step) -> Option<Self> {
        use State::{Cancelled, Completed, Expired, Failed, InProgress, Queued, Scheduled};
        Some(match (self, step) {
            (Scheduled, Step::Due)
            | (InProgress, Step::Release)
            | (Failed | Cancelled | Expired, Step::Retry) => Queued,
            (Queued, Step::Claim) => InProgress,
            (InProgress, Step::Complete) => Completed,
            (InProgress, Step::Fail) => Failed,
            (InProgress, Step::Again) => Scheduled,
            (Scheduled | Queued | InProgress, Step::Cancel) => Cancelled,
            (Scheduled | Queued | InProgress, Step::Expire) => Expired,
            _ => return None,
        })
    }

    /// Whether a run ends here.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled | Self::Expired)
    }

    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Queued => "queued",
            Self::InProgress => "in_progress",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for State {
    type Err = UnknownState;

    fn from_str(word: &str) -> Result<Self, UnknownState> {
        Self::ALL.into_iter().find(|state| state.as_str() == word).ok_or(UnknownState)
    }
}

/// The word names no state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unknown state: use scheduled, queued, in_progress, completed, failed, cancelled or expired")]
pub struct UnknownState;

impl Step {
    /// Every step.
    pub const ALL: [Self; 9] = [
        Self::Due,
        Self::Claim,
        Self::Complete,
        Self::Fail,
        Self::Again,
        Self::Release,
        Self::Cancel,
        Self::Expire,
        Self::Retry,
    ];
}
