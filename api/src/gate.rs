//! Who may, and what every response carries: the outermost layer around all routes.
//!
//! A request is somebody's ([`crate::identity`]) and its operation needs a scope ([`crate::routes`]). Health and the documentation
//! need neither: they are the same everywhere and show nothing of anybody's.

use crate::{
    browser,
    discard::discard,
    docs,
    error::{ApiError, PROBLEM, Verbatim},
    home,
    idempotency::{self, Keys},
    limits::{self, Allowance},
    routes::{self, Needs},
    state::Shared,
};
use axum::{
    extract::{MatchedPath, Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use shared::task::RequestId;
use std::net::{IpAddr, SocketAddr};
use tokio::time::Instant;

/// So many are about to be added to a response, at most.
const HEADERS: usize = 16;

/// The address of the other end of the connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// The address of whoever calls, perhaps by a proxy.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Address(pub(crate) IpAddr);

/// Lets a request in, and dresses its response.
pub(crate) async fn gate(State(app): State<Shared>, mut request: Request, next: Next) -> Response {
    let request_id = RequestId::new();
    let started = Instant::now();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let accepts = request.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let problem = accepts.is_some_and(|accept| accept.contains(PROBLEM));
    let is_page = route.as_ref().is_some_and(|route| docs::is_page(route.as_str()));
    // Only among pages does the framework itself look for files.
    let asked = is_page.then(|| (request.method().clone(), request.uri().clone()));
    let mut allowance = None;
    let response = match admit(&app, &mut request, route.as_ref()).await {
        Ok(admitted) => {
            allowance = admitted;
            next.run(request).await
        }
        Err(error) => {
            discard(request).await;
            error.into_response()
        }
    };
    let tokens = response.extensions().get::<Allowance>().copied();
    let absent = asked.map(|(method, uri)| home::nowhere(&app.config, &method, &uri));
    let admitted = route.as_ref().is_some_and(|route| route.as_str().starts_with("/v1/"));
    let mut response = rendered(&app, response, absent, (request_id, problem, admitted));
    // All at once: it grows by half otherwise, again and again.
    response.headers_mut().reserve(HEADERS);
    for allowance in allowance.into_iter().chain(tokens) {
        allowance.tell(response.headers_mut());
    }
    let id = HeaderValue::try_from(request_id.to_string()).expect("an id is ASCII");
    response.headers_mut().insert("x-request-id", id);
    browser::guard(response.headers_mut(), is_page, app.config.api.tls_cert.is_some());
    count(route.as_ref().map_or("none", MatchedPath::as_str), response.status(), started);
    response
}

/// Finds out who calls, and whether they may: identity, limits, scope.
async fn admit(
    app: &Shared,
    request: &mut Request,
    route: Option<&MatchedPath>,
) -> Result<Option<Allowance>, ApiError> {
    // Proxies and we may take different ones.
    if request.headers().get_all(header::HOST).iter().nth(1).is_some() {
        return Err(ApiError::invalid("Host", "'Host' must be there once."));
    }
    let needs = routes::needs(route.map(MatchedPath::as_str), request.method());
    if matches!(needs, Needs::Nothing) {
        return Ok(None);
    }
    let peer = request.extensions().get::<Peer>().map(|peer| peer.0.ip());
    let address = peer.map(|peer| limits::caller(peer, &app.config.api.trusted_proxies, request.headers()));
    let visitor =
        app.identity.admit(peer, address, request.version(), request.uri(), request.headers()).await?;
    let allowance = app.limiter.request(&visitor, address).await?;
    if let Needs::Scope(scope) = needs
        && !visitor.caller.may(scope)
    {
        return Err(ApiError::Forbidden(scope));
    }
    if request.headers().contains_key("idempotency-key")
        && idempotency::keys(route.map(MatchedPath::as_str), request.method()) == Keys::Refused
    {
        return Err(idempotency::unsupported());
    }
    request.extensions_mut().insert(visitor);
    if let Some(address) = address {
        request.extensions_mut().insert(Address(address));
    }
    Ok(allowance)
}

/// Puts the envelope around an error: ours, or one that the framework answered by itself.
fn rendered(
    app: &Shared,
    response: Response,
    absent: Option<ApiError>,
    told: (RequestId, bool, bool),
) -> Response {
    let (request_id, problem, admitted) = told;
    let own = response.extensions().get::<ApiError>().cloned();
    let verbatim = response.extensions().get::<Verbatim>().is_some();
    let error = match (own, response.status()) {
        (Some(error), _) => error,
        (None, StatusCode::METHOD_NOT_ALLOWED) if !verbatim => ApiError::Method,
        (None, StatusCode::NOT_FOUND) if !verbatim => {
            absent.unwrap_or_else(|| ApiError::not_found("There is nothing at this path."))
        }
        (None, StatusCode::BAD_REQUEST | StatusCode::UPGRADE_REQUIRED) if !verbatim => ApiError::Invalid {
            message: "the path, the query or the headers are not well formed for this path".into(),
            code: "invalid_request",
            param: None,
        },
        _ => {
            // Health and pages are answered whatever is away.
            if admitted {
                app.looks.answered();
            }
            return response;
        }
    };

    error.log(request_id, &app.looks);
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
