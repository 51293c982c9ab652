//! What can be seen of the nodes of a running cluster: from outside, from inside, and by the
//! operator's commands.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::process::Output;
use std::sync::Arc;
use std::time::Duration;

use akash_redis::api::conditions::Phase;
use akash_redis::api::status::NodeStatus;
use akash_redis::chain::Chain as _;
use akash_redis::chain::client::{ChainClient, ChainSettings, GasPrice};
use akash_redis::chain::fees::FeeLimits;
use akash_redis::chain::wallet::Wallet;
use akash_redis::config::Config;
use akash_redis::devnet::sandbox::Sandbox;
use akash_redis::gateway::{Gateway as _, GatewayClient, ProviderCertificates, fetch_status_page};
use akash_redis::model::ids::IncarnationName;
use akash_redis::model::inventory::LeaseStatus;
use akash_redis::model::time::UnixMs;
use akash_redis::node::status_page::{SIGNATURE_HEADER, StatusPage};
use akash_redis::secrets::RootSecret;
use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use p256::ecdsa::signature::Verifier as _;
use p256::ecdsa::{Signature, VerifyingKey};
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::sandboxed::sandboxed;
use crate::stage::{PASSWORD, Stage};

const LIMIT: Duration = Duration::from_mins(2);
/// May ask Redis how it is, and nothing else.
const OBSERVER: &str = r#"users: [{ name: observer, rules: "+info +ping", passwordFrom: { env: CACHE_APP_PASSWORD } }, "#;

#[test]
fn a_quickstart_cluster_is_what_its_commands_and_pages_say() {
    sandboxed(
        "node::a_quickstart_cluster_is_what_its_commands_and_pages_say",
        LIMIT,
        async |sandbox: Sandbox| {
            let stage = Stage::start(&sandbox).await;
            let manifest = sandbox.dir.join("quickstart.yaml");
            let quickstart = include_str!("../../manifests/quickstart.yaml");
            std::fs::write(&manifest, quickstart.replace("users: [", OBSERVER)).unwrap();
            let applied = text(
                &stage
                    .cli(&["apply", "--wait", "--timeout", "1m", "-f", manifest.to_str().unwrap()])
                    .await,
            );
            assert!(applied.contains("rediscluster/cache created"), "{applied}");

            let status = stage.until_ready().await;
            let master = stage.master().await;
            let replica = status.nodes.iter().find(|n| n.phase == Phase::Replica).unwrap();
            endpoint_is_the_master(&stage, &master).await;
            logs_are_of_every_process(&stage).await;
            replication_goes_by_the_mesh_name(&stage, &master, replica).await;
            for node in &status.nodes {
                redis_answers_inside_only(&stage, node).await;
                page_is_signed_by_the_node(&stage, node).await;
            }
        },
    );
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

async fn endpoint_is_the_master(stage: &Stage, master: &NodeStatus) {
    let said = text(&stage.cli(&["endpoint", "cache", "-o", "env"]).await);
    let lines: Vec<&str> = said.lines().collect();
    let name = master.mesh_name.as_deref().unwrap();
    let [host, port, ip, ..] = lines[..] else { panic!("{said}") };
    assert_eq!((host, port), (format!("REDIS_HOST={name}").as_str(), "REDIS_PORT=6379"));
    assert!(ip.starts_with("REDIS_IP=100."), "{said}");
}

async fn logs_are_of_every_process(stage: &Stage) {
    let said = text(&stage.cli(&["logs", "cache", "--tail", "2000", "--process", "all"]).await);
    for source in ["agent", "tailscaled", "redis"] {
        assert!(
            said.lines().any(|line| line.starts_with(source)),
            "nothing of {source} in:\n{said}"
        );
    }
    assert!(!said.contains("tskey-auth-"), "the key with which the node joined is a secret");
}

/// `redis-cli` in a node's network.
async fn inside(stage: &Stage, node: &NodeStatus, words: &[&str]) -> String {
    let (provider, lease) = stage.local.market.find(node.dseq).unwrap();
    let pid = stage.local.market.providers[provider].runner.pid(&lease).unwrap();
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/proc/{pid}/ns/net")).args([
        "redis-cli",
        "-h",
        "127.0.0.1",
        "--user",
        "observer",
    ]);
    text(
        &command
            .args(words)
            .env("REDISCLI_AUTH", PASSWORD)
            .kill_on_drop(true)
            .output()
            .await
            .unwrap(),
    )
}

async fn redis_answers_inside_only(stage: &Stage, node: &NodeStatus) {
    assert_eq!(inside(stage, node, &["ping"]).await.trim(), "PONG");
    let (provider, lease) = stage.local.market.find(node.dseq).unwrap();
    let address = stage.local.market.providers[provider].runner.address(&lease).unwrap();
    for port in [6379, 9700, 1055] {
        let error = TcpStream::connect(SocketAddr::from((address, port))).await.unwrap_err();
        assert_eq!(
            error.kind(),
            std::io::ErrorKind::ConnectionRefused,
            "{}:{port}",
            node.incarnation
        );
    }
    assert!(
        TcpStream::connect(SocketAddr::from((address, 8080))).await.is_ok(),
        "the status page is the one public port"
    );
}

async fn replication_goes_by_the_mesh_name(
    stage: &Stage,
    master: &NodeStatus,
    replica: &NodeStatus,
) {
    let info = inside(stage, replica, &["info", "replication"]).await;
    let name = master.mesh_name.as_deref().unwrap();
    for line in [
        format!("master_host:{name}"),
        "master_port:6379".to_owned(),
        "master_link_status:up".to_owned(),
    ] {
        assert!(info.lines().any(|found| found.trim() == line), "{line} is not in:\n{info}");
    }
}

/// The page as anybody gets it, by the public name that the provider gives the lease.
async fn page_is_signed_by_the_node(stage: &Stage, node: &NodeStatus) {
    let config = Config::load(&stage.local.config()).unwrap();
    let host = public_name(&config, node).await;
    let nonce = "n-4711";
    let page = fetch_status_page(&host, nonce, true).await.unwrap();

    let signature = STANDARD.decode(page.headers[SIGNATURE_HEADER].as_bytes()).unwrap();
    let signature = Signature::from_der(&signature).unwrap();
    key_of(config, &node.incarnation)
        .verify(&page.body, &signature)
        .expect("the node's own key signed this body");
    let content: StatusPage = serde_json::from_slice(&page.body).unwrap();
    assert_eq!((content.nonce.as_str(), &content.incarnation), (nonce, &node.incarnation));
    assert_eq!(
        (content.mesh.as_str(), content.fenced),
        ("Running", node.phase != Phase::Master),
        "the master alone takes writes"
    );
}

/// The key in the certificate that the operator derives for this incarnation.
fn key_of(config: Config, incarnation: &str) -> VerifyingKey {
    let root = RootSecret::new(config.root_secret).unwrap();
    let pem =
        root.node_certificate(&IncarnationName(incarnation.to_owned()), UnixMs::now()).certificate;
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap();
    VerifyingKey::from_sec1_bytes(&pem.parse_x509().unwrap().public_key().subject_public_key.data)
        .unwrap()
}

struct OnChain(Arc<ChainClient>);

#[async_trait]
impl ProviderCertificates for OnChain {
    async fn valid(&self, provider: &str) -> Result<Vec<Vec<u8>>, String> {
        self.0.certificates(provider).await.map_err(|error| error.to_string())
    }
}

/// What the provider's gateway says when it is asked as the tenant.
async fn public_name(config: &Config, node: &NodeStatus) -> String {
    let wallet = Arc::new(Wallet::from_phrase(&config.wallet.mnemonic, 0).unwrap());
    let settings = ChainSettings {
        chain_id: config.chain.id.clone(),
        grpc: config.chain.grpc.clone(),
        gas_price: GasPrice(config.chain.gas_price_micro),
        fee_granter: None,
        treasury: None,
        fee_limits: FeeLimits::USUAL,
    };
    let chain = Arc::new(ChainClient::connect(settings, wallet.clone()).unwrap());
    let view = chain.read(&BTreeSet::from([node.dseq])).await.unwrap();
    let lease = &view.deployments[&node.dseq].leases[0].id;
    let issuer = wallet.address().to_owned();
    let gateway = GatewayClient::new(
        issuer,
        Arc::new(move |bytes: &[u8]| wallet.sign(bytes)),
        Arc::new(OnChain(chain)),
        true,
    );
    match gateway.lease_status(&view.providers[&lease.provider], lease).await {
        LeaseStatus::Deployed { uris, .. } => uris.into_iter().next().unwrap(),
        other => panic!("{other:?}"),
    }
}
