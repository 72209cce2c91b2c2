//! What the simulator reads of a request: one struct for all endpoints, each of which uses the fields it knows.
//! Everything else in a body is ignored, or handed back when `sim.echo_fields` asks for it.

use std::collections::BTreeMap;

use http::StatusCode;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::behaviour::MAX_TOKENS;
use crate::error::Failure;

/// Unknown top-level fields of a request, on their way back byte for byte.
pub(crate) type Extra = BTreeMap<String, Box<RawValue>>;

/// A request body, as far as it matters here.
#[derive(Debug, Deserialize)]
pub(crate) struct Ask<'a> {
    #[serde(default)]
    pub(crate) model: String,
    pub(crate) stream: Option<bool>,
    pub(crate) stream_options: Option<StreamOptions>,
    pub(crate) n: Option<u32>,
    #[serde(borrow)]
    pub(crate) messages: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(crate) prompt: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(crate) input: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(crate) tools: Option<&'a RawValue>,
    max_tokens: Option<u32>,
    max_completion_tokens: Option<u32>,
    max_output_tokens: Option<u32>,
    pub(crate) dimensions: Option<usize>,
    pub(crate) encoding_format: Option<String>,
    #[serde(default)]
    pub(crate) sim: Sim,
}

/// OpenAI's `stream_options`.
#[derive(Debug, Deserialize)]
pub(crate) struct StreamOptions {
    include_usage: Option<bool>,
}

/// The `sim` object: what this one request wants from the simulator. A misspelt field is refused,
/// because a fault that silently does not happen makes a test pass that should not.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Sim {
    pub(crate) ttft_ms: Option<u64>,
    pub(crate) itl_ms: Option<u64>,
    pub(crate) tokens: Option<u32>,
    pub(crate) jitter: Option<f64>,
    pub(crate) text: Option<String>,
    pub(crate) echo: bool,
    pub(crate) echo_fields: bool,
    pub(crate) status: Option<u16>,
    pub(crate) retry_after_s: Option<f64>,
    pub(crate) tool_calls: Option<ToolCalls>,
    pub(crate) logprobs: bool,
    pub(crate) finish_reason: Option<String>,
    pub(crate) content_type: Option<String>,
    pub(crate) raw: Option<String>,
    pub(crate) fail_first: Option<u32>,
    pub(crate) cut_after: Option<u64>,
    pub(crate) hang_ms: Option<u64>,
}

/// `true` calls the request's first tool; a list calls what it names.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum ToolCalls {
    /// Call the first tool with no arguments.
    Plain(bool),
    /// Call exactly these.
    Named(Vec<NamedCall>),
}

/// One tool call asked for.
#[derive(Debug, Deserialize)]
pub(crate) struct NamedCall {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) arguments: String,
}

impl<'a> Ask<'a> {
    /// Reads and checks what all endpoints have in common.
    pub(crate) fn parse(body: &'a [u8]) -> Result<Self, Failure> {
        let ask: Self = serde_json::from_slice(body)
            .map_err(|error| Failure::invalid(None, format!("We could not read the JSON body: {error}.")))?;
        ask.sim.check()?;
        if ask.model.is_empty() {
            return Err(Failure::invalid(Some("model"), "Missing required parameter: 'model'."));
        }
        if !ask.model.starts_with("sim-") {
            return Err(Failure::model_not_found(&ask.model));
        }
        Ok(ask)
    }

    pub(crate) fn streamed(&self) -> bool {
        self.stream.unwrap_or(false)
    }

    pub(crate) fn include_usage(&self) -> bool {
        self.stream_options.as_ref().and_then(|options| options.include_usage).unwrap_or(false)
    }

    /// The client's bound on the answer, by any of its three names.
    pub(crate) fn limit(&self) -> Option<u32> {
        self.max_completion_tokens.or(self.max_output_tokens).or(self.max_tokens)
    }

    /// How many answers are wanted to each prompt.
    pub(crate) fn answers(&self) -> Result<u32, Failure> {
        match self.n.unwrap_or(1) {
            n @ 1..=128 => Ok(n),
            _ => Err(Failure::invalid(Some("n"), "Invalid 'n': expected a number between 1 and 128.")),
        }
    }
}

impl Sim {
    /// Whether and how this request must fail; `execution` counts from 1.
    pub(crate) fn fault(&self, execution: u32) -> Option<(&'static str, StatusCode)> {
        let status = self.status.and_then(|status| StatusCode::from_u16(status).ok());
        match (self.fail_first, status) {
            (Some(first), _) if execution > first => None,
            (Some(_), status) => Some(("fail_first", status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR))),
            (None, Some(status)) if self.raw.is_none() => Some(("status", status)),
            _ => None,
        }
    }

    fn check(&self) -> Result<(), Failure> {
        let refuse = |message| Err(Failure::invalid(Some("sim"), message));
        if self.jitter.is_some_and(|jitter| !(0.0..=1.0).contains(&jitter)) {
            return refuse("Invalid 'sim.jitter': expected a number between 0 and 1.");
        }
        if self.status.is_some_and(|status| !(200..=599).contains(&status)) {
            return refuse("Invalid 'sim.status': expected a number between 200 and 599.");
        }
        if self.tokens.is_some_and(|tokens| tokens > MAX_TOKENS) {
            return refuse("Invalid 'sim.tokens': expected at most 1000000.");
        }
        if self.retry_after_s.is_some_and(|seconds| !(0.0..=86_400.0).contains(&seconds)) {
            return refuse("Invalid 'sim.retry_after_s': expected a number between 0 and 86400.");
        }
        Ok(())
    }
}

/// The top-level fields no API that is simulated here knows, for `sim.echo_fields`.
pub(crate) fn unknown_fields(body: &[u8]) -> Result<Extra, Failure> {
    let mut fields: Extra = serde_json::from_slice(body)
        .map_err(|error| Failure::invalid(None, format!("We could not read the JSON body: {error}.")))?;
    fields.retain(|name, _| !KNOWN.contains(&name.as_str()));
    Ok(fields)
}

/// Fields with a meaning in a request, and fields the answers have anyway.
const KNOWN: &[&str] = &[
    "background",
    "choices",
    "completed_at",
    "content",
    "created",
    "created_at",
    "data",
    "dimensions",
    "encoding_format",
    "error",
    "frequency_penalty",
    "id",
    "incomplete_details",
    "include",
    "input",
    "instructions",
    "logit_bias",
    "logprobs",
    "max_completion_tokens",
    "max_output_tokens",
    "max_tokens",
    "max_tool_calls",
    "messages",
    "metadata",
    "model",
    "n",
    "object",
    "output",
    "parallel_tool_calls",
    "presence_penalty",
    "previous_response_id",
    "prompt",
    "prompt_cache_key",
    "reasoning",
    "reasoning_effort",
    "response_format",
    "role",
    "safety_identifier",
    "seed",
    "service_tier",
    "sim",
    "status",
    "stop",
    "stop_reason",
    "stop_sequence",
    "stop_sequences",
    "store",
    "stream",
    "stream_options",
    "system",
    "system_fingerprint",
    "temperature",
    "text",
    "thinking",
    "tool_choice",
    "tools",
    "top_k",
    "top_logprobs",
    "top_p",
    "truncation",
    "type",
    "usage",
    "user",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_fields_survive_and_known_ones_do_not() {
        let fields = unknown_fields(br#"{"model":"sim-chat","big":12345678901234567890123,"n":1}"#).unwrap();
        assert_eq!(fields.len(), 1);
        assert_eq!(fields["big"].get(), "12345678901234567890123");
    }

    #[test]
    fn a_misspelt_fault_is_refused() {
        assert!(Ask::parse(br#"{"model":"sim-chat","sim":{"fail_frist":1}}"#).is_err());
        assert!(Ask::parse(br#"{"model":"sim-chat","sim":{"fail_first":1},"else":1}"#).is_ok());
    }

    #[test]
    fn fail_first_ends_after_k_executions() {
        let sim = Sim { fail_first: Some(2), status: Some(503), ..Sim::default() };
        assert_eq!(sim.fault(2), Some(("fail_first", StatusCode::SERVICE_UNAVAILABLE)));
        assert_eq!(sim.fault(3), None);
    }
}
