//! The lines of a batch: checked all together, so that the client hears of every fault at once. Pure.

use crate::{
    docs::schema, error::ApiError, few::Few, judge::Verdict, metadata::Metadata, parse, wanted::model_of,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use shared::input::Refusal;
use std::{borrow::Cow, collections::HashSet, sync::Arc, time::Duration};

/// Requests of an inline batch at most.
pub(crate) const LINES_MAX: usize = 1_000;
/// Faults that are told at most.
const FAULTS_MAX: usize = 100;
const WINDOW_MAX_S: u64 = 30 * 86_400;

/// The body of `POST /v1/batches`.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewBatch, example = json!({
    "endpoint": "/v1/chat/completions", "completion_window": "24h",
    "requests": [{"custom_id": "sky", "method": "POST", "url": "/v1/chat/completions",
        "body": {"model": "sim-chat", "messages": [{"role": "user", "content": "Why is the sky blue?"}]}}]
}))]
pub(crate) struct WantedBatch<'a> {
    /// The endpoint of every request.
    #[serde(borrow)]
    pub(crate) endpoint: Cow<'a, str>,
    /// `24h`, or another whole number of `s`, `m`, `h` or `d` up to 30 days.
    #[serde(borrow)]
    #[schema(schema_with = schema::window)]
    pub(crate) completion_window: Cow<'a, str>,
    /// 1 to 1,000 requests.
    #[serde(default, borrow)]
    #[schema(schema_with = schema::requests, required)]
    pub(crate) requests: Option<Few<&'a RawValue, LINES_MAX>>,
    /// Files are not supported yet: send `requests`.
    #[serde(default)]
    #[schema(schema_with = schema::nothing)]
    pub(crate) input_file_id: Option<Cow<'a, str>>,
    /// As of tasks.
    #[serde(default)]
    #[schema(schema_with = schema::metadata)]
    pub(crate) metadata: Option<Metadata>,
}

/// One request of a batch.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Line<'a> {
    /// Your name for it, unique in the batch, up to 512 characters.
    #[serde(default)]
    #[schema(value_type = String, required, min_length = 1, max_length = 512)]
    custom_id: Option<String>,
    /// Always `POST`.
    #[serde(default)]
    #[schema(value_type = String, required)]
    method: Option<String>,
    /// The batch's endpoint.
    #[serde(default)]
    #[schema(value_type = String, required)]
    url: Option<String>,
    /// The upstream's request body: a JSON object that names a `model`. Sent on as it came.
    #[serde(default, borrow)]
    #[schema(schema_with = schema::request, required)]
    body: Option<&'a RawValue>,
}

/// A line without fault.
pub(crate) struct GoodLine<'a> {
    /// Its place, from 1.
    pub(crate) number: usize,
    /// The client's name for it.
    pub(crate) custom_id: String,
    /// Model named in the body.
    pub(crate) model: Arc<str>,
    /// The body, as it came.
    pub(crate) body: &'a RawValue,
    /// Input rules whose moderation model must pass it.
    pub(crate) moderation: Vec<String>,
}

/// A fault of a line, in OpenAI's words.
#[derive(Debug, Serialize, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) code: &'static str,
    /// From 1; null: of the whole input.
    pub(crate) line: Option<usize>,
    pub(crate) message: String,
    pub(crate) param: Option<String>,
}

/// Reads a completion window.
///
/// # Errors
/// 400.
pub(crate) fn window(text: &str) -> Result<Duration, ApiError> {
    let unit = match text.chars().last() {
        Some('s') => 1,
        Some('m') => 60,
        Some('h') => 3_600,
        Some('d') => 86_400,
        _ => 0,
    };
    let digits = text.get(..text.len().saturating_sub(1)).filter(|digits| !digits.starts_with('+'));
    let number = digits.and_then(|digits| digits.parse::<u64>().ok());
    let seconds = number
        .and_then(|number| number.checked_mul(unit))
        .filter(|seconds| (1..=WINDOW_MAX_S).contains(seconds));
    seconds.map(Duration::from_secs).ok_or_else(|| {
        ApiError::invalid(
            "completion_window",
            "Invalid 'completion_window': use 24h, or another time up to 30d.",
        )
    })
}

/// Lines without fault, and the faults of the others, in order.
#[derive(Default)]
pub(crate) struct Checked<'a> {
    /// Lines without fault so far.
    pub(crate) good: Vec<GoodLine<'a>>,
    /// Up to 100.
    pub(crate) faults: Vec<Fault>,
}

impl<'a> Checked<'a> {
    /// Takes the verdicts of the input rules on the good lines.
    ///
    /// # Errors
    /// Every fault, in the order of the lines, up to 100.
    pub(crate) fn judged(mut self, verdicts: Vec<Verdict>) -> Result<Vec<GoodLine<'a>>, Vec<Fault>> {
        for (line, verdict) in self.good.iter_mut().zip(verdicts) {
            match verdict {
                Ok(moderation) => line.moderation = moderation,
                Err(Refusal { field: param, message }) => {
                    self.faults.push(Fault {
                        code: "input_refused",
                        line: Some(line.number),
                        message,
                        param,
                    });
                }
            }
        }
        self.faults.sort_by_key(|fault| fault.line);
        self.faults.truncate(FAULTS_MAX);
        if self.faults.is_empty() { Ok(self.good) } else { Err(self.faults) }
    }
}

/// Checks all lines, but for what the input rules say. `admits` says why the model is not served.
pub(crate) fn check<'a>(
    lines: &[&'a RawValue],
    endpoint: &str,
    admits: impl Fn(&str) -> Result<(), String>,
) -> Checked<'a> {
    let Checked { mut good, mut faults } = Checked::default();
    let mut names = HashSet::new();
    if lines.is_empty() {
        let message =
            "The input file is empty. Please ensure that the batch contains at least one request.".into();
        faults.push(Fault { code: "empty_file", line: None, message, param: None });
    }
    for (number, raw) in (1..).zip(lines) {
        let checked = check_line(raw, endpoint, number).and_then(|line| {
            admits(&line.model).map_err(|message| ("model_not_found", message, Some("body.model".into())))?;
            if !names.insert(line.custom_id.clone()) {
                let message = "The custom_id for this request is a duplicate of another request. The custom_id parameter \
                               must be unique for each request in a batch.";
                return Err(("duplicate_custom_id", message.to_owned(), Some("custom_id".into())));
            }
            Ok(line)
        });
        match checked {
            Ok(line) => good.push(line),
            Err((code, message, param)) => {
                faults.push(Fault { code, line: Some(number), message, param: param.map(Cow::into_owned) });
            }
        }
        if faults.len() == FAULTS_MAX {
            break;
        }
    }
    Checked { good, faults }
}

type LineFault = (&'static str, String, Option<Cow<'static, str>>);

fn check_line<'a>(raw: &'a RawValue, endpoint: &str, number: usize) -> Result<GoodLine<'a>, LineFault> {
    let line: Line<'a> =
        parse::read(raw.get().as_bytes()).map_err(|error| ("invalid_request", error.to_string(), None))?;
    let missing = |param| {
        (
            "missing_required_parameter",
            format!("Missing required parameter: '{param}'."),
            Some(Cow::Borrowed(param)),
        )
    };
    let custom_id = line.custom_id.ok_or_else(|| missing("custom_id"))?;
    if custom_id.is_empty() || custom_id.chars().count() > 512 || custom_id.contains('\0') {
        let message = "The custom_id must have 1 to 512 characters, none of them U+0000.";
        return Err(("invalid_request", message.to_owned(), Some("custom_id".into())));
    }
    let method = line.method.ok_or_else(|| missing("method"))?;
    if method != "POST" {
        return Err((
            "invalid_method",
            "Invalid method: only POST is supported.".to_owned(),
            Some("method".into()),
        ));
    }
    let url = line.url.ok_or_else(|| missing("url"))?;
    if url != endpoint {
        let message = "The URL provided for this request does not match the batch endpoint.";
        return Err(("invalid_url", message.to_owned(), Some("url".into())));
    }
    let body = line.body.ok_or_else(|| missing("body"))?;
    let model = model_of(body, "body")
        .map_err(|error| ("invalid_request", error.to_string(), Some("body.model".into())))?;
    if streams(body) {
        let message = "Chat Completions: Streaming is not supported in the Batch API.";
        return Err(("streaming_unsupported", message.to_owned(), Some("body.stream".into())));
    }
    Ok(GoodLine { number, custom_id, model: model.into(), body, moderation: Vec::new() })
}

fn streams(body: &RawValue) -> bool {
    #[derive(Deserialize)]
    struct Head {
        #[serde(default)]
        stream: Option<bool>,
    }
    serde_json::from_str::<Head>(body.get()).is_ok_and(|head| head.stream == Some(true))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(lines: &[&str]) -> Vec<(&'static str, Option<usize>, Option<String>)> {
        let lines: Vec<&RawValue> =
            lines.iter().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let served = |model: &str| if model == "none" { Err("not served".to_owned()) } else { Ok(()) };
        let faults = check(&lines, "/v1/x", served).faults;
        faults.into_iter().map(|fault| (fault.code, fault.line, fault.param)).collect()
    }

    #[test]
    fn every_fault_is_told() {
        let told = faults(&[
            r#"{"custom_id":"a","method":"POST","url":"/v1/x","body":{"model":"m"}}"#,
            r#"{"method":"POST","url":"/v1/x","body":{"model":"m"}}"#,
            r#"{"custom_id":"c","method":"GET","url":"/v1/x","body":{"model":"m"}}"#,
            r#"{"custom_id":"d","method":"POST","url":"/v1/y","body":{"model":"m"}}"#,
            r#"{"custom_id":"e","method":"POST","url":"/v1/x","body":{}}"#,
            r#"{"custom_id":"f","method":"POST","url":"/v1/x","body":{"model":"m","stream":true}}"#,
            r#"{"custom_id":"g","method":"POST","url":"/v1/x","body":{"model":"none"}}"#,
            r#"{"custom_id":"a","method":"POST","url":"/v1/x","body":{"model":"m"}}"#,
        ]);
        let wanted = [
            ("missing_required_parameter", 2, "custom_id"),
            ("invalid_method", 3, "method"),
            ("invalid_url", 4, "url"),
            ("invalid_request", 5, "body.model"),
            ("streaming_unsupported", 6, "body.stream"),
            ("model_not_found", 7, "body.model"),
            ("duplicate_custom_id", 8, "custom_id"),
        ];
        assert_eq!(told, wanted.map(|(code, line, param)| (code, Some(line), Some(param.to_owned()))));
        assert_eq!(faults(&[]), [("empty_file", None, None)]);
    }

    #[test]
    fn windows_have_a_unit_and_an_end() {
        assert_eq!(window("24h").ok(), Some(Duration::from_secs(86_400)));
        assert_eq!(window("2s").ok(), Some(Duration::from_secs(2)));
        for text in ["", "h", "24", "+1h", "0h", "31d", "-1h", "1.5h", "24 h", "99999999999999999999h", "1é"]
        {
            assert!(window(text).is_err(), "{text}");
        }
    }
}
