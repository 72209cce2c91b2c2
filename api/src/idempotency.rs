//! Idempotency keys whose first request is still under way in this process: who repeats it meanwhile waits for the same commit, and
//! after a second hears that it is under way. Repeats that meet in the database need no such help.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// The unanswered. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Unanswered(Arc<Mutex<HashSet<String>>>);

/// A key is under way until this is dropped.
pub(crate) struct UnderWay {
    unanswered: Unanswered,
    key: String,
}

impl Unanswered {
    fn lock(&self) -> MutexGuard<'_, HashSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a request; `None` if one with this key is under way.
    pub(crate) fn begin(&self, key: &str) -> Option<UnderWay> {
        let is_first = self.lock().insert(key.to_owned());
        is_first.then(|| UnderWay { unanswered: self.clone(), key: key.to_owned() })
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.unanswered.lock().remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_free_again_when_its_request_is_over() {
        let unanswered = Unanswered::default();
        let first = unanswered.begin("a");
        assert!(first.is_some() && unanswered.begin("a").is_none() && unanswered.begin("b").is_some());
        drop(first);
        assert!(unanswered.begin("a").is_some());
    }
}
