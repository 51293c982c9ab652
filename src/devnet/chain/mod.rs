//! A node of the local chain: the ledger behind the gRPC services that clients of the real chain
//! call.
//!
//! A broadcast transaction waits for the next block; until then nobody finds it. Queries see a
//! whole block or nothing of it, and those with the header `x-cosmos-block-height` see a height of
//! the recent past.

mod faults;
mod queries;
#[cfg(test)]
mod tests;
mod tx;

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::transport::Server;
use tonic::{Response, Status};

pub use faults::ChainFaults;

use super::ledger::{Genesis, Ledger, Params, QueryError, View};

/// Header that names a height, in requests and answers.
const HEIGHT: &str = "x-cosmos-block-height";
/// After which time a caller that asked too often may ask again, milliseconds.
const COME_BACK_MS: &str = "200";
/// Heights that can be asked for.
const KEPT: usize = 50;

/// How a node runs.
#[derive(Clone, Debug)]
pub struct ChainConfig {
    /// How the chain begins.
    pub genesis: Genesis,
    /// Time between blocks; `None`: only [`ChainHandle::advance`] makes them.
    pub block_every: Option<Duration>,
}

/// A running node. It goes on until the token given to [`serve`] is cancelled.
#[derive(Debug)]
pub struct ChainHandle {
    node: Arc<Node>,
    address: SocketAddr,
    tasks: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Node {
    ledger: Mutex<Ledger>,
    /// The recent heights, the latest last; never empty.
    views: Mutex<VecDeque<Arc<View>>>,
    faults: ChainFaults,
    shutdown: CancellationToken,
}

/// What the services are made of.
#[derive(Clone, Debug)]
struct Api(Arc<Node>);

/// Starts a node on this socket, in the runtime that this is called in.
///
/// # Errors
/// The socket has no local address.
pub fn serve(
    config: ChainConfig,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> io::Result<ChainHandle> {
    let address = listener.local_addr()?;
    let ledger = Ledger::new(config.genesis);
    let views = VecDeque::from([Arc::new(ledger.view().clone())]);
    let node = Arc::new(Node {
        ledger: Mutex::new(ledger),
        views: Mutex::new(views),
        faults: ChainFaults::default(),
        shutdown: shutdown.clone(),
    });
    let mut tasks = vec![tokio::spawn(answer(Api(Arc::clone(&node)), listener, shutdown.clone()))];
    if let Some(every) = config.block_every {
        tasks.push(tokio::spawn(make_blocks(Arc::clone(&node), every, shutdown)));
    }
    Ok(ChainHandle { node, address, tasks })
}

async fn answer(api: Api, listener: TcpListener, shutdown: CancellationToken) {
    use crate::wire::akash::audit::v1::query_server::QueryServer as Audit;
    use crate::wire::akash::bme::v1::query_server::QueryServer as Bme;
    use crate::wire::akash::cert::v1::query_server::QueryServer as Cert;
    use crate::wire::akash::deployment::v1beta4::query_server::QueryServer as Deployment;
    use crate::wire::akash::discovery::v1::discovery_server::DiscoveryServer as Discovery;
    use crate::wire::akash::escrow::v1::query_server::QueryServer as Escrow;
    use crate::wire::akash::market::v1beta5::query_server::QueryServer as Market;
    use crate::wire::akash::oracle::v2::query_server::QueryServer as Oracle;
    use crate::wire::akash::provider::v1beta4::query_server::QueryServer as Provider;
    use crate::wire::cosmos::auth::v1beta1::query_server::QueryServer as Auth;
    use crate::wire::cosmos::authz::v1beta1::query_server::QueryServer as Authz;
    use crate::wire::cosmos::bank::v1beta1::query_server::QueryServer as Bank;
    use crate::wire::cosmos::base::node::v1beta1::service_server::ServiceServer as NodeService;
    use crate::wire::cosmos::base::tendermint::v1beta1::service_server::ServiceServer as Tendermint;
    use crate::wire::cosmos::feegrant::v1beta1::query_server::QueryServer as Feegrant;
    use crate::wire::cosmos::tx::v1beta1::service_server::ServiceServer as Tx;

    let served = Server::builder()
        .add_service(Audit::new(api.clone()))
        .add_service(Bme::new(api.clone()))
        .add_service(Cert::new(api.clone()))
        .add_service(Deployment::new(api.clone()))
        .add_service(Discovery::new(api.clone()))
        .add_service(Escrow::new(api.clone()))
        .add_service(Market::new(api.clone()))
        .add_service(Oracle::new(api.clone()))
        .add_service(Provider::new(api.clone()))
        .add_service(Auth::new(api.clone()))
        .add_service(Authz::new(api.clone()))
        .add_service(Bank::new(api.clone()))
        .add_service(NodeService::new(api.clone()))
        .add_service(Tendermint::new(api.clone()))
        .add_service(Feegrant::new(api.clone()))
        .add_service(Tx::new(api))
        .serve_with_incoming_shutdown(TcpListenerStream::new(listener), shutdown.cancelled_owned())
        .await;
    if let Err(error) = served {
        tracing::warn!(%error, "the local chain stopped answering");
    }
}

async fn make_blocks(node: Arc<Node>, every: Duration, shutdown: CancellationToken) {
    let mut changed = node.faults.block_time();
    loop {
        let pace = changed.borrow_and_update().unwrap_or(every).max(Duration::from_millis(1));
        let mut ticks = tokio::time::interval(pace);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                // The sender is the node's: the channel cannot be closed.
                _ = changed.changed() => break,
                _ = ticks.tick() => {}
            }
            if !node.faults.blocks_stopped() {
                node.advance();
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere leaves nothing half done: a block is made of whole transactions.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Node {
    fn advance(&self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now_ns = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let mut ledger = lock(&self.ledger);
        if self.faults.reordered() {
            ledger.advance_reordered(now_ns);
        } else {
            ledger.advance(now_ns);
        }
        let view = Arc::new(ledger.view().clone());
        let mut views = lock(&self.views);
        views.push_back(view);
        if views.len() > KEPT {
            views.pop_front();
        }
    }

    fn view(&self, metadata: &MetadataMap) -> Result<Arc<View>, Status> {
        let views = lock(&self.views);
        let latest = views.back().cloned().ok_or_else(|| Status::internal("no block yet"))?;
        let asked = metadata
            .get(HEIGHT)
            .and_then(|value| value.to_str().ok())
            .filter(|value| *value != "0");
        let height = match asked {
            Some(height) => height.parse().map_err(|_| {
                Status::invalid_argument(format!("height {height}: invalid request"))
            })?,
            None => latest.block().height.saturating_sub(self.faults.lag()),
        };
        if asked.is_none() {
            let stale = views.iter().find(|view| view.block().height >= height);
            return Ok(stale.cloned().unwrap_or(latest));
        }
        views.iter().find(|view| view.block().height == height).cloned().ok_or_else(|| {
            let latest = latest.block().height;
            let why = format!("failed to load state at height {height}; version does not exist (latest height: {latest})");
            Status::invalid_argument(format!("codespace sdk code 18: invalid request: {why}"))
        })
    }
}

impl Api {
    /// Waits while the node is silent.
    async fn speak(&self) -> Result<(), Status> {
        self.0.faults.count_call();
        let gone = || Status::unavailable("the node is shutting down");
        self.0.shutdown.run_until_cancelled(self.0.faults.speaking()).await.ok_or_else(gone)?;
        if self.0.faults.take_refused_call() {
            let mut status = Status::resource_exhausted("rate limit exceeded");
            let when = MetadataValue::from_static(COME_BACK_MS);
            status.metadata_mut().insert("grpc-retry-pushback-ms", when);
            return Err(status);
        }
        Ok(())
    }

    async fn ask<T>(
        &self,
        metadata: &MetadataMap,
        question: impl FnOnce(&View) -> Result<T, QueryError>,
    ) -> Result<Response<T>, Status> {
        self.speak().await?;
        let view = self.0.view(metadata)?;
        let mut response = Response::new(question(&view).map_err(status)?);
        if let Ok(height) = view.block().height.to_string().parse() {
            response.metadata_mut().insert(HEIGHT, height);
        }
        Ok(response)
    }
}

fn status(error: QueryError) -> Status {
    if error.not_found {
        Status::not_found(error.text)
    } else {
        Status::invalid_argument(error.text)
    }
}

/// What can be done to a node from beside it.
#[derive(Clone, Debug)]
pub struct ChainControl(Arc<Node>);

impl ChainControl {
    /// What goes wrong with it.
    #[must_use]
    pub fn faults(&self) -> &ChainFaults {
        &self.0.faults
    }

    /// What governance decided.
    #[must_use]
    pub fn params(&self) -> Params {
        lock(&self.0.ledger).view().genesis().params.clone()
    }

    /// Governance decides otherwise; it shows with the next block.
    pub fn set_params(&self, params: Params) {
        lock(&self.0.ledger).set_params(params);
    }
}

impl ChainHandle {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The same as clients are configured with.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What goes wrong with it.
    #[must_use]
    pub fn faults(&self) -> &ChainFaults {
        &self.node.faults
    }

    /// The node for whoever makes it misbehave.
    #[must_use]
    pub fn control(&self) -> ChainControl {
        ChainControl(Arc::clone(&self.node))
    }

    /// Makes a block now.
    pub fn advance(&self) {
        self.node.advance();
    }

    /// Reads the latest height without the network.
    #[must_use]
    pub fn view(&self) -> Arc<View> {
        let views = lock(&self.node.views);
        views.back().cloned().unwrap_or_else(|| Arc::new(lock(&self.node.ledger).view().clone()))
    }

    /// Waits until it has stopped, after its token was cancelled.
    pub async fn stopped(self) {
        for task in self.tasks {
            // A task that panicked has stopped too.
            let _ = task.await;
        }
    }
}
