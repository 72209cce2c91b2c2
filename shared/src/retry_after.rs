//! When a server wants to be asked again, in any of the forms that are in use. Pure, but for dates without the server's own clock.
//!
//! `retry-after-ms`; `Retry-After` in seconds (RFC 9110, with fractions as some write them) or as a date; and when the budgets are full
//! again that a server names: `x-ratelimit-reset`, `x-ratelimit-reset-requests`, `x-ratelimit-reset-tokens` (seconds, spans as `6m0s` or
//! `7.66s`, or a moment since 1970) and `anthropic-ratelimit-requests-reset`, `-tokens-reset`, `-input-tokens-reset` and
//! `-output-tokens-reset` (RFC 3339). The longest of them counts, because any of them would turn the next request away.

use crate::clock::UnixMs;
use http::HeaderMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Longest wait that is believed: later the server is asked again.
const WAIT_MAX: Duration = Duration::from_secs(900);

/// Budgets, each with the header that says what is left of it. Where requests are left, that budget has turned nothing away; a few tokens
/// may be left, and too few.
const BUDGETS: [(&str, Option<&str>); 7] = [
    ("x-ratelimit-reset", Some("x-ratelimit-remaining")),
    ("x-ratelimit-reset-requests", Some("x-ratelimit-remaining-requests")),
    ("x-ratelimit-reset-tokens", None),
    ("anthropic-ratelimit-requests-reset", Some("anthropic-ratelimit-requests-remaining")),
    ("anthropic-ratelimit-tokens-reset", None),
    ("anthropic-ratelimit-input-tokens-reset", None),
    ("anthropic-ratelimit-output-tokens-reset", None),
];

/// The wait that the headers ask for. A wait of nothing is none: our own backoff is as good.
#[must_use]
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: &str| Some(headers.get(name)?.to_str().ok()?.trim());
    let date = text("date").and_then(|date| httpdate::parse_http_date(date).ok());
    let now = || date.unwrap_or_else(|| UNIX_EPOCH + Duration::from_millis(UnixMs::now().0.unsigned_abs()));
    let exhausted = |remaining: &Option<&str>| {
        let left = remaining.and_then(text).and_then(|left| left.parse::<f64>().ok());
        left.is_none_or(|left| left < 1.0)
    };
    let budgets = BUDGETS.iter().filter(|(_, remaining)| exhausted(remaining));
    let asked = [
        text("retry-after-ms").and_then(seconds).map(|ms| ms / 1000),
        text("retry-after").and_then(|text| seconds(text).or_else(|| until(text, now()))),
    ];
    let named = budgets.filter_map(|(reset, _)| {
        let text = text(reset)?;
        moment(text, now()).or_else(|| span(text)).or_else(|| until(text, now()))
    });
    let longest = asked.into_iter().flatten().chain(named).max();
    Some(longest?.min(WAIT_MAX)).filter(|wait| !wait.is_zero())
}

fn seconds(text: &str) -> Option<Duration> {
    let seconds: f64 = text.parse().ok()?;
    // What no Duration can hold is longer than we wait anyway.
    (seconds >= 0.0).then(|| Duration::try_from_secs_f64(seconds).unwrap_or(WAIT_MAX))
}

/// A number: of seconds, or, where it is that large, of seconds or milliseconds since 1970.
fn moment(text: &str, now: SystemTime) -> Option<Duration> {
    let number: f64 = text.parse().ok()?;
    let since_1970 = match number {
        1e9..1e11 => number,
        1e12..1e14 => number / 1000.0,
        _ => return seconds(text),
    };
    Some((UNIX_EPOCH + Duration::from_secs_f64(since_1970)).duration_since(now).unwrap_or_default())
}

/// A span as Go writes it: `1h2m3.5s`, `850.5ms`.
fn span(text: &str) -> Option<Duration> {
    let (mut rest, mut sum) = (text, 0.0);
    while !rest.is_empty() {
        let (number, tail) = rest.split_at(rest.find(|c: char| c.is_ascii_alphabetic() || c == 'µ')?);
        let (unit, tail) = tail.split_at(tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len()));
        let unit = match unit.trim() {
            "h" => 3_600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            "d" => 86_400.0,
            _ => return None,
        };
        sum += number.trim().parse::<f64>().ok()? * unit;
        rest = tail;
    }
    (sum >= 0.0).then(|| Duration::try_from_secs_f64(sum).unwrap_or(WAIT_MAX))
}

/// Until a date. The server's own clock counts, if it shows one.
fn until(text: &str, now: SystemTime) -> Option<Duration> {
    let rfc3339 = || humantime::parse_rfc3339(text).ok();
    let moment = httpdate::parse_http_date(text).ok().or_else(rfc3339)?;
    moment.duration_since(now).ok()
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
        assert_eq!(asked(&[("retry-after-ms", "1500")]), Some(1_500));
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

    #[test]
    fn the_longest_of_the_budgets_counts() {
        for (headers, wait) in [
            (&[("x-ratelimit-reset-requests", "12ms"), ("x-ratelimit-reset-tokens", "20s")][..], 20_000),
            (&[("x-ratelimit-reset-tokens", "12ms"), ("x-ratelimit-reset-requests", "20s")], 20_000),
            (&[("retry-after", "1"), ("x-ratelimit-reset-tokens", "2m59.56s")], 179_560),
            (&[("retry-after", "30"), ("x-ratelimit-reset-tokens", "7.66s")], 30_000),
            (&[("retry-after", "2"), ("retry-after-ms", "1500")], 2_000),
            (&[("retry-after-ms", "2500"), ("retry-after", "2")], 2_500),
            (&[("retry-after", "soon"), ("x-ratelimit-reset-tokens", "3")], 3_000),
            (&[("x-ratelimit-reset-requests", "1h0m0s"), ("retry-after", "1")], 900_000),
            // The day's requests are not what ran out.
            (
                &[
                    ("x-ratelimit-reset-requests", "23h59m"),
                    ("x-ratelimit-remaining-requests", "4999"),
                    ("x-ratelimit-reset-tokens", "1.5s"),
                    ("x-ratelimit-remaining-tokens", "12"),
                ],
                1_500,
            ),
        ] {
            assert_eq!(asked(headers), Some(wait), "{headers:?}");
        }
    }

    #[test]
    fn moments_are_told_by_the_servers_clock() {
        let date = ("date", "Wed, 21 Oct 2026 07:28:00 GMT");
        for (name, text) in [
            ("anthropic-ratelimit-requests-reset", "2026-10-21T07:28:09Z"),
            ("anthropic-ratelimit-input-tokens-reset", "2026-10-21T07:28:09Z"),
            ("anthropic-ratelimit-output-tokens-reset", "2026-10-21T07:28:09Z"),
            ("x-ratelimit-reset", "1792567689"),
            ("x-ratelimit-reset", "1792567689000"),
            ("x-ratelimit-reset-tokens", "9"),
        ] {
            assert_eq!(asked(&[date, (name, text)]), Some(9_000), "{name}: {text}");
        }
        assert_eq!(asked(&[date, ("anthropic-ratelimit-tokens-reset", "2026-10-21T07:27:00Z")]), None);
        // Without one, ours does.
        assert_eq!(asked(&[("anthropic-ratelimit-tokens-reset", "2999-01-01T00:00:00Z")]), Some(900_000));
    }
}
