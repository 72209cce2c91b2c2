//! What a body of JSON must have to be an answer, endpoint by endpoint. Pure.

use super::{NoAnswer, Wanted};
use crate::json::{is_null, is_object, members};
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

/// Whether answers of the endpoint are JSON.
pub(super) fn is_known(endpoint: &str) -> bool {
    const KNOWN: [&str; 10] = [
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/embeddings",
        "/v1/responses",
        "/v1/messages",
        "/v1/moderations",
        "/v1/rerank",
        "/v1/images/generations",
        "/v1/audio/transcriptions",
        "/v1/audio/translations",
    ];
    KNOWN.contains(&endpoint)
}

/// The members of a body that is an object.
pub(super) struct Top<'a>(pub(super) Vec<(String, &'a RawValue)>);

impl<'a> Top<'a> {
    /// The last value of a member that is not `null`.
    pub(super) fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.0.iter().rfind(|(known, value)| known == name && !is_null(value)).map(|(_, value)| *value)
    }

    fn list(&self, name: &str) -> Option<Vec<&'a RawValue>> {
        serde_json::from_str(self.get(name)?.get()).ok()
    }

    fn is_list(&self, name: &str) -> bool {
        self.list(name).is_some_and(|list| !list.is_empty())
    }

    /// The text of a member that is a string with at least one character, as it stands between its quotes.
    fn word(&self, name: &str) -> Option<&'a str> {
        let word = self.get(name)?.get().strip_prefix('"')?.strip_suffix('"')?;
        (!word.is_empty()).then_some(word)
    }

    pub(super) fn judge(&self, endpoint: &str, wanted: Wanted, whole: &'a RawValue) -> Result<(), NoAnswer> {
        let found = match endpoint {
            "/v1/chat/completions" => self.choices("message"),
            "/v1/completions" => self.choices("text"),
            "/v1/embeddings" => self.vectors(wanted.vectors),
            "/v1/responses" => self.response(),
            "/v1/messages" => self.message(),
            "/v1/moderations" => Ok(self.is_list("results")),
            "/v1/rerank" => {
                Ok(self.is_list("results") || self.is_list("data") || whole.get().starts_with('['))
            }
            "/v1/images/generations" => Ok(self.is_list("data")),
            "/v1/audio/transcriptions" | "/v1/audio/translations" => {
                Ok(self.get("text").is_some_and(|text| text.get().starts_with('"')))
            }
            _ => Ok(!self.is_error_alone()),
        };
        match found {
            // An error beside an answer that is none does not need to stand alone.
            Ok(true) => Ok(()),
            Ok(false) | Err(NoAnswer::Unfinished) if self.says_error(whole) => Err(NoAnswer::Error),
            Ok(false) => Err(NoAnswer::Other("the upstream's answer is no answer of this endpoint")),
            Err(no) => Err(no),
        }
    }

    /// Whether choices have come to their ends, each with this member.
    fn choices(&self, content: &str) -> Result<bool, NoAnswer> {
        let choices = self.list("choices").unwrap_or_default();
        let failed = self.get("error").is_some();
        let mut is_blank = true;
        for choice in &choices {
            let choice = Top(members(choice.get()).unwrap_or_default());
            let (content, reason) = (choice.get(content), choice.word("finish_reason"));
            match (content, reason) {
                _ if choice.get("error").is_some() => return Err(NoAnswer::Error),
                (_, Some("error")) if failed => return Err(NoAnswer::Error),
                (_, Some("error" | "abort")) => return Err(NoAnswer::Aborted),
                (None, _) => return Ok(false),
                (Some(_), None) => return Err(NoAnswer::Unfinished),
                (Some(content), Some(_)) => is_blank &= is_blank_content(content),
            }
        }
        Ok(!(choices.is_empty() || failed && is_blank))
    }

    fn vectors(&self, wanted: Option<usize>) -> Result<bool, NoAnswer> {
        let vectors = self.list("data").unwrap_or_default();
        let is_vector = |vector: &&RawValue| {
            let vector = Top(members(vector.get()).unwrap_or_default());
            vector.word("embedding").is_some()
                || vector.get("embedding").is_some_and(|vector| {
                    serde_json::from_str::<Vec<IgnoredAny>>(vector.get()).is_ok_and(|list| !list.is_empty())
                        || is_object(vector)
                })
        };
        if !vectors.iter().all(is_vector) || vectors.is_empty() {
            return Ok(false);
        }
        if wanted.is_some_and(|wanted| wanted != vectors.len()) {
            return Err(NoAnswer::Other("the upstream's answer has not as many vectors as there are inputs"));
        }
        Ok(true)
    }

    fn response(&self) -> Result<bool, NoAnswer> {
        match self.word("status") {
            Some("completed" | "incomplete") => Ok(self.list("output").is_some()),
            Some("failed") if self.get("error").is_some() => Err(NoAnswer::Error),
            Some("failed" | "cancelled") => Err(NoAnswer::Aborted),
            Some("queued" | "in_progress") => Err(NoAnswer::Unfinished),
            _ => Ok(false),
        }
    }

    fn message(&self) -> Result<bool, NoAnswer> {
        match (self.list("content"), self.word("stop_reason")) {
            (Some(_), Some(_)) => Ok(true),
            (Some(_), None) => Err(NoAnswer::Unfinished),
            (None, _) => Ok(false),
        }
    }

    /// Whether it is nothing but an error: no member that answers of any kind have stands beside it.
    fn is_error_alone(&self) -> bool {
        const ANSWERS: [&str; 8] =
            ["choices", "data", "output", "results", "content", "text", "result", "embeddings"];
        let says =
            self.get("error").is_some_and(|error| !matches!(error.get(), "false" | "\"\"" | "{}" | "0"));
        (says || matches!((self.word("type"), self.word("object")), (Some("error"), _) | (_, Some("error"))))
            && !ANSWERS.iter().any(|name| self.get(name).is_some())
    }

    /// Whether what is no answer says why.
    fn says_error(&self, whole: &'a RawValue) -> bool {
        const NAMES: [&str; 4] = ["error", "errors", "detail", "message"];
        let is_error = |top: &Self| {
            NAMES.iter().any(|name| top.get(name).is_some()) || top.word("object") == Some("error")
        };
        let first = || -> Option<Top<'_>> {
            let list: Vec<&RawValue> = serde_json::from_str(whole.get()).ok()?;
            Some(Top(members(list.first()?.get()).ok()?))
        };
        is_error(self) || (self.0.is_empty() && first().is_some_and(|first| is_error(&first)))
    }
}

/// Whether a message or a text says nothing.
fn is_blank_content(content: &RawValue) -> bool {
    if !is_object(content) {
        return content.get() == "\"\"";
    }
    let message = Top(members(content.get()).unwrap_or_default());
    let says = |(name, value): &(String, &RawValue)| {
        name != "role" && !matches!(value.get(), "null" | "\"\"" | "[]" | "{}")
    };
    !message.0.iter().any(says)
}
