//! Where webhooks may go: to public addresses over TLS, and to private networks that the operator has named.
//!
//! A URL is looked at when it is given and before every attempt ([`Guard::url`]); a name's addresses when they are looked up, all of
//! them, and the connected peer once more ([`Guard::admits`]). A literal address never gets to a resolver, so it is judged with the URL:
//! the parser of the URL standard has brought it to its one form by then, however it was written.

use ipnet::IpNet;
use std::{net::IpAddr, sync::LazyLock};
use url::{Host, Url};

/// Longest URL, bytes.
pub const URL_MAX: usize = 2_048;

/// Networks that are not public, or lead to some that are not: IANA's registries of special addresses. Of IPv6 only `2000::/3` is
/// given out at all.
static SPECIAL: LazyLock<Vec<IpNet>> = LazyLock::new(|| {
    let networks = [
        "0.0.0.0/8",        // this network
        "10.0.0.0/8",       // private
        "100.64.0.0/10",    // shared by customers of a provider
        "127.0.0.0/8",      // this machine
        "168.63.129.16/32", // Azure's services for its own machines
        "169.254.0.0/16",   // this link, and clouds' metadata
        "172.16.0.0/12",    // private
        "192.0.0.0/24",     // protocols
        "192.0.2.0/24",     // documentation
        "192.88.99.0/24",   // relays to IPv6
        "192.168.0.0/16",   // private
        "198.18.0.0/15",    // measurements
        "198.51.100.0/24",  // documentation
        "203.0.113.0/24",   // documentation
        "224.0.0.0/4",      // groups
        "240.0.0.0/4",      // reserved, and all at once
        "2001::/23",        // protocols, tunnels among them
        "2001:db8::/32",    // documentation
        "2002::/16",        // tunnels to any IPv4 address
        "3fff::/20",        // documentation
    ];
    networks.iter().map(|text| text.parse().expect("a network")).collect()
});

/// Why a URL is not called. Says nothing of what a name leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Not a URL, or too long.
    #[error("it must be a URL of at most {URL_MAX} bytes")]
    NoUrl,
    /// Neither `https`, nor `http` into a network that the operator has named.
    #[error("it must start with https://")]
    Scheme,
    /// It carries a name or password.
    #[error("it must not contain a user name or password")]
    Login,
    /// The address is not public.
    #[error("its address is not public")]
    Address,
}

/// Judges where webhooks go.
#[derive(Debug, Clone, Default)]
pub struct Guard {
    private: Vec<IpNet>,
}

impl Guard {
    /// `private`: networks that may be called although they are not public.
    #[must_use]
    pub fn new(private: Vec<IpNet>) -> Self {
        Self { private }
    }

    /// Parses and judges a URL, without looking its host up.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn url(&self, text: &str) -> Result<Url, Refused> {
        if text.len() > URL_MAX {
            return Err(Refused::NoUrl);
        }
        let url = Url::parse(text).map_err(|_| Refused::NoUrl)?;
        match url.scheme() {
            "https" => {}
            "http" if !self.private.is_empty() => {}
            _ => return Err(Refused::Scheme),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Refused::Login);
        }
        let literal: Option<IpAddr> = match url.host() {
            None => return Err(Refused::NoUrl),
            Some(Host::Domain(_)) => None,
            Some(Host::Ipv4(address)) => Some(address.into()),
            Some(Host::Ipv6(address)) => Some(address.into()),
        };
        match literal {
            Some(address) if !self.admits(address, url.scheme() == "https") => Err(Refused::Address),
            _ => Ok(url),
        }
    }

    /// Whether this address may be called. Without TLS only named networks may.
    #[must_use]
    pub fn admits(&self, address: IpAddr, tls: bool) -> bool {
        let address = address.to_canonical();
        self.private.iter().any(|network| network.contains(&address)) || (tls && is_public(address))
    }
}

fn is_public(address: IpAddr) -> bool {
    let given_out = match address {
        IpAddr::V4(_) => true,
        IpAddr::V6(address) => address.segments()[0] >> 13 == 1,
    };
    given_out && !SPECIAL.iter().any(|network| network.contains(&address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(private: &str, url: &str) -> Result<(), Refused> {
        let private = private.split_whitespace().map(|net| net.parse().expect("a network")).collect();
        Guard::new(private).url(url).map(|_| ())
    }

    #[test]
    fn only_public_addresses_over_tls() {
        for url in [
            "https://example.com/hook?x=1",
            "https://93.184.216.34:8443/",
            "https://[2606:2800:220:1::1]/",
            "https://127.0.0.1.example.com/",
        ] {
            assert_eq!(judged("", url), Ok(()), "{url}");
        }
        for url in
            ["http://example.com/", "ftp://example.com/", "file:///etc/passwd", "gopher://x/", "unix:/x"]
        {
            assert_eq!(judged("", url), Err(Refused::Scheme), "{url}");
        }
        for url in ["", "example.com/hook", "https://", "https:///", "//example.com", "https://exa mple.com"]
        {
            assert!(matches!(judged("", url), Err(Refused::NoUrl)), "{url}");
        }
        let long = |bytes: usize| format!("https://example.com/{}", "x".repeat(bytes - 20));
        assert_eq!(judged("", &long(URL_MAX)), Ok(()));
        assert_eq!(judged("", &long(URL_MAX + 1)), Err(Refused::NoUrl));
        for url in
            ["https://user@example.com/", "https://user:word@example.com/", "https://:word@example.com/"]
        {
            assert_eq!(judged("", url), Err(Refused::Login), "{url}");
        }
    }

    /// Every way to write an address that is not public.
    #[test]
    fn a_private_address_is_known_in_every_form() {
        let hosts = "0.0.0.0 0 0x0 127.0.0.1 127.1 127.0.1 127.255.255.254 2130706433 0x7f000001 0x7f.1 0177.0.0.1 017700000001 \
            127.0.0.1. 168.63.129.16 2822734096 [::ffff:168.63.129.16] 100.100.100.200 10.0.0.1 10.255.255.255 167772161 100.64.0.1 100.127.255.255 169.254.169.254 169.254.0.1 0xa9fea9fe 2852039166 \
            172.16.0.1 172.31.255.255 192.0.0.1 192.0.0.192 192.0.2.1 192.88.99.1 192.168.0.1 192.168.255.255 3232235521 198.18.0.1 \
            198.19.255.255 198.51.100.1 203.0.113.1 224.0.0.1 239.255.255.250 240.0.0.1 255.255.255.255 4294967295 \
            １２７.０.０.１ 127。0。0。1 ⑩.0.0.1 %31%32%37.0.0.1 \
            [::] [::1] [0:0:0:0:0:0:0:1] [::ffff:127.0.0.1] [::ffff:7f00:1] [::ffff:10.0.0.1] [::ffff:169.254.169.254] [::127.0.0.1] \
            [::7f00:1] [64:ff9b::127.0.0.1] [64:ff9b::a9fe:a9fe] [64:ff9b:1::1] [100::1] [2001::1] [2001:0:7f00:1::] [2001:10::1] \
            [2001:20::1] [2001:db8::1] [2002:7f00:1::] [2002:a9fe:a9fe::1] [3fff::1] [5f00::1] [fc00::1] [fd00:ec2::254] [fe80::1] \
            [fec0::1] [ff02::1]";
        for host in hosts.split_whitespace() {
            assert_eq!(judged("", &format!("https://{host}/")), Err(Refused::Address), "{host}");
        }
        assert!(hosts.split_whitespace().count() >= 70);
    }

    #[test]
    fn named_networks_are_let_through_and_no_others() {
        let private = "10.1.0.0/16 fd00::/8";
        for url in
            ["http://10.1.2.3:8080/", "https://10.1.2.3/", "http://[fd00::1]/", "http://[::ffff:10.1.0.1]/"]
        {
            assert_eq!(judged(private, url), Ok(()), "{url}");
        }
        for url in ["http://10.2.0.1/", "https://127.0.0.1/", "http://93.184.216.34/"] {
            assert_eq!(judged(private, url), Err(Refused::Address), "{url}");
        }
        // Where a name leads is judged when it is looked up: without TLS only into those networks.
        assert_eq!(judged(private, "http://hook.internal/"), Ok(()));
        let guard = Guard::new(vec!["10.1.0.0/16".parse().expect("a network")]);
        let public: IpAddr = "93.184.216.34".parse().expect("an address");
        assert!(guard.admits(public, true) && !guard.admits(public, false));
    }
}
