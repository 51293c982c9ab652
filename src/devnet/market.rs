//! The whole local market: a chain, providers with their gateways, ingresses and runners, and a
//! funded tenant.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bip39::Mnemonic;
use rand::RngCore as _;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use super::account::{Account, AccountError};
use super::chain::{self, ChainConfig, ChainHandle};
use super::distance::Distance;
use super::faults::{GatewayControl, MarketFaults, ProviderControl};
use super::ledger::Genesis;
use super::net::{Net, NetError};
use super::provider::certificate::ProviderCertificate;
use super::provider::chain::GrpcChain;
use super::provider::client::ClientError;
use super::provider::container::ImageRoot;
use super::provider::faults::ProviderFaults;
use super::provider::gateway::{self, Identity};
use super::provider::host::{LeaseKey, ProviderHost, ProviderName};
use super::provider::ingress::Ingress;
use super::provider::market::{self, ProviderConfig, ProviderHandle};
use super::provider::runner::{Runner, RunnerSettings};
use super::switch::Switch;

/// Port of the chain's gRPC.
const CHAIN_PORT: u16 = 9090;
/// Port of a provider's gateway.
const GATEWAY_PORT: u16 = 8443;
/// Last number of the first provider's address.
const FIRST_PROVIDER: u8 = 21;
/// What everybody begins with, in millionths: enough for a long day of trying out.
const WEALTH: u128 = 1_000_000_000;
/// A call to the chain takes no longer.
const CALL_TIME_OUT: Duration = Duration::from_secs(10);
/// Regions of the providers, in turn.
const REGIONS: [&str; 4] = ["us-west", "eu-central", "as-east", "us-east"];
/// The shortest notice of a reclamation, seconds.
const SHORTEST_NOTICE: i64 = 10;
/// Providers of a market that has a chain of its own.
const USUAL: usize = 4;
/// Price of the first provider in thousandths of the usual one; each further one asks `DEARER`
/// more.
const CHEAPEST: u32 = 900;
const DEARER: u32 = 100;
/// So many providers have an address of their own.
pub const MOST_PROVIDERS: usize = 16;

/// The market does not start.
#[derive(Debug, thiserror::Error)]
pub enum MarketError {
    /// The sandbox's network.
    #[error(transparent)]
    Net(#[from] NetError),
    /// An account.
    #[error(transparent)]
    Account(#[from] AccountError),
    /// A provider on the chain.
    #[error(transparent)]
    Provider(#[from] ClientError),
    /// A provider's certificate.
    #[error("a provider's certificate cannot be made")]
    Certificate(#[from] rcgen::Error),
    /// The chain's own address.
    #[error("the local chain cannot be reached")]
    Channel(#[from] tonic::transport::Error),
    /// More providers than addresses.
    #[error("{0} providers are too many; this market has room for {MOST_PROVIDERS}")]
    TooMany(usize),
    /// A port is taken, or the program's own file cannot be found.
    #[error("{what} cannot be opened ({source}); end what uses it and start again")]
    Io {
        /// Of what.
        what: String,
        /// Why.
        source: std::io::Error,
    },
}

/// How the market is run.
#[derive(Clone, Debug)]
pub struct MarketSettings {
    /// Below it the nodes keep their data.
    pub dir: PathBuf,
    /// The usual image that providers can run.
    pub image: String,
    /// Others, and where the nodes of each find redis-server, tailscaled and the rest.
    pub images: BTreeMap<String, OsString>,
    /// Others that are unpacked, of applications for one.
    pub roots: BTreeMap<String, ImageRoot>,
    /// The unpacked image. Without one the nodes see this machine's files, and run `program` with
    /// `path`.
    pub root: Option<ImageRoot>,
    /// What this image holds: the `akash-redis` program.
    pub program: PathBuf,
    /// Where nodes find redis-server, tailscaled and tini.
    pub path: OsString,
    /// Variables of every node beside those of its manifest.
    pub node_env: Vec<(String, String)>,
    /// Time between blocks.
    pub block_every: Duration,
    /// How far apart nodes are; without it they are on one bridge.
    pub distance: Option<Distance>,
}

/// A provider that runs.
pub struct LocalProvider {
    /// Its name.
    pub name: String,
    /// Its business on the chain.
    pub market: ProviderHandle,
    /// Runs what was leased from it.
    pub runner: Arc<Runner>,
    gateway: GatewayControl,
    stop: CancellationToken,
}

impl LocalProvider {
    /// It for whoever makes it misbehave.
    #[must_use]
    pub fn control(&self) -> ProviderControl {
        ProviderControl {
            name: self.name.clone(),
            market: self.market.control(),
            gateway: Some(self.gateway.clone()),
            runner: Some(self.runner.clone()),
        }
    }

    /// Its machines lose power: nodes, gateway and business end at once, and nobody tells the
    /// chain.
    pub async fn vanish(self) {
        self.stop.cancel();
        self.runner.vanish().await;
        self.market.vanish().await;
    }
}

/// A chain and its providers on this machine.
pub struct Market {
    /// The chain's node.
    pub chain: ChainHandle,
    /// Providers, each with its gateway and its workloads.
    pub providers: Vec<LocalProvider>,
    /// Words of the tenant's wallet.
    pub mnemonic: String,
    /// The tenant's account.
    pub tenant: String,
    /// Chain id.
    pub chain_id: String,
    /// The network of its providers.
    pub net: Arc<Net>,
}

impl Market {
    /// Starts everything inside a sandbox; it ends with `shutdown`.
    ///
    /// # Errors
    /// A port is taken, a tool is missing, or the chain refuses a provider.
    pub async fn start(
        settings: &MarketSettings,
        shutdown: &CancellationToken,
    ) -> Result<Self, MarketError> {
        let net = set_up_net(settings.distance).await?;
        let mnemonic = random_mnemonic();
        let tenant = Account::from_mnemonic(&mnemonic, 0)?;
        let accounts: Vec<Account> =
            (0..USUAL).map(|_| Account::from_bytes(&random_bytes())).collect::<Result<_, _>>()?;
        let rich = |account: &Account| (account.address().to_owned(), WEALTH, WEALTH);
        let mut genesis = Genesis::with_accounts(
            std::iter::once(&tenant).chain(&accounts).map(rich).collect(),
            now_ns(),
        );
        // Nobody waits for an hour here.
        genesis.params.reclamation_window.0 = SHORTEST_NOTICE;
        let chain_id = genesis.chain_id.clone();
        let listener = listen(Net::GATEWAY, CHAIN_PORT).await?;
        let chain = chain::serve(
            ChainConfig { genesis, block_every: Some(settings.block_every) },
            listener,
            shutdown.child_token(),
        )
        .map_err(|source| MarketError::Io { what: "the local chain's port".to_owned(), source })?;
        let channel = Channel::from_shared(chain.url()).map_err(|e| MarketError::Io {
            what: "the local chain".to_owned(),
            source: std::io::Error::other(e),
        })?;
        let channel = channel.timeout(CALL_TIME_OUT).connect().await?;
        let providers = start_providers(settings, &net, &channel, accounts, shutdown).await?;
        Ok(Self { chain, providers, mnemonic, tenant: tenant.address().to_owned(), chain_id, net })
    }

    /// It for whoever makes it misbehave.
    #[must_use]
    pub fn faults(&self) -> MarketFaults {
        let chain = self.chain.control();
        let usual_deposit = chain.params().min_deposit;
        let providers = self.providers.iter().map(LocalProvider::control).collect();
        MarketFaults { chain: Some(chain), providers, usual_deposit, net: Some(self.net.clone()) }
    }

    /// Where the chain answers.
    #[must_use]
    pub fn chain_url(&self) -> String {
        self.chain.url()
    }

    /// The provider that runs a deployment, and its lease there.
    #[must_use]
    pub fn find(&self, dseq: u64) -> Option<(usize, LeaseKey)> {
        let at = |(n, provider): (usize, &LocalProvider)| {
            provider
                .runner
                .leases()
                .into_iter()
                .find(|lease| lease.dseq == dseq)
                .map(|lease| (n, lease))
        };
        self.providers.iter().enumerate().find_map(at)
    }

    /// Drops all packets to and from the node of a deployment, or lets them pass again; its
    /// processes go on.
    ///
    /// # Errors
    /// The sandbox's network cannot be changed.
    pub async fn set_link(&self, dseq: u64, up: bool) -> Result<(), NetError> {
        let node = self
            .find(dseq)
            .and_then(|(provider, lease)| self.providers[provider].runner.address(&lease));
        match node {
            Some(node) => self.net.set_link(node, up).await,
            None => Ok(()),
        }
    }

    /// The tenant's uact on its account and in escrow, and its deployments that are not closed.
    #[must_use]
    pub fn tenant_books(&self) -> (u128, i128, usize) {
        let view = self.chain.view();
        let active = view
            .deployments()
            .filter(|d| {
                d.state == crate::wire::akash::deployment::v1::deployment::State::Active as i32
            })
            .count();
        (view.balance(&self.tenant, "uact"), view.held_in_escrow("uact"), active)
    }
}

/// The network of nodes that are so far apart.
///
/// # Errors
/// The sandbox's network cannot be changed, or has no TAP devices.
pub async fn set_up_net(distance: Option<Distance>) -> Result<Arc<Net>, NetError> {
    let seed = rand::thread_rng().next_u64();
    if let Some(distance) = distance {
        tracing::info!(%distance, seed, "nodes are apart");
    }
    Net::set_up_apart("/etc/hosts".into(), distance.map(|d| Switch::new(d, seed))).await
}

/// Starts a provider for each account, clients of the chain behind `channel`; they end with
/// `shutdown`. The sandbox's network is set up.
///
/// # Errors
/// There are too many, a port is taken, or the chain refuses one.
pub async fn start_providers(
    settings: &MarketSettings,
    net: &Arc<Net>,
    channel: &Channel,
    accounts: Vec<Account>,
    shutdown: &CancellationToken,
) -> Result<Vec<LocalProvider>, MarketError> {
    if accounts.len() > MOST_PROVIDERS {
        return Err(MarketError::TooMany(accounts.len()));
    }
    let numbered = accounts.into_iter().enumerate();
    futures::future::try_join_all(
        numbered.map(|one| provider(settings, net, channel.clone(), one, shutdown)),
    )
    .await
}

async fn provider(
    settings: &MarketSettings,
    net: &Arc<Net>,
    channel: Channel,
    (number, account): (usize, Account),
    shutdown: &CancellationToken,
) -> Result<LocalProvider, MarketError> {
    let region = REGIONS[number % REGIONS.len()];
    let price = CHEAPEST + DEARER * u32::try_from(number).unwrap_or(0);
    let name = format!("provider{}", number + 1);
    let hostname = format!("{name}.devnet.test");
    let stop = shutdown.child_token();
    let last = FIRST_PROVIDER + u8::try_from(number).unwrap_or(0);
    let address = net.add_address(last).await?;
    net.publish(&hostname, address)?;
    let certificate =
        Arc::new(ProviderCertificate::make(account.address(), &hostname, SystemTime::now())?);
    let faults = Arc::new(ProviderFaults::default());

    let ingress = Arc::new(Ingress::default());
    tokio::spawn(ingress.clone().serve(listen(address, 80).await?, stop.clone()));
    let runner_settings = RunnerSettings {
        root: settings.root.clone(),
        images: settings.images.clone(),
        roots: settings.roots.clone(),
        program: settings.program.clone(),
        path: settings.path.clone(),
        env: settings.node_env.clone(),
        ..RunnerSettings::new(settings.dir.join(&name), settings.image.clone())
            .map_err(|source| MarketError::Io { what: "this program's file".to_owned(), source })?
    };
    let own_name =
        ProviderName { address: account.address().to_owned(), hostname: hostname.clone() };
    let runner = Runner::new(runner_settings, own_name.clone(), net.clone(), ingress, address);
    let host = ProviderHost::with_faults(
        own_name,
        Arc::new(GrpcChain::new(channel.clone())),
        runner.clone(),
        faults.clone(),
    );
    let (listener, served, ended) =
        (listen(address, GATEWAY_PORT).await?, host.clone(), stop.clone());
    let (cert_pem, pubkey_pem) =
        (certificate.cert_pem.clone().into_bytes(), certificate.pubkey_pem.clone().into_bytes());
    let identity = Identity::new(&certificate).map_err(|source| MarketError::Io {
        what: "a provider's certificate".to_owned(),
        source,
    })?;
    let gateway = GatewayControl {
        identity: identity.clone(),
        hostname: hostname.clone(),
        usual: certificate,
    };
    tokio::spawn(async move {
        if let Err(error) =
            gateway::serve_as(served, listener, identity, Arc::new(SystemTime::now), ended).await
        {
            tracing::warn!(%error, "a local gateway stopped answering");
        }
    });
    let uri = format!("https://{hostname}:{GATEWAY_PORT}");
    let config = ProviderConfig {
        certificate: Some((cert_pem, pubkey_pem)),
        price_permille: price,
        faults,
        block_ms: u64::try_from(settings.block_every.as_millis()).unwrap_or(u64::MAX),
        ..ProviderConfig::new(&name, account, &uri, region)
    };
    let market = market::start(config, channel, host, &stop).await?;
    Ok(LocalProvider { name, market, runner, gateway, stop })
}

async fn listen(address: Ipv4Addr, port: u16) -> Result<TcpListener, MarketError> {
    let place = SocketAddr::from((address, port));
    TcpListener::bind(place)
        .await
        .map_err(|source| MarketError::Io { what: place.to_string(), source })
}

fn random_bytes() -> [u8; 32] {
    let mut bytes = [0; 32];
    rand::thread_rng().fill_bytes(&mut bytes);
    bytes
}

fn random_mnemonic() -> String {
    Mnemonic::from_entropy(&random_bytes()).expect("32 bytes make 24 words").to_string()
}

fn now_ns() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}
