//! What a monitoring system reads of the operator.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::api::status::Status;

/// Names a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Cluster {
    cluster: String,
}

/// Names a condition of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ClusterCondition {
    cluster: String,
    condition: String,
}

/// Names a kind of effect and how it ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EffectEnd {
    cluster: String,
    ok: String,
}

/// All of them.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    condition: Family<ClusterCondition, Gauge>,
    epoch: Family<Cluster, Gauge<u64, AtomicU64>>,
    nodes: Family<Cluster, Gauge>,
    effects: Family<EffectEnd, Counter>,
}

impl Metrics {
    /// Registers all of them under `akash_redis_`.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let ours = registry.sub_registry_with_prefix("akash_redis");
        ours.register("condition", "Conditions of a cluster: 1 true, 0 false, -1 unknown", metrics.condition.clone());
        ours.register("epoch", "Epoch of a cluster: goes up with each change of master", metrics.epoch.clone());
        ours.register("nodes", "Nodes of a cluster that are master or replica in sync", metrics.nodes.clone());
        ours.register("effects", "Calls that change the outside world, by how they ended", metrics.effects.clone());
        metrics
    }

    /// What was published about a cluster.
    pub fn status(&self, cluster: &str, status: &Status) {
        for condition in &status.conditions {
            let value = match condition.status.as_str() {
                "True" => 1,
                "False" => 0,
                _ => -1,
            };
            let labels = ClusterCondition { cluster: cluster.to_owned(), condition: condition.kind.clone() };
            self.condition.get_or_create(&labels).set(value);
        }
        let labels = Cluster { cluster: cluster.to_owned() };
        self.epoch.get_or_create(&labels).set(status.epoch);
        let serving = status.nodes.iter().filter(|n| matches!(n.phase.as_str(), "Master" | "Replica")).count();
        self.nodes.get_or_create(&labels).set(i64::try_from(serving).unwrap_or(i64::MAX));
    }

    /// An effect ended.
    pub fn effect(&self, cluster: &str, ok: bool) {
        self.effects.get_or_create(&EffectEnd { cluster: cluster.to_owned(), ok: ok.to_string() }).inc();
    }

    /// A cluster is gone.
    pub fn forget(&self, cluster: &str) {
        let labels = Cluster { cluster: cluster.to_owned() };
        self.epoch.remove(&labels);
        self.nodes.remove(&labels);
        for condition in ["Ready", "Progressing", "Degraded", "Funded"] {
            self.condition.remove(&ClusterCondition { cluster: cluster.to_owned(), condition: condition.to_owned() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::status::Condition;

    #[test]
    fn what_is_published_can_be_read_and_goes_with_the_cluster() {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        let condition = Condition { kind: "Ready".into(), status: "True".into(), ..Condition::default() };
        metrics.status("cache", &Status { epoch: 7, conditions: vec![condition], ..Status::default() });
        let text = |registry: &Registry| {
            let mut text = String::new();
            prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
            text
        };
        let shown = text(&registry);
        assert!(shown.contains("akash_redis_condition{cluster=\"cache\",condition=\"Ready\"} 1"), "{shown}");
        assert!(shown.contains("akash_redis_epoch{cluster=\"cache\"} 7"), "{shown}");
        metrics.forget("cache");
        assert!(!text(&registry).contains("cache"));
    }
}
