//! What a person says about a cluster's master, as it stands in the annotations of its manifest.

use std::fmt;

use super::annotations::{ACCEPT_LOSS, FENCE};
use super::types::RedisCluster;

/// Characters of a person's name that are kept.
const LONGEST_NAME: usize = 100;
/// What stands before it.
const BY: &str = "by=";
/// What stands before who takes over.
const TO: &str = "to=";

/// The loss of what nobody who answers holds was accepted: `4`, or
/// `4 to=cache-2-x7k2 by=ann@laptop`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AcceptedLoss {
    /// For this epoch, and no other.
    pub epoch: u64,
    /// The incarnation that shall take over; the best one where nobody is named.
    pub to: Option<String>,
    /// Who said so.
    pub by: Option<String>,
}

impl AcceptedLoss {
    /// What the manifest says; `None` when it says nothing, or nothing that is understood.
    #[must_use]
    pub fn of(cluster: &RedisCluster) -> Option<Self> {
        let mut words = cluster.metadata.annotations.get(ACCEPT_LOSS)?.split_whitespace();
        let epoch = words.next()?.parse().ok()?;
        let mut said = Self { epoch, ..Self::default() };
        for word in words {
            said.to = word.strip_prefix(TO).map(str::to_owned).or(said.to);
            said.by = word.strip_prefix(BY).map(person).or(said.by);
        }
        Some(said)
    }
}

impl fmt::Display for AcceptedLoss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.epoch)?;
        if let Some(to) = &self.to {
            write!(f, " {TO}{to}")?;
        }
        self.by.as_ref().map_or(Ok(()), |by| write!(f, " {BY}{by}"))
    }
}

/// A node that takes no writes and becomes no master: `1`, `cache-1-x7k2`, or `1 by=ann@laptop`;
/// several with commas between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fenced {
    /// The node, by number or by the name of the incarnation that fills it.
    pub node: String,
    /// Who said so.
    pub by: Option<String>,
}

impl Fenced {
    /// All that the manifest names.
    #[must_use]
    pub fn of(cluster: &RedisCluster) -> Vec<Self> {
        let said = cluster.metadata.annotations.get(FENCE).map_or("", String::as_str);
        let one = |text: &str| {
            let mut words = text.split_whitespace();
            let node = words.next()?.to_owned();
            Some(Self { node, by: words.find_map(|w| w.strip_prefix(BY)).map(person) })
        };
        said.split(',').filter_map(one).collect()
    }

    /// This incarnation, which fills this node, is meant.
    #[must_use]
    pub fn means(&self, ordinal: u32, incarnation: &str) -> bool {
        self.node == incarnation || self.node.parse() == Ok(ordinal)
    }

    /// All of them as one text.
    #[must_use]
    pub fn together(all: &[Self]) -> String {
        all.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
    }
}

impl fmt::Display for Fenced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.node)?;
        self.by.as_ref().map_or(Ok(()), |by| write!(f, " {BY}{by}"))
    }
}

/// A person's name as it may stand in an annotation: what else is in it is left out.
#[must_use]
pub fn person(name: &str) -> String {
    let good = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '@');
    name.chars().filter(good).take(LONGEST_NAME).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(annotation: &str, value: &str) -> RedisCluster {
        serde_json::from_value(serde_json::json!({
            "apiVersion": "akash-redis.dev/v1alpha1", "kind": "RedisCluster",
            "metadata": {"name": "cache", "annotations": {annotation: value}}, "spec": {"nodes": 3}
        }))
        .expect("a manifest")
    }

    #[test]
    fn an_accepted_loss_is_read_as_it_is_written() {
        let said = |to: Option<&str>, by: Option<&str>| AcceptedLoss {
            epoch: 4,
            to: to.map(str::to_owned),
            by: by.map(str::to_owned),
        };
        for (text, word) in [
            ("4", said(None, None)),
            ("4 by=ann@laptop", said(None, Some("ann@laptop"))),
            ("4 to=cache-2-a by=ann@laptop", said(Some("cache-2-a"), Some("ann@laptop"))),
        ] {
            assert_eq!(AcceptedLoss::of(&cluster(ACCEPT_LOSS, text)), Some(word.clone()), "{text}");
            assert_eq!(word.to_string(), text);
        }
        for text in ["", "yes", "-1", "to=cache-2-a 4"] {
            assert_eq!(AcceptedLoss::of(&cluster(ACCEPT_LOSS, text)), None, "{text:?}");
        }
    }

    #[test]
    fn fences_are_read_as_they_are_written() {
        let all = Fenced::of(&cluster(FENCE, " 1 , cache-2-a by=ann@laptop,"));
        assert_eq!(Fenced::together(&all), "1,cache-2-a by=ann@laptop");
        assert!(all[0].means(1, "cache-1-x") && !all[0].means(2, "cache-2-a"));
        assert!(all[1].means(2, "cache-2-a") && !all[1].means(2, "cache-2-b"));
        assert_eq!(Fenced::of(&cluster(FENCE, "")), []);
        assert_eq!(person("ann, \n by=x@y"), "annbyx@y");
    }
}
