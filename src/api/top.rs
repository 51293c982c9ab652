//! What each node has to do at this moment, for `top`, the page and programs.

use serde::{Deserialize, Serialize};

use super::conditions::Phase;
use super::status::{NodeStatus, Status};
use crate::model::node::RedisState;
use crate::model::time::UnixMs;

/// All nodes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopReport {
    /// By cluster and ordinal.
    pub items: Vec<TopNode>,
}

/// One node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopNode {
    /// Its cluster.
    pub cluster: String,
    /// Its number in it.
    pub ordinal: u32,
    /// Its name.
    pub incarnation: String,
    /// What it is.
    pub role: Phase,
    /// Bytes behind the master.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag_bytes: Option<i64>,
    /// Seconds since the oldest write of the master that it did not acknowledge.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag_seconds: Option<u64>,
    /// What its Redis has to do; none while it is not heard.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load: Option<NodeLoad>,
    /// The escrow of the cluster that ends first pays for so long; empty while none is known.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub runway: String,
}

/// What the Redis of a node has to do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeLoad {
    /// Commands of the last moments.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ops_per_second: Option<u64>,
    /// Open connections of clients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clients: Option<u64>,
    /// Memory in use, bytes.
    pub memory_bytes: u64,
    /// Memory it may fill, bytes; 0 where that is not known.
    pub maxmemory_bytes: u64,
    /// Keys in all databases.
    pub keys: u64,
    /// Keys that made room for others since it started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evicted_keys: Option<u64>,
    /// When its data were last written as a snapshot, or it started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_save: Option<String>,
}

impl From<&RedisState> for NodeLoad {
    fn from(redis: &RedisState) -> Self {
        let saved = redis.load.map(|load| load.last_save_seconds).filter(|at| *at > 0);
        Self {
            ops_per_second: redis.load.map(|load| load.ops_per_second),
            clients: redis.load.map(|load| load.clients),
            memory_bytes: redis.used_memory_bytes,
            maxmemory_bytes: redis.health.maxmemory_bytes,
            keys: redis.keys,
            evicted_keys: redis.load.map(|load| load.evicted_keys),
            last_save: saved.map(|at| UnixMs(at.saturating_mul(1000)).to_string()),
        }
    }
}

/// The nodes of one cluster; `load` says what each has to do.
#[must_use]
pub fn nodes(
    cluster: &str,
    status: &Status,
    load: impl Fn(&NodeStatus) -> Option<NodeLoad>,
) -> Vec<TopNode> {
    let node = |node: &NodeStatus| TopNode {
        cluster: cluster.to_owned(),
        ordinal: node.ordinal,
        incarnation: node.incarnation.clone(),
        role: node.phase,
        lag_bytes: node.lag_bytes,
        lag_seconds: node.lag_seconds,
        load: load(node),
        runway: status.cost.runway.clone(),
    };
    status.nodes.iter().map(node).collect()
}
