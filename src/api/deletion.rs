//! What becomes of a deletion that was asked for: at once, after a final backup, or not without a
//! person's word.

use super::annotations::YES_DELETE_DATA;
use super::conditions::{ConditionStatus, ConditionType, Phase};
use super::types::{DeletionPolicy, RedisCluster};
use crate::model::record::Record;

/// What becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deletion {
    /// Nobody asked for it.
    NotAsked,
    /// The cluster may hold data, and nobody said that these are to be deleted: it goes on.
    Refused,
    /// The cluster goes on until a final backup is there.
    AfterBackup,
    /// Its leases are closed.
    Granted,
}

/// What becomes of the deletion of this object, by what the operator remembers of it. It stays
/// granted once its nodes were given up, whatever is written into the object after that.
#[must_use]
pub fn of(cluster: &RedisCluster, record: &Record) -> Deletion {
    if cluster.metadata.deletion_timestamp.is_none() {
        return Deletion::NotAsked;
    }
    judge(cluster, may_hold_data(record))
}

/// What would become of it if it were asked for now, for whoever may not see the record: the status
/// counts too.
#[must_use]
pub fn if_asked(cluster: &RedisCluster, record: &Record) -> Deletion {
    let by_status = cluster.status.as_ref().is_some_and(|status| {
        status.epoch > 0 && status.nodes.iter().any(|node| node.phase != Phase::Leaving)
    });
    judge(cluster, by_status || may_hold_data(record))
}

/// The deletion waits, and the cluster goes on meanwhile, by the operator's last word.
#[must_use]
pub fn waits(cluster: &RedisCluster) -> bool {
    let status = cluster.status.as_ref();
    let condition = status.and_then(|status| status.condition(ConditionType::Deleting));
    condition.is_some_and(|condition| condition.status == ConditionStatus::False)
}

/// A person named the cluster whose data are to be deleted.
#[must_use]
pub fn is_named(cluster: &RedisCluster) -> bool {
    let metadata = &cluster.metadata;
    metadata.annotations.get(YES_DELETE_DATA).is_some_and(|name| name.trim() == metadata.name)
}

fn judge(cluster: &RedisCluster, holds_data: bool) -> Deletion {
    if !holds_data || is_named(cluster) {
        return Deletion::Granted;
    }
    match cluster.spec.deletion_policy {
        DeletionPolicy::Refuse => Deletion::Refused,
        DeletionPolicy::Backup => Deletion::AfterBackup,
        DeletionPolicy::Delete => Deletion::Granted,
    }
}

/// A master was chosen once, and a node is left. Whether anything was ever written is not known for
/// certain, so it counts as data.
fn may_hold_data(record: &Record) -> bool {
    let chosen = record.epoch > 0 || record.data_epoch > 0;
    chosen && record.incarnations.values().any(|node| node.condemned.is_none())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::ids::IncarnationName;
    use crate::model::incarnation::{Condemned, Incarnation};
    use crate::model::money::PricePerBlock;
    use crate::model::time::UnixMs;

    fn cluster(policy: &str, named: Option<&str>) -> RedisCluster {
        let mut cluster: RedisCluster = serde_json::from_value(json!({
            "apiVersion": "akash-redis.dev/v1alpha1", "kind": "RedisCluster",
            "metadata": {"name": "cache", "deletionTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"nodes": 1, "deletionPolicy": policy},
        }))
        .unwrap();
        let named = named.map(|name| (YES_DELETE_DATA.to_owned(), name.to_owned()));
        cluster.metadata.annotations.extend(named);
        cluster
    }

    fn record(epoch: u64, given_up: bool) -> Record {
        let mut node = Incarnation::new(0, 7, UnixMs(1), epoch, PricePerBlock(1));
        let reason = "the cluster is being deleted".to_owned();
        node.condemned = given_up.then_some(Condemned { at: UnixMs(1), reason, closed: None });
        let name = IncarnationName("cache-0-x7k2".into());
        Record { epoch, incarnations: [(name, node)].into(), ..Record::default() }
    }

    #[test]
    fn data_are_deleted_by_the_policy_or_by_whoever_names_the_cluster() {
        use Deletion::{AfterBackup, Granted, Refused};
        for (policy, named, epoch, given_up, becomes) in [
            ("Refuse", None, 1, false, Refused),
            ("Refuse", Some("other"), 1, false, Refused),
            ("Refuse", Some("cache"), 1, false, Granted),
            ("Refuse", None, 0, false, Granted),
            ("Refuse", None, 1, true, Granted),
            ("Backup", None, 1, false, AfterBackup),
            ("Backup", Some("cache"), 1, false, Granted),
            ("Backup", None, 0, false, Granted),
            ("Backup", None, 1, true, Granted),
            ("Delete", None, 1, false, Granted),
        ] {
            let (mut cluster, record) = (cluster(policy, named), record(epoch, given_up));
            assert_eq!(of(&cluster, &record), becomes, "{policy} {named:?} {epoch} {given_up}");
            cluster.metadata.deletion_timestamp = None;
            assert_eq!(of(&cluster, &record), Deletion::NotAsked);
            assert_eq!(if_asked(&cluster, &record), becomes);
        }
    }

    #[test]
    fn what_the_status_knows_of_counts_where_the_record_cannot_be_seen() {
        let mut cluster = cluster("Refuse", None);
        let node = json!({"ordinal": 0, "incarnation": "cache-0-x7k2", "phase": "Master"});
        let status = json!({"epoch": 3, "nodes": [node]});
        cluster.status = Some(serde_json::from_value(status).unwrap());
        assert_eq!(if_asked(&cluster, &Record::default()), Deletion::Refused);
        cluster.status.as_mut().unwrap().epoch = 0;
        assert_eq!(if_asked(&cluster, &Record::default()), Deletion::Granted);
    }
}
