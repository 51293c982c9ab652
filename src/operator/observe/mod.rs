//! Reads the outside world. Facts only: whoever reads decides nothing. Readings are shared by all
//! clusters; a plan gets the part of them that concerns its own.

mod addresses;
pub mod agents;
mod backups;
mod chain;
mod leases;
mod status_pages;
mod suppliers;
mod tailnet;
mod unrecorded;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

pub use chain::News;

use super::books::Bookkeeper;
use super::execute::EffectError;
use super::health::{Balances, Read};
use super::index::ClusterIndex;
use super::lock;
use super::manifests::Known;
use super::ports::Ports;
use super::settings::Settings;
use crate::chain::ChainError;
use crate::model::chain::{ChainView, LeaseState, ProviderView};
use crate::model::funds::WalletOutlook;
use crate::model::ids::{IncarnationName, LeaseId};
use crate::model::incarnation::Incarnation;
use crate::model::inventory::{IdPool, Inventory};
use crate::model::mesh::OwnMesh;
use crate::model::money::PricePerBlock;
use crate::model::record::Record;
use crate::model::step::StorageRef;
use crate::model::time::UnixMs;
use crate::store::Stored;
use addresses::Addresses;
use backups::BackupReadings;
use chain::ChainReadings;
use leases::LeaseReadings;
use suppliers::SupplierReadings;
use tailnet::TailnetReadings;

/// Names offered to each plan: more than any cluster has nodes.
const IDS: usize = 16;
/// Characters of a suffix; none that can be taken for another.
const SUFFIX_CHARACTERS: &[u8] = b"abcdefghijkmnpqrstuvwxyz23456789";

/// The last readings of everything.
pub struct Observer {
    ports: Ports,
    settings: Arc<Settings>,
    index: Arc<Mutex<ClusterIndex>>,
    books: Arc<Bookkeeper>,
    chain: Mutex<ChainReadings>,
    tailnet: Mutex<TailnetReadings>,
    leases: LeaseReadings,
    addresses: Addresses,
    /// How long the wallet does, by the last reading of everything.
    wallet: Mutex<WalletOutlook>,
    /// Those that the control API says are deleted, of what stands in a record.
    deleted_devices: Mutex<BTreeSet<String>>,
    /// What the log said of last.
    told_unrecorded: Mutex<BTreeMap<u64, IncarnationName>>,
    suppliers: SupplierReadings,
    backups: BackupReadings,
}

impl Observer {
    /// Nothing was read yet.
    pub fn new(
        ports: Ports,
        settings: Arc<Settings>,
        index: Arc<Mutex<ClusterIndex>>,
        books: Arc<Bookkeeper>,
    ) -> Self {
        let installation = settings.constants.installation.clone();
        let leases = LeaseReadings::new(settings.root.clone(), installation);
        Self {
            ports,
            settings,
            index,
            books,
            chain: Mutex::default(),
            tailnet: Mutex::default(),
            leases,
            addresses: Addresses::default(),
            wallet: Mutex::default(),
            deleted_devices: Mutex::default(),
            told_unrecorded: Mutex::default(),
            suppliers: SupplierReadings::default(),
            backups: BackupReadings::default(),
        }
    }

    /// The object storages of a cluster that it is time to read, and that are to be read then.
    pub fn backups_due(&self, stored: &Stored) -> Vec<StorageRef> {
        self.backups.begin(&stored.cluster, &stored.record, self.now())
    }

    /// Reads one of them.
    pub async fn read_backups(&self, cluster: &str, at: StorageRef) {
        self.backups.read(&self.ports, cluster, at).await;
    }

    /// Something was changed in a cluster's object storage, which is read again.
    pub async fn read_backups_again(&self, cluster: &str) {
        self.backups.read_again(&self.ports, cluster).await;
    }

    /// Reads the chain for all clusters, and asks the providers about the leases whose node does
    /// not speak for itself.
    pub async fn read_chain(&self) -> News {
        let (mut known, silent): (BTreeSet<u64>, _) = {
            let index = lock(&self.index);
            let silent = index.incarnations().filter(|(_, name)| self.is_silent(name));
            (index.dseqs(), silent.map(|(dseq, _)| dseq).collect())
        };
        known.extend(self.books.unfinished());
        let began = self.now();
        let result = self.ports.chain.read(&known).await;
        self.book(&result).await;
        // The answers are there before the chain that they belong to: a lease that nobody was asked
        // about looks as if it had no manifest yet.
        let heard = self.read_leases(&result, &silent).await;
        let (span, index) = ([began, self.now()], lock(&self.index));
        let installation = &self.settings.constants.installation;
        let mut news = lock(&self.chain).take(result, span, &index, installation);
        if let News::Of(clusters) = &mut news {
            clusters
                .extend(heard.iter().filter_map(|dseq| index.cluster_of(*dseq)).map(str::to_owned));
        }
        let outlook = lock(&self.chain).whole().map(|whole| {
            self.leases.retain(whole, &index);
            let (usual, gas_price) = (self.settings.runway, self.settings.gas_price);
            let ours = whole.deployments.values();
            let ours = ours.filter_map(|d| Some((d, index.runway_of(d.dseq, usual)?)));
            crate::plan::outlook(whole, ours, gas_price)
        });
        drop(index);
        if let Some(outlook) = outlook {
            *lock(&self.wallet) = outlook;
        }
        self.log_unrecorded();
        news
    }

    /// Reads the deployments of one cluster, and asks the providers about `dseqs` of them: what an
    /// effect on them can have changed.
    pub async fn read_deployments(&self, cluster: &str, dseqs: &BTreeSet<u64>) {
        let mut known: BTreeSet<_> = lock(&self.index).dseqs_of(cluster).into_keys().collect();
        known.extend(dseqs);
        let began = self.now();
        let result = self.ports.chain.read_deployments(&known).await;
        self.read_leases(&result, dseqs).await;
        lock(&self.chain).take_cluster(cluster, result, [began, self.now()]);
    }

    /// Asks the provider of a node that stopped speaking, and the node's page; false once there is
    /// nothing to ask about: it speaks again, or is in no record.
    pub async fn read_silent(&self, name: &IncarnationName) -> bool {
        let dseq = name.dseq(&self.settings.constants.installation);
        if !self.is_silent(name) || lock(&self.index).cluster_of(dseq).is_none() {
            return false;
        }
        let chain = lock(&self.chain).whole().cloned();
        if let Some(chain) = chain {
            self.leases.read(&self.ports, &chain, &BTreeSet::from([dseq])).await;
        }
        true
    }

    /// What a whole reading says of money. The store that cannot be written now is written with the
    /// next one.
    async fn book(&self, read: &Result<ChainView, ChainError>) {
        let Ok(view) = read else { return };
        if let Err(error) = self.books.take(view).await {
            tracing::warn!(%error, "what the chain says of escrows could not be booked");
        }
    }

    async fn read_leases(
        &self,
        read: &Result<ChainView, ChainError>,
        dseqs: &BTreeSet<u64>,
    ) -> BTreeSet<u64> {
        let last = || lock(&self.chain).whole().cloned();
        match read.as_ref().ok().cloned().or_else(last) {
            Some(chain) => self.leases.read(&self.ports, &chain, dseqs).await,
            None => BTreeSet::new(),
        }
    }

    /// Prices of the leases that run and the open bids of these deployments, per block.
    pub fn prices(&self, dseqs: &BTreeSet<u64>) -> Vec<PricePerBlock> {
        let chain = lock(&self.chain);
        let Some(whole) = chain.whole() else { return Vec::new() };
        let deployments = dseqs.iter().filter_map(|dseq| whole.deployments.get(dseq));
        deployments
            .flat_map(|deployment| {
                let leases = deployment.leases.iter();
                let leases = leases.filter(|l| l.state == LeaseState::Active).map(|l| l.price);
                leases.chain(deployment.bids.iter().filter(|b| b.fits).map(|b| b.price))
            })
            .collect()
    }

    /// How the last reading of the chain ended, and what the wallet holds by it.
    pub fn chain_health(&self) -> (Read, Balances) {
        lock(&self.chain).health()
    }

    /// Looks at what the wallet holds and how long it does, once that was read.
    pub fn with_wallet(&self, look: impl FnOnce(&ChainView, &WalletOutlook)) {
        let wallet = *lock(&self.wallet);
        if let Some(whole) = lock(&self.chain).whole() {
            look(whole, &wallet);
        }
    }

    /// How the last reading of the tailnet ended.
    pub fn tailnet_health(&self) -> Read {
        lock(&self.tailnet).health()
    }

    /// How the operator itself is on the mesh, where that can be told.
    pub fn mesh_health(&self) -> Option<Read> {
        let own = self.ports.own_mesh.as_ref()?.borrow();
        Some(Read {
            error: own.error.clone(),
            refused: false,
            seen: "the operator is on it".into(),
        })
    }

    /// Reads the tailnet for all clusters.
    pub async fn read_tailnet(&self) -> News {
        let installation = &self.settings.constants.installation;
        let known = lock(&self.index).devices();
        let began = self.now();
        let result = self.ports.mesh.read(installation, &known).await;
        lock(&self.tailnet).take(result, [began, self.now()], installation)
    }

    /// Whether it is time to read the chain's list of providers, which is to be read then.
    pub fn suppliers_due(&self) -> bool {
        self.suppliers.begin(self.now())
    }

    /// Reads the chain's list of providers.
    pub async fn read_suppliers(&self) {
        self.suppliers.read(&*self.ports.chain, || self.now()).await;
    }

    /// The part of all readings that concerns one cluster; what this process itself holds is for the
    /// caller to fill in.
    pub fn inventory(&self, stored: &Stored) -> Inventory {
        let (name, record) = (&stored.cluster.metadata.name, &stored.record);
        let dseqs: BTreeSet<_> = record.incarnations.values().map(|i| i.dseq).collect();
        let names = || record.incarnations.keys();
        let (chain, unrecorded, wallet_told) = {
            let (index, chain) = (lock(&self.index), lock(&self.chain));
            (chain.of(name, &dseqs), chain.unrecorded(&index), index.told_by_others(name))
        };
        let own_mesh = self.own_mesh();
        // One lock after the other: what is locked within the value below is so to its end.
        let wallet = *lock(&self.wallet);
        let mesh = lock(&self.tailnet).of(name, devices(record));
        Inventory {
            chain,
            wallet,
            mesh,
            own_mesh: OwnMesh {
                error: own_mesh.error,
                since: own_mesh.since,
                ..OwnMesh::default()
            },
            leases: self.leases.statuses(&dseqs),
            leases_asked: self.leases.asked(&dseqs),
            pages: self.leases.pages(names()),
            nodes: names().filter_map(|n| Some((n.clone(), self.ports.agents.view(n)?))).collect(),
            unrecorded,
            deleted_devices: self.deleted_devices_of(record),
            id_pool: self.id_pool(),
            suppliers: self.suppliers.last(),
            wallet_told,
            backups: self.backups.of(&stored.cluster, record),
            ..Inventory::default()
        }
    }

    /// The control API deleted this device, or knew none.
    pub fn device_deleted(&self, device: &str) {
        lock(&self.deleted_devices).insert(device.to_owned());
    }

    /// Forgets, too, what no record names any more.
    fn deleted_devices_of(&self, record: &Record) -> BTreeSet<String> {
        if lock(&self.deleted_devices).is_empty() {
            return BTreeSet::new();
        }
        let recorded = lock(&self.index).devices();
        let mut deleted = lock(&self.deleted_devices);
        deleted.retain(|id| recorded.contains(id));
        devices(record).filter(|id| deleted.contains(*id)).map(str::to_owned).collect()
    }

    /// Has the nodes of a cluster watched where they are dialled now.
    pub fn watch(&self, stored: &Stored, record: &Record) {
        let name = &stored.cluster.metadata.name;
        let tags = [self.settings.tag_of(&stored.cluster), &self.settings.quarantine_tag];
        let tailnet = lock(&self.tailnet).of(name, devices(record));
        let installation = &self.settings.constants.installation;
        let own = self.own_mesh();
        if let Some(targets) =
            self.addresses.update(name, record, &tailnet, &own, tags, installation)
        {
            self.ports.agents.watch(name, &targets);
        }
    }

    /// A cluster is gone: its nodes are watched no more.
    pub fn forget(&self, cluster: &str) {
        lock(&self.chain).forget(cluster);
        self.backups.forget(cluster);
        self.addresses.forget(cluster);
        self.ports.agents.watch(cluster, &BTreeMap::new());
    }

    /// What a manifest for this lease is delivered by: the hash on the chain, and the provider.
    pub fn manifest_target(
        &self,
        cluster: &str,
        lease: &LeaseId,
    ) -> Result<(Vec<u8>, ProviderView), EffectError> {
        let outdated = |what: &str| EffectError::Outdated(what.to_owned());
        let reading = lock(&self.chain).of(cluster, &BTreeSet::from([lease.dseq]));
        let chain = reading.value.ok_or_else(|| outdated("the chain was not read yet"))?;
        let deployment = chain.deployments.get(&lease.dseq);
        let deployment =
            deployment.ok_or_else(|| outdated("the chain does not know the deployment"))?;
        let provider = chain.providers.get(&lease.provider);
        let provider = provider.ok_or_else(|| outdated("the chain does not know the provider"))?;
        Ok((deployment.hash.clone(), provider.clone()))
    }

    /// Its agent does not speak now.
    pub fn is_silent(&self, name: &IncarnationName) -> bool {
        !self.ports.agents.view(name).is_some_and(|view| view.connected)
    }

    fn own_mesh(&self) -> OwnMesh {
        self.ports.own_mesh.as_ref().map(|own| own.borrow().clone()).unwrap_or_default()
    }

    fn now(&self) -> UnixMs {
        (self.ports.now)()
    }

    fn log_unrecorded(&self) {
        let unrecorded = {
            let index = lock(&self.index);
            lock(&self.chain).unrecorded(&index)
        };
        let mut told = lock(&self.told_unrecorded);
        if *told != unrecorded && !unrecorded.is_empty() {
            let dseqs = unrecorded
                .iter()
                .map(|(dseq, name)| format!("{dseq} ({name})"))
                .collect::<Vec<_>>()
                .join(", ");
            tracing::warn!(
                "the wallet pays for deployments of this installation that are in no record: {dseqs}; none is touched; `akash-redis orphans` lists them and `akash-redis recover` says what can be taken over"
            );
        }
        *told = unrecorded;
    }

    fn id_pool(&self) -> IdPool {
        let suffix = || {
            let mut bits = (self.ports.random)();
            let characters = std::iter::repeat_with(|| {
                let at = usize::try_from(bits % SUFFIX_CHARACTERS.len() as u64).unwrap_or(0);
                bits /= SUFFIX_CHARACTERS.len() as u64;
                char::from(SUFFIX_CHARACTERS[at])
            });
            characters.take(4).collect()
        };
        IdPool { suffixes: std::iter::repeat_with(suffix).take(IDS).collect() }
    }
}

fn devices(record: &Record) -> impl Iterator<Item = &str> {
    record.incarnations.values().flat_map(Incarnation::devices)
}

/// What this process itself holds of a cluster, beside what was read.
pub fn with_known(inventory: Inventory, known: Known) -> Inventory {
    Inventory {
        held: known.held,
        minting: known.minting,
        not_minted: known.not_minted,
        delivered: known.delivered,
        ..inventory
    }
}
