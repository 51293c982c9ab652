//! What this installation has in the outside world and no record knows, by the last readings.

use std::collections::{BTreeMap, BTreeSet};

use super::Observer;
use crate::api::quantity::Money;
use crate::api::recover::{Orphan, OrphanReport};
use crate::model::chain::{ChainView, LeaseState, LeaseView};
use crate::model::ids::IncarnationName;
use crate::model::inventory::Reading;
use crate::model::mesh::MeshView;
use crate::model::time::UnixMs;
use crate::operator::lock;

impl Observer {
    /// Clusters that run and of which no record knows anything, with their deployments: the store
    /// that knew them is lost.
    pub fn lost(&self) -> BTreeMap<String, BTreeMap<u64, IncarnationName>> {
        let index = lock(&self.index);
        let mut lost: BTreeMap<String, BTreeMap<u64, IncarnationName>> = BTreeMap::new();
        for (dseq, name) in lock(&self.chain).unrecorded(&index) {
            if index.dseqs_of(name.cluster()).is_empty() {
                lost.entry(name.cluster().to_owned()).or_default().insert(dseq, name);
            }
        }
        lost
    }

    /// The deployments, devices and keys that carry the name of a cluster, whoever knows them.
    pub fn named(&self, cluster: &str) -> (Reading<ChainView>, Reading<MeshView>) {
        let chain = lock(&self.chain).of(cluster, &BTreeSet::new());
        (chain, lock(&self.tailnet).of(cluster, std::iter::empty()))
    }

    /// Where nodes of no record are dialled. Whoever answers there proves by its certificate that it
    /// is the node of that name.
    pub fn addresses_of<'a>(
        &self,
        mesh: &MeshView,
        names: impl Iterator<Item = &'a IncarnationName>,
    ) -> BTreeMap<IncarnationName, String> {
        let (own, installation) = (self.own_mesh(), &self.settings.constants.installation);
        let address = |name: &IncarnationName| {
            let hostname = name.hostname(installation);
            let devices =
                mesh.devices.iter().filter(|d| d.hostname == hostname && !d.ip.is_empty());
            let newest = devices.max_by_key(|d| d.created).map(|d| d.ip.clone());
            Some((name.clone(), newest.or_else(|| own.peers.get(&hostname).cloned())?))
        };
        names.filter_map(address).collect()
    }

    /// Everything of this installation that stands in no record.
    pub fn orphans(&self) -> OrphanReport {
        let mut unseen = Vec::new();
        let index = lock(&self.index);
        let recorded: BTreeSet<_> = index.incarnations().map(|(_, name)| name.clone()).collect();
        let mut orphans: BTreeMap<IncarnationName, Orphan> = BTreeMap::new();
        let mut orphan = |name: &IncarnationName, add: &dyn Fn(&mut Orphan)| {
            let entry = orphans.entry(name.clone()).or_insert_with(|| Orphan {
                incarnation: name.0.clone(),
                cluster: name.cluster().to_owned(),
                ..Orphan::default()
            });
            add(entry);
        };
        {
            let chain = lock(&self.chain);
            unseen.extend(chain.health().0.error.map(|error| format!("chain: {error}")));
            for (dseq, name) in chain.unrecorded(&index) {
                let (lost, view) = (index.dseqs_of(name.cluster()).is_empty(), chain.whole());
                orphan(&name, &|entry| {
                    (entry.dseq, entry.recoverable) = (Some(dseq), lost);
                    if let Some(view) = view {
                        tell(entry, view, dseq);
                    }
                });
            }
        }
        let (tailnet, installation) = (lock(&self.tailnet), &self.settings.constants.installation);
        unseen.extend(tailnet.health().error.map(|error| format!("tailnet: {error}")));
        if !tailnet.has_all_keys() {
            unseen.push("tailnet: not all keys could be looked at".to_owned());
        }
        for (device, name) in tailnet.devices_with(installation) {
            // Only a key of ours gives a tag: without one it is a stranger's under our name.
            if !recorded.contains(&name) && !device.tags.is_empty() {
                let since = device.created.map(|at| at.to_string());
                orphan(&name, &|entry| {
                    entry.devices.push(device.id.clone());
                    entry.since = entry.since.take().or_else(|| since.clone());
                    entry.tag =
                        device.tags.iter().find(|t| **t != self.settings.quarantine_tag).cloned();
                });
            }
        }
        for (key, name) in tailnet.keys_with(installation) {
            if !recorded.contains(&name) && !key.invalid {
                orphan(&name, &|entry| entry.keys.push(key.id.clone()));
            }
        }
        OrphanReport { orphans: orphans.into_values().collect(), closing: Vec::new(), unseen }
    }
}

fn tell(orphan: &mut Orphan, view: &ChainView, dseq: u64) {
    let Some(deployment) = view.deployments.get(&dseq) else { return };
    let runs = |l: &&LeaseView| matches!(l.state, LeaseState::Active | LeaseState::Reclaiming);
    let lease = deployment.leases.iter().rev().find(runs);
    orphan.price_per_month = lease.map(|l| Money(crate::plan::per_month_at(view, l.price)));
    orphan.escrow = Some(Money(deployment.escrow.left));
    let blocks = u64::try_from(view.height - deployment.created_height).unwrap_or(0);
    let age = blocks.saturating_mul(view.block_ms);
    if deployment.created_height > 0 {
        orphan.since = Some(UnixMs(view.block_time.0.saturating_sub(age)).to_string());
    }
}
