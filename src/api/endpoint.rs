//! What the operator answers to whoever looks for the master.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::conditions::Phase;
use super::status::{Endpoint, NodeStatus};
use super::types::RedisCluster;
use crate::model::ports::REDIS_PORT;

/// Where writes go, who has the data besides, and who may ask for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointReport {
    /// The master that takes writes.
    #[serde(flatten)]
    pub master: Endpoint,
    /// It was chosen after a failure and takes none yet: who waits for it may connect. Only those who
    /// ask for news are told.
    #[serde(skip_serializing_if = "is_not")]
    pub elected: bool,
    /// Name of the cluster.
    pub cluster: String,
    /// Tells the cluster from others that had its name; empty by an older operator.
    pub uid: String,
    /// Users of the manifest.
    pub users: Vec<String>,
    /// Everybody else that has joined.
    pub replicas: Vec<ReplicaEndpoint>,
    /// SOCKS5 proxy of the operator's tailscaled, where mesh addresses are reached through one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub socks5: Option<String>,
    /// Another answer has another tag, unless nothing but lags differ.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub tag: String,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands it over like this")]
fn is_not(it: &bool) -> bool {
    !it
}

/// A node that is not master.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ReplicaEndpoint {
    /// Incarnation.
    pub incarnation: String,
    /// Mesh host name.
    pub name: String,
    /// Mesh address.
    pub ip: String,
    /// Port.
    pub port: u16,
    /// Region by its provider's word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// It had what the master had, but for what was under way.
    pub in_sync: bool,
    /// Bytes behind the master; absent where nobody knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag_bytes: Option<i64>,
}

impl From<Endpoint> for EndpointReport {
    fn from(master: Endpoint) -> Self {
        Self { master, ..Self::default() }
    }
}

impl EndpointReport {
    /// What the object itself says: as of when its status was last written, which is at every change
    /// of the master. `None` without a master that takes writes.
    #[must_use]
    pub fn of(cluster: &RedisCluster) -> Option<Self> {
        let status = cluster.status.as_ref()?;
        let replica = |node: &NodeStatus| {
            Some(ReplicaEndpoint {
                incarnation: node.incarnation.clone(),
                name: node.mesh_name.clone().unwrap_or_default(),
                ip: node.mesh_ip.clone()?,
                port: REDIS_PORT,
                region: node.region.clone(),
                in_sync: node.phase == Phase::Replica,
                lag_bytes: node.lag_bytes,
            })
        };
        let others = status.nodes.iter().filter(|node| node.phase != Phase::Master);
        Some(Self {
            cluster: cluster.metadata.name.clone(),
            uid: cluster.metadata.uid.clone().unwrap_or_default(),
            users: cluster.spec.redis.users.iter().map(|user| user.name.clone()).collect(),
            replicas: others.filter_map(replica).collect(),
            ..status.master.clone()?.into()
        })
    }

    /// With its tag.
    ///
    /// # Panics
    /// Never: it is plain data.
    #[must_use]
    pub fn tagged(mut self) -> Self {
        self.tag.clear();
        let mut timeless = self.clone();
        timeless.replicas.iter_mut().for_each(|replica| replica.lag_bytes = None);
        let text = serde_json::to_vec(&timeless).expect("plain data");
        self.tag = hex::encode(&Sha256::digest(text)[..8]);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_answer_has_another_tag_unless_only_a_lag_differs() {
        let replica = ReplicaEndpoint { in_sync: true, ..ReplicaEndpoint::default() };
        let report = |replica: ReplicaEndpoint| {
            let master = Endpoint { epoch: 3, ..Endpoint::default() };
            let report = EndpointReport { uid: "a".into(), ..master.into() };
            EndpointReport { replicas: vec![replica], ..report }.tagged()
        };
        let known = report(replica.clone());
        assert_eq!(known, known.clone().tagged());
        let later = report(ReplicaEndpoint { lag_bytes: Some(7), ..replica.clone() });
        assert_eq!(later.tag, known.tag);
        let lost = report(ReplicaEndpoint { in_sync: false, ..replica });
        let anew = EndpointReport { uid: "b".into(), ..known.clone() }.tagged();
        let moved = EndpointReport { socks5: Some("127.0.0.1:1".into()), ..known.clone() }.tagged();
        for other in [lost, anew, moved] {
            assert_ne!(other.tag, known.tag);
        }
    }

    #[test]
    fn an_answer_of_an_older_operator_is_understood() {
        let text =
            r#"{"epoch":3,"incarnation":"cache-0-a","name":"n","ip":"100.64.0.1","port":6379}"#;
        let report: EndpointReport = serde_json::from_str(text).unwrap();
        assert_eq!((report.master.epoch, report.master.port, report.uid.as_str()), (3, 6379, ""));
    }
}
