//! Rules for what tasks may ask of models, per project and endpoint. Pure: a request body is judged, and never rewritten.

use regex::Regex;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, value::RawValue};
use std::collections::BTreeMap;

/// One rule. It judges the tasks of its projects at its endpoints; all rules that judge a task must allow it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputRule {
    /// Its name, which refusals say.
    pub name: String,
    /// Names of projects; none: all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    projects: Vec<String>,
    /// Paths; none: all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    endpoints: Vec<String>,
    /// Models that may be asked; a `*` at the end stands for any ending.
    #[serde(skip_serializing_if = "Option::is_none")]
    allow_models: Option<Vec<String>>,
    /// Endpoints that may be called.
    #[serde(skip_serializing_if = "Option::is_none")]
    allow_endpoints: Option<Vec<String>>,
    /// Characters of all texts of the prompt together.
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_chars_max: Option<u64>,
    /// What the request must set its maximum of output tokens to, at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    output_tokens_max: Option<u64>,
    /// Bounds of fields of the body, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    parameters: BTreeMap<String, Bounds>,
    /// What no text of the prompt may match.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    deny_patterns: Vec<Pattern>,
    /// A model that is asked about the prompt before the task's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub moderation: Option<Moderation>,
}

/// A model that judges prompts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Moderation {
    /// Name of an upstream that serves `/v1/moderations`.
    pub upstream: String,
    /// The model to ask; none: the upstream's usual one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
}

/// What a field of the body may be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Bounds {
    #[serde(skip_serializing_if = "Option::is_none")]
    min: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max: Option<f64>,
    /// It may not be there at all.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    forbidden: bool,
}

/// A regular expression: matched in linear time, whatever it is.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
struct Pattern(Regex);

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl TryFrom<String> for Pattern {
    type Error = regex::Error;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Regex::new(&text).map(Self)
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.0.as_str().to_owned()
    }
}

/// What a rule does not allow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The field: `model`, `endpoint`, or a path in the body; none: the prompt as a whole.
    pub field: Option<String>,
    /// One sentence that names the rule and its limit, and nothing of the prompt.
    pub message: String,
}

/// Fields that hold the prompt.
const PROMPT: [&str; 5] = ["messages", "prompt", "input", "instructions", "system"];
/// Fields that set the maximum of output tokens.
const OUTPUT: [&str; 3] = ["max_completion_tokens", "max_output_tokens", "max_tokens"];
/// Fields inside a prompt that are none of its texts.
const LABELS: [&str; 5] = ["role", "type", "id", "tool_call_id", "detail"];

/// Judges a task by all rules. Returns the names of those whose moderation model has yet to pass it.
///
/// # Errors
/// What the first rule that does not allow it says.
pub fn check(
    rules: &[InputRule],
    project: &str,
    endpoint: &str,
    model: &str,
    body: &RawValue,
) -> Result<Vec<String>, Refusal> {
    let rules: Vec<_> = rules.iter().filter(|rule| rule.judges(project, endpoint)).collect();
    if rules.is_empty() {
        return Ok(Vec::new());
    }
    // A body that is no object is refused elsewhere.
    let body: Map<String, Value> = serde_json::from_str(body.get()).unwrap_or_default();
    rules.iter().try_for_each(|rule| rule.check(endpoint, model, &body))?;
    let moderated = rules.iter().filter(|rule| rule.moderation.is_some());
    Ok(moderated.map(|rule| rule.name.clone()).collect())
}

/// All texts of a request's prompt.
#[must_use]
pub fn prompt(body: &[u8]) -> Vec<String> {
    let body: Map<String, Value> = serde_json::from_slice(body).unwrap_or_default();
    texts(&body).into_iter().map(str::to_owned).collect()
}

fn texts(body: &Map<String, Value>) -> Vec<&str> {
    let mut texts = Vec::new();
    PROMPT.iter().filter_map(|field| body.get(*field)).for_each(|value| collect(value, &mut texts));
    texts
}

impl InputRule {
    fn judges(&self, project: &str, endpoint: &str) -> bool {
        let among =
            |names: &[String], name: &str| names.is_empty() || names.iter().any(|known| known == name);
        among(&self.projects, project) && among(&self.endpoints, endpoint)
    }

    fn check(&self, endpoint: &str, model: &str, body: &Map<String, Value>) -> Result<(), Refusal> {
        let refuse = |field: Option<&str>, what: String| {
            Err(Refusal {
                field: field.map(str::to_owned),
                message: format!("Rule '{}': {what}.", self.name),
            })
        };
        if let Some(allowed) = &self.allow_endpoints
            && !allowed.iter().any(|known| known == endpoint)
        {
            return refuse(Some("endpoint"), format!("the endpoint must be one of {}", allowed.join(", ")));
        }
        if let Some(allowed) = &self.allow_models
            && !allowed.iter().any(|pattern| fits(pattern, model))
        {
            return refuse(Some("body.model"), format!("the model must be one of {}", allowed.join(", ")));
        }
        if let Some(most) = self.output_tokens_max
            && let Err(field) = output(body, most)
        {
            let field = format!("body.{field}");
            return refuse(Some(&field), format!("'{field}' must be set, to at most {most}"));
        }
        for (name, bounds) in &self.parameters {
            if let Some(what) = body.get(name).and_then(|value| bounds.broken_by(value)) {
                let field = format!("body.{name}");
                return refuse(Some(&field), format!("'{field}' {what}"));
            }
        }
        self.check_prompt(body).or_else(|what| refuse(None, what))
    }

    fn check_prompt(&self, body: &Map<String, Value>) -> Result<(), String> {
        if self.prompt_chars_max.is_none() && self.deny_patterns.is_empty() {
            return Ok(());
        }
        let texts = texts(body);
        let count: usize = texts.iter().map(|text| text.chars().count()).sum();
        if let Some(most) = self.prompt_chars_max.filter(|most| count as u64 > *most) {
            return Err(format!("the prompt has {count} characters, and at most {most} are allowed"));
        }
        let denied = |pattern: &Pattern| texts.iter().any(|text| pattern.0.is_match(text));
        match self.deny_patterns.iter().position(denied) {
            Some(place) => Err(format!("the prompt matches pattern {} of those that are denied", place + 1)),
            None => Ok(()),
        }
    }
}

impl Bounds {
    fn broken_by(&self, value: &Value) -> Option<String> {
        if self.forbidden {
            return Some("may not be set".to_owned());
        }
        if value.is_null() {
            return None;
        }
        let number = value.as_f64();
        let low = self.min.filter(|min| number.is_none_or(|number| number < *min));
        let high = self.max.filter(|max| number.is_none_or(|number| number > *max));
        match (low, high, number) {
            (None, None, _) => None,
            (_, _, None) => Some("must be a number".to_owned()),
            (Some(min), ..) => Some(format!("must be at least {min}")),
            (_, Some(max), _) => Some(format!("must be at most {max}")),
        }
    }
}

/// Every maximum that is set must fit, and one must be; the field that does not.
fn output(body: &Map<String, Value>, most: u64) -> Result<(), &'static str> {
    let mut set = OUTPUT.iter().filter_map(|field| Some((*field, body.get(*field)?))).peekable();
    if set.peek().is_none() {
        return Err("max_tokens");
    }
    let broken = set.find(|(_, value)| value.as_u64().is_none_or(|tokens| tokens > most));
    broken.map_or(Ok(()), |(field, _)| Err(field))
}

fn fits(pattern: &str, model: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => model.starts_with(start),
        None => pattern == model,
    }
}

/// All texts of a prompt, however deep.
fn collect<'v>(value: &'v Value, texts: &mut Vec<&'v str>) {
    match value {
        Value::String(text) => texts.push(text),
        Value::Array(items) => items.iter().for_each(|item| collect(item, texts)),
        Value::Object(fields) => {
            let spoken = fields.iter().filter(|(name, _)| !LABELS.contains(&name.as_str()));
            spoken.for_each(|(_, value)| collect(value, texts));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(rule: &str, body: &str) -> Result<(), (Option<String>, String)> {
        let rule: InputRule = toml::from_str(rule).expect("a rule");
        let body: &RawValue = serde_json::from_str(body).expect("JSON");
        check(&[rule], "acme", "/v1/chat/completions", "llama-70b", body)
            .map(drop)
            .map_err(|refusal| (refusal.field, refusal.message))
    }

    fn refused(rule: &str, body: &str) -> (String, String) {
        let (field, message) = judged(&format!("name = 'house'\n{rule}"), body).expect_err("refused");
        assert!(message.starts_with("Rule 'house': "), "{message}");
        (field.unwrap_or_default(), message)
    }

    #[test]
    fn a_rule_judges_its_own() {
        let body = r#"{"model":"llama-70b","messages":[{"role":"user","content":"hello"}]}"#;
        for others in ["projects = ['globex']", "endpoints = ['/v1/embeddings']"] {
            assert_eq!(judged(&format!("name = 'r'\nallow_models = []\n{others}"), body), Ok(()));
        }
        assert_eq!(refused("allow_models = ['gpt-*']", body).0, "body.model");
        assert_eq!(refused("projects = ['acme']\nallow_endpoints = ['/v1/embeddings']", body).0, "endpoint");
        for models in ["['gpt-4', 'llama-*']", "['llama-70b']", "['*']"] {
            assert_eq!(judged(&format!("name = 'r'\nallow_models = {models}"), body), Ok(()));
        }
    }

    #[test]
    fn parameters_have_bounds() {
        let rule = "parameters = { temperature = { min = 0.0, max = 1.0 }, n = { max = 1 }, logprobs = { forbidden = true } }";
        assert_eq!(
            refused(rule, r#"{"temperature":1.5}"#).1,
            "Rule 'house': 'body.temperature' must be at most 1."
        );
        assert_eq!(refused(rule, r#"{"temperature":-1}"#).0, "body.temperature");
        assert_eq!(refused(rule, r#"{"n":"2"}"#).1, "Rule 'house': 'body.n' must be a number.");
        assert_eq!(refused(rule, r#"{"logprobs":null}"#).0, "body.logprobs");
        assert_eq!(judged(&format!("name = 'r'\n{rule}"), r#"{"temperature":0.5,"n":null}"#), Ok(()));
    }

    #[test]
    fn output_is_bounded_by_the_request() {
        let rule = "output_tokens_max = 100";
        assert_eq!(refused(rule, "{}").0, "body.max_tokens");
        assert_eq!(refused(rule, r#"{"max_tokens":101}"#).0, "body.max_tokens");
        assert_eq!(
            refused(rule, r#"{"max_tokens":1,"max_completion_tokens":101}"#).0,
            "body.max_completion_tokens"
        );
        assert_eq!(refused(rule, r#"{"max_output_tokens":null}"#).0, "body.max_output_tokens");
        assert_eq!(judged("name = 'r'\noutput_tokens_max = 100", r#"{"max_tokens":100}"#), Ok(()));
    }

    #[test]
    fn the_prompt_is_judged_and_not_told() {
        let body = r#"{"messages":[{"role":"system","content":"Mind."},
            {"role":"user","content":[{"type":"text","text":"My secret: é"}]}]}"#;
        assert_eq!(judged("name = 'r'\nprompt_chars_max = 17", body), Ok(()));
        let (field, message) = refused("prompt_chars_max = 16", body);
        assert_eq!((&*field, message.contains("17 characters")), ("", true), "{message}");
        let (_, message) = refused("deny_patterns = ['^nothing$', '(?i)SECRET']", body);
        assert!(message.contains("pattern 2") && !message.contains("secret"), "{message}");
        assert_eq!(refused("deny_patterns = ['b+']", r#"{"input":["a","bb"]}"#).0, "");
    }

    #[test]
    fn typing_errors_are_refused() {
        for wrong in ["deny_patterns = ['(']", "prompt_chars = 1", "parameters = { n = { most = 1 } }"] {
            assert!(toml::from_str::<InputRule>(&format!("name = 'r'\n{wrong}")).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_bound_itself_is_allowed() {
        let rule = "parameters = { temperature = { min = 0.5, max = 1.0 } }";
        for temperature in ["0.5", "1.0", "null"] {
            let body = format!(r#"{{"temperature":{temperature}}}"#);
            assert_eq!(judged(&format!("name = 'r'\n{rule}"), &body), Ok(()));
        }
        assert_eq!(
            refused(rule, r#"{"temperature":0.4}"#).1,
            "Rule 'house': 'body.temperature' must be at least 0.5."
        );
        assert_eq!(judged("name = 'r'\noutput_tokens_max = 100", r#"{"max_tokens":7}"#), Ok(()));
    }

    #[test]
    fn who_is_moderated_is_told_by_name() {
        let rule = |text: &str| toml::from_str::<InputRule>(text).expect("a rule");
        let moderation = "moderation = { upstream = 'guard' }";
        let rules = [
            rule("name = 'plain'"),
            rule(&format!("name = 'asks'\n{moderation}")),
            rule(&format!("name = 'others'\nprojects = ['globex']\n{moderation}")),
        ];
        let body: &RawValue = serde_json::from_str("{}").expect("JSON");
        let names = check(&rules, "acme", "/v1/embeddings", "m", body);
        assert_eq!(names, Ok(vec!["asks".to_owned()]));
    }

    #[test]
    fn a_prompt_is_all_its_texts_and_no_labels() {
        let body = br#"{"model":"m","n":1,"instructions":"a","messages":[
            {"role":"user","content":["b",{"type":"text","text":"c"}]}]}"#;
        assert_eq!(prompt(body), ["b", "c", "a"]);
        assert!(prompt(b"[1]").is_empty());
    }

    #[test]
    fn rules_are_equal_if_their_patterns_are() {
        let rule = |pattern: &str| {
            let text = format!("name = 'r'\ndeny_patterns = ['{pattern}']");
            toml::from_str::<InputRule>(&text).expect("a rule")
        };
        assert_eq!(rule("a+"), rule("a+"));
        assert_ne!(rule("a+"), rule("b+"));
        let text = toml::to_string(&rule("a+")).expect("TOML");
        assert_eq!(toml::from_str::<InputRule>(&text).expect("a rule"), rule("a+"));
    }
}
