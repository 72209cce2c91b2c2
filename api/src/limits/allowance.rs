//! What is left of a limit, as responses tell it.

use super::Unit;
use http::{HeaderMap, HeaderValue, header::HeaderName};
use shared::limits::{Left, WINDOW};
use std::{
    fmt::{self, Write as _},
    time::Duration,
};

/// The limit that is nearest to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Allowance {
    pub(super) unit: Unit,
    pub(super) quota: u32,
    pub(super) left: Left,
}

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const STATE: HeaderName = HeaderName::from_static("ratelimit");
/// The fields that OpenAI's clients know: limit, remaining and reset.
const COUNTED: [[HeaderName; 3]; 2] = [
    [
        HeaderName::from_static("x-ratelimit-limit-requests"),
        HeaderName::from_static("x-ratelimit-remaining-requests"),
        HeaderName::from_static("x-ratelimit-reset-requests"),
    ],
    [
        HeaderName::from_static("x-ratelimit-limit-tokens"),
        HeaderName::from_static("x-ratelimit-remaining-tokens"),
        HeaderName::from_static("x-ratelimit-reset-tokens"),
    ],
];

/// The fields that OpenAI's clients know.
pub(crate) fn headers() -> impl Iterator<Item = HeaderName> {
    COUNTED.into_iter().flatten()
}

impl Allowance {
    /// What is counted, by name.
    pub(crate) fn unit(&self) -> &'static str {
        self.unit.name()
    }

    /// The limit, a minute.
    pub(crate) fn quota(&self) -> u32 {
        self.quota
    }

    /// Time until the refused charge fits.
    pub(crate) fn wait(&self) -> Duration {
        self.left.wait
    }

    /// Writes the fields of the IETF's draft, and those that OpenAI's clients know.
    pub(crate) fn tell(&self, headers: &mut HeaderMap) {
        let (name, quota, left) = (self.unit(), self.quota, self.left);
        // A refused one is told when to come again, and not when all of it will be there.
        let reset = if left.wait.is_zero() { left.reset } else { left.wait };
        // Rounded up: who comes a moment too early is refused again.
        let millis = reset.as_nanos().div_ceil(1_000_000);
        let (seconds, thousandths) = (millis / 1_000, millis % 1_000);
        let [limit, remaining, until] = COUNTED[self.unit as usize].clone();
        let mut text = String::with_capacity(64);
        let mut ascii = |value: fmt::Arguments<'_>| {
            text.clear();
            let _ = text.write_fmt(value);
            HeaderValue::from_str(&text).expect("digits and names are ASCII")
        };
        headers.append(POLICY, ascii(format_args!(r#""{name}";q={quota};w={}"#, WINDOW.as_secs())));
        headers.append(
            STATE,
            ascii(format_args!(r#""{name}";r={};t={}"#, left.remaining, millis.div_ceil(1_000))),
        );
        headers.insert(until, ascii(format_args!("{seconds}.{thousandths:03}s")));
        headers.insert(limit, quota.into());
        headers.insert(remaining, left.remaining.into());
    }
}
