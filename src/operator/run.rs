//! The operator process: settings to clients, clients to the controller.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

use super::home::{self, Home};
use super::mesh_access::MeshAccess;
use super::metrics::Metrics;
use super::observe::agents::MeshAgents;
use super::policy;
use super::ports::Ports;
use super::{Controller, ObjectStorages, Settings};
use crate::api::types::RedisCluster;
use crate::api::validate;
use crate::chain::client::{ChainClient, ChainSettings, GasPrice};
use crate::chain::fees::FeeLimits;
use crate::chain::wallet::Wallet;
use crate::chain::{Chain, ChainError};
use crate::config::Config;
use crate::gateway::client::GatewayClient;
use crate::gateway::{Gateway, ProviderCertificates};
use crate::mesh::access::AccessError;
use crate::mesh::agent_channel::AgentTls;
use crate::mesh::control::ControlClient;
use crate::mesh::policy::Tags;
use crate::mesh::{MeshControl, MeshError};
use crate::model::ids::InstallationId;
use crate::model::inventory::Constants;
use crate::model::time::UnixMs;
use crate::notify::{self, Delivery, Targets as Told};
use crate::plan::{self, Timing};
use crate::secrets::{RootSecret, TooShort};
use crate::server::metrics_listener::{self, MetricsError};
use crate::server::{self, Answerers, ServeError, StatusCache};
use crate::store::StoreError;
use crate::store::kubernetes::lease::Lost;
use crate::traces;
use crate::web::{self, WebError};

/// Why the operator does not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The mnemonic or the root secret cannot be used.
    #[error(transparent)]
    Wallet(#[from] crate::chain::wallet::WalletError),
    /// The root secret is too short.
    #[error(transparent)]
    RootSecret(#[from] TooShort),
    /// The chain is another one than configured, or refuses us.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The tailnet's control API refuses us.
    #[error(transparent)]
    Mesh(#[from] MeshError),
    /// No tailscaled of its own can be run.
    #[error(transparent)]
    OwnMesh(#[from] AccessError),
    /// A setting of the mesh cannot be used.
    #[error("{0}")]
    Setting(String),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The API.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The metrics on TCP.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// The page for people.
    #[error(transparent)]
    Web(#[from] WebError),
    /// Nobody can be told outside.
    #[error("no client can be made for the targets of `notify`")]
    Notify(#[source] reqwest::Error),
    /// Another operator works, or may.
    #[error(
        "the lease was lost ({}), so another operator works now, or may; this one stops, and waits for its turn when it is started again",
        match .0 {
            Lost::TakenOver => "another operator holds it",
            _ => "it could not be renewed in time",
        }
    )]
    LeaseLost(Lost),
}

/// Clients made from the settings; nothing was called yet.
struct Clients {
    root: RootSecret,
    chain: Arc<ChainClient>,
    gateway: Arc<dyn Gateway>,
    mesh: Arc<ControlClient>,
    agents: MeshAgents,
}

impl Clients {
    fn new(config: &Config, access: &MeshAccess) -> Result<Self, RunError> {
        let root = RootSecret::new(config.root_secret.clone())?;
        let wallet = Arc::new(Wallet::from_phrase(&config.wallet.mnemonic, 0)?);
        let settings = ChainSettings {
            chain_id: config.chain.id.clone(),
            grpc: config.chain.grpc.clone(),
            gas_price: GasPrice(config.chain.gas_price_micro),
            fee_granter: config.wallet.fee_granter.clone(),
            treasury: config.wallet.treasury.clone(),
            fee_limits: FeeLimits {
                per_tx: config.chain.max_fee,
                per_day: config.chain.max_fee_per_day,
            },
        };
        let chain = Arc::new(ChainClient::connect(settings, wallet.clone())?);
        let issuer = wallet.address().to_owned();
        let signer = Arc::new(move |bytes: &[u8]| wallet.sign(bytes));
        let certificates = Arc::new(OnChain(chain.clone()));
        let gateway = Arc::new(GatewayClient::new(
            issuer,
            signer,
            certificates,
            config.gateway.allow_private,
        ));
        let mesh = Arc::new(ControlClient::new((&config.mesh).into())?);
        let own = root.operator_certificate(UnixMs::now());
        let tls = AgentTls { ca: root.ca_pem(), certificate: own.certificate, key: own.key };
        let agents =
            MeshAgents::new(access.socks5(), access.local(config)?, tls, Arc::new(UnixMs::now));
        Ok(Self { root, chain, gateway, mesh, agents })
    }
}

/// The certificates of providers by the chain's word.
struct OnChain(Arc<ChainClient>);

#[async_trait]
impl ProviderCertificates for OnChain {
    async fn valid(&self, provider: &str) -> Result<Vec<Vec<u8>>, String> {
        self.0.certificates(provider).await.map_err(|e| e.to_string())
    }
}

/// What is wrong with a manifest, one sentence each; empty when it may be applied.
fn problems(cluster: &RedisCluster) -> Vec<String> {
    validate::validate(cluster).iter().map(ToString::to_string).collect()
}

/// The same for an operator that reads no Secret.
fn problems_in_a_file(cluster: &RedisCluster) -> Vec<String> {
    let by_secret = cluster.spec.redis.users.iter().filter(|user| user.secrets().next().is_some());
    let refused = by_secret.map(|user| {
        format!(
            "spec.redis.users[{}]: secretKeyRef names a Secret of Kubernetes, and this operator keeps its clusters in a file (store.sqlite) and reads no Secret; write passwordSha256, or an env or a file for `akash-redis apply`",
            user.name
        )
    });
    let refused = refused.chain(others_by_secret(cluster).map(|path| {
        format!(
            "{path}: secretKeyRef names a Secret of Kubernetes, and this operator keeps its clusters in a file (store.sqlite) and reads no Secret; write an env or a file for `akash-redis apply`"
        )
    }));
    problems(cluster).into_iter().chain(refused).collect()
}

/// Fields that name an entry of a Secret, beside those of users.
fn others_by_secret(cluster: &RedisCluster) -> impl Iterator<Item = &'static str> {
    let spec = &cluster.spec;
    let keys = spec.backup.as_ref().and_then(|backup| backup.credentials_from.as_ref());
    let source = spec.bootstrap.as_ref().and_then(|bootstrap| bootstrap.from_redis.as_ref());
    let password = source.and_then(|from| from.password_from.as_ref());
    [("spec.backup.credentialsFrom", keys), ("spec.bootstrap.fromRedis.passwordFrom", password)]
        .into_iter()
        .filter(|(_, from)| from.is_some_and(|from| from.secret().is_some()))
        .map(|(path, _)| path)
}

/// Runs the operator until `shutdown`; `traces` are counted among its metrics.
///
/// The chain, gateways and the tailnet may be away: it starts all the same, says so in each
/// cluster's status, and goes on when they are back.
///
/// # Errors
/// A setting that cannot be used, a store or socket held by somebody else, or a later operator that
/// took over.
pub async fn run(
    config: Config,
    traces: &traces::Counts,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let told = notify::Metrics::register(&mut registry);
    traces.register(&mut registry);
    let registry = Arc::new(registry);
    // From the start: who waits for its turn is well too.
    let served = serve_metrics(config.api.metrics, registry.clone(), shutdown.child_token());
    let shown = Shown { metrics, told, registry };
    tokio::select! {
        ended = served => ended.map_err(RunError::from),
        ended = run_in_turn(&config, shown, shutdown) => ended,
    }
}

/// What Prometheus sees.
struct Shown {
    metrics: Metrics,
    told: notify::Metrics,
    registry: Arc<Registry>,
}

/// Waits for its turn, and runs.
async fn run_in_turn(
    config: &Config,
    shown: Shown,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    let root = RootSecret::new(config.root_secret.clone())?;
    let installation = root.installation_id();
    let Some(mut home) = Home::open(config, &root, &shutdown).await? else {
        return Ok(());
    };
    shown.metrics.works();
    let ended = run_at(config, installation, shown, &mut home, shutdown).await;
    home.leave().await;
    ended
}

/// Runs the operator at a home that is its own.
async fn run_at(
    config: &Config,
    installation: InstallationId,
    shown: Shown,
    home: &mut Home,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    let mesh_access = MeshAccess::prepare(config).await?;
    let clients = Clients::new(config, &mesh_access)?;
    let store = home.store.clone();
    let term = store.take_over().await?;
    tracing::info!(%installation, term, owner = clients.chain.owner(), "the operator takes over");
    let pace = notify::Pace::default();
    let told =
        Told::new(&config.notify, &installation.to_string(), pace).map_err(RunError::Notify)?;
    store.tell(told.rule());
    let status_cache = Arc::new(StatusCache::default());
    if let Some(socks5) = mesh_access.socks5() {
        status_cache.serve_socks5(socks5);
    }
    let delivery =
        Delivery { targets: told.clone(), store: store.clone(), pace, metrics: shown.told };
    let settings = Settings {
        constants: Constants {
            installation,
            owner: clients.chain.owner().to_owned(),
            term,
            started: UnixMs::now(),
        },
        root: clients.root,
        image: config.node.image.clone(),
        mesh_tag: config.mesh.tag.clone(),
        quarantine_tag: config.mesh.quarantine_tag.clone(),
        login_server: config.mesh.login_server.clone(),
        budget_per_cluster: config.budget.per_cluster_default.0,
        budget_global: config.budget.global.0,
        runway: config.budget.runway,
        gas_price: plan::GasPrice(config.chain.gas_price_micro),
        timing: Timing {
            bid_window: config.timing.bid_window,
            bid_deadline: config.timing.bid_deadline,
            join_deadline: config.timing.join_deadline,
            replace_after: config.timing.replace_after,
        },
        tick: config.timing.tick,
    };
    let logs = Arc::new(clients.agents.clone());
    let (own_mesh, stop_access) = (mesh_access.status(), CancellationToken::new());
    let access_task = tokio::spawn(mesh_access.run(clients.mesh.clone(), stop_access.clone()));
    let mints = clients.chain.clone();
    let ports = Ports {
        chain: clients.chain,
        gateway: clients.gateway,
        mesh: clients.mesh,
        own_mesh,
        agents: Arc::new(clients.agents),
        backups: Arc::new(ObjectStorages { root: settings.root.clone() }),
        store: store.clone(),
        now: Arc::new(UnixMs::now),
        random: Arc::new(rand::random),
    };
    let controller = Controller::new(ports, settings, shown.metrics, status_cache.clone());
    let answerers =
        Answerers { logs: logs.clone(), dumps: logs, appraiser: controller.appraiser(told) };
    let stop_delivery = CancellationToken::new();
    let delivery_task = tokio::spawn(delivery.run(stop_delivery.clone()));
    status_cache.serve_minter(controller.minter(mints, config.wallet.treasury.clone()));
    let web_shown =
        web::Shown { store: store.clone(), status_cache: status_cache.clone(), now: UnixMs::now };
    let web_served = serve_page(config.api.listen, web_shown, shutdown.child_token());
    let served = server::serve(
        &config.api.socket,
        store,
        status_cache,
        shown.registry,
        if config.store.kubernetes.is_some() { problems } else { problems_in_a_file },
        answerers,
        shutdown.child_token(),
    );
    let ended = tokio::select! {
        ended = served => ended.map_err(RunError::from),
        ended = web_served => ended.map_err(RunError::from),
        ended = controller.run(shutdown.child_token()) => ended.map_err(RunError::from),
        lost = home.lost() => Err(RunError::LeaseLost(lost)),
    };
    // The next one begins now: nothing is begun here any more.
    controller.abandon();
    home.leave().await;
    // What waits is in the store: the next operator delivers it.
    stop_delivery.cancel();
    let _ = delivery_task.await;
    stop_access.cancel();
    // It ends by itself within seconds, and a panic of it is in the log.
    let _ = access_task.await;
    ended
}

/// Serves the metrics on TCP, where that is asked for.
async fn serve_metrics(
    address: Option<SocketAddr>,
    registry: Arc<Registry>,
    shutdown: CancellationToken,
) -> Result<(), MetricsError> {
    if let Some(address) = address {
        metrics_listener::serve(address, registry, shutdown).await?;
    }
    // The others have their own ends.
    std::future::pending().await
}

/// Serves the page for people, where that is asked for.
async fn serve_page(
    address: Option<SocketAddr>,
    shown: web::Shown,
    shutdown: CancellationToken,
) -> Result<(), WebError> {
    if let Some(address) = address {
        web::serve(address, shown, shutdown).await?;
    }
    // The others have their own ends.
    std::future::pending().await
}

/// One line of a check: what was looked at, and what is wrong with it.
pub type Finding = (&'static str, Result<String, String>);

/// Verifies the settings against the outside clients; nothing is spent, and nothing is created but
/// with `deep` a key that is revoked at once.
///
/// # Errors
/// A setting that cannot be used at all.
pub async fn check(config: &Config, deep: bool) -> Result<Vec<Finding>, RunError> {
    let clients = Clients::new(config, &MeshAccess::Direct)?;
    let installation = clients.root.installation_id();
    let mesh_access = super::mesh_access::check(config).await?;
    let chain = clients.chain.read(&BTreeSet::new()).await;
    let mesh = clients.mesh.read(&installation, &BTreeSet::new()).await;
    let gas_price = plan::GasPrice(config.chain.gas_price_micro);
    let wallet = match &chain {
        Ok(view) => super::check::wallet(view, clients.chain.owner(), gas_price),
        Err(_) => vec![("wallet", Err("not known while the chain does not answer".to_owned()))],
    };
    let chain = chain.map_err(|e| e.to_string()).map(|view| {
        format!("{} at height {}, a block of {}", config.chain.id, view.height, view.block_time)
    });
    let lock = mesh.as_ref().ok().and_then(super::check::lock);
    let mesh = mesh
        .map(|view| format!("{} devices and {} keys are ours", view.devices.len(), view.keys.len()))
        .map_err(|e| e.to_string());
    let policy = policy::lines(clients.mesh.policy().await, &Tags::new(config.mesh.tags(), []));
    let minted = if deep {
        Some(super::check::minting(&*clients.mesh, &installation, &config.mesh.tag).await)
    } else {
        None
    };
    let installation = Ok(format!("installation {installation}"));
    let mut findings = vec![("root secret", installation), ("chain", chain)];
    findings.extend(wallet);
    findings.push(("mesh", mesh));
    findings.extend(lock);
    findings.extend(minted);
    findings.push(("way to the nodes", mesh_access));
    let endpoints = clients.chain.endpoints().await;
    findings.extend(endpoints.into_iter().map(|(uri, found)| {
        let named = |text: String| format!("{uri}: {text}");
        ("chain endpoint", found.map(named).map_err(named))
    }));
    findings.extend(home::check(config).await.map(|found| ("store", found)));
    findings.extend(policy.into_iter().map(|found| ("policy", found)));
    findings.push(("image", Ok(config.node.image.name.clone())));
    if let Some(address) = config.api.metrics {
        findings.push(("metrics", metrics_listener::check(address).await));
    }
    if let Some(address) = config.api.listen {
        findings.push(("page", web::check(address).await));
    }
    let told = Told::new(&config.notify, "", notify::Pace::default()).map_err(RunError::Notify)?;
    let told = told.probe().await.into_iter();
    findings.extend(told.map(|(target, found)| {
        let named = |text: String| format!("{target}: {text}");
        ("notify", found.map(named).map_err(named))
    }));
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operator_without_kubernetes_refuses_a_secret_of_it() {
        let text = "apiVersion: akash-redis.dev/v1alpha1\nkind: RedisCluster\nmetadata: { name: cache }\nspec:\n  nodes: 3\n  redis:\n    users:\n      - { name: app, passwords: [{ secretKeyRef: { name: app, key: old } }] }\n";
        let cluster = validate::parse(text).unwrap().remove(0);
        assert_eq!(problems(&cluster), Vec::<String>::new());
        let refused = problems_in_a_file(&cluster);
        assert_eq!(refused.len(), 1);
        assert!(refused[0].starts_with("spec.redis.users[app]: secretKeyRef names a Secret"));
        assert!(refused[0].contains("write passwordSha256"), "{refused:?}");
        let text = "apiVersion: akash-redis.dev/v1alpha1\nkind: RedisCluster\nmetadata: { name: cache }\nspec:\n  nodes: 3\n  backup: { to: s3://bucket/cache, credentialsFrom: { secretKeyRef: { name: keys, key: s3 } } }\n  bootstrap: { fromRedis: { host: old.example.org, passwordFrom: { secretKeyRef: { name: old, key: p } } } }\n";
        let refused = problems_in_a_file(&validate::parse(text).unwrap().remove(0));
        assert_eq!(refused.len(), 2, "{refused:?}");
        assert!(refused[0].starts_with("spec.backup.credentialsFrom: secretKeyRef"));
        assert!(refused[1].starts_with("spec.bootstrap.fromRedis.passwordFrom: secretKeyRef"));
    }

    #[test]
    fn names_that_kubernetes_would_not_take_are_refused() {
        let text = "apiVersion: akash-redis.dev/v1alpha1\nkind: RedisCluster\nmetadata: { name: cache }\nspec:\n  nodes: 3\n  redis:\n    users:\n      - { name: app, passwordFrom: { secretKeyRef: { name: App, key: a/b } } }\n";
        let problems = validate::parse(text).unwrap_err();
        let said = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        assert!(
            said.contains("passwordFrom.secretKeyRef.name: `App` is no name of a Secret"),
            "{said}"
        );
        assert!(
            said.contains("passwordFrom.secretKeyRef.key: `a/b` is no key of a Secret"),
            "{said}"
        );
    }
}
