//! What a failure of the upstream means for the task. Pure: statuses, headers and errors come in, kinds come out.

use crate::{said::Said, upstream::Reply};
use http::HeaderMap;
use shared::{retry_after::retry_after, task::ErrorCode};
use std::time::Duration;

/// What to do about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Repeating the request would not help.
    Permanent,
    /// Come back later, uncharged; after this wait if the upstream named one.
    Throttled(Option<Duration>),
    /// The same, and the upstream says that this request alone is beyond its limit.
    TooLarge(Option<Duration>),
    /// The upstream refuses the operator's key, or what that key asks for.
    Refused,
    /// The upstream does not serve at the moment: nothing was executed.
    Unavailable,
    /// Worth another attempt, charged.
    Transient,
    /// There was no connection: nothing was executed, and the task is worth another attempt, uncharged.
    Away,
    /// The deadline of the run passed.
    Deadline,
    /// Judged by what others meet: another attempt after this wait.
    Later {
        /// The wait.
        wait: Duration,
        /// Whether it counts as a failure.
        charged: bool,
    },
}

/// Why an attempt came to nothing.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Failure {
    /// What to do about it.
    pub(crate) kind: Kind,
    /// Its stable code.
    pub(crate) code: ErrorCode,
    /// One sentence, without any part of prompt or answer.
    pub(crate) message: String,
    /// What the upstream answered, if it did.
    pub(crate) reply: Option<Box<Reply>>,
    /// What the upstream says went wrong, in its own words.
    pub(crate) said: Option<Box<Said>>,
}

impl Failure {
    /// A failure without an answer.
    pub(crate) fn new(kind: Kind, code: ErrorCode, message: impl Into<String>) -> Self {
        Self { kind, code, message: message.into(), reply: None, said: None }
    }

    /// The same with the upstream's answer.
    pub(crate) fn with(self, reply: Reply) -> Self {
        Self { reply: Some(Box::new(reply)), ..self }
    }

    /// The same in the upstream's own words.
    pub(crate) fn saying(self, said: Said) -> Self {
        Self { said: (said != Said::default()).then(|| Box::new(said)), ..self }
    }
}

/// Words of refusals that will be the same next time.
const REFUSALS: [&str; 16] = [
    "insufficient_quota",
    "invalid_request_error",
    "invalid_request",
    "invalid_argument",
    "badrequesterror",
    "bad_request",
    "context_length_exceeded",
    "string_above_max_length",
    "invalid_value",
    "unsupported_parameter",
    "unsupported_value",
    "content_filter",
    "content_policy_violation",
    "model_not_found",
    "not_found_error",
    "notfounderror",
];
/// Words and phrases of those who want fewer requests.
const THROTTLES: [&str; 8] = [
    "rate_limit_exceeded",
    "rate_limit_error",
    "ratelimiterror",
    "rate_limited",
    "too_many_requests",
    "overloaded_error",
    "resource_exhausted",
    "tokens_exceeded_error",
];
const THROTTLE_PHRASES: [&str; 4] = ["rate limit", "too many requests", "overloaded", "try again in "];
const REFUSAL_PHRASES: [&str; 4] =
    ["context length", "maximum context", "context window", "prompt is too long"];

/// The failure that a status outside 2xx is.
pub(crate) fn of_status(status: u16, headers: &HeaderMap, body: &[u8]) -> Failure {
    let wait = retry_after(headers);
    let said = Said::read(body);
    let (kind, code) = match status {
        402 | 403 | 429 | 503 if said.is(&OF_THE_REQUEST) => (Kind::Permanent, ErrorCode::UpstreamRejected),
        429 if said.tells(&TOO_LARGE) || said.is(&TOO_LARGE) => {
            (Kind::TooLarge(wait), ErrorCode::UpstreamThrottled)
        }
        429 | 529 => (Kind::Throttled(wait), ErrorCode::UpstreamThrottled),
        503 if wait.is_some() => (Kind::Throttled(wait), ErrorCode::UpstreamThrottled),
        503 => (Kind::Unavailable, ErrorCode::UpstreamFailed),
        401..=403 | 407 => (Kind::Refused, ErrorCode::UpstreamRejected),
        408 | 409 | 500.. => (Kind::Transient, ErrorCode::UpstreamFailed),
        _ => (Kind::Permanent, ErrorCode::UpstreamRejected),
    };
    Failure::new(kind, code, format!("the upstream answered with status {status}")).saying(said)
}

/// The failure that an error inside a success is. Its words tell what kind, else the status that it names, else its text.
pub(crate) fn of_error(error: &[u8]) -> Failure {
    let said = Said::read(error);
    let (kind, code) = if said.is(&TOO_LARGE) || said.tells(&TOO_LARGE) {
        (Kind::TooLarge(None), ErrorCode::UpstreamThrottled)
    } else if said.is(&REFUSALS) {
        (Kind::Permanent, ErrorCode::UpstreamRejected)
    } else if said.is(&THROTTLES) {
        (Kind::Throttled(None), ErrorCode::UpstreamThrottled)
    } else if let Some(status) = said.status.filter(|status| *status >= 400) {
        let failure = of_status(status, &HeaderMap::new(), error);
        match failure.kind {
            // It has begun to answer: something may have been executed.
            Kind::Refused | Kind::Unavailable => (Kind::Transient, failure.code),
            kind => (kind, failure.code),
        }
    } else if said.tells(&REFUSAL_PHRASES) {
        (Kind::Permanent, ErrorCode::UpstreamRejected)
    } else if said.tells(&THROTTLE_PHRASES) {
        (Kind::Throttled(None), ErrorCode::UpstreamThrottled)
    } else {
        (Kind::Transient, ErrorCode::UpstreamFailed)
    };
    Failure::new(kind, code, "the upstream sent an error in place of an answer").saying(said)
}

/// The failure of a request that got no answer, or not all of it.
pub(crate) fn of_transport(error: &reqwest::Error) -> Failure {
    let (kind, code, what) = if error.is_connect() && error.is_timeout() {
        (Kind::Away, ErrorCode::UpstreamTimeout, "no connection to the upstream within the time limit")
    } else if error.is_connect() {
        (Kind::Away, ErrorCode::UpstreamUnreachable, no_connection(error))
    } else if error.is_body() || error.is_decode() {
        (Kind::Transient, ErrorCode::UpstreamTruncated, "the upstream's answer broke off")
    } else {
        (Kind::Transient, ErrorCode::UpstreamUnreachable, "the connection broke before the upstream answered")
    };
    Failure::new(kind, code, what)
}

/// Which step of a connection failed, as far as the errors below tell.
fn no_connection(error: &reqwest::Error) -> &'static str {
    let causes = std::iter::successors(std::error::Error::source(error), |error| error.source());
    let said: Vec<String> = causes.map(ToString::to_string).collect();
    let says = |words: &str| said.iter().any(|cause| cause.contains(words));
    match () {
        () if says("dns error") => "the upstream's name has no address",
        () if says("certificate") => "the upstream's TLS certificate is not trusted",
        () if says("received corrupt message") || says("tls") || says("TLS") => {
            "no TLS connection to the upstream"
        }
        () => "no connection to the upstream",
    }
}

/// Codes of refusals that another time or another key would not change, whatever their status.
const OF_THE_REQUEST: [&str; 6] = [
    "insufficient_quota",
    "model_not_found",
    "content_policy_violation",
    "content_filter",
    "moderation_blocked",
    "context_length_exceeded",
];

/// Words and phrases of throttles that say that the request would be too large at any time.
const TOO_LARGE: [&str; 3] = ["request too large", "request_too_large", "must be reduced"];

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    fn kind(status: u16, headers: &[(&'static str, &'static str)], body: &str) -> Kind {
        let headers =
            headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        of_status(status, &headers, body.as_bytes()).kind
    }

    #[test]
    fn statuses_fall_into_three_kinds() {
        for status in [301, 400, 404, 405, 413, 422, 418] {
            assert_eq!(kind(status, &[], ""), Kind::Permanent, "{status}");
        }
        for status in [408, 409, 500, 502, 504] {
            assert_eq!(kind(status, &[], ""), Kind::Transient, "{status}");
        }
        for status in [429, 529] {
            assert_eq!(kind(status, &[], ""), Kind::Throttled(None), "{status}");
        }
        for status in [401, 402, 403, 407] {
            assert_eq!(kind(status, &[], "no"), Kind::Refused, "{status}");
        }
        let loading = r#"{"error":{"code":503,"message":"Loading model","type":"unavailable_error"}}"#;
        assert_eq!([kind(503, &[], loading), kind(503, &[], "")], [Kind::Unavailable; 2]);
    }

    #[test]
    fn a_named_wait_goes_with_the_throttle() {
        let after = |ms| Kind::Throttled(Some(Duration::from_millis(ms)));
        assert_eq!(kind(503, &[("retry-after", "2")], ""), after(2_000));
        assert_eq!(kind(429, &[("retry-after", "2"), ("retry-after-ms", "2500")], ""), after(2_500));
    }

    #[test]
    fn an_empty_purse_is_no_throttle() {
        assert_eq!(
            kind(429, &[], r#"{"error":{"message":"m","code":"insufficient_quota"}}"#),
            Kind::Permanent
        );
    }

    #[test]
    fn errors_tell_their_kind() {
        for (error, kind) in [
            (r#"{"error":{"message":"m","code":400}}"#, Kind::Permanent),
            (r#"{"type":"error","error":{"type":"overloaded_error"}}"#, Kind::Throttled(None)),
            (r#"{"error":{"code":"429"}}"#, Kind::Throttled(None)),
            (r#"{"error":{"code":500,"type":"x"}}"#, Kind::Transient),
            (r#"{"error":{"code":503,"type":"x"}}"#, Kind::Transient),
            (
                r#"{"error":{"code":"rate_limit_exceeded","message":"Request too large for m"}}"#,
                Kind::TooLarge(None),
            ),
            (r#"{"error":{"code":401,"message":"no such key"}}"#, Kind::Transient),
            (r#"{"error":{"status":"RESOURCE_EXHAUSTED","code":429}}"#, Kind::Throttled(None)),
            (r#"{"error":{"code":"invalid_request_error","status":429}}"#, Kind::Permanent),
            (r#"{"error":"Rate limit reached for m"}"#, Kind::Throttled(None)),
            (r#"{"error":"This model's maximum context length is 8 tokens"}"#, Kind::Permanent),
            (r#"{"error":"Unexpected endpoint or method."}"#, Kind::Transient),
            (r#"{"object":"error","message":"m","type":"BadRequestError","code":400}"#, Kind::Permanent),
            ("{}", Kind::Transient),
            ("", Kind::Transient),
        ] {
            assert_eq!(of_error(error.as_bytes()).kind, kind, "{error}");
        }
        assert_eq!(of_error(br#"{"error":"m"}"#).said.and_then(|said| said.message).as_deref(), Some("m"));
    }

    #[test]
    fn what_is_wrong_with_the_request_is_told_from_what_is_wrong_with_the_key() {
        let error = |code: &str| format!(r#"{{"error":{{"message":"m","code":"{code}"}}}}"#);
        for (status, code) in [
            (403, "content_policy_violation"),
            (403, "content_filter"),
            (403, "model_not_found"),
            (503, "model_not_found"),
            (404, "model_not_found"),
        ] {
            assert_eq!(kind(status, &[], &error(code)), Kind::Permanent, "{status} {code}");
        }
        assert_eq!(kind(403, &[], &error("account_deactivated")), Kind::Refused);
        assert_eq!(kind(401, &[], &error("invalid_api_key")), Kind::Refused);
    }

    #[test]
    fn a_request_that_is_too_large_at_any_time_says_so() {
        let message = "Request too large for gpt-4o on tokens per min (TPM): Limit 30000, Requested 45000.";
        let body =
            format!(r#"{{"error":{{"message":"{message}","type":"tokens","code":"rate_limit_exceeded"}}}}"#);
        assert_eq!(kind(429, &[], &body), Kind::TooLarge(None));
        let busy = body.replace("Request too large", "Rate limit reached");
        assert_eq!(kind(429, &[("retry-after", "2")], &busy), Kind::Throttled(Some(Duration::from_secs(2))));
    }

    async fn get(url: String) -> reqwest::Result<bytes::Bytes> {
        let http = reqwest::Client::builder().no_proxy().build()?;
        http.get(url).send().await?.bytes().await
    }

    /// What a request comes to whose server says this and is gone.
    async fn after(said: &'static [u8]) -> Failure {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = async {
            let (mut caller, _) = listener.accept().await.unwrap();
            let heard = caller.read(&mut [0; 1 << 12]).await.unwrap();
            assert!(heard > 0, "a request");
            caller.write_all(said).await.unwrap();
            caller.shutdown().await.unwrap();
        };
        let (got, ()) = tokio::join!(get(url), server);
        of_transport(&got.unwrap_err())
    }

    #[tokio::test]
    async fn who_was_never_reached_is_told_from_who_broke_off() {
        let cut = after(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc").await;
        assert_eq!((cut.kind, cut.code), (Kind::Transient, ErrorCode::UpstreamTruncated));
        let silent = after(b"").await;
        assert_eq!((silent.kind, silent.code), (Kind::Transient, ErrorCode::UpstreamUnreachable));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let away = of_transport(&get(url).await.unwrap_err());
        assert_eq!((away.kind, away.code), (Kind::Away, ErrorCode::UpstreamUnreachable));
    }

    #[tokio::test]
    async fn a_name_without_an_address_and_a_failed_handshake_are_no_connection() {
        let named = of_transport(&get("http://name.invalid:1".into()).await.unwrap_err());
        assert_eq!((named.kind, named.code), (Kind::Away, ErrorCode::UpstreamUnreachable));
        assert_eq!(named.message, "the upstream's name has no address");
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let plain = async {
            let (mut caller, _) = listener.accept().await.unwrap();
            let heard = caller.read(&mut [0; 1 << 12]).await.unwrap();
            assert!(heard > 0, "a handshake");
            caller.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        };
        let (got, ()) = tokio::join!(get(url), plain);
        let shaken = of_transport(&got.unwrap_err());
        assert_eq!((shaken.kind, shaken.code), (Kind::Away, ErrorCode::UpstreamUnreachable));
        assert_eq!(shaken.message, "no TLS connection to the upstream");
    }

    #[test]
    fn a_failure_keeps_the_answer() {
        let reply =
            Reply { status: 400, content_type: "text/plain".into(), request_id: None, body: "no".into() };
        let failure = of_status(400, &HeaderMap::new(), b"no").with(reply.clone());
        assert_eq!(failure.reply, Some(Box::new(reply)));
        assert_eq!(failure.kind, Kind::Permanent);
    }
}
