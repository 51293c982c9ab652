//! Where untrusted addresses may lead: a provider writes its own URI, and must not make us talk to
//! our own network.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Reads the base URL of a gateway. Only scheme, host and port of it count.
pub fn gateway_url(host_uri: &str, allow_private: bool) -> Result<Url, String> {
    let mut url =
        Url::parse(host_uri).map_err(|error| format!("its URI cannot be read: {error}"))?;
    if url.scheme() != "https" {
        return Err("its URI is not https".into());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("its URI carries a user name".into());
    }
    check_host(&url, allow_private)?;
    url.set_path("/");
    url.set_query(None);
    url.set_fragment(None);
    Ok(url)
}

/// Builds the URL of a status page from the host name that a provider gave for it.
pub fn status_page_url(host: &str, nonce: &str, allow_private: bool) -> Result<Url, String> {
    let name = host.strip_prefix("http://").unwrap_or(host);
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | ':');
    if name.is_empty() || name.len() > 260 || !name.chars().all(allowed) {
        return Err("it is not a host name".into());
    }
    let mut url = Url::parse(&format!("http://{name}/"))
        .map_err(|error| format!("it cannot be read: {error}"))?;
    check_host(&url, allow_private)?;
    url.query_pairs_mut().append_pair("nonce", nonce);
    Ok(url)
}

fn check_host(url: &Url, allow_private: bool) -> Result<(), String> {
    let host = url.host_str().ok_or("there is no host in it")?;
    // Literal addresses never meet the resolver.
    match host.trim_matches(['[', ']']).parse::<IpAddr>() {
        Ok(ip) if !allow_private && !is_public(ip) => Err(format!("{ip} is not a public address")),
        _ => Ok(()),
    }
}

/// Resolves names to public addresses only. The connection goes to what was checked here, so a name
/// cannot change in between.
#[derive(Clone, Copy, Debug)]
pub struct PublicResolver {
    /// Lets any address pass, for a market on this machine.
    pub allow_private: bool,
}

impl Resolve for PublicResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let allow_private = self.allow_private;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let usable: Vec<SocketAddr> =
                found.filter(|address| allow_private || is_public(address.ip())).collect();
            if usable.is_empty() {
                return Err(format!("{} has no public address", name.as_str()).into());
            }
            Ok(Box::new(usable.into_iter()) as Addrs)
        })
    }
}

/// Whether an address is reachable on the public internet, by the registries of special-purpose
/// addresses.
#[must_use]
pub fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    let shared = a == 100 && (64..128).contains(&b); // carrier NAT, and every tailnet
    let benchmark = a == 198 && (18..20).contains(&b);
    let protocols = a == 192 && b == 0 && c == 0;
    !(a == 0
        || a >= 240
        || shared
        || benchmark
        || protocols
        || ip.is_private()
        || ip.is_loopback()
        || ip.is_link_local()
        || ip.is_multicast()
        || ip.is_documentation())
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    let s = ip.segments();
    let embedded = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    if let Some(v4) = ip.to_ipv4() {
        // Mapped and compatible forms; `::1` and `::` are among the latter.
        return is_public_v4(v4);
    }
    if s[..6] == [0x64, 0xff9b, 0, 0, 0, 0] {
        return is_public_v4(embedded(s[6], s[7])); // NAT64
    }
    if s[0] == 0x2002 {
        return is_public_v4(embedded(s[1], s[2])); // 6to4
    }
    // Global unicast is 2000::/3 and nothing else; 2001::/23 is for protocols, 2001:db8::/32 for
    // documents.
    s[0] & 0xe000 == 0x2000 && !(s[0] == 0x2001 && (s[1] < 0x200 || s[1] == 0xdb8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_pass() {
        let inside = [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "100.100.100.100",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "198.18.0.1",
            "192.0.0.8",
            "::1",
            "::",
            "fe80::1",
            "fd7a:115c:a1e0::1",
            "ff02::1",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
            "2002:7f00:1::",
            "2001:db8::1",
        ];
        for ip in inside {
            assert!(!is_public(ip.parse().unwrap()), "{ip}");
        }
        for ip in [
            "1.1.1.1",
            "100.128.0.1",
            "172.32.0.1",
            "2606:4700::1111",
            "::ffff:1.1.1.1",
            "64:ff9b::101:101",
        ] {
            assert!(is_public(ip.parse().unwrap()), "{ip}");
        }
    }

    #[test]
    fn a_gateway_uri_is_https_without_user_and_not_inside() {
        let refused = [
            "http://p.example:8443",
            "https://u:p@p.example:8443",
            "https://u@p.example",
            "https://127.0.0.1:8443",
            "https://0x7f.1:8443",
            "https://[::1]:8443",
            "https://[::ffff:10.0.0.1]",
            "ftp://p.example",
            "p.example:8443",
            "",
        ];
        for uri in refused {
            assert!(gateway_url(uri, false).is_err(), "{uri}");
        }
        assert_eq!(
            gateway_url("https://p.example:8443/x?y#z", false).unwrap().as_str(),
            "https://p.example:8443/"
        );
        assert!(gateway_url("https://127.0.0.1:8443", true).is_ok());
    }

    #[test]
    fn a_status_page_is_a_host_name_and_nothing_more() {
        for host in ["a/b", "a?b", "u@a", "a b", "", "https://a", "10.0.0.1"] {
            assert!(status_page_url(host, "n", false).is_err(), "{host}");
        }
        let url = status_page_url("x.ingress.p.example", "a&b=c", false).unwrap();
        assert_eq!(url.as_str(), "http://x.ingress.p.example/?nonce=a%26b%3Dc");
    }

    #[tokio::test]
    async fn a_name_that_leads_inside_is_not_resolved() {
        let name = || "localhost".parse::<Name>().unwrap();
        assert!(PublicResolver { allow_private: false }.resolve(name()).await.is_err());
        assert!(PublicResolver { allow_private: true }.resolve(name()).await.is_ok());
    }
}
