//! What wakes which cluster: an edit its object, a report of an agent its own cluster, a reading of
//! the chain or the tailnet those whose part of it differs, and time every one.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::health::Which;
use super::observe::{News, with_known};
use super::{Pipeline, lock, publish, reconcile};
use crate::api::deletion::{self, Deletion};
use crate::changes::Change;
use crate::model::chain::{NO_DEPLOYMENT, SignedTx};
use crate::model::ids::IncarnationName;
use crate::model::inventory::Inventory;
use crate::model::mesh::OwnMesh;
use crate::model::record::Record;
use crate::plan::{self, Plan};
use crate::store::{StoreError, Stored};

/// A cluster whose object changed while it was planned is planned again after this time.
const AFTER_CONFLICT: Duration = Duration::from_millis(50);
/// Between two questions about a node that stopped speaking, and for how long they are asked.
const ASK_AGAIN: Duration = Duration::from_secs(1);
const ASKED_FOR: Duration = Duration::from_secs(15);

impl Pipeline {
    /// Plans clusters as they are woken, until `shutdown`.
    pub(super) async fn run(
        self: Arc<Self>,
        shutdown: CancellationToken,
    ) -> Result<(), StoreError> {
        // Before anything is read: no change of an object is missed.
        let mut objects = self.ports.store.changes();
        let mut agents = self.ports.agents.changes();
        let (mut own_mesh, mut known_mesh) = (self.ports.own_mesh.clone(), OwnMesh::default());
        self.books.load().await?;
        self.experience.read().await?;
        self.look_at_all().await?;
        self.take_over_transactions().await?;
        let mut tick = interval(self.settings.tick);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                change = objects.next() => match change {
                    Some(Change::Key(name)) => self.queue.add(name),
                    Some(Change::Any) => self.look_at_all().await?,
                    None => break,
                },
                change = agents.next() => match change {
                    Some(Change::Key(node)) => {
                        self.wake_one(node.cluster());
                        self.ask_about(node);
                    }
                    Some(Change::Any) => self.wake(News::OfAll),
                    None => break,
                },
                _ = tick.tick() => self.read(),
                new = changed(&mut own_mesh) => self.wake_for(&mut known_mesh, new),
                name = self.queue.next() => {
                    if let Some(rest) = self.publisher.takeovers.rest(&name) {
                        self.queue.add_after(name, rest);
                        continue;
                    }
                    let began = Instant::now();
                    self.reconcile(&name).await?;
                    self.publisher.reconciled(began.elapsed());
                }
            }
        }
        self.tasks.close();
        Ok(())
    }

    /// Everything that is known of a cluster now.
    pub(super) fn observe(&self, stored: &Stored) -> Inventory {
        let (name, record) = (&stored.cluster.metadata.name, &stored.record);
        let mut inventory = self.observer.inventory(stored);
        // After the reading of the tailnet: a key that is in it is in these as well if it is ours.
        let known = self.manifests.known(name, inventory.mesh.at);
        inventory = with_known(inventory, known);
        inventory.failing = self.failing(name);
        inventory.wallet.minting = self.minting.load(Ordering::Acquire);
        inventory.experience = self.experience.all();
        let height = inventory.chain.value.as_ref().map_or(0, |chain| chain.height);
        let dseqs = record.incarnations.values().map(|i| i.dseq).collect();
        inventory.pending = self.transactions.pending(&dseqs, height);
        inventory.spent_before = self.books.spent_before(stored);
        inventory
    }

    /// Commits the plan's record, with the events that tell of it; true when it was another one than
    /// the stored. Breaks off where the object changed meanwhile.
    pub(super) async fn commit(
        &self,
        stored: &Stored,
        inventory: &Inventory,
        plan: &Plan,
    ) -> Result<ControlFlow<(), bool>, StoreError> {
        let name = &stored.cluster.metadata.name;
        self.books.close(&stored.record, &plan.record, inventory.chain.value.as_ref()).await?;
        let events = self.publisher.events(name, plan);
        let written = match reconcile::commit(&*self.ports.store, stored, plan, &events).await {
            Ok(written) => written,
            Err(StoreError::Conflict { .. } | StoreError::NotFound { .. }) => {
                self.queue.add_after(name.clone(), AFTER_CONFLICT);
                return Ok(ControlFlow::Break(()));
            }
            Err(error) => return Err(error),
        };
        if written {
            publish::log(&events);
            self.queue.add(name.clone());
        }
        self.books.open(stored, &plan.record).await?;
        let committed = plan::committed(inventory, &plan.record);
        {
            let mut index = lock(&self.index);
            index.put(name, &plan.record, committed);
            index.put_runway(name, stored.cluster.spec.budget.runway);
            index.put_told(name, told(stored, &plan.record));
        }
        self.observer.watch(stored, &plan.record);
        Ok(ControlFlow::Continue(written))
    }

    /// It is planned again at the first deadline of what it waits for, and at least each tick.
    pub(super) fn plan_again(&self, name: &str, plan: &Plan) {
        let now = (self.ports.now)();
        let deadlines = plan.waits.iter().filter_map(|wait| wait.deadline);
        let ahead = deadlines.filter(|deadline| *deadline > now).map(|d| d.since(now));
        let pause = ahead.chain([self.settings.tick]).min().unwrap_or(self.settings.tick);
        self.queue.add_after(name.to_owned(), pause);
    }

    /// A cluster is gone, and so is all that was kept of it.
    pub(super) fn forget(&self, name: &str) {
        self.queue.forget(&name.to_owned());
        {
            let mut index = lock(&self.index);
            index.remove(name);
            index.put_runway(name, None);
            index.put_told(name, None);
        }
        self.observer.forget(name);
        self.manifests.forget(name);
        self.forget_failures(name);
        self.publisher.forget(name);
    }

    /// Wakes the clusters that a reading says something new about.
    pub(super) fn wake(&self, news: News) {
        let index = lock(&self.index);
        match news {
            News::Of(names) => {
                for name in names.into_iter().filter(|name| index.contains(name)) {
                    self.queue.add(name);
                }
            }
            News::OfAll => index.names().into_iter().for_each(|name| self.queue.add(name)),
        }
    }

    /// Wakes a cluster once a pause of one of its effects is over.
    pub(super) fn pause_over(self: &Arc<Self>, name: String, pause: Duration) {
        let this = self.clone();
        self.task(async move {
            tokio::time::sleep(pause).await;
            this.wake_one(&name);
        });
    }

    /// Learns the end of a transaction, however long that takes.
    pub(super) fn resume(self: &Arc<Self>, name: String, tx: SignedTx) {
        let this = self.clone();
        self.task(async move {
            this.transactions.resume(&name, &tx).await;
            if tx.dseq == NO_DEPLOYMENT {
                return;
            }
            this.observer.read_deployments(&name, &[tx.dseq].into()).await;
            this.wake_one(&name);
        });
    }

    /// Wakes the clusters whose nodes the operator's own tailscaled sees elsewhere than before, or
    /// all when the operator itself came or went.
    fn wake_for(&self, known: &mut OwnMesh, new: OwnMesh) {
        let old = std::mem::replace(known, new);
        if (&old.error, old.since) != (&known.error, known.since) {
            return self.wake(News::OfAll);
        }
        let installation = &self.settings.constants.installation;
        let hosts = differing(&old.peers, &known.peers);
        let names = hosts.filter_map(|host| IncarnationName::from_hostname(host, installation));
        let mut clusters: BTreeSet<_> = names.map(|name| name.cluster().to_owned()).collect();
        {
            let index = lock(&self.index);
            let devices = differing(&old.by_id, &known.by_id);
            let recorded = devices.filter_map(|device| index.cluster_of_device(device));
            clusters.extend(recorded.map(str::to_owned));
        }
        self.wake(News::Of(clusters));
    }

    /// A node that stopped speaking is asked about at once and each second, until it speaks or the
    /// ticks see to it: who else knows of it decides how long a master is waited for.
    fn ask_about(self: &Arc<Self>, node: IncarnationName) {
        if !self.observer.is_silent(&node) || !lock(&self.asking).insert(node.clone()) {
            return;
        }
        let this = self.clone();
        self.task(async move {
            let began = Instant::now();
            while began.elapsed() < ASKED_FOR && this.observer.read_silent(&node).await {
                this.wake_one(node.cluster());
                tokio::time::sleep(ASK_AGAIN).await;
            }
            lock(&this.asking).remove(&node);
        });
    }

    /// A task that ends with the controller.
    pub(super) fn task(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(self.stop.clone().run_until_cancelled_owned(task));
    }

    fn wake_one(&self, name: &str) {
        if lock(&self.index).contains(name) {
            self.queue.add(name.to_owned());
        }
    }

    /// All objects of the store are planned; what is kept of others is forgotten with the plan that
    /// does not find them.
    async fn look_at_all(&self) -> Result<(), StoreError> {
        let all = self.ports.store.list().await?;
        let mut index = lock(&self.index);
        for name in index.names() {
            self.queue.add(name);
        }
        for stored in all {
            let name = stored.cluster.metadata.name.clone();
            let committed = plan::committed(&Inventory::default(), &stored.record);
            if !index.contains(&name) {
                index.put(&name, &stored.record, committed);
                index.put_runway(&name, stored.cluster.spec.budget.runway);
                index.put_told(&name, told(&stored, &stored.record));
            }
            self.queue.add(name);
        }
        Ok(())
    }

    /// Transactions of an earlier process may still land: nothing else is signed for their
    /// deployments until their end is known.
    async fn take_over_transactions(self: &Arc<Self>) -> Result<(), StoreError> {
        for (name, tx) in self.transactions.take_over().await? {
            self.resume(name, tx);
        }
        Ok(())
    }

    /// Begins to read the object storages of a cluster, where it is time.
    pub(super) fn read_backups(self: &Arc<Self>, stored: &Stored) {
        for at in self.observer.backups_due(stored) {
            let (this, name) = (self.clone(), stored.cluster.metadata.name.clone());
            self.task(async move {
                this.observer.read_backups(&name, at).await;
                this.wake_one(&name);
            });
        }
    }

    /// Begins to read the chain (with the gateways) and the tailnet, each unless it is being read
    /// already. Nobody waits for the end: a chain that says nothing for its ten seconds must not
    /// hold up a failover.
    fn read(self: &Arc<Self>) {
        if let Some(read) = self.observer.mesh_health() {
            self.health.took(Which::Mesh, &read, (self.ports.now)());
        }
        if self.observer.suppliers_due() {
            let this = self.clone();
            self.task(async move { this.observer.read_suppliers().await });
        }
        if !self.reading.chain.swap(true, Ordering::AcqRel) {
            let this = self.clone();
            self.task(async move {
                let news = this.observer.read_chain().await;
                let (read, balances) = this.observer.chain_health();
                this.health.wallet(balances);
                this.observer.with_wallet(|chain, wallet| this.health.outlook(chain, wallet));
                this.health.store(&this.observer.lost(), (this.ports.now)());
                this.health.took(Which::Chain, &read, (this.ports.now)());
                this.reading.chain.store(false, Ordering::Release);
                this.wake(news);
            });
        }
        if !self.reading.tailnet.swap(true, Ordering::AcqRel) {
            let this = self.clone();
            self.task(async move {
                let news = this.observer.read_tailnet().await;
                let read = this.observer.tailnet_health();
                this.health.took(Which::Tailnet, &read, (this.ports.now)());
                this.reading.tailnet.store(false, Ordering::Release);
                this.wake(news);
            });
        }
    }
}

/// What a cluster told of the wallet. One that is being deleted speaks of it no more.
fn told(stored: &Stored, record: &Record) -> Option<u32> {
    record.runway_told.filter(|_| deletion::of(&stored.cluster, record) != Deletion::Granted)
}

/// Which shared readings are under way.
#[derive(Debug, Default)]
pub(super) struct Reading {
    chain: AtomicBool,
    tailnet: AtomicBool,
}

/// Keys whose value is another one, or is in one of the two alone.
fn differing<'a>(
    old: &'a BTreeMap<String, String>,
    new: &'a BTreeMap<String, String>,
) -> impl Iterator<Item = &'a String> {
    let keys = old.keys().chain(new.keys().filter(|key| !old.contains_key(*key)));
    keys.filter(|key| old.get(*key) != new.get(*key))
}

/// How the operator itself is on the mesh, once that changed; never, where nothing is known of it.
async fn changed(own: &mut Option<watch::Receiver<OwnMesh>>) -> OwnMesh {
    if let Some(own) = own
        && own.changed().await.is_ok()
    {
        return own.borrow_and_update().clone();
    }
    std::future::pending().await
}
