//! What is wrong with a policy, in plain sentences.

use std::collections::BTreeSet;
use std::fmt;

use super::rules::{Ports, Rule, Rules, Who};
use super::{CACHE_NETWORK_MAPS, Policy, Tags};
use crate::model::ports::{AGENT_PORT, REDIS_PORT, SOCKS5_PORT};

/// How a finding is to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Somebody reaches or sees what they must not.
    TooOpen,
    /// Something will not work.
    Missing,
    /// A word of the policy is unknown to us: nothing was concluded from it.
    NotUnderstood,
    /// All works without it, and better with it.
    Advice,
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// How it is to be taken.
    pub kind: Kind,
    /// What was found, what it means, and what to do.
    pub text: String,
}

impl Finding {
    /// Whether something has to be done about it.
    #[must_use]
    pub fn is_wrong(&self) -> bool {
        matches!(self.kind, Kind::TooOpen | Kind::Missing)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::TooOpen => "too open",
            Kind::Missing => "missing",
            Kind::NotUnderstood => "not understood",
            Kind::Advice => "advice",
        };
        write!(f, "{kind}: {}", self.text)
    }
}

/// What is too open, missing or not understood in the policy in force; the gravest first, nothing
/// when all is well.
///
/// Only what the policy says is evaluated, as if every tag were on a device. Narrowing by device
/// posture is not taken into account.
#[must_use]
pub fn evaluate(policy: &Policy, tags: &Tags) -> Vec<Finding> {
    let rules = Rules::of(policy);
    let too_open = rules.all.iter().flat_map(|rule| {
        let (all, nodes, quarantine) =
            (allows_all(rule), open_nodes(rule, tags), open_quarantine(rule, tags));
        all.into_iter().chain(nodes).chain(quarantine)
    });
    let missing = missing_owners(policy, tags).into_iter().chain(missing_rules(&rules, tags));
    let unknown = rules.unknown.iter().map(|(word, rule)| {
        format!("{rule} has `{word}`, which says nothing to this check; look yourself whether nodes or the quarantine are meant")
    });
    let of = |kind| move |text| Finding { kind, text };
    let findings = too_open.map(of(Kind::TooOpen)).chain(missing.map(of(Kind::Missing)));
    let findings = findings.chain(unknown.map(of(Kind::NotUnderstood)));
    findings.chain(uncached(policy, tags).map(of(Kind::Advice))).collect()
}

/// Devices that do not keep their network map on disk.
fn uncached(policy: &Policy, tags: &Tags) -> Option<String> {
    let kept = |tag: &&String| {
        policy.node_attrs.iter().any(|entry| {
            entry.attr.iter().any(|attr| attr == CACHE_NETWORK_MAPS)
                && entry.target.iter().any(|target| target == "*" || target == *tag)
        })
    };
    let without: Vec<_> = tags.nodes.iter().chain([&tags.operator]).filter(|t| !kept(t)).collect();
    (!without.is_empty()).then(|| {
        format!(
            "devices with {} do not keep their network map on disk: one that restarts while the control server is away finds nobody until that is back; add the `nodeAttrs` that `akash-redis mesh policy` prints",
            list(without.into_iter())
        )
    })
}

fn allows_all(rule: &Rule) -> Option<String> {
    let all = rule.src.contains(&Who::Any)
        && rule.dst.iter().any(|(who, ports)| *who == Who::Any && ports.is_all());
    all.then(|| {
        format!("{} lets every device reach every port of every other device; delete it", rule.name)
    })
}

/// Ports of nodes that are open to more than those who need them.
fn open_nodes(rule: &Rule, tags: &Tags) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (whom, ports) in &rule.dst {
        let nodes: Vec<&String> = tags.nodes.iter().filter(|tag| whom.covers(tag)).collect();
        for src in rule.src.iter().filter(|src| !nodes.is_empty() && **src != Who::Elsewhere) {
            let (name, with) = (&rule.name, list(nodes.iter().copied()));
            if ports.has(SOCKS5_PORT) {
                found.insert(format!(
                    "{name} lets {src} reach port {SOCKS5_PORT} of nodes with {with}: it is the SOCKS5 proxy of their tailscaled, an open door to the tailnet and to the provider's network; grant ports one by one"
                ));
            }
            if ports.has(AGENT_PORT) && *src != Who::Tag(tags.operator.clone()) {
                found.insert(format!(
                    "{name} lets {src} reach port {AGENT_PORT} of nodes with {with}: there is the agent, with whom nobody but {} has business",
                    tags.operator
                ));
            }
            found.extend(across(name, src, &nodes, ports, tags));
        }
    }
    found
}

/// Nodes of one cluster's tag that reach Redis of another's.
fn across(name: &str, src: &Who, nodes: &[&String], ports: &Ports, tags: &Tags) -> Option<String> {
    let Who::Tag(from) = src else { return None };
    let others: Vec<&String> = nodes.iter().copied().filter(|tag| *tag != from).collect();
    let crosses = tags.nodes.contains(from) && !others.is_empty() && ports.has(REDIS_PORT);
    crosses.then(|| {
        format!("{name} lets nodes with {from} reach Redis of nodes with {}: clusters with tags of their own stay apart", list(others))
    })
}

/// Who sees nodes in quarantine. A connection that is open when a node is put there goes on for as
/// long as the two see each other.
fn open_quarantine(rule: &Rule, tags: &Tags) -> Option<String> {
    let quarantine = &tags.quarantine;
    let operator = Who::Tag(tags.operator.clone());
    let real = |who: &&Who| **who != Who::Elsewhere;
    let mut others: BTreeSet<String> = BTreeSet::new();
    let mut redis = false;
    for (_, ports) in rule.dst.iter().filter(|(whom, _)| whom.covers(quarantine)) {
        for src in rule.src.iter().filter(real) {
            let more_than_the_agent = ports.has(REDIS_PORT) || ports.has(SOCKS5_PORT);
            if *src != operator || more_than_the_agent {
                others.insert(src.to_string());
                redis |= ports.has(REDIS_PORT);
            }
        }
    }
    if rule.src.iter().any(|src| src.covers(quarantine)) {
        others.extend(rule.dst.iter().map(|(whom, _)| whom).filter(real).map(ToString::to_string));
    }
    let reach = if redis { ", Redis included" } else { "" };
    let with = list(&others);
    (!others.is_empty()).then(|| {
        format!(
            "{} lets nodes in quarantine ({quarantine}) and {with} see each other{reach}: a connection that is open when a node is put there goes on; nothing but {} on tcp:{AGENT_PORT} may name {quarantine}",
            rule.name, tags.operator
        )
    })
}

fn missing_owners(policy: &Policy, tags: &Tags) -> Vec<String> {
    let mut missing = Vec::new();
    let operator = &tags.operator;
    if !policy.tag_owners.contains_key(operator) {
        missing.push(format!("{operator} is not declared in tagOwners, so neither the OAuth client nor the operator's device can have it"));
    }
    let handed_out = tags.nodes.iter().map(|tag| (tag, "no key for a node can be minted"));
    for (tag, so) in handed_out.chain([(&tags.quarantine, "no node can be put in quarantine")]) {
        match policy.tag_owners.get(tag) {
            None => missing.push(format!("{tag} is not declared in tagOwners, so {so}")),
            Some(owners) if !owners.contains(operator) => {
                missing.push(format!("tagOwners does not give {tag} to {operator}, so {so}, unless the OAuth client has {tag} itself"));
            }
            Some(_) => {}
        }
    }
    missing
}

fn missing_rules(rules: &Rules, tags: &Tags) -> Vec<String> {
    let Tags { nodes, operator, quarantine } = tags;
    let mut missing = Vec::new();
    for tag in nodes {
        if !rules.reaches(tag, tag, REDIS_PORT) {
            missing.push(format!("nothing lets nodes with {tag} reach each other on tcp:{REDIS_PORT}, so no replica can follow its master"));
        }
        if !rules.reaches(operator, tag, AGENT_PORT) {
            missing.push(format!("nothing lets {operator} reach nodes with {tag} on tcp:{AGENT_PORT}, so the operator sees none of them"));
        }
    }
    if !rules.reaches(operator, quarantine, AGENT_PORT) {
        missing.push(format!(
            "nothing lets {operator} reach nodes in quarantine ({quarantine}) on tcp:{AGENT_PORT}, so the data of a node that is put there is out of reach"
        ));
    }
    missing
}

fn list<'a>(names: impl IntoIterator<Item = &'a String>) -> String {
    names.into_iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}
