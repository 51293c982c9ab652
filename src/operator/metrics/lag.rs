//! How far the replicas are behind their master.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::lock;
use crate::api::status::Status;

/// Names a node of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
struct NodeName {
    cluster: String,
    node: String,
}

/// Lag by node.
#[derive(Clone, Debug, Default)]
pub struct Lag {
    bytes: Family<NodeName, Gauge>,
    seconds: Family<NodeName, Gauge>,
    /// Those that are shown, by cluster: what is not known any more is not shown as if it were.
    shown: Arc<Mutex<BTreeMap<String, BTreeSet<NodeName>>>>,
}

impl Lag {
    pub(super) fn register(&self, ours: &mut Registry) {
        ours.register(
            "replica_lag_bytes",
            "Bytes of history that a replica lacks of its master's",
            self.bytes.clone(),
        );
        ours.register(
            "replica_lag_seconds",
            "Seconds since the oldest write of its master that a replica did not acknowledge",
            self.seconds.clone(),
        );
    }

    /// What was published about a cluster.
    pub fn status(&self, cluster: &str, status: &Status) {
        let mut seen = BTreeSet::new();
        for node in &status.nodes {
            let name = NodeName { cluster: cluster.to_owned(), node: node.incarnation.clone() };
            let (Some(bytes), Some(seconds)) = (node.lag_bytes, node.lag_seconds) else { continue };
            self.bytes.get_or_create(&name).set(bytes);
            self.seconds.get_or_create(&name).set(i64::try_from(seconds).unwrap_or(i64::MAX));
            seen.insert(name);
        }
        let mut shown = lock(&self.shown);
        for gone in shown.remove(cluster).unwrap_or_default().difference(&seen) {
            self.bytes.remove(gone);
            self.seconds.remove(gone);
        }
        if !seen.is_empty() {
            shown.insert(cluster.to_owned(), seen);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::status::NodeStatus;

    #[test]
    fn the_lag_of_a_replica_is_shown_as_long_as_it_is_known() {
        let (mut registry, lag) = (Registry::default(), Lag::default());
        lag.register(&mut registry);
        let text = |registry: &Registry| {
            let mut text = String::new();
            prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
            text
        };
        let of = |bytes| {
            let node = NodeStatus {
                incarnation: "cache-1-a".into(),
                lag_bytes: bytes,
                lag_seconds: bytes.map(|_| 7),
                ..NodeStatus::default()
            };
            Status { nodes: vec![node], ..Status::default() }
        };
        lag.status("cache", &of(Some(5)));
        let shown = text(&registry);
        let label = "{cluster=\"cache\",node=\"cache-1-a\"}";
        assert!(shown.contains(&format!("replica_lag_bytes{label} 5")), "{shown}");
        assert!(shown.contains(&format!("replica_lag_seconds{label} 7")), "{shown}");
        lag.status("cache", &of(None));
        assert!(!text(&registry).contains(label), "{}", text(&registry));
    }
}
