//! The `sim` object: what one request wants from the simulator, or an outage from every request it hits.
//!
//! Its fields are of two kinds. Times, length and shape are the request's own and stay; faults belong together and are
//! exchanged together: by an outage, or by nothing once `fail_first` is over.

use std::collections::BTreeMap;
use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode};
use serde::Deserialize;

use crate::behaviour::MAX_TOKENS;
use crate::usage::Figures;

/// The largest answer anybody may ask for.
const MAX_HUGE: u64 = 64 << 30;

/// Ten years: further away than any date a test can mean.
const MAX_DATE_S: u64 = 315_360_000;

/// Headers that belong to the connection and would break it.
const FRAMING: [&str; 3] = ["connection", "content-length", "transfer-encoding"];

/// The `sim` object. A misspelt field is refused, because a fault that silently does not happen makes a test pass that
/// should not.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Sim {
    pub(crate) ttft_ms: Option<u64>,
    pub(crate) itl_ms: Option<u64>,
    pub(crate) tokens: Option<u32>,
    pub(crate) jitter: Option<f64>,
    pub(crate) text: Option<String>,
    pub(crate) echo: bool,
    pub(crate) echo_fields: bool,
    pub(crate) tool_calls: Option<ToolCalls>,
    pub(crate) logprobs: bool,
    pub(crate) finish_reason: Option<String>,

    pub(crate) status: Option<u16>,
    pub(crate) error_code: Option<String>,
    pub(crate) retry_after_s: Option<f64>,
    pub(crate) retry_after_date_s: Option<i64>,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) content_type: Option<String>,
    pub(crate) raw: Option<String>,
    pub(crate) fail_first: Option<u32>,
    pub(crate) reset: bool,
    pub(crate) hang_ms: Option<u64>,
    pub(crate) hang_at: Option<HangAt>,
    pub(crate) drip_ms: Option<u64>,
    pub(crate) split: Option<Split>,
    pub(crate) cut_after: Option<u64>,
    pub(crate) cut_bytes: Option<u64>,
    pub(crate) omit_finish: bool,
    pub(crate) omit_done: bool,
    pub(crate) error_after: Option<u64>,
    pub(crate) huge_bytes: Option<u64>,
    pub(crate) lone_surrogate: bool,
    pub(crate) usage: Option<Figures>,
}

/// `true` calls the request's first tool; a list calls what it names.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(crate) enum ToolCalls {
    /// Call the first tool with no arguments.
    Plain(bool),
    /// Call exactly these.
    Named(Vec<NamedCall>),
}

/// One tool call asked for.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct NamedCall {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) arguments: String,
}

/// Where an answer pauses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum HangAt {
    /// Before the response's head.
    Head,
    /// After the head, before the first byte of the body.
    Body,
    /// After a stream's first token.
    Token,
}

/// How a body is cut into writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Split {
    /// Every byte is a write of its own.
    Bytes,
    /// Every event leaves in two halves.
    Frames,
}

impl Sim {
    /// This request's own times, length and shape, with the faults of `other`. Where the request says nothing about a
    /// time or a shape, `other` may.
    pub(crate) fn with_faults_of(self, other: &Self) -> Self {
        let other = other.clone();
        Self {
            ttft_ms: self.ttft_ms.or(other.ttft_ms),
            itl_ms: self.itl_ms.or(other.itl_ms),
            tokens: self.tokens.or(other.tokens),
            jitter: self.jitter.or(other.jitter),
            text: self.text.or(other.text),
            echo: self.echo || other.echo,
            echo_fields: self.echo_fields || other.echo_fields,
            tool_calls: self.tool_calls.or(other.tool_calls),
            logprobs: self.logprobs || other.logprobs,
            finish_reason: self.finish_reason.or(other.finish_reason),
            ..other
        }
    }

    /// What the execution of this number suffers, counted from 1: `fail_first` ends all faults after the first `k`.
    pub(crate) fn at(self, execution: u32) -> Self {
        match self.fail_first {
            None => self,
            Some(first) if execution > first => self.with_faults_of(&Self::default()),
            Some(_) if self.names_fault() => self,
            Some(_) => {
                Self { status: self.status.or(Some(StatusCode::INTERNAL_SERVER_ERROR.as_u16())), ..self }
            }
        }
    }

    /// Whether and how this execution answers with an error of its own instead of an answer.
    pub(crate) fn failure(&self) -> Option<(&'static str, StatusCode)> {
        let status = self.asked_status().filter(|_| self.raw.is_none())?;
        Some((if self.fail_first.is_some() { "fail_first" } else { "status" }, status))
    }

    pub(crate) fn asked_status(&self) -> Option<StatusCode> {
        self.status.and_then(|status| StatusCode::from_u16(status).ok())
    }

    /// The pause at this place, if there is one. Streams pause after their first token unless told otherwise,
    /// everything else before its head; what has no tokens pauses before its body instead.
    pub(crate) fn hang(&self, at: HangAt, stream: bool) -> Option<Duration> {
        let place = match self.hang_at {
            None if stream => HangAt::Token,
            None => HangAt::Head,
            Some(HangAt::Token) if !stream => HangAt::Body,
            Some(place) => place,
        };
        self.hang_ms.filter(|_| place == at).map(Duration::from_millis)
    }

    /// The name of a fault that lets an answer come to its end, for the ledger.
    pub(crate) fn blemish(&self) -> &'static str {
        let named = [
            (self.huge_bytes.is_some(), "huge_bytes"),
            (self.lone_surrogate, "lone_surrogate"),
            (self.usage.is_some(), "usage"),
            (self.drip_ms.is_some(), "drip_ms"),
            (self.split.is_some(), "split"),
        ];
        named.into_iter().find_map(|(is, name)| is.then_some(name)).unwrap_or("finished")
    }

    /// Whether there is any fault beside a failure with a status. A pause is one only if its place was named.
    fn names_fault(&self) -> bool {
        self.reset
            || self.raw.is_some()
            || self.content_type.is_some()
            || self.hang_at.is_some()
            || self.cut_after.is_some()
            || self.cut_bytes.is_some()
            || self.omit_finish
            || self.omit_done
            || self.error_after.is_some()
            || self.blemish() != "finished"
    }

    /// Refuses what cannot be meant.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        if self.jitter.is_some_and(|jitter| !(0.0..=1.0).contains(&jitter)) {
            return Err("Invalid 'sim.jitter': expected a number between 0 and 1.");
        }
        if self.status.is_some_and(|status| !(200..=599).contains(&status)) {
            return Err("Invalid 'sim.status': expected a number between 200 and 599.");
        }
        if self.tokens.is_some_and(|tokens| tokens > MAX_TOKENS) {
            return Err("Invalid 'sim.tokens': expected at most 1000000.");
        }
        if self.retry_after_s.is_some_and(|seconds| !(0.0..=86_400.0).contains(&seconds)) {
            return Err("Invalid 'sim.retry_after_s': expected a number between 0 and 86400.");
        }
        if self.retry_after_date_s.is_some_and(|seconds| seconds.unsigned_abs() > MAX_DATE_S) {
            return Err("Invalid 'sim.retry_after_date_s': expected at most ten years.");
        }
        if self.hang_at.is_some() && self.hang_ms.is_none() {
            return Err("Invalid 'sim.hang_at': it needs 'sim.hang_ms'.");
        }
        let fails = self.status.is_some() || self.fail_first.is_some() || self.error_after.is_some();
        if self.error_code.is_some() && !fails {
            return Err("Invalid 'sim.error_code': it needs 'sim.status' or 'sim.error_after'.");
        }
        if self.huge_bytes.is_some_and(|bytes| bytes > MAX_HUGE) {
            return Err("Invalid 'sim.huge_bytes': expected at most 68719476736.");
        }
        self.check_headers()
    }

    fn check_headers(&self) -> Result<(), &'static str> {
        for (name, value) in &self.headers {
            if HeaderName::try_from(name).is_err() || HeaderValue::try_from(value).is_err() {
                return Err("Invalid 'sim.headers': expected names and values of HTTP headers.");
            }
            if FRAMING.contains(&name.to_ascii_lowercase().as_str()) {
                return Err("Invalid 'sim.headers': the connection's own headers cannot be set.");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sim(json: &str) -> Sim {
        let sim: Sim = serde_json::from_str(json).unwrap();
        sim.check().unwrap();
        sim
    }

    #[test]
    fn fail_first_ends_every_fault_after_k_executions() {
        let plain = sim(r#"{"fail_first": 2, "status": 503, "text": "x"}"#);
        assert_eq!(plain.clone().at(2).failure(), Some(("fail_first", StatusCode::SERVICE_UNAVAILABLE)));
        let after = plain.at(3);
        assert_eq!((after.failure(), after.text.as_deref()), (None, Some("x")));

        let bare = sim(r#"{"fail_first": 1, "hang_ms": 5}"#).at(1);
        assert_eq!(bare.failure(), Some(("fail_first", StatusCode::INTERNAL_SERVER_ERROR)));

        let reset = sim(r#"{"fail_first": 1, "reset": true}"#);
        assert_eq!((reset.clone().at(1).reset, reset.clone().at(1).failure()), (true, None));
        assert!(!reset.at(2).reset);
        let placed = sim(r#"{"fail_first": 1, "hang_ms": 5, "hang_at": "body"}"#);
        assert_eq!(placed.at(1).failure(), None);
    }

    #[test]
    fn an_outage_takes_the_place_of_the_requests_own_faults() {
        let own = sim(r#"{"ttft_ms": 7, "tokens": 3, "status": 400, "cut_after": 1}"#);
        let merged = own.with_faults_of(&sim(r#"{"ttft_ms": 9, "itl_ms": 9, "status": 503}"#));
        assert_eq!((merged.ttft_ms, merged.itl_ms, merged.tokens), (Some(7), Some(9), Some(3)));
        assert_eq!((merged.status, merged.cut_after), (Some(503), None));
    }

    #[test]
    fn a_pause_has_one_place() {
        let places = |json: &str, stream| {
            let sim = sim(json);
            [HangAt::Head, HangAt::Body, HangAt::Token].map(|at| sim.hang(at, stream).is_some())
        };
        assert_eq!(places(r#"{"hang_ms": 1}"#, true), [false, false, true]);
        assert_eq!(places(r#"{"hang_ms": 1}"#, false), [true, false, false]);
        assert_eq!(places(r#"{"hang_ms": 1, "hang_at": "head"}"#, true), [true, false, false]);
        assert_eq!(places(r#"{"hang_ms": 1, "hang_at": "token"}"#, false), [false, true, false]);
    }

    #[test]
    fn nonsense_is_refused() {
        for json in [
            r#"{"hang_at": "head"}"#,
            r#"{"error_code": "x"}"#,
            r#"{"headers": {"a b": "c"}}"#,
            r#"{"headers": {"a": "b\n"}}"#,
            r#"{"headers": {"Content-Length": "1"}}"#,
            r#"{"huge_bytes": 99999999999999}"#,
            r#"{"retry_after_date_s": -999999999}"#,
        ] {
            assert!(serde_json::from_str::<Sim>(json).unwrap().check().is_err(), "{json}");
        }
        for json in [r#"{"hang_ms": 1, "hang_at": "tail"}"#, r#"{"usage": "honest"}"#, r#"{"split": true}"#] {
            assert!(serde_json::from_str::<Sim>(json).is_err(), "{json}");
        }
    }
}
