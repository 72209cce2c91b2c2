//! What follows from an attempt. Pure: the outcome and a random number come in, the verdict comes out.

use crate::{
    classify::{Failure, Kind},
    upstream::Reply,
};
use shared::{
    store::Claimed,
    task::{ErrorCode, State, TaskError, full_jitter},
};
use std::time::Duration;

/// What is written about an attempt.
#[derive(Debug, PartialEq)]
pub(crate) enum Verdict {
    /// The run ends with this state.
    End {
        /// `completed`, `failed` or `expired`.
        state: State,
        /// What the upstream answered.
        reply: Option<Reply>,
        /// Set unless `completed`.
        error: Option<TaskError>,
    },
    /// Another attempt follows.
    Again {
        /// After this wait.
        delay: Duration,
        /// Whether it counts as a failure.
        charged: bool,
        /// Why.
        error: TaskError,
    },
}

/// Judges an attempt. `random` is between 0 and 1.
pub(crate) fn decide(claimed: &Claimed, outcome: Result<Reply, Failure>, random: f64) -> Verdict {
    let failure = match outcome {
        Ok(reply) => return Verdict::End { state: State::Completed, reply: Some(reply), error: None },
        Err(failure) => failure,
    };
    let error = TaskError {
        code: failure.code,
        message: failure.message,
        retryable: failure.kind != Kind::Permanent,
        attempt: claimed.attempt,
        upstream_status: failure.reply.as_ref().map(|reply| reply.status),
        upstream_code: failure.said.as_ref().and_then(|said| said.word()),
        upstream_message: failure.said.as_ref().and_then(|said| said.shown()),
    };
    let failures = claimed.failures.saturating_add(1);
    match failure.kind {
        Kind::Transient if failures < claimed.max_attempts => {
            Verdict::Again { delay: full_jitter(claimed.backoff, failures, random), charged: true, error }
        }
        Kind::Later { wait, charged } if !charged || failures < claimed.max_attempts => {
            // Those who were told the same moment do not come back at the same moment.
            Verdict::Again { delay: wait + wait.mul_f64(random / 10.0), charged, error }
        }
        Kind::Throttled(asked) | Kind::TooLarge(asked) => {
            // Those who were told the same moment do not come back at the same moment. Throttles are no failures, so that
            // the bound of our own waits grows with the attempts.
            let delay = asked.map_or_else(
                || full_jitter(claimed.backoff, claimed.attempt, random),
                |wait| wait + wait.mul_f64(random / 10.0),
            );
            Verdict::Again { delay, charged: false, error }
        }
        // Nothing was executed.
        Kind::Away | Kind::Refused | Kind::Unavailable => {
            let delay = full_jitter(claimed.backoff, claimed.attempt, random);
            Verdict::Again { delay, charged: false, error }
        }
        Kind::Deadline => Verdict::End { state: State::Expired, reply: None, error: Some(error) },
        Kind::Permanent | Kind::Transient | Kind::Later { .. } => Verdict::End {
            state: State::Failed,
            reply: failure.reply.map(|reply| *reply),
            error: Some(error),
        },
    }
}

/// The failure of an attempt whose total time is over: the deadline's, or its own limit's.
pub(crate) fn overtime(claimed: &Claimed) -> Failure {
    if claimed.time_left <= claimed.execution_timeout {
        let message = "the deadline passed while the task was running";
        Failure::new(Kind::Deadline, ErrorCode::DeadlineExceeded, message)
    } else {
        Failure::new(
            Kind::Transient,
            ErrorCode::UpstreamTimeout,
            "the attempt took longer than its execution timeout",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::claimed;

    fn verdict(claimed: &Claimed, kind: Kind) -> Verdict {
        decide(claimed, Err(Failure::new(kind, ErrorCode::UpstreamFailed, "")), 1.0)
    }

    #[test]
    fn failures_are_bounded_and_throttles_are_free() {
        let mut task = claimed("/v1/chat/completions");
        let again = |verdict| match verdict {
            Verdict::Again { delay, charged, .. } => (delay.as_millis(), charged),
            Verdict::End { .. } => (0, false),
        };
        assert_eq!(again(verdict(&task, Kind::Transient)), (1_000, true));
        task.failures = task.max_attempts - 1;
        assert!(matches!(verdict(&task, Kind::Transient), Verdict::End { state: State::Failed, .. }));
        assert_eq!(again(verdict(&task, Kind::Throttled(Some(Duration::from_secs(10))))), (11_000, false));
        assert_eq!(again(verdict(&task, Kind::Throttled(None))), (1_000, false));
        let later = |charged| Kind::Later { wait: Duration::from_secs(10), charged };
        assert_eq!(again(verdict(&task, later(false))), (11_000, false));
        assert!(matches!(verdict(&task, later(true)), Verdict::End { state: State::Failed, .. }));
        task.failures = 0;
        assert_eq!(again(verdict(&task, later(true))), (11_000, true));
        for kind in [Kind::Away, Kind::Refused, Kind::Unavailable, Kind::TooLarge(None)] {
            assert_eq!(again(verdict(&task, kind)), (1_000, false), "{kind:?}");
        }
        assert!(matches!(verdict(&task, Kind::Deadline), Verdict::End { state: State::Expired, .. }));
    }

    #[test]
    fn a_permanent_failure_ends_the_run_and_says_so() {
        let task = claimed("/v1/chat/completions");
        let Verdict::End { state, error: Some(error), .. } = verdict(&task, Kind::Permanent) else {
            panic!("goes on")
        };
        assert_eq!((state, error.retryable), (State::Failed, false));
    }

    #[test]
    fn overtime_is_the_deadlines_only_if_that_came_first() {
        let mut task = claimed("/v1/chat/completions");
        assert_eq!(overtime(&task).kind, Kind::Transient);
        task.time_left = Duration::from_secs(1);
        assert_eq!(overtime(&task).kind, Kind::Deadline);
    }
}
