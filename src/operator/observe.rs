//! Reading the outside world into an inventory. Facts only.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use futures::future::join_all;

use super::ports::Ports;
use super::status_pages;
use crate::chain::ChainError;
use crate::mesh::MeshError;
use crate::model::chain::{ChainView, LeaseState};
use crate::model::ids::{IncarnationName, InstallationId, LeaseId};
use crate::model::inventory::{IdPool, Inventory, LeaseStatus, Reading};
use crate::model::mesh::{MeshView, OwnMesh};
use crate::model::status_page::PageView;
use crate::model::time::UnixMs;
use crate::secrets::RootSecret;
use crate::store::Stored;

/// Names offered to each plan: more than any cluster has nodes.
const SPARES: usize = 16;
/// Characters of a suffix; none that can be taken for another.
const SUFFIX_CHARACTERS: &[u8] = b"abcdefghijkmnpqrstuvwxyz23456789";

/// The last readings.
pub struct Readings {
    root: RootSecret,
    installation: InstallationId,
    chain: Mutex<Reading<ChainView>>,
    mesh: Mutex<Reading<MeshView>>,
    leases: Mutex<BTreeMap<LeaseId, LeaseStatus>>,
    pages: Mutex<BTreeMap<IncarnationName, PageView>>,
    /// Where nodes were last dialled.
    addresses: Mutex<BTreeMap<IncarnationName, String>>,
    /// What the log said of last.
    told_unrecorded: Mutex<BTreeMap<u64, IncarnationName>>,
}

/// Locks without minding a panic elsewhere: every value behind these locks is replaced whole.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Readings {
    /// Nothing was read yet.
    pub fn new(root: RootSecret) -> Self {
        let installation = root.installation_id();
        Self {
            root,
            installation,
            chain: Mutex::default(),
            mesh: Mutex::default(),
            leases: Mutex::default(),
            pages: Mutex::default(),
            addresses: Mutex::default(),
            told_unrecorded: Mutex::default(),
        }
    }

    /// Reads the chain anew; when it is away the old value stays, marked. Asks the providers about
    /// the active leases of `unheard`: those whose node does not speak for itself.
    ///
    /// The answers are there before the chain that they belong to: a lease that nobody was asked
    /// about looks as if it had no manifest yet.
    pub async fn read_chain_and_leases(
        &self,
        ports: &Ports,
        known: &BTreeSet<u64>,
        unheard: &BTreeSet<u64>,
    ) {
        let began = (ports.now)();
        let result = ports.chain.read(known).await;
        let last = || lock(&self.chain).value.clone();
        if let Some(chain) = result.as_ref().ok().cloned().or_else(last) {
            // Side by side, the pages by the addresses of the last round: neither makes the other
            // late.
            tokio::join!(
                self.read_leases(ports, &chain, unheard),
                self.read_pages(ports, &chain, unheard)
            );
        }
        self.take(result, began, ports);
    }

    fn take(&self, result: Result<ChainView, ChainError>, began: UnixMs, ports: &Ports) {
        let mut reading = lock(&self.chain);
        match result {
            // Two readings may overtake each other: never go back in height.
            Ok(view) if reading.value.as_ref().is_some_and(|old| old.height > view.height) => {
                reading.error = None;
            }
            Ok(view) => *reading = Reading::took(view, began, (ports.now)()),
            Err(error) => reading.failed(error.to_string(), false),
        }
    }

    /// Reads the tailnet anew; when it is away the old value stays, marked. A reading that was
    /// overtaken by a later one says nothing.
    pub async fn read_mesh(&self, ports: &Ports) {
        let known = match ports.store.list().await {
            Ok(clusters) => clusters
                .iter()
                .flat_map(|c| c.record.incarnations.values())
                .filter_map(|i| i.device.clone())
                .collect(),
            Err(error) => {
                tracing::warn!(%error, "the store cannot be read; devices are found by their host names alone this time");
                BTreeSet::new()
            }
        };
        let began = (ports.now)();
        let result = ports.mesh.read(&self.installation, &known).await;
        let mut reading = lock(&self.mesh);
        match result {
            _ if began < reading.at => {}
            Ok(view) => *reading = Reading::took(view, began, (ports.now)()),
            Err(error) => {
                let refused = !matches!(error, MeshError::Away { .. });
                reading.failed(error.to_string(), refused);
            }
        }
    }

    async fn read_leases(&self, ports: &Ports, chain: &ChainView, dseqs: &BTreeSet<u64>) {
        let asked = chain
            .deployments
            .values()
            .filter(|d| d.active && dseqs.contains(&d.dseq))
            .flat_map(|d| {
                d.leases
                    .iter()
                    .filter(|l| matches!(l.state, LeaseState::Active | LeaseState::Reclaiming))
            })
            .filter_map(|l| chain.providers.get(&l.id.provider).map(|p| (l.id.clone(), p.clone())));
        let statuses = join_all(asked.map(|(lease, provider)| async move {
            let status = ports.gateway.lease_status(&provider, &lease).await;
            (lease, status)
        }))
        .await;
        let mut leases = lock(&self.leases);
        leases.retain(|lease, _| chain.deployments.get(&lease.dseq).is_some_and(|d| d.active));
        leases.extend(statuses);
    }

    /// Asks the pages of the deployments' nodes. One that does not answer is forgotten: what it
    /// said before is no news of now.
    async fn read_pages(&self, ports: &Ports, chain: &ChainView, dseqs: &BTreeSet<u64>) {
        let asked: Vec<_> = {
            let leases = lock(&self.leases);
            let hosts = leases.iter().filter(|(lease, _)| dseqs.contains(&lease.dseq)).filter_map(
                |(lease, status)| {
                    let LeaseStatus::Deployed { uris, .. } = status else { return None };
                    let group = &chain.deployments.get(&lease.dseq)?.group_name;
                    Some((
                        IncarnationName::from_group_name(group, &self.installation)?,
                        uris.first()?.clone(),
                    ))
                },
            );
            hosts.collect()
        };
        let answers = join_all(asked.into_iter().map(|(name, host)| async move {
            let page = status_pages::ask(ports, &self.root, &name, &host).await;
            (name, page)
        }))
        .await;
        let mut pages = lock(&self.pages);
        for (name, page) in answers {
            match page {
                Ok(page) => drop(pages.insert(name, page)),
                Err(error) => {
                    tracing::debug!(incarnation = %name, error, "a status page cannot be had");
                    pages.remove(&name);
                }
            }
        }
        let live = |name: &IncarnationName| {
            chain
                .deployments
                .values()
                .any(|d| d.active && d.group_name == name.group_name(&self.installation))
        };
        pages.retain(|name, _| live(name));
    }

    /// The chain as last read, present or not.
    pub fn chain(&self) -> Option<ChainView> {
        lock(&self.chain).value.clone()
    }

    /// Active deployments with our installation id that stand in no record.
    pub fn unrecorded(&self, clusters: &[Stored]) -> BTreeMap<u64, IncarnationName> {
        let recorded: BTreeSet<u64> =
            clusters.iter().flat_map(|c| c.record.incarnations.values()).map(|i| i.dseq).collect();
        let chain = lock(&self.chain);
        let active = chain
            .value
            .iter()
            .flat_map(|c| c.deployments.values())
            .filter(|d| d.active && !recorded.contains(&d.dseq));
        let ours = active.filter_map(|d| {
            Some((d.dseq, IncarnationName::from_group_name(&d.group_name, &self.installation)?))
        });
        let unrecorded: BTreeMap<u64, IncarnationName> = ours.collect();
        let mut told = lock(&self.told_unrecorded);
        if *told != unrecorded && !unrecorded.is_empty() {
            let dseqs = unrecorded
                .iter()
                .map(|(dseq, name)| format!("{dseq} ({name})"))
                .collect::<Vec<_>>()
                .join(", ");
            tracing::warn!(
                "the wallet pays for deployments of this installation that stand in no record: {dseqs}; none is touched and no new cluster is begun: bring the store back, or apply their clusters' manifests and close them with `akash-redis close NAME DSEQ`"
            );
        }
        told.clone_from(&unrecorded);
        unrecorded
    }

    /// Where these nodes are dialled, given with the device id that each reported and the tags of
    /// its cluster. One that nobody lists is still dialled where it was: what a list lacks does not
    /// make a node silent.
    pub fn addresses<'a>(
        &self,
        ports: &Ports,
        nodes: impl Iterator<Item = (&'a IncarnationName, Option<&'a str>, [&'a str; 2])>,
    ) -> BTreeMap<IncarnationName, String> {
        let (mesh, own) = (lock(&self.mesh), own_mesh(ports));
        let mut last = lock(&self.addresses);
        let found = nodes.filter_map(|(name, reported, tags)| {
            let known = address(&mesh, &own, &name.hostname(&self.installation), reported, tags);
            Some((name.clone(), known.or_else(|| last.get(name).cloned())?))
        });
        let found: BTreeMap<_, _> = found.collect();
        last.extend(found.clone());
        found
    }

    /// Everything at this moment; what this process itself holds is filled in by the caller.
    pub fn inventory(&self, ports: &Ports) -> Inventory {
        Inventory {
            chain: lock(&self.chain).clone(),
            mesh: lock(&self.mesh).clone(),
            own_mesh: own_mesh(ports),
            leases: lock(&self.leases).clone(),
            pages: lock(&self.pages).clone(),
            nodes: BTreeMap::new(),
            held: BTreeMap::new(),
            minting: BTreeSet::new(),
            not_minted: BTreeMap::new(),
            unrecorded: BTreeMap::new(),
            delivered: BTreeMap::new(),
            failing: Vec::new(),
            pending: BTreeSet::new(),
            id_pool: spare(ports),
        }
    }
}

fn own_mesh(ports: &Ports) -> OwnMesh {
    ports.own_mesh.as_ref().map(|own| own.borrow().clone()).unwrap_or_default()
}

/// Where both know a node, the control API wins while it answers: it made the devices, and a
/// tailscaled that lost its control server keeps an old network map. While the API is away, the
/// network map is the younger of the two. A node that either knows is not let go: an operator that
/// starts while the API is away has the network map alone, one whose tailscaled was just started
/// has the API alone.
fn address(
    mesh: &Reading<MeshView>,
    own: &OwnMesh,
    hostname: &str,
    reported: Option<&str>,
    tags: [&str; 2],
) -> Option<String> {
    let listed = || {
        let devices = mesh.value.as_ref()?.devices_of(hostname, reported, tags);
        let device = devices.iter().find(|d| reported == Some(d.id.as_str())).or(devices.first())?;
        (!device.ip.is_empty()).then(|| device.ip.clone())
    };
    // By its id first: a node that was renamed, or asked for another host name, is the same node.
    let seen =
        || reported.and_then(|id| own.by_id.get(id)).or_else(|| own.peers.get(hostname)).cloned();
    if mesh.present().is_some() { listed().or_else(seen) } else { seen().or_else(listed) }
}

fn spare(ports: &Ports) -> IdPool {
    let suffix = || {
        let mut bits = (ports.random)();
        let characters = std::iter::repeat_with(|| {
            let at = usize::try_from(bits % SUFFIX_CHARACTERS.len() as u64).unwrap_or(0);
            bits /= SUFFIX_CHARACTERS.len() as u64;
            char::from(SUFFIX_CHARACTERS[at])
        });
        characters.take(4).collect()
    };
    IdPool { suffixes: std::iter::repeat_with(suffix).take(SPARES).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::mesh::Device;

    fn found(mesh: &Reading<MeshView>, peers: &[(&str, &str)], hostname: &str) -> Option<String> {
        let peers = peers.iter().map(|(name, ip)| ((*name).to_owned(), (*ip).to_owned())).collect();
        address(
            mesh,
            &OwnMesh { peers, ..OwnMesh::default() },
            hostname,
            None,
            ["tag:nodes", "tag:quarantine"],
        )
    }

    #[test]
    fn a_node_is_found_by_either_and_the_fresher_one_wins() {
        let device = Device {
            id: "n1".into(),
            hostname: "cache-0-x7k2-abc123".into(),
            name: String::new(),
            ip: "100.64.0.1".into(),
            tags: vec!["tag:nodes".into()],
            created: None,
            multiple_connections: false,
        };
        let view = MeshView { devices: vec![device], ..MeshView::default() };
        let fresh = Reading::fresh(view, UnixMs(1));
        let away = Reading { error: Some("away".into()), ..fresh.clone() };
        let (first, second) = ("cache-0-x7k2-abc123", "cache-1-y8m3-abc123");
        let peers = [(first, "100.64.0.2"), (second, "100.64.0.3")];
        assert_eq!(found(&fresh, &peers, first).as_deref(), Some("100.64.0.1"));
        assert_eq!(found(&fresh, &peers, second).as_deref(), Some("100.64.0.3"));
        assert_eq!(found(&away, &peers, first).as_deref(), Some("100.64.0.2"));
        assert_eq!(
            found(&away, &[], first).as_deref(),
            Some("100.64.0.1"),
            "the last that was known"
        );
        assert_eq!(
            found(&Reading::default(), &peers, second).as_deref(),
            Some("100.64.0.3"),
            "the control API never answered"
        );
        assert_eq!(found(&fresh, &[], second), None);
    }
}
