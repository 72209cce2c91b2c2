//! What Longhaul adds to requests so that it can tell deltas, and upstreams that refuse it.
//!
//! A refusal that blames what was added is answered by asking for less: first without the figures at the end of the stream, then without
//! the stream. What an upstream takes is remembered per model, for an hour: servers change.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// How long a refusal is remembered.
const REMEMBERED: Duration = Duration::from_secs(3_600);
/// Models of one upstream that are remembered.
const MODELS_MAX: usize = 1_024;

/// What is added to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// `stream`, and `stream_options` where the endpoint has them.
    StreamWithUsage,
    /// `stream`.
    Stream,
    /// Nothing: the client's own body.
    Nothing,
}

impl Wish {
    /// What to ask for instead, if a refusal blames what was added.
    pub(super) fn less(self, status: u16, refusal: &[u8]) -> Option<Self> {
        if !matches!(status, 400..=499) || matches!(status, 401 | 408 | 409 | 429) {
            return None;
        }
        let text = String::from_utf8_lossy(refusal).to_lowercase();
        let blames_usage = ["stream_options", "include_usage"].iter().any(|word| text.contains(word));
        match self {
            Self::StreamWithUsage if blames_usage => Some(Self::Stream),
            Self::StreamWithUsage | Self::Stream if text.contains("stream") => Some(Self::Nothing),
            _ => None,
        }
    }
}

/// What one upstream takes.
#[derive(Debug, Default)]
pub(crate) struct Wishes(Mutex<HashMap<String, (Wish, Instant)>>);

impl Wishes {
    /// What to ask for.
    pub(super) fn of(&self, model: &str) -> Wish {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = known.get(model).filter(|(_, since)| since.elapsed() < REMEMBERED);
        fresh.map_or(Wish::StreamWithUsage, |(wish, _)| *wish)
    }

    /// Takes note of what was taken.
    pub(super) fn note(&self, model: &str, taken: Wish) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if taken == Wish::StreamWithUsage || known.get(model).is_some_and(|(wish, _)| *wish == taken) {
            return;
        }
        known.retain(|_, (_, since)| since.elapsed() < REMEMBERED);
        if known.len() < MODELS_MAX {
            tracing::info!(
                model,
                ?taken,
                "the upstream refuses what is added for streams: it is left out for an hour"
            );
            known.insert(model.to_owned(), (taken, Instant::now()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_added_is_left_out() {
        let less = |wish: Wish, status, refusal: &str| wish.less(status, refusal.as_bytes());
        let (full, stream, nothing) = (Wish::StreamWithUsage, Wish::Stream, Wish::Nothing);
        for (refusal, then) in [
            (
                r#"{"error":{"message":"Your organization must be verified to stream this model.","param":"stream"}}"#,
                Some(nothing),
            ),
            (r#"{"error":{"message":"Streaming is not supported"}}"#, Some(nothing)),
            (
                r#"{"detail":[{"loc":["body","stream_options"],"msg":"Extra inputs are not permitted"}]}"#,
                Some(stream),
            ),
            (r#"{"error":"unknown field include_usage"}"#, Some(stream)),
            (r#"{"error":"temperature is out of range"}"#, None),
            ("", None),
        ] {
            assert_eq!(less(full, 400, refusal), then, "{refusal}");
            assert_eq!(less(nothing, 400, refusal), None, "{refusal}");
            assert_eq!(less(full, 500, refusal), None, "{refusal}");
        }
        assert_eq!(less(stream, 422, "no streaming here"), Some(nothing));
    }

    #[test]
    fn refusals_are_remembered_by_model_within_a_bound() {
        let wishes = Wishes::default();
        wishes.note("a", Wish::Nothing);
        wishes.note("b", Wish::StreamWithUsage);
        assert_eq!((wishes.of("a"), wishes.of("b")), (Wish::Nothing, Wish::StreamWithUsage));
        (0..2 * MODELS_MAX).for_each(|n| wishes.note(&n.to_string(), Wish::Stream));
        assert_eq!(wishes.0.lock().unwrap().len(), MODELS_MAX);
    }
}
