//! What a monitoring system reads of the operator.

mod backup;
mod chain;
mod effects;
mod intervals;
mod lag;
mod load;
mod money;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use strum::IntoEnumIterator as _;

use super::lock;
use crate::api::conditions::{ConditionStatus, ConditionType};
use crate::api::status::Status;
use crate::model::ids::IncarnationName;
use crate::model::node::{NodeView, PathKind, PeerPath, RedisState};

/// Names a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Cluster {
    cluster: String,
}

/// Names something outside that every cluster needs.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SourceName {
    source: String,
}

/// Names a condition of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ClusterCondition {
    cluster: String,
    condition: String,
}

/// Names the path from a node to a peer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
struct PathLabels {
    cluster: String,
    node: String,
    peer: String,
}

/// What is known of the paths between nodes.
#[derive(Clone, Debug, Default)]
struct Paths {
    rtt: Family<PathLabels, Gauge<f64, AtomicU64>>,
    direct: Family<PathLabels, Gauge>,
    received: Family<PathLabels, Gauge<u64, AtomicU64>>,
    sent: Family<PathLabels, Gauge<u64, AtomicU64>>,
    /// Those that are shown, by cluster: what is no longer there must not look as if it were.
    shown: Arc<Mutex<BTreeMap<String, BTreeSet<PathLabels>>>>,
}

/// All of them.
#[derive(Clone, Debug)]
pub struct Metrics {
    condition: Family<ClusterCondition, Gauge>,
    epoch: Family<Cluster, Gauge<u64, AtomicU64>>,
    nodes: Family<Cluster, Gauge>,
    /// What is done outside.
    pub effects: effects::Effects,
    /// How long changes of master take.
    pub intervals: intervals::Intervals,
    /// Where the chain is.
    pub chain: chain::Chain,
    reconcile: Histogram,
    paths: Paths,
    source: Family<SourceName, Gauge>,
    /// What it costs, and what may be spent.
    pub money: money::Money,
    backups: backup::Backups,
    lag: lag::Lag,
    load: load::Loads,
    works: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        // From 0.1 ms to a third of a second.
        let reconcile = Histogram::new(exponential_buckets(1e-4, 1.5, 21));
        let (condition, epoch, nodes) = Default::default();
        Self {
            condition,
            epoch,
            nodes,
            effects: effects::Effects::default(),
            intervals: intervals::Intervals::default(),
            chain: chain::Chain::default(),
            reconcile,
            paths: Paths::default(),
            source: Family::default(),
            money: money::Money::default(),
            backups: backup::Backups::default(),
            lag: lag::Lag::default(),
            load: load::Loads::default(),
            works: Gauge::default(),
        }
    }
}

impl Metrics {
    /// Registers all of them under `akash_redis_`.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let ours = registry.sub_registry_with_prefix("akash_redis");
        ours.register(
            "works",
            "Whether this operator works: 0 while it waits for another one to end",
            metrics.works.clone(),
        );
        ours.register(
            "condition",
            "Conditions of a cluster: 1 true, 0 false, -1 unknown",
            metrics.condition.clone(),
        );
        ours.register(
            "epoch",
            "Epoch of a cluster: goes up with each change of master",
            metrics.epoch.clone(),
        );
        ours.register(
            "nodes",
            "Nodes of a cluster that are master or replica in sync",
            metrics.nodes.clone(),
        );
        ours.register(
            "reconcile_seconds",
            "Time from a cluster's turn to the end of its plan, with what was written",
            metrics.reconcile.clone(),
        );
        ours.register(
            "source_up",
            "Whether the chain, the tailnet's control API and the mesh answer the operator",
            metrics.source.clone(),
        );
        metrics.effects.register(ours);
        metrics.intervals.register(ours);
        metrics.chain.register(ours);
        metrics.money.register(ours);
        metrics.backups.register(ours);
        metrics.lag.register(ours);
        metrics.load.register(ours);
        let paths = &metrics.paths;
        ours.register(
            "path_rtt_seconds",
            "Round trip of the mesh between two nodes, as last measured",
            paths.rtt.clone(),
        );
        ours.register(
            "path_direct",
            "Whether two nodes reach each other without a relay",
            paths.direct.clone(),
        );
        ours.register(
            "path_received_bytes",
            "Bytes from the peer since the node's tailscaled started",
            paths.received.clone(),
        );
        ours.register(
            "path_sent_bytes",
            "Bytes to the peer since the node's tailscaled started",
            paths.sent.clone(),
        );
        metrics
    }

    /// It is this operator's turn.
    pub fn works(&self) {
        self.works.set(1);
    }

    /// What was published about a cluster.
    pub fn status(&self, cluster: &str, status: &Status) {
        for condition in &status.conditions {
            let value = match condition.status {
                ConditionStatus::True => 1,
                ConditionStatus::False => 0,
                ConditionStatus::Unknown => -1,
            };
            let labels = ClusterCondition {
                cluster: cluster.to_owned(),
                condition: condition.kind.to_string(),
            };
            self.condition.get_or_create(&labels).set(value);
        }
        let labels = Cluster { cluster: cluster.to_owned() };
        self.epoch.get_or_create(&labels).set(status.epoch);
        let serving = status.nodes.iter().filter(|n| n.phase.is_serving()).count();
        self.nodes.get_or_create(&labels).set(i64::try_from(serving).unwrap_or(i64::MAX));
        self.backups.status(cluster, status);
        self.lag.status(cluster, status);
    }

    /// What the Redis of each node that is heard has to do.
    pub fn nodes_of(&self, cluster: &str, heard: &BTreeMap<String, &RedisState>) {
        self.load.show(cluster, heard);
    }

    /// What the connected nodes of a cluster say of the paths to each other.
    pub fn paths<'a>(
        &self,
        cluster: &str,
        nodes: impl Iterator<Item = (&'a IncarnationName, &'a NodeView)>,
    ) {
        let mut seen = BTreeSet::new();
        for (node, view) in nodes.filter(|(_, view)| view.connected) {
            for path in view.state.mesh.paths.iter().filter(|path| path.kind != PathKind::Unknown) {
                let labels = PathLabels {
                    cluster: cluster.to_owned(),
                    node: node.0.clone(),
                    peer: path.name.clone(),
                };
                self.paths.show(&labels, path);
                seen.insert(labels);
            }
        }
        self.paths.keep(cluster, seen);
    }

    /// Something outside answers, or does not.
    pub fn source(&self, name: &str, up: bool) {
        self.source.get_or_create(&SourceName { source: name.to_owned() }).set(i64::from(up));
    }

    /// A cluster was planned.
    pub fn reconciled(&self, took: Duration) {
        self.reconcile.observe(took.as_secs_f64());
    }

    /// A cluster is gone.
    pub fn forget(&self, cluster: &str) {
        let labels = Cluster { cluster: cluster.to_owned() };
        self.epoch.remove(&labels);
        self.nodes.remove(&labels);
        self.paths.keep(cluster, BTreeSet::new());
        self.effects.forget(cluster);
        self.intervals.forget(cluster);
        self.money.forget(cluster);
        self.backups.status(cluster, &Status::default());
        self.lag.status(cluster, &Status::default());
        self.load.show(cluster, &BTreeMap::new());
        for condition in ConditionType::iter() {
            self.condition.remove(&ClusterCondition {
                cluster: cluster.to_owned(),
                condition: condition.to_string(),
            });
        }
    }
}

impl Paths {
    fn show(&self, labels: &PathLabels, path: &PeerPath) {
        self.direct.get_or_create(labels).set(i64::from(!path.relayed()));
        self.received.get_or_create(labels).set(path.rx_bytes);
        self.sent.get_or_create(labels).set(path.tx_bytes);
        if path.rtt_us == 0 {
            self.rtt.remove(labels);
        } else {
            self.rtt.get_or_create(labels).set(Duration::from_micros(path.rtt_us).as_secs_f64());
        }
    }

    /// Only these are left of a cluster.
    fn keep(&self, cluster: &str, seen: BTreeSet<PathLabels>) {
        let mut shown = lock(&self.shown);
        let before = shown.remove(cluster).unwrap_or_default();
        for gone in before.difference(&seen) {
            self.rtt.remove(gone);
            self.direct.remove(gone);
            self.received.remove(gone);
            self.sent.remove(gone);
        }
        if !seen.is_empty() {
            shown.insert(cluster.to_owned(), seen);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::status::Condition;
    use crate::model::node::NodeState;
    use crate::model::time::UnixMs;

    #[test]
    fn what_is_published_can_be_read_and_goes_with_the_cluster() {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        let condition = Condition {
            kind: ConditionType::Ready,
            status: ConditionStatus::True,
            ..Condition::default()
        };
        metrics.status(
            "cache",
            &Status { epoch: 7, conditions: vec![condition], ..Status::default() },
        );
        let text = |registry: &Registry| {
            let mut text = String::new();
            prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
            text
        };
        let shown = text(&registry);
        assert!(
            shown.contains("akash_redis_condition{cluster=\"cache\",condition=\"Ready\"} 1"),
            "{shown}"
        );
        assert!(shown.contains("akash_redis_epoch{cluster=\"cache\"} 7"), "{shown}");
        let path = PeerPath {
            name: "b".into(),
            kind: PathKind::Derp,
            rtt_us: 1500,
            rx_bytes: 3,
            ..PeerPath::default()
        };
        let mut view = NodeView { heard: UnixMs(0), connected: true, state: NodeState::default() };
        view.state.mesh.paths = vec![path];
        let node = IncarnationName("a".into());
        metrics.paths("cache", std::iter::once((&node, &view)));
        let shown = text(&registry);
        assert!(
            shown.contains(
                "akash_redis_path_rtt_seconds{cluster=\"cache\",node=\"a\",peer=\"b\"} 0.0015"
            ),
            "{shown}"
        );
        assert!(
            shown.contains("akash_redis_path_direct{cluster=\"cache\",node=\"a\",peer=\"b\"} 0"),
            "{shown}"
        );
        view.connected = false;
        metrics.paths("cache", std::iter::once((&node, &view)));
        assert!(
            !text(&registry).contains("peer="),
            "a node that is silent says nothing of its paths"
        );
        view.connected = true;
        metrics.paths("cache", std::iter::once((&node, &view)));
        metrics.forget("cache");
        assert!(!text(&registry).contains("cache"));
    }
}
