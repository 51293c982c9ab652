//! What a control server or a tailscaled may say: names that are names, addresses that are a
//! device's, texts of a bounded length. They end in files of Redis and of the system, in dials and
//! in a terminal, so whatever is none of these is dropped where it comes in.

use std::net::IpAddr;

/// Longest DNS name.
const LONGEST_NAME: usize = 253;
/// Longest label of one.
const LONGEST_LABEL: usize = 63;
/// Ids and tags are some tens of characters.
const LONGEST_WORD: usize = 128;
/// Longest sentence that is passed on.
const LONGEST_TEXT: usize = 300;

/// A DNS name in lower case without its trailing dot, which may be a single label; `None` when it
/// is no such name.
#[must_use]
pub fn dns_name(text: &str) -> Option<String> {
    let name = text.strip_suffix('.').unwrap_or(text);
    let label = |label: &str| {
        let bytes = label.as_bytes();
        let inner = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        (1..=LONGEST_LABEL).contains(&bytes.len())
            && bytes.iter().all(inner)
            && bytes[0] != b'-'
            && bytes[bytes.len() - 1] != b'-'
    };
    (name.len() <= LONGEST_NAME && name.split('.').all(label)).then(|| name.to_ascii_lowercase())
}

/// An id or a tag: one short word without blanks or control characters.
#[must_use]
pub fn is_word(text: &str) -> bool {
    !text.is_empty() && text.len() <= LONGEST_WORD && text.bytes().all(|b| b.is_ascii_graphic())
}

/// An address that a device can have. This machine's own, a whole network's or nobody's is none.
#[must_use]
pub fn device_ip(text: &str) -> Option<IpAddr> {
    text.parse().ok().filter(may_be_a_device)
}

/// Whether a device can have this address.
#[must_use]
pub fn may_be_a_device(ip: &IpAddr) -> bool {
    let nobody = ip.is_loopback() || ip.is_unspecified() || ip.is_multicast();
    !nobody
        && match ip.to_canonical() {
            IpAddr::V4(v4) => {
                !v4.is_link_local()
                    && !v4.is_broadcast()
                    && !v4.is_loopback()
                    && !v4.is_unspecified()
            }
            IpAddr::V6(v6) => !v6.is_unicast_link_local(),
        }
}

/// One line for people.
#[must_use]
pub fn sentence(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LONGEST_TEXT).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_dns_name_or_nothing() {
        for (text, name) in [
            ("Redis-0.Mesh.Test.", Some("redis-0.mesh.test")),
            ("cache-0-x7k2-abc123", Some("cache-0-x7k2-abc123")),
            ("a_b.ts.net", Some("a_b.ts.net")),
            ("", None),
            (".", None),
            ("a..b", None),
            ("a.b..", None),
            ("-a.b", None),
            ("a b", None),
            ("a.mesh.test\nrename-command CONFIG \"\"", None),
            ("a.mesh.test\r", None),
            ("a\0.b", None),
            ("m\u{e4}sh.test", None),
        ] {
            assert_eq!(dns_name(text).as_deref(), name, "{text:?}");
        }
        assert_eq!(dns_name(&"a.".repeat(200)), None);
        assert_eq!(dns_name(&"a".repeat(64)), None);
    }

    #[test]
    fn an_address_is_one_that_a_device_can_have() {
        for good in ["100.64.0.1", "fd7a:115c:a1e0::1", "10.0.0.7"] {
            assert!(device_ip(good).is_some(), "{good}");
        }
        for bad in [
            "127.0.0.1",
            "0.0.0.0",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "224.0.0.1",
            "169.254.169.254",
            "255.255.255.255",
            "fe80::1",
            "x",
            "",
        ] {
            assert_eq!(device_ip(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_sentence_is_one_short_line() {
        assert_eq!(sentence("a\nb\u{1b}[31m"), "a b [31m");
        assert_eq!(sentence(&"x".repeat(10_000)).len(), LONGEST_TEXT);
        assert!(
            is_word("tag:akash-redis")
                && !is_word("a b")
                && !is_word("")
                && !is_word(&"x".repeat(500))
        );
    }
}
