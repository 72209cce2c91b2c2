//! Idempotency keys: what operations make of them, and those whose first request is still under way in this process: who repeats it meanwhile waits for the same commit, and
//! after a second hears that it is under way. Repeats that meet in the database need no such help.

use crate::error::ApiError;
use http::Method;
use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// What an operation makes of an `Idempotency-Key`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keys {
    /// One key, one task or batch.
    Kept,
    /// Nothing: repeating it changes nothing.
    Needless,
    /// It is refused: repeating it would do it again, and the caller must not believe otherwise.
    Refused,
}

/// What the operation at this path makes of keys.
pub(crate) fn keys(path: Option<&str>, method: &Method) -> Keys {
    match path {
        _ if method != Method::POST => Keys::Needless,
        Some("/v1/tasks" | "/v1/batches") => Keys::Kept,
        Some(
            "/v1/tasks/{id}/cancel"
            | "/v1/batches/{id}/cancel"
            | "/v1/webhook_endpoints/{id}"
            | "/v1/admin/projects/{id}/limits"
            | "/v1/admin/keys/{id}/limits"
            | "/v1/admin/keys/{id}/revoke",
        )
        | None => Keys::Needless,
        Some(_) => Keys::Refused,
    }
}

/// The answer to a key that would do nothing.
pub(crate) fn unsupported() -> ApiError {
    ApiError::Invalid {
        message: "This operation does not take an 'Idempotency-Key': repeating it does it again. Send it without, and \
                  look at what is there before you repeat it."
            .into(),
        code: "idempotency_key_unsupported",
        param: Some("Idempotency-Key".into()),
    }
}

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
