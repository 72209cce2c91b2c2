//! What a request asks for, as far as its answer can be held to it. Pure.

use crate::json::member;
use serde_json::value::RawValue;

/// What a request asks for, as far as its answer can be held to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// How many choices.
    pub(crate) choices: usize,
    /// How many vectors; `None`: nobody can tell from the request.
    pub(crate) vectors: Option<usize>,
}

impl Wanted {
    /// Reads the request's body.
    pub(crate) fn of(endpoint: &str, request: &[u8]) -> Self {
        let read = |name: &str| {
            let text = std::str::from_utf8(request).ok()?;
            member(text, name).ok()?
        };
        let choices = match endpoint {
            "/v1/chat/completions" | "/v1/completions" => read("n").and_then(|n| n.get().parse().ok()),
            _ => None,
        };
        let vectors = match endpoint {
            "/v1/embeddings" => read("input").and_then(inputs),
            _ => None,
        };
        Self { choices: choices.unwrap_or(1), vectors }
    }
}

/// How many inputs it is: a text, the tokens of one, or a list of either.
fn inputs(input: &RawValue) -> Option<usize> {
    if !input.get().starts_with('[') {
        return Some(1);
    }
    let all: Vec<&RawValue> = serde_json::from_str(input.get()).ok()?;
    let is_token = |one: &&RawValue| one.get().starts_with(|c: char| c.is_ascii_digit() || c == '-');
    Some(if all.first().is_some_and(is_token) { 1 } else { all.len() })
}
