//! The tokens that an answer says it took, in the words of all dialects. Pure.

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use shared::task::Usage;

/// A count of tokens: some servers write a float, or a number in quotes. Anything else is no count.
fn count<'de, D: Deserializer<'de>>(from: D) -> Result<Option<i64>, D::Error> {
    let text = <&RawValue>::deserialize(from)?.get().trim_matches('"');
    // Beyond what an i64 holds the cast saturates.
    let float =
        || text.parse::<f64>().ok().filter(|count| count.is_finite()).map(|count| count.round() as i64);
    Ok(text.parse().ok().or_else(float).filter(|count| *count >= 0))
}

fn details<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Details>, D::Error> {
    let raw = <&RawValue>::deserialize(from)?;
    Ok(serde_json::from_str(raw.get()).ok())
}

/// Tokens in the words of all three dialects.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Tokens {
    #[serde(deserialize_with = "count")]
    prompt_tokens: Option<i64>,
    #[serde(deserialize_with = "count")]
    completion_tokens: Option<i64>,
    #[serde(deserialize_with = "count")]
    input_tokens: Option<i64>,
    #[serde(deserialize_with = "count")]
    output_tokens: Option<i64>,
    #[serde(deserialize_with = "details")]
    prompt_tokens_details: Option<Details>,
    #[serde(deserialize_with = "details")]
    completion_tokens_details: Option<Details>,
    #[serde(deserialize_with = "details")]
    input_tokens_details: Option<Details>,
    #[serde(deserialize_with = "details")]
    output_tokens_details: Option<Details>,
    #[serde(deserialize_with = "count")]
    cache_read_input_tokens: Option<i64>,
    #[serde(deserialize_with = "count")]
    cache_creation_input_tokens: Option<i64>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Details {
    #[serde(deserialize_with = "count")]
    cached_tokens: Option<i64>,
    #[serde(deserialize_with = "count")]
    reasoning_tokens: Option<i64>,
}

/// Reads a `usage` object; `None` if it is none.
pub(crate) fn tokens(usage: &str) -> Option<Usage> {
    let said: Tokens = serde_json::from_str(usage).ok()?;
    let input = said.prompt_tokens_details.or(said.input_tokens_details).unwrap_or_default();
    let output = said.completion_tokens_details.or(said.output_tokens_details).unwrap_or_default();
    // Anthropic counts cached tokens beside `input_tokens`, OpenAI inside of it.
    let (read, written) =
        (said.cache_read_input_tokens.unwrap_or(0), said.cache_creation_input_tokens.unwrap_or(0));
    Some(Usage {
        input_tokens: said.prompt_tokens.or(said.input_tokens)?.saturating_add(read).saturating_add(written),
        cached_tokens: input.cached_tokens.unwrap_or(read),
        output_tokens: said.completion_tokens.or(said.output_tokens).unwrap_or(0),
        reasoning_tokens: output.reasoning_tokens.unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_dialects_are_read() {
        let openai = r#"{"prompt_tokens":7,"completion_tokens":3,"total_tokens":10,"prompt_tokens_details":{"cached_tokens":2},
            "completion_tokens_details":{"reasoning_tokens":1}}"#;
        let anthropic = r#"{"input_tokens":5,"cache_read_input_tokens":2,"output_tokens":3}"#;
        let of = |input_tokens, cached_tokens, output_tokens, reasoning_tokens| {
            Some(Usage { input_tokens, cached_tokens, output_tokens, reasoning_tokens })
        };
        assert_eq!(tokens(openai), of(7, 2, 3, 1));
        assert_eq!(tokens(anthropic), of(7, 2, 3, 0));
        assert_eq!(tokens(r#"{"prompt_tokens":4,"total_tokens":4}"#), of(4, 0, 0, 0));
        let odd = r#"{"prompt_tokens":12.0,"completion_tokens":"3","total_tokens":null,"prompt_tokens_details":null,"completion_tokens_details":[]}"#;
        assert_eq!(tokens(odd), of(12, 0, 3, 0));
        assert_eq!(tokens(r#"{"prompt_tokens":1e400,"completion_tokens":-4}"#), None);
        assert_eq!(tokens("null"), None);
    }
}
