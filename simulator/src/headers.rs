//! The response headers a `sim` object asks for: its own, and `Retry-After` in the forms that have a field.

use std::time::{Duration, UNIX_EPOCH};

use http::{HeaderMap, HeaderName, HeaderValue, header};
use shared::clock::UnixMs;

use crate::sim::Sim;

impl Sim {
    /// Puts what was asked for into a response's headers. What `headers` names comes last and wins.
    pub(crate) fn put_headers(&self, into: &mut HeaderMap, now: UnixMs) {
        if let Some(seconds) = self.retry_after_s {
            // The plain header knows whole seconds only; the SDKs prefer the other one.
            into.insert(header::RETRY_AFTER, (seconds.ceil() as u64).into());
            into.insert("retry-after-ms", ((seconds * 1000.0) as u64).into());
        }
        if let Some(value) = self.retry_after_date_s.and_then(|seconds| date(now, seconds)) {
            into.insert(header::RETRY_AFTER, value);
        }
        for (name, value) in &self.headers {
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
                into.insert(name, value);
            }
        }
    }
}

/// The date `seconds` from now, rounded up so that it is never too early.
fn date(now: UnixMs, seconds: i64) -> Option<HeaderValue> {
    let whole = u64::try_from(now.0).ok()?.div_ceil(1000).checked_add_signed(seconds)?;
    HeaderValue::try_from(httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(whole))).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(json: &str) -> HeaderMap {
        let sim: Sim = serde_json::from_str(json).unwrap();
        sim.check().unwrap();
        let mut headers = HeaderMap::new();
        sim.put_headers(&mut headers, UnixMs(784_111_776_500));
        headers
    }

    #[test]
    fn retry_after_in_every_form() {
        assert_eq!(headers(r#"{"retry_after_s": 1.5}"#)["retry-after"], "2");
        assert_eq!(headers(r#"{"retry_after_s": 1.5}"#)["retry-after-ms"], "1500");
        let dates = [(0, "Sun, 06 Nov 1994 08:49:37 GMT"), (-7, "Sun, 06 Nov 1994 08:49:30 GMT")];
        for (seconds, date) in dates {
            assert_eq!(headers(&format!(r#"{{"retry_after_date_s": {seconds}}}"#))["retry-after"], date);
        }
        for value in ["2", "0", "-1", "1000000000", "soon", "Sun, 06 Nov 1994 08:49:37 GMT"] {
            let own = headers(&format!(r#"{{"headers": {{"Retry-After": "{value}"}}}}"#));
            assert_eq!(own["retry-after"], value);
            assert!(!own.contains_key("retry-after-ms"));
        }
    }
}
