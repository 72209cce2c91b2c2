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

#[cfg(test)]
mod tests {
    use super::*;

    /// What can happen in a state, and where that leads.
    fn ways(state: State) -> Vec<(Step, State)> {
        Step::ALL.into_iter().filter_map(|step| Some((step, state.next(step)?))).collect()
    }

    #[test]
    fn a_run_goes_on_to_its_end_and_a_retry_is_another() {
        use State::{Cancelled, Completed, Expired, Failed, InProgress, Queued, Scheduled};
        let stopped = [(Step::Cancel, Cancelled), (Step::Expire, Expired)];
        assert_eq!(ways(Scheduled), [&[(Step::Due, Queued)][..], &stopped].concat());
        assert_eq!(ways(Queued), [&[(Step::Claim, InProgress)][..], &stopped].concat());
        let ran = [
            (Step::Complete, Completed),
            (Step::Fail, Failed),
            (Step::Again, Scheduled),
            (Step::Release, Queued),
        ];
        assert_eq!(ways(InProgress), [&ran[..], &stopped].concat());
        assert!(ways(Completed).is_empty(), "there is nothing to repeat");
        for ended in [Failed, Cancelled, Expired] {
            assert_eq!(ways(ended), [(Step::Retry, Queued)]);
        }
    }

    #[test]
    fn what_is_terminal_is_left_by_a_retry_alone() {
        for state in State::ALL {
            let stays = ways(state).iter().all(|(step, _)| *step == Step::Retry);
            assert_eq!(state.is_terminal(), stays, "{state}");
        }
    }

    #[test]
    fn words_are_the_same_everywhere_and_read_back() {
        for state in State::ALL {
            let word = state.to_string();
            assert_eq!(serde_json::to_value(state).expect("JSON"), *word);
            assert_eq!(word.parse(), Ok(state));
        }
        assert_eq!(State::InProgress.to_string(), "in_progress");
        assert_eq!("running".parse::<State>(), Err(UnknownState));
    }
}
