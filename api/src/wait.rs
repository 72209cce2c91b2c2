//! Waiting for a task: the long poll behind `?wait=` and `Prefer: wait`. It listens and does not ask again and again.

use crate::{
    error::ApiError,
    fetch::{self, DEADLINE},
    follow::Follow,
    parse,
    state::App,
};
use shared::{
    store::Kept,
    task::{EventKind, State, Task},
};
use std::time::Duration;
use tokio::time::timeout;

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Until {
    /// A terminal state.
    Terminal,
    /// The first attempt, or anything after it.
    Started,
    /// Any change.
    Change,
}

impl Until {
    /// Reads the parameter `until`.
    ///
    /// # Errors
    /// 400.
    pub(crate) fn parse(word: &str) -> Result<Self, ApiError> {
        match word {
            "terminal" => Ok(Self::Terminal),
            "started" => Ok(Self::Started),
            "change" => Ok(Self::Change),
            _ => Err(ApiError::invalid("until", "'until' must be terminal, started or change.")),
        }
    }

    /// Whether there is nothing to wait for.
    pub(crate) fn is_met_by(self, state: State) -> bool {
        match self {
            Self::Terminal => state.is_terminal(),
            Self::Started => state == State::InProgress || state.is_terminal(),
            Self::Change => false,
        }
    }

    fn is_told_by(self, kind: EventKind) -> bool {
        match self {
            Self::Terminal => kind.is_terminal(),
            Self::Started => !matches!(kind, EventKind::Created | EventKind::Queued),
            Self::Change => kind.is_lifecycle(),
        }
    }
}

/// The task, with its kept answer, once `until` is met, or as it stands when the patience ends.
///
/// # Errors
/// The database is away, or the task was removed meanwhile.
pub(crate) async fn until(
    app: &App,
    task: &Task,
    until: Until,
    patience: Duration,
) -> Result<(Task, Option<Kept>), ApiError> {
    let told = async {
        let Some(mut follow) = Follow::open(app, task.id, Some(task.last_seq)).await? else { return Ok(()) };
        loop {
            tokio::select! {
                () = app.stop.cancelled() => return Ok::<_, ApiError>(()),
                event = follow.next() => match event {
                    // It stands for changes that are not known: the row says what they came to.
                    Some(event) if event.kind == EventKind::Snapshot && until != Until::Change => {
                        let row = timeout(DEADLINE, app.backends.store.get(app.project, task.id)).await??;
                        if row.is_none_or(|row| until.is_met_by(row.state)) {
                            return Ok(());
                        }
                    }
                    Some(event) if until.is_told_by(event.kind) => return Ok(()),
                    Some(_) => {}
                    None => return Ok(()),
                },
            }
        }
    };
    if !until.is_met_by(task.state)
        && let Ok(failed) = timeout(patience, told).await
    {
        failed?;
    }
    fetch::whole(app, task.id).await?.ok_or_else(|| parse::no_task(task.id))
}
