//! The operator: a pipeline for one cluster at a time, observe -> plan -> commit -> execute ->
//! publish.

mod agent_protocol;
mod alarms;
mod announcer;
mod books;
mod check;
mod execute;
mod experience;
mod health;
mod home;
mod index;
mod kept_copy;
mod lock;
mod manifests;
mod mesh_access;
mod metrics;
mod minter;
mod object_storage;
mod observe;
mod policy;
mod ports;
mod preview;
mod publish;
mod queue;
mod reconcile;
mod recover;
mod run;
mod settings;
mod start;
mod takeover;
mod transactions;
mod wake;

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::chain::mint::Mints;
use crate::model::change::Change;
use crate::model::ids::IncarnationName;
use crate::model::inventory::Inventory;
use crate::model::record::Record;
use crate::notify::Targets;
use crate::server::wallet::Minter;
use crate::server::{Appraiser, StatusCache};
use crate::store::StoreError;
use books::Bookkeeper;
use execute::Executor;
use experience::Book;
use health::Health;
use index::ClusterIndex;
use lock::lock;
use manifests::Manifests;
pub use metrics::Metrics;
pub use object_storage::ObjectStorages;
use observe::Observer;
pub use observe::agents::MeshAgents;
pub use ports::{AgentError, Agents, Backups, LogLines, Ports};
use publish::Publisher;
use queue::WorkQueue;
pub use run::{Finding, RunError, check, run};
pub use settings::Settings;
use start::Running;
use transactions::Transactions;

/// The controller: plans each cluster when something changed that concerns it.
pub struct Controller {
    pipeline: Arc<Pipeline>,
}

/// The parts of the controller, as its tasks share them.
struct Pipeline {
    ports: Ports,
    settings: Arc<Settings>,
    index: Arc<Mutex<ClusterIndex>>,
    observer: Arc<Observer>,
    books: Arc<Bookkeeper>,
    transactions: Arc<Transactions>,
    manifests: Arc<Manifests>,
    executor: Executor,
    publisher: Publisher,
    health: Health,
    /// What was lived through with providers.
    experience: Book,
    /// Clusters to be planned.
    queue: WorkQueue<String>,
    /// Effects under way, and those that failed.
    running: Mutex<Running>,
    /// Shared readings under way.
    reading: wake::Reading,
    /// Nodes that stopped speaking and are asked about.
    asking: Mutex<BTreeSet<IncarnationName>>,
    tasks: TaskTracker,
    stop: CancellationToken,
    /// A recovery is looked at.
    recovering: tokio::sync::Mutex<()>,
    /// AKT is being burnt for ACT.
    minting: Arc<AtomicBool>,
}

impl Drop for Controller {
    fn drop(&mut self) {
        self.abandon();
    }
}

impl Controller {
    /// A controller over `ports`; nothing is read or done before [`Self::run`].
    #[must_use]
    pub fn new(
        ports: Ports,
        settings: Settings,
        metrics: Metrics,
        status_cache: Arc<StatusCache>,
    ) -> Self {
        let settings = Arc::new(settings);
        let index: Arc<Mutex<ClusterIndex>> = Arc::default();
        let books = Arc::new(Bookkeeper::new(
            settings.constants.owner.clone(),
            ports.store.clone(),
            metrics.clone(),
            status_cache.clone(),
        ));
        let observer =
            Arc::new(Observer::new(ports.clone(), settings.clone(), index.clone(), books.clone()));
        let transactions =
            Arc::new(Transactions::new(ports.chain.clone(), ports.store.clone(), books.clone()));
        let manifests = Arc::new(Manifests::new(ports.clone(), settings.clone()));
        let executor = Executor {
            ports: ports.clone(),
            settings: settings.clone(),
            observer: observer.clone(),
            transactions: transactions.clone(),
            manifests: manifests.clone(),
        };
        let health = Health::new(&settings, metrics.clone(), status_cache.clone());
        let experience = Book::new(ports.clone());
        let stop = CancellationToken::new();
        let publisher =
            Publisher::new(ports.clone(), settings.clone(), metrics, status_cache, stop.clone());
        let pipeline = Pipeline {
            ports,
            settings,
            index,
            observer,
            books,
            transactions,
            manifests,
            executor,
            publisher,
            health,
            experience,
            queue: WorkQueue::new(),
            running: Mutex::default(),
            reading: wake::Reading::default(),
            asking: Mutex::default(),
            tasks: TaskTracker::new(),
            stop,
            recovering: tokio::sync::Mutex::default(),
            minting: Arc::default(),
        };
        let pipeline = Arc::new(pipeline);
        let recovery = recover::Recoverer(Arc::downgrade(&pipeline));
        pipeline.health.status_cache().serve_recovery(Arc::new(recovery));
        Self { pipeline }
    }

    /// Who burns AKT of the wallet when a person asks for it.
    #[must_use]
    pub fn minter(&self, mints: Arc<dyn Mints>, treasury: Option<String>) -> Arc<dyn Minter> {
        let minter = minter::WalletMinter {
            mints,
            treasury,
            transactions: self.pipeline.transactions.clone(),
            tasks: self.pipeline.tasks.clone(),
            stop: self.pipeline.stop.clone(),
            state: Arc::default(),
            under_way: self.pipeline.minting.clone(),
        };
        // One of an earlier process may not have come to its end.
        minter.watch();
        Arc::new(minter)
    }

    /// Runs until `shutdown`, or until a later operator took over the store.
    ///
    /// # Errors
    /// The store failed for good, or belongs to somebody else now.
    pub async fn run(&self, shutdown: CancellationToken) -> Result<(), StoreError> {
        self.pipeline.clone().run(shutdown).await
    }

    /// Who answers questions about it.
    #[must_use]
    pub fn appraiser(&self, targets: Targets) -> Arc<dyn Appraiser> {
        Arc::new(preview::OperatorAppraiser { pipeline: self.pipeline.clone(), targets })
    }

    /// Ends everything at once, wherever it is, as the death of the process would.
    pub fn abandon(&self) {
        self.pipeline.stop.cancel();
    }
}

impl Pipeline {
    /// One cluster, once. One at a time: what one plan commits is spoken for in the next.
    #[tracing::instrument(name = "reconcile", skip_all, fields(cluster = name))]
    async fn reconcile(self: &Arc<Self>, name: &str) -> Result<(), StoreError> {
        let stored = match self.ports.store.get(name).await {
            Err(StoreError::NotFound { .. }) => {
                self.forget(name);
                return Ok(());
            }
            stored => stored?,
        };
        self.read_backups(&stored);
        let busy = self.busy(name);
        let inventory = Inventory { busy: start::deployments(&busy), ..self.observe(&stored) };
        let others = lock(&self.index).committed_by_others(name);
        let plan = reconcile::plan(&self.settings, &stored, &inventory, others, (self.ports.now)());
        if confirms(&stored.record, &plan.record) {
            // Nobody else is master of this epoch, whatever becomes of the write.
            self.publisher.tell_of_master(&stored, &inventory, &plan);
        }
        let ControlFlow::Continue(written) = self.commit(&stored, &inventory, &plan).await? else {
            return Ok(());
        };
        // Before the source is told: no news of the target is missed.
        self.await_takeover(&stored, &inventory, &plan);
        self.execute(&stored, &plan, &busy);
        if written {
            self.publisher.measured(name, &plan.measured);
        } else {
            self.publisher.record_events(name, &plan).await?;
        }
        self.experience.take(&plan.noted).await?;
        match self.publisher.publish(&stored, &inventory, &plan).await {
            // An object of Kubernetes may go without us: it is forgotten when it is looked at next.
            Err(StoreError::NotFound { .. }) => {
                self.queue.add(name.to_owned());
                return Ok(());
            }
            published => published?,
        }
        if plan.finished {
            self.forget(name);
        } else {
            self.plan_again(name, &plan);
        }
        if let Some(rest) = self.publisher.takeovers.rest(name) {
            self.queue.add_after(name.to_owned(), rest);
        }
        Ok(())
    }
}

/// Whether `next` differs in who is master by this alone: whoever was chosen has said that it is.
fn confirms(stored: &Record, next: &Record) -> bool {
    let Some(confirmed) = next.master.as_ref().filter(|master| master.confirmed) else {
        return false;
    };
    let delegated = match &stored.change {
        Some(Change::Switchover(s)) => s.delegated.as_ref().map(|d| (d.epoch, &s.target)),
        _ => None,
    };
    let chosen = stored.master.as_ref().filter(|master| !master.confirmed);
    let chosen = chosen.map(|master| (master.epoch, &master.incarnation)).or(delegated);
    chosen == Some((confirmed.epoch, &confirmed.incarnation))
}
