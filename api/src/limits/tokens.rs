//! How many tokens a request may come to, before anybody has counted them.

use serde_json::value::RawValue;
use shared::input::most;

/// Bytes of JSON to a token: what English text comes to, markup included.
const BYTES_PER_TOKEN: usize = 4;

/// Input by its length, and output by the largest maximum that the request sets for its endpoint, or else `output`. Nothing is written for embeddings.
pub(super) fn estimate(endpoint: &str, body: &RawValue, output: u32) -> u32 {
    let input = u32::try_from(body.get().len() / BYTES_PER_TOKEN).unwrap_or(u32::MAX);
    if endpoint.ends_with("/embeddings") {
        return input.max(1);
    }
    input.saturating_add(most(endpoint, body, output)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_sets_the_maximum() {
        let estimate =
            |endpoint, body: &str| estimate(endpoint, serde_json::from_str(body).expect("JSON"), 1_000);
        let chat = "/v1/chat/completions";
        assert_eq!(estimate(chat, r#"{"max_tokens":50}"#), 54);
        assert_eq!(estimate(chat, r#"{"max_tokens":50,"max_completion_tokens":10,"n":3}"#), 162);
        assert_eq!(estimate("/v1/responses", r#"{"max_output_tokens":7}"#), 12);
        assert_eq!(estimate(chat, r#"{"messages":"a wrong type"}"#), 1_006);
        assert_eq!(estimate("/v1/embeddings", r#"{"input":"12345678901"}"#), 5);
        assert_eq!(estimate(chat, r#"{"max_tokens":4000000000,"n":9}"#), u32::MAX);
    }
}
