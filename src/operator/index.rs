//! What has to be known of all clusters at once, kept up with each record that is committed: nothing
//! is summed or searched anew for each cluster.

use std::collections::{BTreeMap, BTreeSet};

use crate::api::types::Runway;
use crate::model::ids::IncarnationName;
use crate::model::incarnation::Incarnation;
use crate::model::money::PricePerBlock;
use crate::model::record::Record;

/// The clusters of the store.
#[derive(Debug, Default)]
pub struct ClusterIndex {
    clusters: BTreeMap<String, Entry>,
    by_dseq: BTreeMap<u64, String>,
    by_device: BTreeMap<String, String>,
    /// Of all of them.
    committed: PricePerBlock,
    /// When escrows are filled, of clusters whose manifest says.
    runways: BTreeMap<String, Runway>,
    /// For how few days each cluster told last that the wallet does.
    told: BTreeMap<String, u32>,
}

#[derive(Debug, Default)]
struct Entry {
    committed: PricePerBlock,
    dseqs: BTreeMap<u64, IncarnationName>,
    devices: BTreeSet<String>,
}

impl ClusterIndex {
    /// This is the record of a cluster now, and what it is committed to.
    pub fn put(&mut self, cluster: &str, record: &Record, committed: PricePerBlock) {
        self.remove(cluster);
        let incarnations = &record.incarnations;
        let entry = Entry {
            committed,
            dseqs: incarnations.iter().map(|(name, i)| (i.dseq, name.clone())).collect(),
            devices: incarnations
                .values()
                .flat_map(Incarnation::devices)
                .map(str::to_owned)
                .collect(),
        };
        self.by_dseq.extend(entry.dseqs.keys().map(|dseq| (*dseq, cluster.to_owned())));
        self.by_device.extend(entry.devices.iter().map(|id| (id.clone(), cluster.to_owned())));
        self.committed.0 = self.committed.0.saturating_add(committed.0);
        self.clusters.insert(cluster.to_owned(), entry);
    }

    /// What the manifest of a cluster says of its runway.
    pub fn put_runway(&mut self, cluster: &str, runway: Option<Runway>) {
        match runway {
            Some(runway) => drop(self.runways.insert(cluster.to_owned(), runway)),
            None => drop(self.runways.remove(cluster)),
        }
    }

    /// For how few days a cluster told that the wallet does; none where it told nothing, or speaks no
    /// more.
    pub fn put_told(&mut self, cluster: &str, days: Option<u32>) {
        match days {
            Some(days) => drop(self.told.insert(cluster.to_owned(), days)),
            None => drop(self.told.remove(cluster)),
        }
    }

    /// For how few days any other cluster told that the wallet does.
    pub fn told_by_others(&self, cluster: &str) -> Option<u32> {
        self.told.iter().filter(|(name, _)| *name != cluster).map(|(_, days)| *days).min()
    }

    /// When the escrow of a deployment that stands in a record is filled; none where it stands in
    /// none.
    pub fn runway_of(&self, dseq: u64, usual: Runway) -> Option<Runway> {
        let cluster = self.cluster_of(dseq)?;
        Some(self.runways.get(cluster).copied().unwrap_or(usual))
    }

    /// A cluster is gone.
    pub fn remove(&mut self, cluster: &str) {
        let Some(entry) = self.clusters.remove(cluster) else { return };
        for dseq in entry.dseqs.keys() {
            self.by_dseq.remove(dseq);
        }
        for device in &entry.devices {
            self.by_device.remove(device);
        }
        self.committed.0 = self.committed.0.saturating_sub(entry.committed.0);
    }

    /// Names of all clusters.
    pub fn names(&self) -> Vec<String> {
        self.clusters.keys().cloned().collect()
    }

    /// Whether it is one of them.
    pub fn contains(&self, cluster: &str) -> bool {
        self.clusters.contains_key(cluster)
    }

    /// What all clusters but this one are committed to.
    pub fn committed_by_others(&self, cluster: &str) -> PricePerBlock {
        let own = self.clusters.get(cluster).map_or(0, |entry| entry.committed.0);
        PricePerBlock(self.committed.0.saturating_sub(own))
    }

    /// Deployments that stand in a record.
    pub fn dseqs(&self) -> BTreeSet<u64> {
        self.by_dseq.keys().copied().collect()
    }

    /// Those of one cluster, with their incarnations.
    pub fn dseqs_of(&self, cluster: &str) -> BTreeMap<u64, IncarnationName> {
        self.clusters.get(cluster).map(|entry| entry.dseqs.clone()).unwrap_or_default()
    }

    /// All deployments with their incarnations.
    pub fn incarnations(&self) -> impl Iterator<Item = (u64, &IncarnationName)> {
        self.clusters.values().flat_map(|e| e.dseqs.iter().map(|(dseq, name)| (*dseq, name)))
    }

    /// The cluster in whose record a deployment stands.
    pub fn cluster_of(&self, dseq: u64) -> Option<&str> {
        self.by_dseq.get(&dseq).map(String::as_str)
    }

    /// Ids of the devices that stand in a record.
    pub fn devices(&self) -> BTreeSet<String> {
        self.by_device.keys().cloned().collect()
    }

    /// The cluster in whose record a device stands.
    pub fn cluster_of_device(&self, device: &str) -> Option<&str> {
        self.by_device.get(device).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::incarnation::Incarnation;
    use crate::model::time::UnixMs;

    fn record(dseqs: &[u64]) -> Record {
        let mut record = Record::default();
        for dseq in dseqs {
            let incarnation = Incarnation::new(0, *dseq, UnixMs(0), 0, PricePerBlock(0));
            record.incarnations.insert(IncarnationName(format!("x-0-{dseq}")), incarnation);
        }
        record
    }

    #[test]
    fn a_deployment_is_filled_as_its_cluster_says() {
        let mut index = ClusterIndex::default();
        index.put("a", &record(&[1]), PricePerBlock(0));
        index.put("b", &record(&[2]), PricePerBlock(0));
        let own = Runway { low: "5d".parse().unwrap(), target: "20d".parse().unwrap() };
        index.put_runway("a", Some(own));
        index.put("a", &record(&[1, 3]), PricePerBlock(0));
        let of = |index: &ClusterIndex, dseq| index.runway_of(dseq, Runway::DEFAULT);
        assert_eq!((of(&index, 3), of(&index, 2)), (Some(own), Some(Runway::DEFAULT)));
        assert_eq!(of(&index, 9), None, "it stands in no record");
        index.put_runway("a", None);
        assert_eq!(of(&index, 1), Some(Runway::DEFAULT));
    }

    #[test]
    fn what_others_told_of_the_wallet_is_the_least_of_it() {
        let mut index = ClusterIndex::default();
        assert_eq!(index.told_by_others("a"), None);
        for (cluster, days) in [("a", 1), ("b", 7), ("c", 3)] {
            index.put_told(cluster, Some(days));
        }
        assert_eq!((index.told_by_others("a"), index.told_by_others("b")), (Some(3), Some(1)));
        index.put_told("a", None);
        assert_eq!(index.told_by_others("b"), Some(3));
    }

    #[test]
    fn sums_and_owners_follow_each_record() {
        let mut index = ClusterIndex::default();
        index.put("a", &record(&[1, 2]), PricePerBlock(10));
        index.put("b", &record(&[3]), PricePerBlock(5));
        assert_eq!(index.committed_by_others("a"), PricePerBlock(5));
        assert_eq!(index.committed_by_others("new"), PricePerBlock(15));
        assert_eq!((index.cluster_of(2), index.cluster_of(3)), (Some("a"), Some("b")));

        index.put("a", &record(&[2]), PricePerBlock(7));
        assert_eq!(index.committed_by_others("b"), PricePerBlock(7));
        assert_eq!((index.cluster_of(1), index.dseqs()), (None, BTreeSet::from([2, 3])));

        index.remove("a");
        index.remove("a");
        assert_eq!(
            (index.names(), index.committed_by_others("new")),
            (vec!["b".into()], PricePerBlock(5))
        );
        assert_eq!(index.cluster_of(2), None);
    }
}
