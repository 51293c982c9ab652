//! What the rules of a policy come to: who reaches which TCP ports of whom.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use super::{Acl, Grant, Policy};

/// Groups within groups are followed so deep.
const DEEPEST_GROUP: usize = 4;

/// All rules, and what was not understood in them.
pub(super) struct Rules {
    pub all: Vec<Rule>,
    /// The word, and the rule in which it stands.
    pub unknown: BTreeSet<(String, String)>,
}

/// A grant or an ACL, with its selectors resolved.
pub(super) struct Rule {
    /// How people find it, e.g. `grant 2`.
    pub name: String,
    pub src: Vec<Who>,
    pub dst: Vec<(Who, Ports)>,
}

/// Whom a rule names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Who {
    /// Every device.
    Any,
    /// Every device with some tag.
    Tagged,
    /// Devices with this tag.
    Tag(String),
    /// Devices that belong to people. These never carry a tag.
    People(String),
    /// What is no device of the tailnet.
    Elsewhere,
}

/// TCP ports, as ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ports(Vec<(u16, u16)>);

impl Rules {
    pub(super) fn of(policy: &Policy) -> Self {
        let mut rules = Self { all: Vec::new(), unknown: BTreeSet::new() };
        if policy.grants.is_none() && policy.acls.is_none() {
            // Such a policy denies nothing: only an empty list does.
            let name = "the absence of grants".to_owned();
            rules.all.push(Rule { name, src: vec![Who::Any], dst: vec![(Who::Any, Ports::all())] });
        }
        for (at, grant) in policy.grants.iter().flatten().enumerate() {
            rules.grant(policy, grant, format!("grant {}", at + 1));
        }
        for (at, acl) in policy.acls.iter().flatten().enumerate() {
            rules.acl(policy, acl, format!("ACL {}", at + 1));
        }
        rules
    }

    /// Whether some rule lets `from` reach `to` for certain.
    pub(super) fn reaches(&self, from: &str, to: &str, port: u16) -> bool {
        self.all.iter().any(|rule| {
            rule.src.iter().any(|who| who.covers(from))
                && rule.dst.iter().any(|(who, ports)| who.covers(to) && ports.has(port))
        })
    }

    fn grant(&mut self, policy: &Policy, grant: &Grant, name: String) {
        let mut ports = Ports::default();
        for text in &grant.ip {
            match Ports::read(text) {
                Some(more) => ports.0.extend(more.0),
                None => self.add_unknown(text, &name),
            }
        }
        let src = self.all_named(policy, &grant.src, &name);
        let dst = self
            .all_named(policy, &grant.dst, &name)
            .into_iter()
            .map(|who| (who, ports.clone()))
            .collect();
        self.all.push(Rule { name, src, dst });
    }

    fn acl(&mut self, policy: &Policy, acl: &Acl, name: String) {
        if acl.action != "accept" {
            self.add_unknown(&acl.action, &name);
        }
        let src = self.all_named(policy, &acl.src, &name);
        let mut dst = Vec::new();
        for text in &acl.dst {
            let read =
                text.rsplit_once(':').and_then(|(whom, ports)| Some((whom, Ports::list(ports)?)));
            let Some((whom, ports)) = read else {
                self.add_unknown(text, &name);
                continue;
            };
            let ports =
                if acl.proto.as_deref().is_none_or(is_tcp) { ports } else { Ports::default() };
            let whom = whom.trim_start_matches('[').trim_end_matches(']');
            dst.extend(
                self.all_named(policy, &[whom.to_owned()], &name)
                    .into_iter()
                    .map(|who| (who, ports.clone())),
            );
        }
        self.all.push(Rule { name, src, dst });
    }

    fn all_named(&mut self, policy: &Policy, words: &[String], rule: &str) -> Vec<Who> {
        let mut named = Vec::new();
        for word in words {
            match who(policy, word, DEEPEST_GROUP) {
                Some(more) => named.extend(more),
                None => self.add_unknown(word, rule),
            }
        }
        named
    }

    fn add_unknown(&mut self, word: &str, rule: &str) {
        self.unknown.insert((word.to_owned(), rule.to_owned()));
    }
}

/// Whom one word names; `None` when it is not understood.
fn who(policy: &Policy, word: &str, depth: usize) -> Option<Vec<Who>> {
    if let Some(address) = policy.hosts.get(word) {
        return Some(vec![by_address(address)?]);
    }
    if word.starts_with("group:") {
        let Some(members) = policy.groups.get(word).filter(|members| !members.is_empty()) else {
            return Some(vec![Who::People(word.to_owned())]);
        };
        let members = members
            .iter()
            .map(|member| who(policy, member, depth.checked_sub(1)?))
            .collect::<Option<Vec<_>>>()?
            .concat();
        // Its name says more than the names of its members.
        let name =
            |who| if matches!(who, Who::People(_)) { Who::People(word.to_owned()) } else { who };
        let mut members: Vec<Who> = members.into_iter().map(name).collect();
        members.dedup();
        return Some(members);
    }
    Some(vec![match word {
        "*" | "autogroup:danger-all" => Who::Any,
        "autogroup:tagged" => Who::Tagged,
        "autogroup:internet" | "autogroup:self" => Who::Elsewhere,
        _ if word.starts_with("tag:") => Who::Tag(word.to_owned()),
        "autogroup:member"
        | "autogroup:members"
        | "autogroup:owner"
        | "autogroup:admin"
        | "autogroup:it-admin"
        | "autogroup:network-admin"
        | "autogroup:billing-admin"
        | "autogroup:auditor"
        | "autogroup:shared" => Who::People(word.to_owned()),
        _ if word.contains('@') => Who::People(word.to_owned()),
        _ => by_address(word)?,
    }])
}

/// Where the addresses of a tailnet's devices are, with the bits that they share.
const TAILNET: [(&str, u32); 2] = [("100.64.0.0", 10), ("fd7a:115c:a1e0::", 48)];

/// `None` for an address that may be any device's, and for what is no address.
fn by_address(text: &str) -> Option<Who> {
    let (address, bits) =
        text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
    let address: IpAddr = address.parse().ok()?;
    let width = if address.is_ipv4() { 32 } else { 128 };
    let bits: u32 =
        bits.map_or(Some(width), |bits| bits.parse().ok()).filter(|bits| *bits <= width)?;
    let (network, shared) = TAILNET.iter().find_map(|(network, shared)| {
        let network: IpAddr = network.parse().ok()?;
        (network.is_ipv4() == address.is_ipv4()).then_some((network, *shared))
    })?;
    let same = |bits: u32| bits == 0 || (number(address) ^ number(network)) >> (width - bits) == 0;
    match bits {
        _ if !same(bits.min(shared)) => Some(Who::Elsewhere),
        _ if bits <= shared => Some(Who::Any),
        _ => None,
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

impl Who {
    /// Whether devices with this tag are meant, for certain.
    pub(super) fn covers(&self, tag: &str) -> bool {
        match self {
            Self::Any | Self::Tagged => true,
            Self::Tag(own) => own == tag,
            Self::People(_) | Self::Elsewhere => false,
        }
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("every device"),
            Self::Tagged => f.write_str("every tagged device"),
            Self::Tag(tag) => write!(f, "devices with {tag}"),
            Self::People(name) => write!(f, "devices of {name}"),
            Self::Elsewhere => f.write_str("what is outside of the tailnet"),
        }
    }
}

impl Ports {
    pub(super) fn all() -> Self {
        Self(vec![(0, u16::MAX)])
    }

    pub(super) fn has(&self, port: u16) -> bool {
        self.0.iter().any(|(first, last)| (*first..=*last).contains(&port))
    }

    pub(super) fn is_all(&self) -> bool {
        self.has(1) && self.0.iter().any(|(first, last)| *first <= 1 && *last == u16::MAX)
    }

    /// `*`, `443`, `80-90`, `tcp:6379`; other protocols have no ports here.
    fn read(text: &str) -> Option<Self> {
        match text.split_once(':') {
            Some((proto, ports)) if is_tcp(proto) => Self::list(ports),
            Some((proto, _))
                if !proto.is_empty()
                    && proto.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') =>
            {
                Some(Self::default())
            }
            Some(_) => None,
            None => Self::list(text),
        }
    }

    fn list(text: &str) -> Option<Self> {
        text.split(',').map(|range| Self::range(range.trim())).collect::<Option<_>>().map(Self)
    }

    fn range(text: &str) -> Option<(u16, u16)> {
        if text == "*" {
            return Some((0, u16::MAX));
        }
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        Some((first.parse().ok()?, last.parse().ok()?))
    }
}

fn is_tcp(proto: &str) -> bool {
    matches!(proto, "" | "*" | "tcp" | "6")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_in_every_form() {
        for (text, has, lacks) in [
            ("*", vec![1, 1055, 65535], vec![]),
            ("tcp:6379", vec![6379], vec![6378, 6380]),
            ("1000-2000", vec![1000, 1055, 2000], vec![999, 2001]),
            ("6:80,443", vec![80, 443], vec![81]),
            ("udp:*", vec![], vec![1055]),
            ("icmp:*", vec![], vec![1]),
        ] {
            let ports = Ports::read(text).unwrap();
            assert!(
                has.iter().all(|port| ports.has(*port))
                    && !lacks.iter().any(|port| ports.has(*port)),
                "{text}"
            );
        }
        for text in ["tcp:redis", "", "80-", "1:2:3", "70000"] {
            assert!(Ports::read(text).is_none_or(|ports| ports == Ports::default()), "{text}");
        }
        assert_eq!(Ports::read("tcp:redis"), None);
    }

    #[test]
    fn an_address_is_everybodys_somebodys_or_nobodys() {
        for (text, found) in [
            ("0.0.0.0/0", Some(Who::Any)),
            ("100.64.0.0/10", Some(Who::Any)),
            ("::/0", Some(Who::Any)),
            ("fd7a:115c:a1e0::/48", Some(Who::Any)),
            ("100.64.0.7", None),
            ("100.100.0.0/16", None),
            ("fd7a:115c:a1e0::7", None),
            ("10.0.0.0/8", Some(Who::Elsewhere)),
            ("192.168.1.1", Some(Who::Elsewhere)),
            ("2001:db8::/32", Some(Who::Elsewhere)),
            ("100.64.0.0/33", None),
            ("redis", None),
        ] {
            assert_eq!(by_address(text), found, "{text}");
        }
    }

    #[test]
    fn a_group_within_itself_is_not_understood() {
        let groups = [("group:a".to_owned(), vec!["group:a".to_owned()])].into();
        assert_eq!(who(&Policy { groups, ..Policy::default() }, "group:a", DEEPEST_GROUP), None);
    }
}
