//! Who may, and what every response carries: the outermost layer around all routes.
//!
//! With a key configured, callers show it as `Authorization: Bearer`. Without one only this machine may call: the address we
//! listen on, the peer and the `Host` header must all be loopback, and nothing may say that somebody else stands behind the
//! peer (a forwarding header) or that a page from elsewhere makes the browser call (`Origin`).
//! Health and the documentation need no key: they are the same everywhere and show nothing of anybody's.

use crate::{
    error::{ApiError, PROBLEM, Verbatim},
    state::App,
};
use axum::{
    extract::{MatchedPath, Request, State},
    middleware::Next,
    response::Response,
};
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use sha2::{Digest, Sha256};
use shared::task::RequestId;
use std::net::{IpAddr, SocketAddr};
use subtle::ConstantTimeEq;
use tokio::time::Instant;

/// The address of the other end of the connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// What callers must show.
#[derive(Debug, Clone)]
pub(crate) enum Rule {
    /// The key with this SHA-256: digests are of one length, so that comparing them tells nothing of the key's.
    Key([u8; 32]),
    /// Nothing, from this machine.
    Loopback,
    /// No key is set and we listen to the world: nobody may.
    Nobody,
}

impl Rule {
    /// The rule for this key and this address to listen on.
    pub(crate) fn new(key: Option<&str>, listen: IpAddr) -> Self {
        match key {
            Some(key) => Self::Key(Sha256::digest(key).into()),
            None if listen.is_loopback() => Self::Loopback,
            None => Self::Nobody,
        }
    }

    fn admits(&self, peer: Option<IpAddr>, uri: &Uri, headers: &HeaderMap) -> Result<(), ApiError> {
        match self {
            Self::Key(digest) => match bearer(headers) {
                Some(shown) if bool::from(Sha256::digest(shown).as_slice().ct_eq(digest)) => Ok(()),
                Some(_) => Err(ApiError::Unauthorized("Incorrect API key provided.")),
                None => {
                    Err(ApiError::Unauthorized("Missing API key: send it as Authorization: Bearer <key>."))
                }
            },
            Self::Loopback if peer.is_some_and(|peer| peer.is_loopback()) && is_local(uri, headers) => Ok(()),
            Self::Loopback | Self::Nobody => Err(ApiError::Unauthorized(
                "Without a key only callers on this machine are served: set LONGHAUL_API_KEY and send it as \
                 Authorization: Bearer <key>.",
            )),
        }
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, key) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
}

fn is_local(uri: &Uri, headers: &HeaderMap) -> bool {
    let forwarded =
        headers.keys().any(|name| name.as_str() == "forwarded" || name.as_str().starts_with("x-forwarded-"));
    let header = |name| headers.get(name).map(|value: &HeaderValue| value.to_str().unwrap_or_default());
    let host = uri.authority().map(http::uri::Authority::as_str).or(header(header::HOST));
    let origin = header(header::ORIGIN);
    let origin_is_local =
        origin.is_none_or(|origin| origin.split_once("://").is_some_and(|(_, host)| is_loopback(host)));
    !forwarded && host.is_some_and(is_loopback) && origin_is_local
}

/// Whether `host[:port]` names this machine.
fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Paths that need no key.
fn is_open(path: &str) -> bool {
    matches!(path, "/livez" | "/readyz" | "/healthz" | "/openapi.json" | "/redoc" | "/redoc.js" | "/docs")
        || path.starts_with("/docs/")
}

/// Lets a request in, and dresses its response.
pub(crate) async fn gate(State(app): State<App>, request: Request, next: Next) -> Response {
    let request_id = RequestId::new();
    let started = Instant::now();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let accepts = request.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let problem = accepts.is_some_and(|accept| accept.contains(PROBLEM));
    let peer = request.extensions().get::<Peer>().map(|peer| peer.0.ip());
    let admitted = match is_open(request.uri().path()) {
        true => Ok(()),
        false => app.rule.admits(peer, request.uri(), request.headers()),
    };
    let response = match admitted {
        Ok(()) => next.run(request).await,
        Err(error) => axum::response::IntoResponse::into_response(error),
    };
    let mut response = rendered(response, request_id, problem);
    let id = HeaderValue::try_from(request_id.to_string()).expect("an id is ASCII");
    response.headers_mut().insert("x-request-id", id);
    count(route.as_ref().map_or("none", MatchedPath::as_str), response.status(), started);
    response
}

/// Puts the envelope around an error: ours, or one that the framework answered by itself.
fn rendered(response: Response, request_id: RequestId, problem: bool) -> Response {
    let own = response.extensions().get::<ApiError>().cloned();
    let verbatim = response.extensions().get::<Verbatim>().is_some();
    let error = match (own, response.status()) {
        (Some(error), _) => error,
        (None, StatusCode::METHOD_NOT_ALLOWED) if !verbatim => ApiError::Method,
        (None, StatusCode::BAD_REQUEST | StatusCode::UPGRADE_REQUIRED) if !verbatim => ApiError::Invalid {
            message: "the path, the query or the headers are not well formed for this path".into(),
            code: "invalid_request",
            param: None,
        },
        _ => return response,
    };
    error.log(request_id);
    let mut wrapped = error.render(request_id, problem);
    if let Some(allow) = response.headers().get(header::ALLOW) {
        wrapped.headers_mut().insert(header::ALLOW, allow.clone());
    }
    wrapped
}

fn count(route: &str, status: StatusCode, started: Instant) {
    let route: std::sync::Arc<str> = route.into();
    metrics::counter!("longhaul_http_requests_total", "route" => route.clone(), "status" => status.as_u16().to_string())
        .increment(1);
    metrics::histogram!("longhaul_http_request_seconds", "route" => route)
        .record(started.elapsed().as_secs_f64());
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const THERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 7));

    fn admits(rule: &Rule, peer: IpAddr, headers: &[(&'static str, &str)]) -> bool {
        let headers = headers.iter().map(|(name, value)| {
            (http::HeaderName::from_static(name), HeaderValue::from_str(value).expect("a header value"))
        });
        rule.admits(Some(peer), &Uri::from_static("/v1/tasks"), &headers.collect()).is_ok()
    }

    #[test]
    fn a_key_is_asked_for_from_everywhere() {
        let rule = Rule::new(Some("secret"), HERE);
        assert!(admits(&rule, THERE, &[("authorization", "Bearer secret")]));
        assert!(admits(&rule, THERE, &[("authorization", "bearer secret")]));
        assert!(!admits(&rule, HERE, &[("host", "localhost")]));
        for wrong in ["Bearer secre", "Bearer secrets", "Basic secret", "secret", "Bearer "] {
            assert!(!admits(&rule, HERE, &[("host", "localhost"), ("authorization", wrong)]), "{wrong}");
        }
    }

    #[test]
    fn without_a_key_everything_must_be_loopback() {
        let rule = Rule::new(None, HERE);
        for host in ["localhost", "localhost:8080", "127.0.0.1:8080", "[::1]:8080", "[::1]"] {
            assert!(admits(&rule, HERE, &[("host", host)]), "{host}");
        }
        for host in ["example.com", "localhost.example.com", "10.0.0.7:8080", "[fe80::1]", ""] {
            assert!(!admits(&rule, HERE, &[("host", host)]), "{host}");
        }
        assert!(!admits(&rule, HERE, &[]));
        assert!(!admits(&rule, THERE, &[("host", "localhost")]));
        assert!(!admits(&rule, HERE, &[("host", "localhost"), ("x-forwarded-for", "1.2.3.4")]));
        assert!(!admits(&rule, HERE, &[("host", "localhost"), ("forwarded", "for=1.2.3.4")]));
        assert!(!admits(&rule, HERE, &[("host", "localhost"), ("origin", "https://example.com")]));
        assert!(admits(&rule, HERE, &[("host", "localhost"), ("origin", "http://localhost:3000")]));
        assert!(!admits(&Rule::new(None, THERE), HERE, &[("host", "localhost")]));
    }
}
