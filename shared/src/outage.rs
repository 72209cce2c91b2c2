//! One line per change: an outage is said when it begins and when it is over, however often it is met in between.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// An outage is over when it was not met for this long: what fails now and then is one outage, not many.
const QUIET: Duration = Duration::from_secs(5);

/// Whether something is away.
#[derive(Debug, Default)]
pub struct Outage(Mutex<Option<Met>>);

#[derive(Debug, Clone, Copy)]
struct Met {
    first: Instant,
    last: Instant,
    times: u64,
}

/// What there was of an outage that is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Over {
    /// How often it was met.
    pub times: u64,
    /// From the first time to the last one.
    pub lasted: Duration,
}

impl Outage {
    /// Nothing was met yet.
    #[must_use]
    pub const fn new() -> Self {
        Self(Mutex::new(None))
    }

    /// It was met: `true` for the first time, which is the one to say.
    pub fn met(&self) -> bool {
        let now = Instant::now();
        let mut met = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = *met;
        *met = Some(match before {
            Some(met) => Met { last: now, times: met.times + 1, ..met },
            None => Met { first: now, last: now, times: 1 },
        });
        before.is_none()
    }

    /// Something went well: what there was of the outage, if that is over now.
    pub fn fine(&self) -> Option<Over> {
        let mut met = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Met { first, last, times } = met.take_if(|met| met.last.elapsed() >= QUIET)?;
        Some(Over { times, lasted: last - first })
    }

    /// Whether it was met a moment ago.
    #[must_use]
    pub fn is_on(&self) -> bool {
        let met = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        met.is_some_and(|met| met.last.elapsed() < QUIET)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_said_once_and_ends_when_it_was_quiet() {
        let outage = Outage::default();
        assert!(!outage.is_on() && outage.fine().is_none(), "nothing was met");
        let said = (0..1_000).filter(|_| outage.met()).count();
        assert_eq!((said, outage.is_on(), outage.fine()), (1, true, None));
        let long_ago = Instant::now().checked_sub(QUIET).expect("the machine runs for some seconds");
        if let Some(met) = &mut *outage.0.lock().unwrap_or_else(PoisonError::into_inner) {
            (met.first, met.last) = (long_ago, long_ago);
        }
        assert_eq!(outage.fine(), Some(Over { times: 1_000, lasted: Duration::ZERO }));
        assert!(outage.fine().is_none() && outage.met(), "the next one is said again");
    }
}
