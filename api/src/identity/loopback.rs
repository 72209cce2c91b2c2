//! Whether a request comes from this machine, and from nobody behind it. Pure.

use http::{HeaderMap, HeaderName, HeaderValue, Uri, Version, header};
use std::net::IpAddr;

/// What a browser says of the page that calls.
const SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Whether the peer and all that the request says of itself are loopback.
pub(super) fn is_local(peer: Option<IpAddr>, version: Version, uri: &Uri, headers: &HeaderMap) -> bool {
    // Proxies that say nothing of whom they speak for still tend to speak the oldest HTTP.
    let forwarded = version < Version::HTTP_11 || headers.keys().any(|name| is_of_a_proxy(name.as_str()));
    let header =
        |name: HeaderName| headers.get(name).map(|value: &HeaderValue| value.to_str().unwrap_or_default());
    let host = uri.authority().map(http::uri::Authority::as_str).or(header(header::HOST));
    let origin = header(header::ORIGIN);
    let origin_is_local =
        origin.is_none_or(|origin| origin.split_once("://").is_some_and(|(_, host)| is_loopback(host)));
    let peer_is_local = peer.is_some_and(|peer| peer.is_loopback());
    // Browsers leave the origin out where a page only links or embeds, but not this. An origin is judged by itself: to a browser,
    // `localhost` and `127.0.0.1` are different sites.
    let elsewhere =
        origin.is_none() && header(SITE.clone()).is_some_and(|site| site.eq_ignore_ascii_case("cross-site"));
    peer_is_local && !forwarded && !elsewhere && host.is_some_and(is_loopback) && origin_is_local
}

fn is_of_a_proxy(name: &str) -> bool {
    const NAMES: [&str; 18] = [
        "forwarded",
        "forwarded-for",
        "x-forwarded",
        "x-original-forwarded-for",
        "via",
        "x-real-ip",
        "x-client-ip",
        "x-cluster-client-ip",
        "x-original-host",
        "x-envoy-external-address",
        "cf-connecting-ip",
        "cf-ray",
        "cdn-loop",
        "true-client-ip",
        "fastly-client-ip",
        "fly-client-ip",
        "do-connecting-ip",
        "x-azure-clientip",
    ];
    NAMES.contains(&name) || name.starts_with("x-forwarded-")
}

/// Whether `host[:port]` names this machine.
pub(crate) fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const THERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 7));

    fn local(peer: IpAddr, headers: &[(&'static str, &str)]) -> bool {
        let headers = headers.iter().map(|(name, value)| {
            (http::HeaderName::from_static(name), HeaderValue::from_str(value).expect("a header value"))
        });
        is_local(Some(peer), Version::HTTP_11, &Uri::from_static("/v1/tasks"), &headers.collect())
    }

    #[test]
    fn everything_must_be_loopback() {
        for host in ["localhost", "localhost:8080", "127.0.0.1:8080", "[::1]:8080", "[::1]"] {
            assert!(local(HERE, &[("host", host)]), "{host}");
        }
        for host in ["example.com", "localhost.example.com", "10.0.0.7:8080", "[fe80::1]", ""] {
            assert!(!local(HERE, &[("host", host)]), "{host}");
        }
        assert!(!local(HERE, &[]));
        assert!(!local(THERE, &[("host", "localhost")]));
        assert!(!local(HERE, &[("host", "localhost"), ("x-forwarded-for", "1.2.3.4")]));
        assert!(!local(HERE, &[("host", "localhost"), ("forwarded", "for=1.2.3.4")]));
        assert!(!local(HERE, &[("host", "localhost"), ("via", "1.1 proxy")]));
        let host = HeaderMap::from_iter([(header::HOST, HeaderValue::from_static("localhost"))]);
        assert!(!is_local(Some(HERE), Version::HTTP_10, &Uri::from_static("/v1/tasks"), &host));
        assert!(!local(HERE, &[("host", "localhost"), ("origin", "https://example.com")]));
        assert!(local(HERE, &[("host", "localhost"), ("origin", "http://localhost:3000")]));
        for site in ["cross-site", "Cross-Site"] {
            assert!(!local(HERE, &[("host", "localhost"), ("sec-fetch-site", site)]), "{site}");
        }
        for site in ["same-origin", "same-site", "none"] {
            assert!(local(HERE, &[("host", "localhost"), ("sec-fetch-site", site)]), "{site}");
        }
        for name in ["cf-ray", "x-envoy-external-address", "fly-client-ip", "x-forwarded", "cdn-loop"] {
            assert!(!local(HERE, &[("host", "localhost"), (name, "1.2.3.4")]), "{name}");
        }
    }
}
