//! The command line against the API on a real socket.

mod act;
mod apply;
mod as_kubectl;
mod ask;
mod backup;
mod edit_top_exec;
mod read;

use std::sync::Arc;
use std::time::Duration;

use clap::CommandFactory;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use serde_json::json;
use tempfile::TempDir;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::ask::Person;
use super::*;
use crate::api::annotations::{ACCEPT_LOSS, FENCE, MASTER, MIGRATE, YES_DELETE_DATA};
use crate::api::endpoint::{EndpointReport, ReplicaEndpoint};
use crate::api::report::{OperatorReport, PlanReport, PlannedStep, Source, SourceState};
use crate::api::status::{Endpoint, Status};
use crate::api::types::RedisCluster;
use crate::model::ids::IncarnationName;
use crate::model::incarnation::{Incarnation, Membership};
use crate::model::money::PricePerBlock;
use crate::model::time::UnixMs;
use crate::server::Answerers;
use crate::server::appraiser::fake::FakeAppraiser;
use crate::server::dump::fake::FakeDumps;
use crate::server::logs::fake::FakeLogs;
use crate::server::messages::{Migrate, VerifyBackup};
use crate::server::status_cache::StatusCache;
use crate::store::sqlite::SqliteStore;
use crate::store::{Books as _, Event, Events as _, Objects as _, Records as _};

/// Nobody is at the terminal.
struct Script;

impl Person for Script {
    fn is_there(&self) -> bool {
        false
    }

    fn answers(&mut self, _: &str) -> std::io::Result<String> {
        panic!("nobody is asked");
    }
}

/// Somebody at the terminal, who says the same to everything.
struct Somebody {
    says: &'static str,
    asked: usize,
}

impl Person for Somebody {
    fn is_there(&self) -> bool {
        true
    }

    fn answers(&mut self, _: &str) -> std::io::Result<String> {
        self.asked += 1;
        Ok(format!("{}\n", self.says))
    }
}

fn somebody(agrees: bool) -> Somebody {
    Somebody { says: if agrees { "yes" } else { "no" }, asked: 0 }
}

/// An operator without a control loop: the test plays it.
struct Operator {
    dir: TempDir,
    store: Arc<SqliteStore>,
    status_cache: Arc<StatusCache>,
    logs: Arc<FakeLogs>,
    appraiser: Arc<FakeAppraiser>,
    client: Client,
    _stop: DropGuard,
}

fn validate(cluster: &RedisCluster) -> Vec<String> {
    if (1..=9).contains(&cluster.spec.nodes) {
        Vec::new()
    } else {
        vec![format!("spec.nodes: {} is not 1 to 9", cluster.spec.nodes)]
    }
}

impl Operator {
    async fn start() -> Self {
        // Another test of this process may have been first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let dir = TempDir::new().unwrap();
        let socket = dir.path().join("operator.sock");
        let store = SqliteStore::open(&dir.path().join("store.db")).unwrap();
        let (status_cache, logs, stop) = (
            Arc::new(StatusCache::default()),
            Arc::new(FakeLogs::default()),
            CancellationToken::new(),
        );
        let appraiser = Arc::new(FakeAppraiser::default());
        let mut registry = Registry::default();
        registry.register("ticks", "Ticks of the control loop", Counter::<u64>::default());
        tokio::spawn({
            let (store, status_cache, logs, socket, stop) =
                (store.clone(), status_cache.clone(), logs.clone(), socket.clone(), stop.clone());
            let appraiser = appraiser.clone();
            async move {
                crate::server::serve(
                    &socket,
                    store,
                    status_cache,
                    Arc::new(registry),
                    validate,
                    Answerers { logs, dumps: Arc::new(FakeDumps), appraiser },
                    stop,
                )
                .await
            }
        });
        let client = Client::new(&socket).unwrap();
        let ready = async {
            while client.list().await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), ready).await.expect("the API answers");
        Self { dir, store, status_cache, logs, appraiser, client, _stop: stop.drop_guard() }
    }

    /// Runs a command line; the output, or the sentence of the error.
    async fn run(&self, line: &str) -> Result<String, String> {
        self.run_before(&mut Script, line).await
    }

    /// The same before somebody, or nobody.
    async fn run_before(&self, person: &mut dyn Person, line: &str) -> Result<String, String> {
        let cli = Cli::try_parse_from(["akash-redis"].into_iter().chain(line.split(' '))).unwrap();
        let mut out = Vec::new();
        let result = execute(&self.client, client_command(cli), &mut out, person).await;
        result.map(|()| String::from_utf8(out).unwrap()).map_err(|e| e.to_string())
    }

    fn manifest(&self, spec: &serde_json::Value) -> String {
        let path = self.dir.path().join("cache.yaml");
        let manifest = json!({ "apiVersion": "akash-redis.dev/v1alpha1", "kind": "RedisCluster", "metadata": { "name": "cache" }, "spec": spec });
        std::fs::write(&path, manifest.to_string()).unwrap();
        path.display().to_string()
    }

    async fn apply(&self, spec: serde_json::Value) -> Result<String, String> {
        self.run(&format!("apply -f {}", self.manifest(&spec))).await
    }

    /// A node of the cluster has been heard.
    async fn joined(&self) {
        let stored = self.store.get("cache").await.unwrap();
        let mut record = stored.record;
        let mut incarnation = Incarnation::new(0, 7, UnixMs(0), 0, PricePerBlock(1));
        incarnation.raise(Membership::Joined);
        record.incarnations.insert(IncarnationName("cache-0-a".into()), incarnation);
        self.store.set_record("cache", stored.record_version, &record).await.unwrap();
    }

    async fn publish(&self, status: serde_json::Value) {
        self.store
            .set_status("cache", &serde_json::from_value::<Status>(status).unwrap())
            .await
            .unwrap();
    }

    async fn annotation(&self, key: &str) -> Option<String> {
        self.store.get("cache").await.unwrap().cluster.metadata.annotations.get(key).cloned()
    }
}

fn nodes() -> serde_json::Value {
    json!([
        { "ordinal": 0, "incarnation": "cache-0-a", "phase": "Master" },
        { "ordinal": 1, "incarnation": "cache-1-b", "phase": "Replica", "lagBytes": 7 },
        { "ordinal": 2, "incarnation": "cache-2-c", "phase": "Replica", "lagBytes": 0 },
    ])
}

#[tokio::test]
async fn health_and_metrics_are_served() {
    let operator = Operator::start().await;
    let http = reqwest::Client::builder()
        .unix_socket(operator.dir.path().join("operator.sock"))
        .build()
        .unwrap();
    let text = |path: &'static str| {
        let http = http.clone();
        async move {
            http.get(format!("http://operator{path}")).send().await.unwrap().text().await.unwrap()
        }
    };
    assert_eq!(text("/healthz").await, "ok\n");
    assert!(text("/metrics").await.contains("ticks_total 0"));
    assert!(text("/elsewhere").await.contains("the API is below /v1alpha1/clusters"));
}

#[tokio::test]
async fn an_operator_that_is_not_there_is_named_by_its_socket() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::new(std::path::Path::new("/nonexistent/operator.sock")).unwrap();
    let sentence = client.list().await.unwrap_err().to_string();
    assert!(
        sentence.starts_with(
            "no operator answers on /nonexistent/operator.sock (there is no such socket); start one with"
        ),
        "{sentence}"
    );
}

#[test]
fn usage_errors_end_with_two() {
    for line in [
        &["akash-redis"][..],
        &["akash-redis", "apply"],
        &["akash-redis", "get", "../x"],
        &["akash-redis", "get", "a", "-o", "xml"],
        &["akash-redis", "wait", "a", "--for", "Redy"],
        &["akash-redis", "logs", "a", "0&follow=true"],
        &["akash-redis", "logs", "a", "--tail", "5001"],
    ] {
        assert_eq!(Cli::try_parse_from(line).unwrap_err().exit_code(), 2, "{line:?}");
    }
    Cli::command().debug_assert();
}

fn client_command(cli: Cli) -> ClientCommand {
    match cli.command {
        Command::Client(command) => command,
        other => panic!("{other:?} does not ask an operator"),
    }
}
