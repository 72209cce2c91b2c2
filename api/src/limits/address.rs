//! Whose address a request comes from.

use http::HeaderMap;
use ipnet::IpNet;
use std::{
    net::{IpAddr, Ipv6Addr},
    sync::Once,
};

/// The address of the caller: the peer's, or, where that is one of the trusted proxies, the last one in `X-Forwarded-For` that is not.
/// What stands before it was written by strangers.
pub(crate) fn caller(peer: IpAddr, trusted: &[IpNet], headers: &HeaderMap) -> IpAddr {
    static TOLD: Once = Once::new();
    if is_unheard(peer, trusted, headers) {
        TOLD.call_once(|| {
            tracing::warn!(%peer, "requests say in X-Forwarded-For for whom they come, and their peer is none of api.trusted_proxies: \
                all of them count as the peer's. If it is a proxy of yours, name it there.");
        });
    }
    let is_trusted = |address: &IpAddr| is_among(trusted, address);
    let mut caller = peer.to_canonical();
    let told: Vec<&str> = headers
        .get_all("x-forwarded-for")
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(|told| std::str::from_utf8(told).unwrap_or_default())
        .collect();
    for told in told.into_iter().rev() {
        if !is_trusted(&caller) {
            break;
        }
        match read(told.trim()) {
            Some(address) => caller = address,
            None => break,
        }
    }
    caller
}

fn is_among(networks: &[IpNet], address: &IpAddr) -> bool {
    networks.iter().any(|network| network.contains(address))
}

/// Whether a peer that is not trusted says that it comes for somebody else.
fn is_unheard(peer: IpAddr, trusted: &[IpNet], headers: &HeaderMap) -> bool {
    headers.contains_key("x-forwarded-for") && !is_among(trusted, &peer.to_canonical())
}

/// An address as proxies write it: some add the port.
fn read(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.split_once(']')).map(|(address, _)| address);
    let address = bare.unwrap_or(text).parse().ok();
    let with_port = || text.parse::<std::net::SocketAddr>().ok().map(|address| address.ip());
    address.or_else(with_port).map(|address: IpAddr| address.to_canonical())
}

/// What is counted as one: an IPv4 address, or the network that one customer has in IPv6.
pub(crate) fn bucket(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn seen(peer: &str, trusted: &str, told: &[&str]) -> String {
        let trusted: Vec<IpNet> =
            trusted.split_whitespace().map(|net| net.parse().expect("a network")).collect();
        let mut headers = HeaderMap::new();
        for told in told {
            headers.append(
                "x-forwarded-for",
                HeaderValue::from_bytes(told.as_bytes()).expect("no control characters"),
            );
        }
        caller(peer.parse().expect("an address"), &trusted, &headers).to_string()
    }

    #[test]
    fn who_is_not_trusted_is_not_heard() {
        let proxy: IpAddr = "10.0.0.1".parse().expect("an address");
        let mapped: IpAddr = "::ffff:10.0.0.1".parse().expect("an address");
        let trusted = ["10.0.0.0/8".parse().expect("a network")];
        let mut headers = HeaderMap::new();
        assert!(!is_unheard(proxy, &[], &headers));
        headers.insert("x-forwarded-for", HeaderValue::from_static("203.0.113.7"));
        assert!(is_unheard(proxy, &[], &headers));
        assert!(!is_unheard(proxy, &trusted, &headers) && !is_unheard(mapped, &trusted, &headers));
    }

    #[test]
    fn strangers_are_not_believed() {
        assert_eq!(seen("192.0.2.1", "", &["198.51.100.7"]), "192.0.2.1");
        assert_eq!(seen("192.0.2.1", "10.0.0.0/8", &["198.51.100.7"]), "192.0.2.1");
    }

    #[test]
    fn the_last_stranger_is_the_caller() {
        let trusted = "10.0.0.0/8 fd00::/8";
        assert_eq!(seen("10.0.0.1", trusted, &["203.0.113.9, 198.51.100.7"]), "198.51.100.7");
        assert_eq!(seen("10.0.0.1", trusted, &["203.0.113.9", "198.51.100.7, 10.0.0.2"]), "198.51.100.7");
        assert_eq!(seen("::ffff:10.0.0.1", trusted, &["198.51.100.7:4711"]), "198.51.100.7");
        assert_eq!(seen("fd00::1", trusted, &["[2001:db8::1]:4711"]), "2001:db8::1");
        assert_eq!(seen("10.0.0.1", trusted, &["198.51.100.7, nonsense"]), "10.0.0.1");
        assert_eq!(seen("10.0.0.1", trusted, &[]), "10.0.0.1");
        assert_eq!(seen("10.0.0.1", trusted, &["é, 198.51.100.7"]), "198.51.100.7");
    }

    #[test]
    fn a_customer_is_one() {
        let bucket = |text: &str| bucket(text.parse().expect("an address")).to_string();
        assert_eq!(bucket("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(bucket("::ffff:192.0.2.1"), "192.0.2.1");
    }
}
