//! What the Redis of each node has to do.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::lock;
use crate::model::node::{RedisState, Role};

/// Names a node of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
struct NodeName {
    cluster: String,
    node: String,
}

type Gauges = Family<NodeName, Gauge<u64, AtomicU64>>;

/// Each value with its name, its help, and how it is read; `None` where it is not known.
type Value = (&'static str, &'static str, fn(&RedisState) -> Option<u64>);

const VALUES: [Value; 9] = [
    ("node_master", "Whether the redis of a node is a master by its own word", |redis| {
        Some(u64::from(redis.role == Role::Master))
    }),
    ("node_offset_bytes", "Offset of the history that a node has written or applied", |redis| {
        u64::try_from(redis.offset).ok()
    }),
    ("node_memory_bytes", "Memory in use by the redis of a node", |redis| {
        Some(redis.used_memory_bytes)
    }),
    ("node_maxmemory_bytes", "Memory that the redis of a node may fill", |redis| {
        Some(redis.health.maxmemory_bytes).filter(|bytes| *bytes > 0)
    }),
    ("node_keys", "Keys of a node, in all databases", |redis| Some(redis.keys)),
    (
        "node_ops_per_second",
        "Commands that a node carries out per second, as Redis samples it",
        |redis| redis.load.map(|load| load.ops_per_second),
    ),
    ("node_clients", "Open connections of clients to a node", |redis| {
        redis.load.map(|load| load.clients)
    }),
    (
        "node_evicted_keys",
        "Keys of a node that made room for others since its redis started",
        |redis| redis.load.map(|load| load.evicted_keys),
    ),
    (
        "node_last_save_timestamp_seconds",
        "When the data of a node were last written as a snapshot, or its redis started",
        |redis| redis.load.map(|load| load.last_save_seconds).filter(|at| *at > 0),
    ),
];

/// Values by node.
#[derive(Clone, Debug)]
pub struct Loads {
    gauges: [Gauges; VALUES.len()],
    /// Those that are shown, by cluster: who is not heard any more has no value.
    shown: Arc<Mutex<BTreeMap<String, BTreeSet<NodeName>>>>,
}

impl Default for Loads {
    fn default() -> Self {
        Self { gauges: std::array::from_fn(|_| Gauges::default()), shown: Arc::default() }
    }
}

impl Loads {
    pub(super) fn register(&self, ours: &mut Registry) {
        for ((name, help, _), gauges) in VALUES.iter().zip(&self.gauges) {
            ours.register(*name, *help, gauges.clone());
        }
    }

    /// The nodes of a cluster that are heard; others have no value from now on.
    pub fn show(&self, cluster: &str, heard: &BTreeMap<String, &RedisState>) {
        let mut seen = BTreeSet::new();
        for (node, redis) in heard {
            let name = NodeName { cluster: cluster.to_owned(), node: node.clone() };
            for ((_, _, value), gauges) in VALUES.iter().zip(&self.gauges) {
                match value(redis) {
                    Some(value) => drop(gauges.get_or_create(&name).set(value)),
                    None => drop(gauges.remove(&name)),
                }
            }
            seen.insert(name);
        }
        let mut shown = lock(&self.shown);
        for gone in shown.remove(cluster).unwrap_or_default().difference(&seen) {
            for gauges in &self.gauges {
                gauges.remove(gone);
            }
        }
        if !seen.is_empty() {
            shown.insert(cluster.to_owned(), seen);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::node::Load;

    #[test]
    fn a_node_has_values_as_long_as_it_is_heard() {
        let (mut registry, loads) = (Registry::default(), Loads::default());
        loads.register(&mut registry);
        let text = |registry: &Registry| {
            let mut text = String::new();
            prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
            text
        };
        let said = Load { ops_per_second: 41, clients: 3, evicted_keys: 0, last_save_seconds: 7 };
        let redis = RedisState { role: Role::Master, load: Some(said), ..RedisState::default() };
        let of_old = RedisState { role: Role::Replica, ..RedisState::default() };
        let heard = BTreeMap::from([("a".to_owned(), &redis), ("b".to_owned(), &of_old)]);
        loads.show("cache", &heard);
        let shown = text(&registry);
        for line in [
            "node_master{cluster=\"cache\",node=\"a\"} 1",
            "node_master{cluster=\"cache\",node=\"b\"} 0",
            "node_ops_per_second{cluster=\"cache\",node=\"a\"} 41",
            "node_last_save_timestamp_seconds{cluster=\"cache\",node=\"a\"} 7",
        ] {
            assert!(shown.contains(line), "{line} in\n{shown}");
        }
        assert!(!shown.contains("node_clients{cluster=\"cache\",node=\"b\"}"), "{shown}");
        loads.show("cache", &BTreeMap::new());
        assert!(!text(&registry).contains("cache"), "{}", text(&registry));
    }
}
