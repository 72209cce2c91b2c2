//! When a server wants to be asked again, in any of the forms that are in use. Pure.
//!
//! `retry-after-ms`; `Retry-After` in seconds (RFC 9110, with fractions as some write them) or as a date; and what OpenAI says of its
//! rate limit, `x-ratelimit-reset-requests`, as `6m0s`.

use http::HeaderMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Longest wait that is believed: later the server is asked again.
const WAIT_MAX: Duration = Duration::from_secs(900);

/// The wait that the headers ask for. A wait of nothing is none: our own backoff is as good.
#[must_use]
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: &str| Some(headers.get(name)?.to_str().ok()?.trim());
    let asked = text("retry-after-ms").and_then(seconds).map(|ms| ms / 1000);
    let asked = asked.or_else(|| text("retry-after").and_then(seconds));
    let asked = asked.or_else(|| Some(until(text("retry-after")?, text("date")?)));
    let asked = asked.or_else(|| humantime::parse_duration(text("x-ratelimit-reset-requests")?).ok());
    Some(asked?.min(WAIT_MAX)).filter(|wait| !wait.is_zero())
}

fn seconds(text: &str) -> Option<Duration> {
    let seconds: f64 = text.parse().ok()?;
    // What no Duration can hold is longer than we wait anyway.
    (seconds >= 0.0).then(|| Duration::try_from_secs_f64(seconds).unwrap_or(WAIT_MAX))
}

/// From `written` to `moment`, both dates of the upstream's own clock.
fn until(moment: &str, written: &str) -> Duration {
    let date = |text: &str| {
        let date: SystemTime = httpdate::parse_http_date(text).ok()?;
        date.duration_since(UNIX_EPOCH).ok()
    };
    let wait = || date(moment)?.checked_sub(date(written)?);
    wait().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(headers: &[(&'static str, &'static str)]) -> Option<u128> {
        let headers =
            headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        retry_after(&headers).map(|wait| wait.as_millis())
    }

    #[test]
    fn every_form_is_read() {
        assert_eq!(asked(&[]), None);
        assert_eq!(asked(&[("retry-after", "2")]), Some(2_000));
        assert_eq!(asked(&[("retry-after", "0.5")]), Some(500));
        assert_eq!(asked(&[("retry-after", "2"), ("retry-after-ms", "1500")]), Some(1_500));
        assert_eq!(asked(&[("x-ratelimit-reset-requests", "1m2s")]), Some(62_000));
        let (date, moment) = ("Wed, 21 Oct 2026 07:28:00 GMT", "Wed, 21 Oct 2026 07:28:05 GMT");
        assert_eq!(asked(&[("retry-after", moment), ("date", date)]), Some(5_000));
    }

    #[test]
    fn nonsense_is_no_wait_and_ages_are_cut() {
        for text in ["0", "-1", "soon", "NaN", "", "Wed, 21 Oct 2026 07:28:00 GMT"] {
            assert_eq!(asked(&[("retry-after", text)]), None, "{text}");
        }
        let late = "Wed, 21 Oct 2026 07:28:00 GMT";
        assert_eq!(asked(&[("retry-after", late), ("date", "Wed, 21 Oct 2026 07:28:09 GMT")]), None);
        for text in ["1000000000", "1e300", "inf"] {
            assert_eq!(asked(&[("retry-after", text)]), Some(900_000), "{text}");
        }
    }
}
