//! What browsers are told: whose pages may call, and what an answer may be taken for.

use crate::{identity::is_loopback, limits};
use axum::{extract::Request, response::Response};
use futures_util::future::Either;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header, request};
use shared::config;
use std::{
    task::{Context, Poll},
    time::Duration,
};
use tower::{Layer, Service};
use tower_http::cors::{AllowOrigin, Cors, CorsLayer};

/// An answer is data: nothing in it runs, loads or is framed.
const DATA: &str = "default-src 'none'; frame-ancestors 'none'";
/// The pages that show the documentation load what is served beside them.
const PAGE: &str = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self' data:; \
                    worker-src 'self' blob:; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// How long a browser may remember whose pages may call.
const REMEMBERED: Duration = Duration::from_secs(600);

/// Lets pages of the configured origins call, and without a key, on this machine, pages that are served from it. Other pages get no
/// answer that they could read.
pub(crate) fn cors(api: &config::Api) -> Option<ForPages> {
    let origins: Vec<HeaderValue> =
        api.cors_origins.iter().filter_map(|origin| origin.parse().ok()).collect();
    let local = api.key.is_none() && api.listen.ip().is_loopback();
    let sent = ["idempotency-key", "last-event-id", "prefer"].map(HeaderName::from_static);
    let sent = sent.into_iter().chain([header::AUTHORIZATION, header::CONTENT_TYPE, header::IF_NONE_MATCH]);
    let read = [
        "idempotent-replayed",
        "preference-applied",
        "ratelimit",
        "ratelimit-policy",
        "x-request-id",
        "x-should-retry",
    ];
    let read = read.map(HeaderName::from_static).into_iter().chain(limits::headers());
    let read = read.chain([header::ETAG, header::LOCATION, header::RETRY_AFTER, header::WWW_AUTHENTICATE]);
    let layer = CorsLayer::new()
        .allow_methods([Method::GET, Method::POST, Method::DELETE])
        .allow_headers(sent.collect::<Vec<_>>())
        .expose_headers(read.collect::<Vec<_>>())
        .max_age(REMEMBERED);
    let may = move |origin: &HeaderValue, call: &request::Parts| {
        origins.contains(origin)
            || (local && is_local(origin) && call.headers.get(header::HOST).is_some_and(is_local_host))
    };
    (local || !api.cors_origins.is_empty()).then(|| ForPages(layer.allow_origin(AllowOrigin::predicate(may))))
}

/// Rules for pages, which name their origin. Whoever names none is no page: to him an `OPTIONS` is a method like any other.
#[derive(Clone)]
pub(crate) struct ForPages(CorsLayer);

/// What is behind [`ForPages`].
#[derive(Clone)]
pub(crate) struct Served<S> {
    pages: Cors<S>,
    others: S,
}

impl<S: Clone> Layer<S> for ForPages {
    type Service = Served<S>;

    fn layer(&self, others: S) -> Served<S> {
        Served { pages: self.0.layer(others.clone()), others }
    }
}

impl<S> Service<Request> for Served<S>
where
    S: Service<Request, Response = Response>,
    Cors<S>: Service<Request, Response = Response, Error = S::Error>,
{
    type Response = Response;
    type Error = S::Error;
    type Future = Either<<Cors<S> as Service<Request>>::Future, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        std::task::ready!(Service::poll_ready(&mut self.pages, cx))?;
        self.others.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        match request.headers().contains_key(header::ORIGIN) {
            true => Either::Left(self.pages.call(request)),
            false => Either::Right(self.others.call(request)),
        }
    }
}

/// Whether an origin is a page of this machine.
fn is_local(origin: &HeaderValue) -> bool {
    let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
    origin.is_some_and(|(scheme, host)| matches!(scheme, "http" | "https") && is_loopback(host))
}

/// Whether a caller takes this server to be on its own machine: a name that only leads here is somebody else's.
fn is_local_host(host: &HeaderValue) -> bool {
    host.to_str().is_ok_and(is_loopback)
}

/// Whether the page that asks for a socket, if it is one, is of this host, of a configured origin, or of this machine as we are.
pub(crate) fn may_open(api: &config::Api, headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else { return true };
    let Ok(origin) = origin.to_str() else { return false };
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let own = |of: &str, host: &str| of.eq_ignore_ascii_case(host) || (is_loopback(of) && is_loopback(host));
    let own = origin.split_once("://").zip(host).is_some_and(|((_, of), host)| own(of, host));
    own || api.cors_origins.iter().any(|allowed| allowed == origin)
}

/// Dresses an answer.
pub(crate) fn guard(headers: &mut HeaderMap, is_page: bool, by_tls: bool) {
    if by_tls {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=31536000"));
    }
    let policy = if is_page { PAGE } else { DATA };
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::config::{Config, Mode};

    #[test]
    fn sockets_are_for_pages_of_this_host_and_of_named_origins() {
        let mut api = Config::new(Mode::Embedded { data_dir: "d".into() }).api;
        api.cors_origins = vec!["https://app.example.com".to_owned()];
        let may = |origin: Option<&'static str>| {
            let host = [(header::HOST, HeaderValue::from_static("models.example.com:8080"))];
            let origin = origin.map(|origin| (header::ORIGIN, HeaderValue::from_static(origin)));
            may_open(&api, &host.into_iter().chain(origin).collect())
        };
        for good in [None, Some("https://app.example.com"), Some("http://models.example.com:8080")] {
            assert!(may(good), "{good:?}");
        }
        let local = |host: &'static str, origin: &'static str| {
            let headers = [(header::HOST, host), (header::ORIGIN, origin)];
            let headers = headers.map(|(name, text)| (name, HeaderValue::from_static(text)));
            may_open(&api, &headers.into_iter().collect())
        };
        assert!(local("127.0.0.1:8080", "http://localhost:3000"), "both are this machine");
        assert!(!local("127.0.0.1:8080", "http://localhost.example.com"), "only its name begins so");
        for bad in [
            "https://evil.example.com",
            "http://models.example.com",
            "null",
            "https://app.example.com.evil.org",
            "",
        ] {
            assert!(!may(Some(bad)), "{bad}");
        }
    }
}
