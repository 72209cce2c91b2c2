//! What an upstream says went wrong, read from any of the forms in use. Pure.
//!
//! Forms: `{"error":{"message","code","type","param"}}` with any part of it missing, `{"error":"text"}`, `{"type":"error","error":…}`,
//! `{"object":"error","message"}`, `{"detail":"text"}`, `{"detail":[{"msg","loc"}]}`, `{"errors":[…]}`, `[{"error":…}]`,
//! problem details (`title`, `detail`), `{"message"}`, `{"error":true,"message"}`, an error inside a choice, a page of HTML, and plain text.

use crate::{echo, json::members};
use bytes::Bytes;
use serde_json::value::RawValue;
use shared::redact;
use std::sync::Arc;
use tokio::task::spawn_blocking;

/// Levels of nesting that are looked into.
const DEPTH_MAX: usize = 6;
/// Longest code, and longest piece of text that is looked at, in bytes.
const CODE_MAX: usize = 128;
const TEXT_MAX: usize = 4 << 10;
/// Requests up to this length are compared at once.
const AT_ONCE_MAX: usize = 64 << 10;

/// An upstream's own words about a failure. May repeat what the client has sent: for the task's own project, never for a log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Said {
    /// Its `code`: a name, or a number as text.
    pub(crate) code: Option<String>,
    /// Its `type`.
    pub(crate) kind: Option<String>,
    /// The parameter that it blames.
    pub(crate) param: Option<String>,
    /// An HTTP status that it names.
    pub(crate) status: Option<u16>,
    /// Its text.
    pub(crate) message: Option<String>,
}

impl Said {
    /// Reads the body of a failure; everything is `None` where it says nothing.
    pub(crate) fn read(body: &[u8]) -> Self {
        let mut said = Self::default();
        let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body).trim_ascii();
        match serde_json::from_slice::<&RawValue>(body) {
            Ok(value) => said.take(value, 0),
            Err(_) => match last_event(body) {
                Some(event) => return Self::read(event),
                None => said.message = plain(body),
            },
        }
        said
    }

    /// The same without what it repeats of the request, which for a long one is looked for on a thread of its own. What cannot be compared
    /// is left out.
    pub(crate) async fn without_echo(self, body: Bytes, model: Arc<str>) -> Self {
        if body.len() <= AT_ONCE_MAX {
            return self.masked(&body, &model);
        }
        spawn_blocking(move || self.masked(&body, &model)).await.unwrap_or_else(|error| {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "an upstream's words cannot be compared with the request"
            );
            Self::default()
        })
    }

    fn masked(self, body: &[u8], model: &str) -> Self {
        let masked = |words: Option<String>| words.and_then(|words| echo::masked(&words, body, model));
        let Self { code, kind, param, status, message } = self;
        Self {
            code: masked(code),
            kind: masked(kind),
            param: masked(param),
            message: masked(message),
            status,
        }
    }

    /// Whether it uses one of these words as its code or type.
    pub(crate) fn is(&self, words: &[&str]) -> bool {
        let known = |word: &Option<String>| {
            word.as_deref().is_some_and(|word| words.iter().any(|known| word.eq_ignore_ascii_case(known)))
        };
        known(&self.code) || known(&self.kind)
    }

    /// Whether its text has one of these phrases, in whatever case.
    pub(crate) fn tells(&self, phrases: &[&str]) -> bool {
        let Some(text) = &self.message else { return false };
        let text = text.to_lowercase();
        phrases.iter().any(|phrase| text.contains(phrase))
    }

    /// Its code, else its type, as clients may see it.
    pub(crate) fn word(&self) -> Option<String> {
        let word = self.code.as_deref().or(self.kind.as_deref())?;
        Some(redact::without_keys(word).into_owned())
    }

    fn take(&mut self, value: &RawValue, depth: usize) {
        if depth > DEPTH_MAX {
            return;
        }
        let text = value.get();
        match text.as_bytes().first() {
            Some(b'"') => self.tell(serde_json::from_str(text).ok()),
            Some(b'[') => {
                let all: Vec<&RawValue> = serde_json::from_str(text).unwrap_or_default();
                all.iter().take(8).for_each(|one| self.take(one, depth + 1));
            }
            Some(b'{') => self.take_object(text, depth),
            _ => {}
        }
    }

    /// The parts of an object: its own first, then what is nested in it.
    fn take_object(&mut self, text: &str, depth: usize) {
        let members = members(text).unwrap_or_default();
        let find = |wanted: &str| {
            let found = members.iter().rfind(|(name, value)| name == wanted && value.get() != "null");
            found.map(|(_, value)| *value)
        };
        for nested in ["error", "errors", "response"].into_iter().filter_map(find) {
            self.take(nested, depth + 1);
        }
        let word = |name: &str| {
            let word = find(name)?.get();
            let is_word = !word.starts_with(['{', '[']) && !matches!(word, "true" | "false");
            let word = word.trim_matches('"');
            (is_word && !word.is_empty()).then(|| word[..word.floor_char_boundary(CODE_MAX)].to_owned())
        };
        fill(&mut self.code, || word("code"));
        fill(&mut self.kind, || word("type").filter(|kind| kind != "error"));
        fill(&mut self.param, || word("param"));
        let status = ["status", "status_code", "code"].into_iter().filter_map(word);
        fill(&mut self.status, || {
            status.filter_map(|word| word.parse().ok()).find(|s| (100..600).contains(s))
        });
        for nested in ["message", "msg", "detail", "error_description", "title", "choices"] {
            if self.message.is_none()
                && let Some(value) = find(nested)
            {
                self.take(value, depth + 1);
            }
        }
    }

    fn tell(&mut self, text: Option<String>) {
        fill(&mut self.message, || bounded(&text?));
    }

    /// Its text as clients may see it: without logins and keys, cut to some 400 bytes.
    pub(crate) fn shown(&self) -> Option<String> {
        let text = self.message.as_deref()?;
        Some(redact::elide(redact::without_keys(&redact::without_logins(text)).into_owned()))
    }
}

fn fill<T>(place: &mut Option<T>, value: impl FnOnce() -> Option<T>) {
    if place.is_none() {
        *place = value();
    }
}

fn bounded(text: &str) -> Option<String> {
    let text = text[..text.floor_char_boundary(TEXT_MAX)].trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// The text of a body that is no JSON: the title of a page, else what stands there.
fn plain(body: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(&body[..body.len().min(TEXT_MAX)]);
    if text.starts_with('<') {
        let lower = text.to_ascii_lowercase();
        let start = lower.find("<title")?;
        let start = start + lower[start..].find('>')? + 1;
        let end = start + lower[start..].find('<')?;
        return bounded(&text[start..end]);
    }
    bounded(&text)
}

/// The data of the last event with any, of a stream that ends with an error.
fn last_event(body: &[u8]) -> Option<&[u8]> {
    let mut lines = body.rsplit(|byte| *byte == b'\n').filter_map(|line| line.strip_prefix(b"data:"));
    lines.find(|data| data.trim_ascii().starts_with(b"{"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read() {
        for (body, message, word) in [
            (r#"{"error":{"message":"m","type":"t","code":"c","param":"p"}}"#, Some("m"), Some("c")),
            (r#"{"error":{"message":"m","type":"t","code":null}}"#, Some("m"), Some("t")),
            (r#"{"error":{"message":"m","code":429}}"#, Some("m"), Some("429")),
            (r#"{"error":"Unexpected endpoint or method."}"#, Some("Unexpected endpoint or method."), None),
            (r#"{"error":true,"message":"m"}"#, Some("m"), None),
            (
                r#"{"type":"error","error":{"type":"overloaded_error","message":"m"}}"#,
                Some("m"),
                Some("overloaded_error"),
            ),
            (
                r#"{"object":"error","message":"m","type":"BadRequestError","code":400}"#,
                Some("m"),
                Some("400"),
            ),
            (r#"{"detail":"Not Found"}"#, Some("Not Found"), None),
            (
                r#"{"detail":[{"type":"missing","loc":["body"],"msg":"Field required"}]}"#,
                Some("Field required"),
                Some("missing"),
            ),
            (r#"{"detail":{"error":{"message":"m","code":"c"}}}"#, Some("m"), Some("c")),
            (r#"{"errors":[{"message":"m","code":7003}]}"#, Some("m"), Some("7003")),
            (r#"[{"error":{"code":400,"message":"m","status":"INVALID_ARGUMENT"}}]"#, Some("m"), Some("400")),
            (r#"{"title":"t","status":503}"#, Some("t"), None),
            (r#"{"choices":[{"error":{"code":502,"message":"m"}}]}"#, Some("m"), Some("502")),
            (
                r#"{"type":"response.failed","response":{"error":{"code":"c","message":"m"}}}"#,
                Some("m"),
                Some("c"),
            ),
            (r#"{"error":{}}"#, None, None),
            ("", None, None),
            ("  upstream connect error ", Some("upstream connect error"), None),
            ("<!doctype html><html><head><TITLE a=b>Sign in</title>", Some("Sign in"), None),
            ("<html></html>", None, None),
            ("event: error\ndata: {\"error\":{\"message\":\"m\"}}\n\n", Some("m"), None),
            ("null", None, None),
        ] {
            let said = Said::read(body.as_bytes());
            assert_eq!((said.message.as_deref(), said.word().as_deref()), (message, word), "{body}");
        }
    }

    #[test]
    fn what_is_shown_is_short_and_holds_no_key() {
        let said = Said::read(
            br#"{"error":"Incorrect API key provided: sk-proj-abcdefghijklmnop123456 at https://u:p@h/"}"#,
        );
        assert_eq!(said.shown().as_deref(), Some("Incorrect API key provided: *** at https://***@h/"));
        let long = format!(r#"{{"error":"{}"}}"#, "é".repeat(100_000));
        assert!(Said::read(long.as_bytes()).shown().is_some_and(|text| text.len() < 500));
        let deep = format!("{}1{}", r#"{"error":"#.repeat(100), "}".repeat(100));
        assert_eq!(Said::read(deep.as_bytes()), Said::default());
    }
}
