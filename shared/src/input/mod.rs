//! Rules for what tasks may ask of models, per project and endpoint. Pure: a request body is judged, and never rewritten.
//!
//! A body is read once ([`read`]), and again only where its texts have to be put together in two ways; memory is bounded by its length.
//! What a judge cannot read as every server would is refused.

mod judge;
mod moderation;
mod output;
mod read;
#[cfg(test)]
mod tests;
mod texts;
mod words;

pub use moderation::{Question, question};
pub use output::most;
pub use texts::texts;

use judge::Judge;
use read::Scalar;
use regex::Regex;
use serde::{Deserialize, Serialize};
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
    /// Characters of all texts that a model may read together.
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

/// A refusal; without a rule, because no rule can judge the body.
fn refusal(rule: Option<&str>, field: Option<String>, what: &str) -> Refusal {
    let place = field.as_ref().map_or_else(|| "the prompt".to_owned(), |field| format!("'{field}'"));
    let message = match rule {
        Some(rule) => format!("Rule '{rule}': {place} {what}."),
        None => format!("Input rules cannot judge this request: {place} {what}."),
    };
    Refusal { field, message }
}

/// Whether any rule judges the tasks of a project at an endpoint.
#[must_use]
pub fn applies(rules: &[InputRule], project: &str, endpoint: &str) -> bool {
    rules.iter().any(|rule| rule.judges(project, endpoint))
}

/// Judges a task by all rules. Returns the names of those whose moderation model has yet to pass it.
///
/// # Errors
/// What the first rule that does not allow it says.
pub fn check(
    rules: &[InputRule],
    project: &str,
    endpoint: &str,
    model: &str,
    body: &[u8],
) -> Result<Vec<String>, Refusal> {
    let rules: Vec<_> = rules.iter().filter(|rule| rule.judges(project, endpoint)).collect();
    if rules.is_empty() {
        return Ok(Vec::new());
    }
    rules.iter().try_for_each(|rule| rule.check_head(endpoint, model))?;
    Judge::new(&rules, endpoint).check(body)?;
    let moderated = rules.iter().filter(|rule| rule.moderation.is_some());
    Ok(moderated.map(|rule| rule.name.clone()).collect())
}

impl InputRule {
    fn judges(&self, project: &str, endpoint: &str) -> bool {
        let among =
            |names: &[String], name: &str| names.is_empty() || names.iter().any(|known| known == name);
        among(&self.projects, project) && among(&self.endpoints, endpoint)
    }

    fn check_head(&self, endpoint: &str, model: &str) -> Result<(), Refusal> {
        let refuse = |field: &str, what: String| {
            let message = format!("Rule '{}': {what}.", self.name);
            Err(Refusal { field: Some(field.to_owned()), message })
        };
        if let Some(allowed) = &self.allow_endpoints
            && !allowed.iter().any(|known| known == endpoint)
        {
            return refuse("endpoint", format!("the endpoint must be one of {}", allowed.join(", ")));
        }
        if let Some(allowed) = &self.allow_models
            && !allowed.iter().any(|pattern| fits(pattern, model))
        {
            return refuse("body.model", format!("the model must be one of {}", allowed.join(", ")));
        }
        Ok(())
    }

    /// Whether it looks at texts.
    fn reads(&self) -> bool {
        self.prompt_chars_max.is_some() || !self.deny_patterns.is_empty() || self.moderation.is_some()
    }
}

impl Bounds {
    fn broken_by(&self, value: Scalar) -> Option<String> {
        if self.forbidden {
            return Some("may not be set".to_owned());
        }
        let number = match value {
            Scalar::Null => return None,
            Scalar::Number(number) => Some(number),
            Scalar::Other => None,
        };
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

fn fits(pattern: &str, model: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => model.starts_with(start),
        None => pattern == model,
    }
}
