//! What an answer says about itself: tokens spent, and whether it is an error in disguise. Pure; reads slices of the body and
//! builds no tree of it.

use crate::json::is_object;
use serde::{Deserialize, de::IgnoredAny};
use serde_json::value::RawValue;
use shared::task::Usage;

/// Tokens in the words of all three dialects.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Tokens {
    prompt_tokens: Option<i64>,
    completion_tokens: Option<i64>,
    input_tokens: Option<i64>,
    output_tokens: Option<i64>,
    prompt_tokens_details: Option<Details>,
    completion_tokens_details: Option<Details>,
    input_tokens_details: Option<Details>,
    output_tokens_details: Option<Details>,
    cache_read_input_tokens: Option<i64>,
    cache_creation_input_tokens: Option<i64>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Details {
    cached_tokens: Option<i64>,
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

#[derive(Deserialize)]
struct Top<'a> {
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
    #[serde(borrow)]
    status: Option<&'a RawValue>,
    choices: Option<IgnoredAny>,
    data: Option<IgnoredAny>,
    output: Option<IgnoredAny>,
}

/// What the top level of an answer says.
#[derive(Debug, PartialEq)]
pub(crate) struct Look<'a> {
    /// Tokens, if it tells.
    pub(crate) usage: Option<Usage>,
    /// The error object that stands in place of an answer.
    pub(crate) error: Option<&'a str>,
}

/// Looks at the answer of a success status.
///
/// # Errors
/// It is no JSON, or ends too early.
pub(crate) fn look(body: &[u8]) -> Result<Look<'_>, serde_json::Error> {
    let top: Top<'_> = match serde_json::from_slice(body) {
        Ok(top) => top,
        // JSON, but no object of the usual kind: an answer like any other, which tells nothing.
        Err(error) if error.is_data() => return Ok(Look { usage: None, error: None }),
        Err(error) => return Err(error),
    };
    let answers = top.choices.is_some() || top.data.is_some() || top.output.is_some();
    let failed = top.status.is_some_and(|status| status.get() == r#""failed""#);
    Ok(Look {
        usage: top.usage.and_then(|usage| tokens(usage.get())),
        error: top.error.filter(|error| is_object(error) && (failed || !answers)).map(RawValue::get),
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
        assert_eq!(tokens("null"), None);
    }

    #[test]
    fn an_error_in_place_of_an_answer_is_seen() {
        let error = |body: &'static str| look(body.as_bytes()).unwrap().error;
        assert_eq!(error(r#"{"error":{"message":"x"}}"#), Some(r#"{"message":"x"}"#));
        assert_eq!(error(r#"{"choices":[],"error":{"message":"x"}}"#), None);
        assert_eq!(error(r#"{"output":[],"status":"failed","error":{"code":"x"}}"#), Some(r#"{"code":"x"}"#));
        assert_eq!(error(r#"{"output":[],"error":null}"#), None);
        assert_eq!(error("[1]"), None);
        assert!(look(br#"{"choices":[{"#).is_err());
    }
}
