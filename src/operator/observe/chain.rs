//! The chain as it was read: as a whole for all clusters, and anew for one cluster after an effect
//! on it.

use std::collections::{BTreeMap, BTreeSet};

use crate::chain::ChainError;
use crate::model::chain::{ChainView, DeploymentView};
use crate::model::ids::{IncarnationName, InstallationId};
use crate::model::inventory::Reading;
use crate::model::time::UnixMs;
use crate::operator::health::{Balances, Read};
use crate::operator::index::ClusterIndex;

/// Which clusters a reading says something new about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// These.
    Of(BTreeSet<String>),
    /// All: the source went away, or is back.
    OfAll,
}

/// The last readings of the chain.
#[derive(Default)]
pub struct ChainReadings {
    whole: Reading<ChainView>,
    /// Deployments of the whole, by the cluster that their group names.
    dseqs: BTreeMap<String, BTreeSet<u64>>,
    /// Readings of the deployments of one cluster that are newer than the whole.
    newer: BTreeMap<String, Reading<ChainView>>,
    /// Active deployments of this installation that stood in no record when the whole was read.
    unrecorded: BTreeMap<u64, IncarnationName>,
}

impl ChainReadings {
    /// The whole was read, or could not be: then the last one stays, marked. Never goes back in
    /// height: two readings may overtake each other, and endpoints may be behind.
    pub fn take(
        &mut self,
        result: Result<ChainView, ChainError>,
        [began, done]: [UnixMs; 2],
        index: &ClusterIndex,
        installation: &InstallationId,
    ) -> News {
        let was_away = self.whole.error.is_some();
        let view = match result {
            Ok(view) if self.whole.value.as_ref().is_none_or(|old| old.height <= view.height) => {
                view
            }
            Ok(_) => {
                self.whole.error = None;
                return if was_away { News::OfAll } else { News::Of(BTreeSet::new()) };
            }
            Err(error) => {
                self.whole.failed(error.to_string(), false);
                return if was_away { News::Of(BTreeSet::new()) } else { News::OfAll };
            }
        };
        let named = |deployment: &DeploymentView| {
            IncarnationName::from_group_name(&deployment.group_name, installation)
        };
        let mut dseqs: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
        self.unrecorded.clear();
        for (dseq, deployment) in &view.deployments {
            let Some(name) = named(deployment) else { continue };
            dseqs.entry(name.cluster().to_owned()).or_default().insert(*dseq);
            if deployment.active && index.cluster_of(*dseq).is_none() {
                self.unrecorded.insert(*dseq, name);
            }
        }
        let before = std::mem::replace(&mut self.dseqs, dseqs);
        let old = std::mem::replace(&mut self.whole, Reading::took(view, began, done));
        let whole = self.whole.value.as_ref();
        let height = whole.map_or(0, |view| view.height);
        self.newer.retain(|_, part| {
            part.value.as_ref().is_some_and(|v| (v.height, part.at) > (height, began))
        });
        if was_away {
            return News::OfAll;
        }
        let old = old.value.as_ref();
        let differs = |dseq: &u64| {
            let of = |view: Option<&ChainView>| view.and_then(|v| v.deployments.get(dseq).cloned());
            match (of(old), of(whole)) {
                (Some(old), Some(new)) => !same_but_escrow(&old, &new),
                (None, None) => false,
                _ => true,
            }
        };
        let clusters = before.keys().chain(self.dseqs.keys());
        let changed = clusters.filter(|cluster| {
            let known = [&before, &self.dseqs].into_iter().filter_map(|d| d.get(*cluster));
            known.flatten().any(differs)
        });
        News::Of(changed.cloned().collect())
    }

    /// How the last reading ended, and what the wallet holds by it.
    pub fn health(&self) -> (Read, Balances) {
        let Reading { value, error, refused, .. } = &self.whole;
        let seen = value.as_ref().map_or(String::new(), |v| format!("height {}", v.height));
        let balances = value.as_ref().map(|v| (v.balance, v.fee_balance));
        (Read { error: error.clone(), refused: *refused, seen }, balances)
    }

    /// The deployments of one cluster were read anew.
    pub fn take_cluster(
        &mut self,
        cluster: &str,
        result: Result<ChainView, ChainError>,
        [began, done]: [UnixMs; 2],
    ) {
        match result {
            Ok(view) => {
                if self.whole.value.is_some() {
                    self.whole.error = None;
                }
                let newest = [Some(&self.whole), self.newer.get(cluster)];
                let heights =
                    newest.into_iter().flatten().filter_map(|r| Some(r.value.as_ref()?.height));
                if heights.max().is_none_or(|height| height <= view.height) {
                    self.newer.insert(cluster.to_owned(), Reading::took(view, began, done));
                }
            }
            Err(error) => self.whole.failed(error.to_string(), false),
        }
    }

    /// The newest reading of a cluster: the deployments of its record, and others that carry its
    /// name.
    pub fn of(&self, cluster: &str, recorded: &BTreeSet<u64>) -> Reading<ChainView> {
        let error = self.whole.error.clone();
        if let Some(part) = self.newer.get(cluster) {
            return Reading { error, ..part.clone() };
        }
        let part = |whole: &ChainView| {
            let named = self.dseqs.get(cluster).into_iter().flatten();
            let dseqs: BTreeSet<_> = named.chain(recorded).copied().collect();
            let found = dseqs.into_iter().filter_map(|dseq| whole.deployments.get(&dseq));
            let deployments: BTreeMap<_, _> = found.map(|d| (d.dseq, d.clone())).collect();
            let statements =
                deployments.keys().filter_map(|dseq| whole.statements.get_key_value(dseq));
            let statements = statements.map(|(dseq, s)| (*dseq, s.clone())).collect();
            let bidders = deployments.values().flat_map(|d| d.bids.iter().map(|bid| &bid.id));
            let lessors = deployments.values().flat_map(|d| d.leases.iter().map(|lease| &lease.id));
            let known = bidders.chain(lessors).filter_map(|id| whole.providers.get(&id.provider));
            let providers = known.map(|p| (p.address.clone(), p.clone())).collect();
            ChainView {
                height: whole.height,
                block_time: whole.block_time,
                block_ms: whole.block_ms,
                balance: whole.balance,
                fee_balance: whole.fee_balance,
                funds: whole.funds.clone(),
                min_deposit: whole.min_deposit,
                deployments,
                providers,
                statements,
            }
        };
        Reading {
            value: self.whole.value.as_ref().map(part),
            at: self.whole.at,
            done: self.whole.done,
            error,
            refused: self.whole.refused,
        }
    }

    /// The last whole, present or not.
    pub fn whole(&self) -> Option<&ChainView> {
        self.whole.value.as_ref()
    }

    /// Active deployments of this installation that are in no record.
    pub fn unrecorded(&self, index: &ClusterIndex) -> BTreeMap<u64, IncarnationName> {
        let open = self.unrecorded.iter().filter(|(dseq, _)| index.cluster_of(**dseq).is_none());
        open.map(|(dseq, name)| (*dseq, name.clone())).collect()
    }

    /// A cluster is gone.
    pub fn forget(&mut self, cluster: &str) {
        self.newer.remove(cluster);
    }
}

/// Escrow runs down with each block: that alone is no news.
fn same_but_escrow(a: &DeploymentView, b: &DeploymentView) -> bool {
    (a.active, &a.hash, &a.group_name, a.group, a.open_order, a.escrow.open)
        == (b.active, &b.hash, &b.group_name, b.group, b.open_order, b.escrow.open)
        && (&a.bids, &a.leases) == (&b.bids, &b.leases)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::chain::{EscrowView, GroupState};
    use crate::model::incarnation::Incarnation;
    use crate::model::money::{PricePerBlock, Uact};
    use crate::model::record::Record;

    fn installation() -> InstallationId {
        InstallationId("abcdef".into())
    }

    fn deployment(
        cluster: &str,
        dseq: u64,
        edit: impl FnOnce(&mut DeploymentView),
    ) -> DeploymentView {
        let mut deployment = DeploymentView {
            dseq,
            created_height: 0,
            active: true,
            hash: vec![1],
            group_name: IncarnationName::new(cluster, 0, "aaaa").group_name(&installation()),
            group: GroupState::Open,
            open_order: None,
            ordered_at: None,
            bids: Vec::new(),
            leases: Vec::new(),
            escrow: EscrowView { open: true, left: Uact(9), ..EscrowView::default() },
        };
        edit(&mut deployment);
        deployment
    }

    #[allow(clippy::unnecessary_wraps)] // as it is read
    fn view(height: i64, deployments: Vec<DeploymentView>) -> Result<ChainView, ChainError> {
        let deployments = deployments.into_iter().map(|d| (d.dseq, d)).collect();
        Ok(ChainView { height, deployments, ..ChainView::default() })
    }

    fn away() -> Result<ChainView, ChainError> {
        Err(ChainError::Away { endpoint: "one".into(), source: "silence".into() })
    }

    /// Two clusters, each with a recorded deployment of this number.
    fn index() -> ClusterIndex {
        let mut index = ClusterIndex::default();
        for (cluster, dseq) in [("a", 1), ("b", 2)] {
            let incarnation = Incarnation::new(0, dseq, UnixMs(0), 0, PricePerBlock(0));
            let name = IncarnationName::new(cluster, 0, "aaaa");
            let record = Record { incarnations: [(name, incarnation)].into(), ..Record::default() };
            index.put(cluster, &record, PricePerBlock(0));
        }
        index
    }

    fn both(height: i64) -> Result<ChainView, ChainError> {
        view(height, vec![deployment("a", 1, |_| {}), deployment("b", 2, |_| {})])
    }

    fn take(readings: &mut ChainReadings, at: u64, view: Result<ChainView, ChainError>) -> News {
        readings.take(view, [UnixMs(at), UnixMs(at + 1)], &index(), &installation())
    }

    fn of(clusters: &[&str]) -> News {
        News::Of(clusters.iter().map(|c| (*c).to_owned()).collect())
    }

    #[test]
    fn news_is_of_the_clusters_whose_deployments_differ() {
        let mut readings = ChainReadings::default();
        assert_eq!(take(&mut readings, 1, both(10)), News::OfAll, "the first is news for all");
        assert_eq!(take(&mut readings, 2, both(11)), of(&[]), "a block is no news");
        let poorer = |d: &mut DeploymentView| d.escrow.left = Uact(1);
        let view_of = |a: DeploymentView| view(12, vec![a, deployment("b", 2, |_| {})]);
        assert_eq!(take(&mut readings, 3, view_of(deployment("a", 1, poorer))), of(&[]));
        let closed = deployment("a", 1, |d| d.active = false);
        assert_eq!(take(&mut readings, 4, view_of(closed)), of(&["a"]));
        let only = view(13, vec![deployment("b", 2, |_| {})]);
        assert_eq!(take(&mut readings, 5, only), of(&["a"]), "one that is gone is news too");
        assert_eq!(take(&mut readings, 6, away()), News::OfAll);
        assert_eq!(take(&mut readings, 7, away()), of(&[]), "still away is no news");
        assert_eq!(take(&mut readings, 8, both(14)), News::OfAll);
    }

    #[test]
    fn a_reading_never_goes_back_in_height() {
        let mut readings = ChainReadings::default();
        take(&mut readings, 1, both(10));
        let older = view(9, vec![deployment("a", 1, |d| d.active = false)]);
        assert_eq!(take(&mut readings, 2, older), of(&[]));
        let reading = readings.of("a", &BTreeSet::new());
        assert!(reading.value.unwrap().deployments[&1].active);
        assert_eq!(reading.at, UnixMs(1), "nor in time");

        let closed = |height| view(height, vec![deployment("a", 1, |d| d.active = false)]);
        readings.take_cluster("a", closed(9), [UnixMs(3), UnixMs(4)]);
        assert!(readings.of("a", &BTreeSet::new()).value.unwrap().deployments[&1].active);
        readings.take_cluster("a", closed(12), [UnixMs(3), UnixMs(4)]);
        let part = readings.of("a", &BTreeSet::new());
        assert!(!part.value.unwrap().deployments[&1].active);
        assert_eq!(part.at, UnixMs(3));
        assert!(readings.of("b", &BTreeSet::new()).value.unwrap().deployments[&2].active);

        take(&mut readings, 5, both(11));
        let part = readings.of("a", &BTreeSet::new()).value.unwrap();
        assert_eq!((part.height, part.deployments[&1].active), (12, false), "the part is newer");
        take(&mut readings, 6, both(13));
        let part = readings.of("a", &BTreeSet::new()).value.unwrap();
        assert_eq!((part.height, part.deployments[&1].active), (13, true), "the whole is newer");
    }

    #[test]
    fn a_cluster_gets_its_own_part_whatever_its_deployments_are_called() {
        let mut readings = ChainReadings::default();
        let strange = deployment("b", 2, |d| d.group_name = "somebody".into());
        take(&mut readings, 1, view(10, vec![deployment("a", 1, |_| {}), strange]));
        let dseqs = |cluster: &str, recorded: u64| {
            let reading = readings.of(cluster, &BTreeSet::from([recorded]));
            reading.value.unwrap().deployments.into_keys().collect::<Vec<_>>()
        };
        assert_eq!(dseqs("a", 1), [1]);
        assert_eq!(dseqs("b", 2), [2], "what stands in its record, under whatever name");
        assert!(dseqs("c", 3).is_empty());
    }

    #[test]
    fn what_stands_in_no_record_is_known_until_it_does() {
        let mut readings = ChainReadings::default();
        let lost = deployment("c", 3, |_| {});
        let closed = deployment("c", 4, |d| d.active = false);
        take(&mut readings, 1, view(10, vec![deployment("a", 1, |_| {}), lost, closed]));
        let known = readings.unrecorded(&index());
        assert_eq!(known.keys().collect::<Vec<_>>(), [&3]);
        let mut index = index();
        let incarnation = Incarnation::new(0, 3, UnixMs(0), 0, PricePerBlock(0));
        let name = IncarnationName::new("c", 0, "aaaa");
        let record = Record { incarnations: [(name, incarnation)].into(), ..Record::default() };
        index.put("c", &record, PricePerBlock(0));
        assert!(readings.unrecorded(&index).is_empty());
    }
}
