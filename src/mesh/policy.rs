//! The tailnet's policy: what is needed of it, and what is wrong with the one in force. No I/O.

mod evaluate;
mod hujson;
mod rules;
#[cfg(test)]
mod tests;
mod text;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use crate::config::MeshTags;
use crate::model::ports::{AGENT_PORT, REDIS_PORT, SENTINEL_PORT, SOCKS5_PORT};

pub use evaluate::{Finding, Kind, evaluate};

/// The tags that the policy tells apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tags {
    /// Of nodes: the settings' `mesh.tag`, and each `spec.mesh.tag` of a manifest.
    pub nodes: BTreeSet<String>,
    /// Of the operator's device and its OAuth client.
    pub operator: String,
    /// Of nodes that only the operator may reach.
    pub quarantine: String,
}

impl Tags {
    /// Those of the settings, with those that manifests name for their nodes.
    #[must_use]
    pub fn new(settings: MeshTags, manifests: impl IntoIterator<Item = String>) -> Self {
        let nodes = manifests.into_iter().chain([settings.nodes]).collect();
        Self { nodes, operator: settings.operator, quarantine: settings.quarantine }
    }
}

/// The sections of a policy that decide who reaches whom. Others are read over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Policy {
    /// Who may give a tag to a device.
    #[serde(deserialize_with = "lists")]
    pub tag_owners: BTreeMap<String, Vec<String>>,
    /// Names for people.
    #[serde(deserialize_with = "lists")]
    pub groups: BTreeMap<String, Vec<String>>,
    /// Names for addresses.
    #[serde(deserialize_with = "null_is_empty")]
    pub hosts: BTreeMap<String, String>,
    /// Who reaches whom; `None` when the section is not there at all.
    #[serde(deserialize_with = "some")]
    pub grants: Option<Vec<Grant>>,
    /// The same in the older form.
    #[serde(deserialize_with = "some")]
    pub acls: Option<Vec<Acl>>,
    /// What the control server checks before it takes the policy.
    #[serde(deserialize_with = "null_is_empty")]
    pub tests: Vec<Test>,
    /// What devices are told beside their addresses.
    #[serde(deserialize_with = "null_is_empty")]
    pub node_attrs: Vec<NodeAttr>,
}

/// With it a device keeps its network map on disk, and finds the others again when it restarts while
/// the control server is away.
pub const CACHE_NETWORK_MAPS: &str = "cache-network-maps";

/// Attributes of the devices that `target` names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct NodeAttr {
    /// Whose.
    pub target: Vec<String>,
    /// Names, e.g. `cache-network-maps`.
    pub attr: Vec<String>,
}

/// Whoever `src` names reaches whomever `dst` names, by `ip`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Grant {
    /// Who may connect.
    pub src: Vec<String>,
    /// To whom.
    pub dst: Vec<String>,
    /// By what, e.g. `tcp:6379`.
    pub ip: Vec<String>,
    /// What it is for; a comment in the printed policy.
    #[serde(skip)]
    pub why: &'static str,
}

/// A rule of the older form: ports are part of `dst`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Acl {
    /// `accept`; there is no other.
    pub action: String,
    /// Protocol; absent means TCP and UDP.
    pub proto: Option<String>,
    /// Who may connect.
    #[serde(alias = "users")]
    pub src: Vec<String>,
    /// Whom, e.g. `tag:a:6379`.
    #[serde(alias = "ports")]
    pub dst: Vec<String>,
}

/// What must be so; the control server refuses a policy in which it is not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Test {
    /// Whose connections are tried.
    pub src: String,
    /// these must be reached, e.g. `tag:a:6379`,
    pub accept: Vec<String>,
    /// and these must not.
    pub deny: Vec<String>,
}

/// The policy cannot be read.
#[derive(Debug, thiserror::Error)]
#[error(
    "the policy is not understood (line {line} column {column}), so nothing can be said about it; look at it in the control server"
)]
pub struct NotAPolicy {
    line: usize,
    column: usize,
}

impl Policy {
    /// Reads a policy as people write it: JSON, with comments and trailing commas allowed.
    ///
    /// # Errors
    /// It is not JSON, or a section does not have the form it should have.
    pub fn parse(text: &str) -> Result<Self, NotAPolicy> {
        let text = hujson::plain(text);
        // A list would be read as the sections in their order.
        let is_map = serde_json::from_str::<Map<String, Value>>(&text);
        is_map
            .and_then(|_| serde_json::from_str(&text))
            .map_err(|error| NotAPolicy { line: error.line(), column: error.column() })
    }
}

/// The policy with which clusters work and nobody reaches more than they must. What else is on the
/// tailnet is not part of it: applications get a grant of their own to `tcp:6379`.
#[must_use]
pub fn wanted(tags: &Tags) -> Policy {
    let owned = || vec![tags.operator.clone()];
    let mut tag_owners: BTreeMap<_, _> =
        tags.nodes.iter().map(|tag| (tag.clone(), owned())).collect();
    tag_owners.insert(tags.quarantine.clone(), owned());
    // Without owners a tag is given out by the tailnet's admins, who make the OAuth client.
    tag_owners.insert(tags.operator.clone(), Vec::new());
    let grant = |src: &str, dst: &str, ports: &[u16], why| Grant {
        src: vec![src.to_owned()],
        dst: vec![dst.to_owned()],
        ip: ports.iter().map(|port| format!("tcp:{port}")).collect(),
        why,
    };
    let mut grants = Vec::new();
    for node in &tags.nodes {
        grants.push(grant(
            node,
            node,
            &[REDIS_PORT, SENTINEL_PORT],
            "Replication: the nodes of a cluster reach Redis of each other.",
        ));
        // `akash-redis proxy` beside the operator goes through the operator's tailscaled, and so
        // under the operator's tag.
        let why = "The operator reaches the agents; 6379 and 26379 are for `akash-redis proxy` beside it.";
        grants.push(grant(&tags.operator, node, &[AGENT_PORT, REDIS_PORT, SENTINEL_PORT], why));
    }
    let why = "A node in quarantine sees the operator and nobody else: that is what cuts its connections.";
    grants.push(grant(&tags.operator, &tags.quarantine, &[AGENT_PORT], why));
    let target = tags.nodes.iter().chain([&tags.operator]).cloned().collect();
    let cached = NodeAttr { target, attr: vec![CACHE_NETWORK_MAPS.to_owned()] };
    Policy {
        tag_owners,
        grants: Some(grants),
        tests: tests_of(tags),
        node_attrs: vec![cached],
        ..Policy::default()
    }
}

fn tests_of(tags: &Tags) -> Vec<Test> {
    let all = |targets: &[(&String, u16)]| {
        targets.iter().map(|(tag, port)| format!("{tag}:{port}")).collect::<Vec<_>>()
    };
    let quarantine = &tags.quarantine;
    let cut_off = [(quarantine, REDIS_PORT), (quarantine, AGENT_PORT), (quarantine, SOCKS5_PORT)];
    let mut tests = Vec::new();
    for node in &tags.nodes {
        let others =
            tags.nodes.iter().filter(|other| *other != node).map(|other| (other, REDIS_PORT));
        let deny: Vec<_> = [(node, SOCKS5_PORT), (node, AGENT_PORT)]
            .into_iter()
            .chain(cut_off)
            .chain(others)
            .collect();
        tests.push(Test {
            src: node.clone(),
            accept: all(&[(node, REDIS_PORT), (node, SENTINEL_PORT)]),
            deny: all(&deny),
        });
        let (accept, deny) = ([(node, AGENT_PORT), (node, REDIS_PORT)], [(node, SOCKS5_PORT)]);
        tests.push(Test { src: tags.operator.clone(), accept: all(&accept), deny: all(&deny) });
    }
    let (accept, deny) =
        ([(quarantine, AGENT_PORT)], [(quarantine, REDIS_PORT), (quarantine, SOCKS5_PORT)]);
    tests.push(Test { src: tags.operator.clone(), accept: all(&accept), deny: all(&deny) });
    let nodes = tags.nodes.iter().flat_map(|node| [(node, REDIS_PORT), (node, AGENT_PORT)]);
    let deny: Vec<_> = nodes.chain(cut_off).collect();
    tests.push(Test { src: quarantine.clone(), accept: Vec::new(), deny: all(&deny) });
    tests
}

/// A section that is there, even if it says `null`.
fn some<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    null_is_empty(deserializer).map(Some)
}

fn null_is_empty<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

fn lists<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, Vec<String>>, D::Error> {
    let lists: BTreeMap<String, Option<Vec<String>>> = null_is_empty(deserializer)?;
    Ok(lists.into_iter().map(|(name, list)| (name, list.unwrap_or_default())).collect())
}
