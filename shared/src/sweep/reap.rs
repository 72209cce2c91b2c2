//! Attempts whose worker is dead: back to the line, or given up on.
//!
//! Whoever could not reach the database cannot tell a dead worker from one that could not reach it either. So after a gap in its
//! own access (and at its start) the sweep waits one lease before it judges: the living have renewed theirs by then.

use super::{LIMIT, PATIENCE, Step, is_full, tell};
use crate::{
    backends::Backends,
    config::Config,
    failpoint::{self, Point},
};
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// Bound of the wait that spreads the tasks of a dead worker; a short lease makes it shorter.
const SPREAD: Duration = Duration::from_secs(1);

pub(super) async fn step(backends: &Backends, config: &Config) -> Step {
    let spread = SPREAD.min(config.lease.ttl);
    let changes = timeout(PATIENCE, backends.store.reap(LIMIT, spread, config.lease.crashes_max)).await??;
    if !changes.is_empty() {
        failpoint::pass(Point::SweepReaped);
        tracing::warn!(attempts = changes.len(), "took attempts from workers whose lease had run out");
        tell(backends, &changes).await;
    }
    Ok(is_full(changes.len()))
}

/// Remembers the sweep's own access to the database.
#[derive(Debug)]
pub(super) struct Judge {
    ttl: Duration,
    answered: Instant,
    not_before: Instant,
}

impl Judge {
    pub(super) fn new(ttl: Duration, now: Instant) -> Self {
        Self { ttl, answered: now, not_before: now + ttl }
    }

    /// Whether it may judge now; a gap starts the wait anew.
    pub(super) fn may_judge(&mut self, now: Instant) -> bool {
        if now.duration_since(self.answered) > self.ttl / 2 {
            self.not_before = now + self.ttl;
            self.answered = now;
        }
        now >= self.not_before
    }

    /// The database has just answered.
    pub(super) fn answered(&mut self, now: Instant) {
        // Duties that took as long as a gap must show as one.
        if now.duration_since(self.answered) <= self.ttl / 2 {
            self.answered = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_costs_one_lease() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut judge = Judge::new(Duration::from_secs(10), start);
        for second in 1..10 {
            assert!(!judge.may_judge(at(second)), "{second}");
            judge.answered(at(second));
        }
        assert!(judge.may_judge(at(10)));
        judge.answered(at(10));
        assert!(judge.may_judge(at(15)));
        assert!(!judge.may_judge(at(21)));
        judge.answered(at(21));
        for second in 22..31 {
            assert!(!judge.may_judge(at(second)), "{second}");
            judge.answered(at(second));
        }
        assert!(judge.may_judge(at(31)));
    }
}
