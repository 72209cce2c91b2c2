//! What the simulator reads of a request: one struct for all endpoints, each of which uses the fields it knows.
//! Everything else in a body is ignored, or handed back when `sim.echo_fields` asks for it.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::error::Failure;
use crate::sim::Sim;
use crate::usage::Figures;

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

impl<'a> Ask<'a> {
    /// Reads and checks what all endpoints have in common.
    pub(crate) fn parse(body: &'a [u8]) -> Result<Self, Failure> {
        let ask: Self = serde_json::from_slice(body)
            .map_err(|error| Failure::invalid(None, format!("We could not read the JSON body: {error}.")))?;
        ask.sim.check().map_err(|message| Failure::invalid(Some("sim"), message))?;
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
        let asked = self.stream_options.as_ref().and_then(|options| options.include_usage).unwrap_or(false);
        asked && self.sim.usage != Some(Figures::Absent)
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
}
