//! The command line against the API on a real socket.

mod as_kubectl;
mod edit_top_exec;

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
use crate::api::endpoint::{EndpointReport, ReplicaEndpoint};
use crate::api::report::{OperatorReport, PlanReport, PlannedStep, Source, SourceState};
use crate::api::status::{Endpoint, Status};
use crate::api::types::{ACCEPT_LOSS, FENCE, MASTER, MIGRATE, RedisCluster, YES_DELETE_DATA};
use crate::model::ids::IncarnationName;
use crate::model::money::PricePerBlock;
use crate::model::record::{Incarnation, Membership};
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
async fn apply_says_what_it_did() {
    let operator = Operator::start().await;
    assert_eq!(
        operator.apply(json!({ "nodes": 3 })).await.unwrap(),
        "rediscluster/cache created\n"
    );
    assert_eq!(
        operator.apply(json!({ "nodes": 3 })).await.unwrap(),
        "rediscluster/cache unchanged\n"
    );
    operator.publish(json!({ "epoch": 1 })).await;
    assert_eq!(
        operator.apply(json!({ "nodes": 3 })).await.unwrap(),
        "rediscluster/cache unchanged\n"
    );
    let shown = operator.dir.path().join("shown.yaml");
    std::fs::write(&shown, operator.run("get cache -o yaml").await.unwrap()).unwrap();
    operator.publish(json!({ "epoch": 2 })).await;
    assert_eq!(
        operator.run(&format!("apply -f {}", shown.display())).await.unwrap(),
        "rediscluster/cache unchanged\n"
    );
    assert_eq!(
        operator.apply(json!({ "nodes": 5 })).await.unwrap(),
        "rediscluster/cache configured\n"
    );
    assert_eq!(operator.store.get("cache").await.unwrap().cluster.spec.nodes, 5);
}

#[tokio::test]
async fn apply_refuses_what_is_wrong_and_what_cannot_change() {
    let operator = Operator::start().await;
    let many = operator.apply(json!({ "nodes": 12 })).await.unwrap_err();
    assert!(many.ends_with("spec.nodes: 12 nodes cannot be run; write 1 to 9"), "{many}");
    operator.apply(json!({ "nodes": 3, "resources": { "memory": "1Gi" } })).await.unwrap();
    assert_eq!(
        operator.apply(json!({ "nodes": 3, "resources": { "memory": "2Gi" } })).await.unwrap(),
        "rediscluster/cache configured\n",
        "nothing of it runs yet"
    );
    operator.joined().await;
    let fixed =
        operator.apply(json!({ "nodes": 5, "resources": { "memory": "3Gi" } })).await.unwrap_err();
    assert!(
        fixed.starts_with("cache has nodes that run")
            && fixed.contains("nothing was changed: spec.resources.memory 2Gi -> 3Gi; "),
        "{fixed}"
    );
    assert_eq!(
        operator.apply(json!({ "nodes": 3, "resources": { "memory": "2048Mi" } })).await.unwrap(),
        "rediscluster/cache unchanged\n"
    );
    assert!(
        operator
            .run("apply -f /nonexistent.yaml")
            .await
            .unwrap_err()
            .starts_with("/nonexistent.yaml: cannot be read")
    );
}

/// The manifest's third generation of a cluster that was ready before it.
async fn changed() -> Operator {
    let operator = Operator::start().await;
    operator.apply(json!({ "nodes": 3 })).await.unwrap();
    operator
        .publish(json!({ "observedGeneration": 1, "conditions": [
            { "type": "Ready", "status": "True" },
            { "type": "SettingsApplied", "status": "True", "reason": "SettingsInForce" },
        ] }))
        .await;
    operator
}

#[tokio::test]
async fn apply_waits_until_settings_are_in_force_on_every_node() {
    let operator = changed().await;
    let path = operator.manifest(&json!({ "nodes": 3, "redis": { "config": { "timeout": "9" } } }));
    let line = format!("apply -f {path} --wait --timeout 300ms");
    assert!(
        operator.run(&line).await.unwrap_err().starts_with("cache is not SettingsApplied after"),
        "what was true of the manifest before is not enough"
    );
    let status = |reason: &str, status: &str| {
        json!({ "observedGeneration": 2, "conditions": [
            { "type": "Ready", "status": "True" },
            { "type": "SettingsApplied", "status": status, "reason": reason, "message": "cache-1-b: redis said no" },
        ] })
    };
    operator.publish(status("SettingsPending", "False")).await;
    let late = operator.run(&line).await.unwrap_err();
    assert!(late.ends_with("it still waits for cache-1-b: redis said no"), "{late}");
    operator.publish(status("SettingsInForce", "True")).await;
    assert_eq!(operator.run(&line).await.unwrap(), "rediscluster/cache unchanged\n");
}

#[tokio::test]
async fn apply_waits_until_every_node_was_started_with_it_or_none_will_be() {
    let operator = changed().await;
    let path = operator.manifest(&json!({ "nodes": 3 }));
    let line = format!("apply -f {path} --wait --timeout 300ms");
    let status = |updated: u32, degraded: &str, problems: &[&str]| {
        json!({ "observedGeneration": 1, "problems": problems,
            "rollout": { "image": "i", "updated": updated, "nodes": 3 },
            "conditions": [
                { "type": "Ready", "status": "True" },
                { "type": "SettingsApplied", "status": "True", "reason": "SettingsInForce" },
                { "type": "Degraded", "status": degraded, "reason": "UpdateStalled", "message": "cache-0-a does not serve" },
            ] })
    };
    operator.publish(status(2, "False", &[])).await;
    let late = operator.run(&line).await.unwrap_err();
    assert!(late.starts_with("cache is not rolled out to all nodes after"), "{late}");
    operator.publish(status(1, "True", &["UpdateStalled"])).await;
    let stalled = operator.run(&format!("apply -f {path} --wait")).await.unwrap_err();
    assert!(stalled.contains("cache-0-a does not serve"), "{stalled}");
    operator.publish(status(3, "False", &[])).await;
    assert_eq!(operator.run(&line).await.unwrap(), "rediscluster/cache unchanged\n");
}

#[tokio::test]
async fn apply_ends_with_what_redis_refused() {
    let operator = changed().await;
    operator
        .publish(json!({ "observedGeneration": 1, "conditions": [
            { "type": "Ready", "status": "True" },
            { "type": "SettingsApplied", "status": "False", "reason": "SettingsRefused", "message": "spec.redis.config.hz: redis on cache-1-b refused `x`: no number" },
        ] }))
        .await;
    let path = operator.manifest(&json!({ "nodes": 3 }));
    let refused = operator.run(&format!("apply -f {path} --wait")).await.unwrap_err();
    assert!(
        refused.contains("spec.redis.config.hz: redis on cache-1-b refused `x`: no number"),
        "{refused}"
    );
}

#[tokio::test]
async fn a_password_reaches_the_store_as_its_hash_only() {
    let operator = Operator::start().await;
    let password = operator.dir.path().join("password");
    std::fs::write(&password, "open sesame\n").unwrap();
    let users =
        json!([{ "name": "app", "passwordFrom": { "file": password.display().to_string() } }]);
    operator.apply(json!({ "nodes": 3, "redis": { "users": users } })).await.unwrap();
    let cluster = operator.store.get("cache").await.unwrap().cluster;
    let user = &cluster.spec.redis.users[0];
    assert_eq!(
        (user.password_from.is_none(), user.password_sha256.as_ref().map(String::len)),
        (true, Some(64))
    );
    for entry in std::fs::read_dir(operator.dir.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.to_string_lossy().contains("store.db") {
            assert!(
                !std::fs::read(&path).unwrap().windows(11).any(|w| w == b"open sesame"),
                "{}",
                path.display()
            );
        }
    }
    let mut raw = cluster;
    raw.spec.redis.users[0].password_from = Some(crate::api::types::PasswordFrom::Env("X".into()));
    assert!(
        operator
            .client
            .apply(&raw)
            .await
            .unwrap_err()
            .to_string()
            .contains("is read by `akash-redis apply`")
    );
}

#[tokio::test]
async fn get_lists_and_shows() {
    let operator = Operator::start().await;
    assert!(operator.run("get").await.unwrap().starts_with("no clusters found"));
    assert!(
        operator
            .run("get cache")
            .await
            .unwrap_err()
            .starts_with("there is no RedisCluster named cache")
    );
    operator.apply(json!({ "nodes": 3 })).await.unwrap();
    operator.publish(json!({ "nodes": nodes(), "observedGeneration": 1, "epoch": 2 })).await;

    let table = operator.run("get").await.unwrap();
    assert!(table.starts_with("NAME   READY    NODES  MASTER  EPOCH  COST/MONTH  AGE\ncache  Unknown  3/3    -       2      -"), "{table}");
    let yaml: RedisCluster =
        serde_saphyr::from_str(&operator.run("get cache -o yaml").await.unwrap()).unwrap();
    let json: RedisCluster =
        serde_json::from_str(&operator.run("get cache -o json").await.unwrap()).unwrap();
    let stored = operator.store.get("cache").await.unwrap().cluster;
    assert_eq!((&yaml, &json), (&stored, &stored));
    assert!(operator.run("get -o json").await.unwrap().contains("\"items\""));
    assert!(operator.run("describe cache").await.unwrap().contains("cache-1-b"));
}

#[tokio::test]
async fn migrate_switchover_and_scale_write_what_the_operator_reads() {
    let operator = Operator::start().await;
    operator.apply(json!({ "nodes": 3 })).await.unwrap();
    assert!(
        operator
            .run("migrate cache 1")
            .await
            .unwrap_err()
            .starts_with("the operator has not looked at cache yet")
    );
    operator.publish(json!({ "nodes": nodes() })).await;

    assert_eq!(
        operator.run("migrate cache 1").await.unwrap(),
        "node 1 (cache-1-b) moves to another provider\n"
    );
    assert_eq!(operator.annotation(MIGRATE).await.unwrap(), "cache-1-b");
    assert!(operator.run("migrate cache 1").await.unwrap_err().contains("already"));
    operator.run("migrate cache cache-0-a").await.unwrap();
    assert_eq!(operator.annotation(MIGRATE).await.unwrap(), "cache-1-b,cache-0-a");

    assert_eq!(operator.run("switchover cache").await.unwrap(), "cache-2-c becomes master\n");
    assert_eq!(operator.annotation(MASTER).await.unwrap(), "cache-2-c@0");
    assert_eq!(
        operator.run("switchover cache --to 0").await.unwrap_err(),
        "cache-0-a is the master already"
    );

    assert_eq!(
        operator.run("scale cache --nodes 5").await.unwrap(),
        "cache goes from 3 to 5 nodes\n"
    );
    assert_eq!(
        operator.run("scale cache --nodes 12").await.unwrap_err(),
        "spec.nodes: 12 is not 1 to 9"
    );
    operator.apply(json!({ "nodes": 4 })).await.unwrap();
    assert_eq!(
        operator.annotation(MIGRATE).await.unwrap(),
        "cache-1-b,cache-0-a",
        "an apply does not undo a command"
    );
    let both = Migrate { ordinal: Some(1), incarnation: Some("cache-1-b".into()) };
    assert!(
        operator
            .client
            .migrate("cache", &both)
            .await
            .unwrap_err()
            .to_string()
            .starts_with("name either")
    );
}

#[tokio::test]
async fn a_paused_cluster_takes_no_request_until_it_is_resumed() {
    let operator = Operator::start().await;
    operator.apply(json!({ "nodes": 3 })).await.unwrap();
    operator.publish(json!({ "nodes": nodes() })).await;
    assert!(operator.run("pause cache").await.unwrap().contains("akash-redis resume cache"));
    let before = operator.store.get("cache").await.unwrap().cluster;
    for line in ["scale cache --nodes 5", "switchover cache", "migrate cache 1"] {
        let refused = operator.run(line).await.unwrap_err();
        assert!(refused.contains("`akash-redis resume cache` first"), "{line}: {refused}");
    }
    assert_eq!(operator.store.get("cache").await.unwrap().cluster, before);
    assert_eq!(operator.run("resume cache").await.unwrap(), "cache is resumed\n");
    operator.run("scale cache --nodes 5").await.unwrap();
}

#[tokio::test]
async fn what_people_ask_for_is_in_the_journal_with_old_and_new() {
    let operator = Operator::start().await;
    let user =
        |hash: char| json!([{ "name": "app", "passwordSha256": hash.to_string().repeat(64) }]);
    let spec = |nodes, hash| json!({ "nodes": nodes, "redis": { "users": user(hash) } });
    operator.apply(spec(3, 'a')).await.unwrap();
    operator.apply(spec(3, 'a')).await.unwrap();
    operator.apply(spec(3, 'b')).await.unwrap();
    operator.publish(json!({ "nodes": nodes() })).await;
    for line in [
        "scale cache --nodes 5",
        "pause cache",
        "resume cache",
        "migrate cache 1",
        "delete cache",
        "delete cache",
    ] {
        operator.run(line).await.unwrap();
    }
    let events = operator.store.events("cache").await.unwrap();
    let told: Vec<_> = events.iter().map(|e| format!("{} {}", e.reason, e.message)).collect();
    assert_eq!(
        told,
        [
            "ClusterCreated cache was created with 3 nodes",
            "PasswordChanged user app has another password",
            "ClusterScaled from 3 to 5 nodes",
            "ClusterPaused the operator watches and changes nothing",
            "ClusterResumed the operator goes on",
            "ActionRequested cache-1-b to move to another provider",
            "DeletionRequested cache is to be deleted, with its leases",
        ]
    );
}

#[tokio::test]
async fn a_budget_above_the_operators_is_refused_and_not_cut_down() {
    let operator = Operator::start().await;
    let report = |error: Option<&str>| OperatorReport {
        budget_global: Some("100act".parse().unwrap()),
        chain: Source {
            state: if error.is_some() { SourceState::Away } else { SourceState::Ok },
            message: error.unwrap_or("height 5").into(),
            ..Source::default()
        },
        ..OperatorReport::default()
    };
    operator.status_cache.publish_operator(report(None));
    let with = |budget: &str| json!({ "nodes": 3, "budget": { "maxPerMonth": budget } });
    let refused = operator.apply(with("1000act")).await.unwrap_err();
    assert!(
        refused.starts_with("spec.budget.maxPerMonth: 1000act is more than")
            && refused.contains("100act"),
        "{refused}"
    );
    operator.apply(with("100act")).await.unwrap();

    let ready = || async {
        let http =
            reqwest::Client::builder().unix_socket(operator.dir.path().join("operator.sock"));
        let http = http.no_proxy().build().unwrap();
        http.get("http://operator/readyz").send().await.unwrap().status().as_u16()
    };
    assert_eq!(ready().await, 200);
    assert!(operator.run("status").await.unwrap().contains("chain    Ok"));
    operator.status_cache.publish_operator(report(Some("a node of another chain")));
    assert_eq!(ready().await, 503);
    let shown = operator.run("status").await.unwrap();
    assert!(shown.contains("a node of another chain"), "{shown}");
}

#[tokio::test]
async fn commands_lose_no_race_against_the_operator() {
    let operator = Operator::start().await;
    operator.apply(json!({ "nodes": 3 })).await.unwrap();
    let statuses = async {
        for epoch in 0..40 {
            operator.publish(json!({ "nodes": nodes(), "epoch": epoch })).await;
        }
    };
    let scales = async {
        for nodes in [4, 5, 6, 3] {
            operator.client.scale("cache", nodes).await.unwrap();
        }
    };
    tokio::join!(statuses, scales);
    assert_eq!(operator.store.get("cache").await.unwrap().cluster.spec.nodes, 3);
}

#[tokio::test]
async fn plan_events_and_endpoint_come_from_the_operator() {
    let operator = Operator::start().await;
    assert!(
        operator
            .run("plan cache")
            .await
            .unwrap_err()
            .starts_with("there is no RedisCluster named cache")
    );
    operator.apply(json!({ "nodes": 3 })).await.unwrap();
    assert!(
        operator
            .run("plan cache")
            .await
            .unwrap_err()
            .starts_with("the operator has not made a plan for cache yet")
    );
    assert!(
        operator
            .run("endpoint cache")
            .await
            .unwrap_err()
            .starts_with("cache has no master that takes writes now")
    );
    assert!(operator.run("events cache").await.unwrap().contains("  ClusterCreated  "));

    let step = PlannedStep {
        incarnation: "cache-0-a".into(),
        what: "promote".into(),
        reason: "there is no master".into(),
        ..PlannedStep::default()
    };
    let endpoint = Endpoint {
        epoch: 1,
        incarnation: "cache-0-a".into(),
        name: "a.ts.net".into(),
        ip: "100.64.0.1".into(),
        port: 6379,
        changing: None,
        successor: None,
    };
    let replica = |ordinal: u8, in_sync| ReplicaEndpoint {
        ip: format!("100.64.0.{}", ordinal + 1),
        port: 6379,
        in_sync,
        ..ReplicaEndpoint::default()
    };
    let endpoint = EndpointReport {
        cluster: "cache".into(),
        uid: "u".into(),
        users: vec!["app".into(), "x y".into()],
        replicas: vec![replica(1, true), replica(2, false)],
        ..endpoint.into()
    };
    operator.status_cache.publish(
        "cache",
        PlanReport { steps: vec![step], ..PlanReport::default() },
        Some(endpoint.clone()),
    );
    let event = Event::new(UnixMs(1000), "cache", "Promoted", "cache-0-a is master");
    operator.store.add_events(&[event]).await.unwrap();

    assert!(
        operator
            .run("plan cache")
            .await
            .unwrap()
            .contains("~ promote cache-0-a\n      there is no master")
    );
    endpoint_is_written_as_it_is_asked_for(&operator).await;
    let events = operator.run("events cache").await.unwrap();
    assert!(
        events.contains("\n1970-01-01T00:00:01Z  Promoted        cache-0-a is master\n"),
        "{events}"
    );

    let known = operator.client.endpoint("cache", None, Duration::ZERO).await.unwrap().unwrap();
    let master = Endpoint { epoch: 2, ..endpoint.master.clone() };
    let next = EndpointReport { master, ..endpoint.clone() }.tagged();
    let wait = Duration::from_secs(30);
    let (found, ()) = tokio::join!(operator.client.endpoint("cache", Some(&known), wait), async {
        operator.status_cache.publish("cache", PlanReport::default(), Some(next.clone()));
    });
    assert_eq!(found.unwrap(), Some(next.clone()));
    let again = operator.client.endpoint("cache", Some(&next), Duration::ZERO).await;
    assert_eq!(again.unwrap(), None);
    // A proxy of an older version goes by the epoch alone.
    let older = EndpointReport { tag: String::new(), ..next };
    let again = operator.client.endpoint("cache", Some(&older), Duration::ZERO).await;
    assert_eq!(again.unwrap(), None);
}

/// Of `app`, with two replicas of which one is in sync.
async fn endpoint_is_written_as_it_is_asked_for(operator: &Operator) {
    assert_eq!(operator.run("endpoint cache").await.unwrap(), "a.ts.net:6379\n");
    assert_eq!(
        operator.run("endpoint cache -o env").await.unwrap(),
        "REDIS_HOST=a.ts.net\nREDIS_PORT=6379\nREDIS_IP=100.64.0.1\n\
         REDIS_URL=redis://app@100.64.0.1:6379\nREDIS_USERNAME=app\n\
         REDIS_REPLICAS=redis://app@100.64.0.2:6379\n\
         REDIS_SENTINELS=100.64.0.1:26379,100.64.0.2:26379,100.64.0.3:26379\n\
         REDIS_SENTINEL_MASTER=cache\n"
    );
    assert_eq!(
        operator.run("endpoint cache -o url").await.unwrap(),
        "redis://app@100.64.0.1:6379\nredis://app@100.64.0.2:6379\n"
    );
    let other = operator.run("endpoint cache -o url --user x@y").await.unwrap();
    assert!(other.starts_with("redis://x%40y@100.64.0.1:6379\n"), "{other}");
    let json = operator.run("endpoint cache -o json").await.unwrap();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        (&json["name"], &json["uid"], &json["users"][0], &json["replicas"][0]["inSync"]),
        (&json!("a.ts.net"), &json!("u"), &json!("app"), &json!(true))
    );
}

#[tokio::test]
async fn redis_cli_needs_to_know_who_logs_in() {
    let operator = Operator::start().await;
    let connect = async |line: &str| {
        let words = ["akash-redis"].into_iter().chain(line.split(' '));
        let Command::Connect(args) = Cli::try_parse_from(words).unwrap().command else {
            panic!("{line}")
        };
        connect::run(args, &operator.dir.path().join("operator.sock"))
            .await
            .unwrap_err()
            .to_string()
    };
    assert!(connect("connect cache").await.starts_with("there is no RedisCluster named cache"));
    operator.apply(json!({ "nodes": 3 })).await.unwrap();
    assert!(connect("connect cache").await.starts_with("cache has no users"));
    let hash = "0".repeat(64);
    let user = |name: &str| json!({ "name": name, "passwordSha256": hash });
    let users = json!({ "users": [user("app"), user("reader")] });
    operator.apply(json!({ "nodes": 3, "redis": users })).await.unwrap();
    let error = connect("connect cache").await;
    assert!(error.contains("several users (app, reader); name one with --user"), "{error}");
    let key = "00".repeat(33);
    let elsewhere = format!("connect cache --node 100.64.0.3 --public-key {key}");
    let error = connect(&elsewhere).await;
    assert!(error.contains("is no public key of an installation"), "{error}");
    let flags = "proxy --cluster cache --node 100.64.0.3";
    assert!(
        Cli::try_parse_from(["akash-redis"].into_iter().chain(flags.split(' '))).is_err(),
        "words of nodes are proved, or nobody is asked"
    );
    assert_eq!(
        operator.run("public-key").await.unwrap_err(),
        "the operator is of an older version and does not tell its key; upgrade it first"
    );
    let report = OperatorReport { public_key: "02ab".into(), ..OperatorReport::default() };
    operator.status_cache.publish_operator(report);
    assert_eq!(operator.run("public-key").await.unwrap(), "02ab\n");
}

#[tokio::test]
async fn logs_are_the_masters_unless_a_node_is_named() {
    let operator = Operator::start().await;
    operator.apply(json!({ "nodes": 3 })).await.unwrap();
    assert!(
        operator
            .run("logs cache")
            .await
            .unwrap_err()
            .starts_with("the operator has not looked at cache yet")
    );
    operator.publish(json!({ "nodes": nodes() })).await;

    let all = "agent | started\ntailscaled | two lines\nredis | colour?[2J\n";
    assert_eq!(
        operator.run("logs cache --process all").await.unwrap(),
        all,
        "nothing that a terminal would obey"
    );
    assert_eq!(operator.run("logs cache").await.unwrap(), "agent | started\nredis | colour?[2J\n");
    assert_eq!(
        operator.run("logs cache --process redis --since 10m --timestamps").await.unwrap(),
        "redis | colour?[2J\n"
    );
    let asked = operator.logs.asked.lock().unwrap().last().cloned().unwrap();
    assert_eq!((asked.since, asked.timestamps), (Some(Duration::from_mins(10)), true));
    assert_eq!(
        operator.run("logs cache cache-0-a --tail 1").await.unwrap(),
        "redis | colour?[2J\n"
    );
    assert_eq!(operator.run("logs cache 0 --tail 0").await.unwrap(), "");
    assert_eq!(
        operator.run("logs cache 1").await.unwrap_err(),
        "the log of cache-1-b cannot be read (?[2J)"
    );
    assert!(operator.run("logs cache 7").await.unwrap_err().starts_with("cache has no node 7"));
    assert!(
        operator
            .run("logs other")
            .await
            .unwrap_err()
            .starts_with("there is no RedisCluster named other")
    );
}

/// A terminal that tells of each line as it is shown.
struct Screen(std::sync::mpsc::Sender<String>, Vec<u8>);

impl Write for Screen {
    fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
        self.1.extend_from_slice(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        let shown = String::from_utf8(std::mem::take(&mut self.1)).unwrap();
        self.0.send(shown).map_err(std::io::Error::other)
    }
}

#[tokio::test]
async fn followed_logs_are_shown_as_they_come() {
    let operator = Operator::start().await;
    operator.apply(json!({ "nodes": 3 })).await.unwrap();
    operator.publish(json!({ "nodes": nodes() })).await;
    let (lines, to_come) = tokio::sync::mpsc::channel(8);
    *operator.logs.to_come.lock().unwrap() = Some(to_come);
    let (screen, shown) = std::sync::mpsc::channel();
    let cli =
        Cli::try_parse_from(["akash-redis", "logs", "cache", "--follow", "--tail", "0"]).unwrap();
    let (mut screen, mut person) = (Screen(screen, Vec::new()), Script);
    let (done, ()) = tokio::join!(
        execute(&operator.client, client_command(cli), &mut screen, &mut person),
        async {
            for line in ["redis | first", "redis | second"] {
                lines.send(line.to_owned()).await.unwrap();
                let seen = async {
                    while shown.try_recv().ok().is_none_or(|text| text != format!("{line}\n")) {
                        tokio::task::yield_now().await;
                    }
                };
                tokio::time::timeout(Duration::from_secs(20), seen)
                    .await
                    .expect("it is shown before there is another");
            }
            drop(lines);
        }
    );
    done.unwrap();
}

#[tokio::test]
async fn wait_and_delete_end_when_it_is_so() {
    let operator = Operator::start().await;
    operator.apply(json!({ "nodes": 3 })).await.unwrap();
    let ready = json!([{ "type": "Ready", "status": "True" }]);
    let waiting = json!([{ "what": "bids", "then": "the best one is taken" }]);
    operator
        .publish(json!({ "conditions": ready, "observedGeneration": 0, "waiting": waiting }))
        .await;
    let late = operator.run("wait cache --for Ready --timeout 0s").await.unwrap_err();
    assert_eq!(
        late, "cache is not Ready after 0s; it still waits for bids",
        "a status of an older spec does not count"
    );
    operator.publish(json!({ "conditions": ready, "observedGeneration": 1 })).await;
    assert_eq!(operator.run("wait cache").await.unwrap(), "rediscluster/cache is Ready\n");

    let (deleted, ()) = tokio::join!(operator.run("delete cache --wait --timeout 30s"), async {
        let mut changes = operator.store.changes();
        while operator
            .store
            .get("cache")
            .await
            .unwrap()
            .cluster
            .metadata
            .deletion_timestamp
            .is_none()
        {
            changes.next().await.unwrap();
        }
        assert!(
            operator
                .apply(json!({ "nodes": 3 }))
                .await
                .unwrap_err()
                .starts_with("cache is being deleted")
        );
        operator.store.remove("cache").await.unwrap();
    });
    assert!(deleted.unwrap().ends_with("rediscluster/cache deleted\n"));
    assert!(
        operator
            .run("delete cache")
            .await
            .unwrap_err()
            .starts_with("there is no RedisCluster named cache")
    );
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

impl Operator {
    /// The operator would buy so many nodes.
    fn would_buy(&self, new_nodes: u32) {
        let bill = crate::api::preview::Bill { new_nodes, ..Default::default() };
        self.appraiser.appraisal.lock().unwrap().bill = Some(bill);
    }
}

#[tokio::test]
async fn a_plan_of_a_file_changes_nothing() {
    let operator = Operator::start().await;
    operator.would_buy(3);
    let file = operator.manifest(&json!({ "nodes": 3 }));
    let plan = operator.run(&format!("plan -f {file}")).await.unwrap();
    assert!(plan.starts_with("rediscluster/cache would be created\n"), "{plan}");
    assert!(plan.ends_with("\nNothing was changed.\n"), "{plan}");
    assert_eq!(operator.run(&format!("apply -f {file} --dry-run")).await.unwrap(), plan);
    assert!(operator.store.list().await.unwrap().is_empty());

    operator.apply(json!({ "nodes": 3 })).await.unwrap();
    operator.joined().await;
    let before = operator.store.get("cache").await.unwrap();
    let file = operator.manifest(&json!({ "nodes": 5, "redis": { "config": { "timeout": "5" } } }));
    let plan = operator.run(&format!("plan -f {file}")).await.unwrap();
    for line in [
        "rediscluster/cache would be configured",
        "  + spec.nodes 3 -> 5 (nodes are bought)",
        "  ~ spec.redis.config.timeout none -> 5 (live: in force within seconds, no restart)",
    ] {
        assert!(plan.contains(line), "{plan}");
    }
    assert!(plan.contains("Plan: 3 to create, 1 to change, 0 to close."), "{plan}");
    let file = operator.manifest(&json!({ "nodes": 3, "resources": { "memory": "2Gi" } }));
    let refused = operator.run(&format!("plan -f {file}")).await.unwrap_err();
    assert!(refused.contains("cache has nodes that run"), "{refused}");
    let same = operator.manifest(&json!({ "nodes": 3 }));
    let plan = operator.run(&format!("plan -f {same}")).await.unwrap();
    assert!(plan.starts_with("rediscluster/cache would stay as it is\n"), "{plan}");
    assert_eq!(operator.store.get("cache").await.unwrap(), before);
}

#[tokio::test]
async fn what_the_operator_would_refuse_has_its_line() {
    let operator = Operator::start().await;
    operator.status_cache.publish_operator(OperatorReport {
        budget_global: Some("10act".parse().unwrap()),
        ..OperatorReport::default()
    });
    let path = operator.dir.path().join("dear.yaml").display().to_string();
    let text = "apiVersion: akash-redis.dev/v1alpha1\nkind: RedisCluster\nmetadata: { name: dear }\nspec:\n  nodes: 3\n  budget:\n    maxPerMonth: 20act\n";
    std::fs::write(&path, text).unwrap();
    for line in [format!("plan -f {path}"), format!("apply -f {path} --dry-run")] {
        let error = operator.run(&line).await.unwrap_err();
        let begins = format!("{path}:7: spec.budget.maxPerMonth: 20act is more than");
        assert!(error.starts_with(&begins), "{error}");
    }
    let mut person = somebody(true);
    let error = operator.run_before(&mut person, &format!("apply -f {path}")).await.unwrap_err();
    assert!(error.contains(":7: ") && person.asked == 0, "{error}");
    assert!(operator.store.list().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_person_is_asked_before_coins_are_spent_and_a_script_is_not() {
    let operator = Operator::start().await;
    operator.would_buy(3);
    let file = operator.manifest(&json!({ "nodes": 3 }));
    let mut no = somebody(false);
    let error = operator.run_before(&mut no, &format!("apply -f {file}")).await.unwrap_err();
    assert!(error.contains("nothing was applied") && no.asked == 1, "{error}");
    assert!(operator.store.list().await.unwrap().is_empty());

    let mut yes = somebody(true);
    let made = operator.run_before(&mut yes, &format!("apply -f {file}")).await.unwrap();
    assert_eq!((made.as_str(), yes.asked), ("rediscluster/cache created\n", 1));

    operator.would_buy(0);
    let mut idle = somebody(false);
    let same = operator.run_before(&mut idle, &format!("apply -f {file}")).await.unwrap();
    assert_eq!((same.as_str(), idle.asked), ("rediscluster/cache unchanged\n", 0));

    operator.would_buy(2);
    let file = operator.manifest(&json!({ "nodes": 5 }));
    let mut silent = somebody(false);
    let more = operator.run_before(&mut silent, &format!("apply -f {file} --yes")).await.unwrap();
    assert_eq!((more.as_str(), silent.asked), ("rediscluster/cache configured\n", 0));
    // Nobody at the terminal: as with kubectl.
    assert!(operator.apply(json!({ "nodes": 6 })).await.is_ok());
}

#[tokio::test]
async fn a_test_of_notifications_fails_when_one_does_not_arrive() {
    let operator = Operator::start().await;
    let nobody = operator.run("notify test").await.unwrap();
    assert!(nobody.starts_with("nobody is told"), "{nobody}");
}

#[tokio::test]
async fn the_books_of_a_cluster_that_is_gone_are_shown() {
    use crate::model::books::{Account, Payer, TxEntry};
    use crate::model::money::Uact;
    let operator = Operator::start().await;
    let unknown = operator.run("spend cache").await.unwrap_err();
    assert!(unknown.contains("no RedisCluster named cache"), "{unknown}");
    assert_eq!(operator.run("spend").await.unwrap(), "nothing was spent\n");
    let entry = TxEntry {
        hash: "A".into(),
        dseq: 7,
        cluster: "cache".into(),
        purpose: "create".into(),
        height: 1,
        at: UnixMs(1_795_000_000_000),
        ok: true,
        fee: 5000,
        fee_payer: Payer::Own,
        deposit: Uact(2_000_000),
        deposit_payer: Payer::Own,
    };
    operator.store.book_tx(&entry).await.unwrap();
    operator.store.put_accounts(&[Account::new(7, "cache", "u", "cache-0-a")]).await.unwrap();
    let csv = operator.run("spend cache -o csv --month 2026-11").await.unwrap();
    assert!(csv.ends_with("\ncache,u,cache-0-a,7,,2000000,0,0,2000000,0,5000,false\n"), "{csv}");
    let json = operator.run("spend -o json").await.unwrap();
    assert!(json.contains("\"feesUakt\": 5000"), "{json}");
    let october = operator.run("spend --month 2026-10").await.unwrap();
    assert_eq!(october, "nothing was spent\n");
    let parsed = Cli::try_parse_from(["akash-redis", "spend", "--month", "november"]);
    assert!(parsed.unwrap_err().to_string().contains("write it as 2026-11"));
}

/// What may be lost is shown first; then a person, or `--yes`, says it, in the name of somebody.
#[tokio::test]
async fn a_loss_is_accepted_by_somebody_who_saw_it() {
    let operator = Operator::start().await;
    operator.apply(json!({"nodes": 3})).await.unwrap();
    let mut status = json!({
        "epoch": 4, "problems": ["NoMaster"],
        "atStake": {"epoch": 4, "takesOver": "cache-2-c", "lacksBytes": 7, "missing": [{"incarnation": "cache-0-a", "why": "not heard"}]},
    });
    status["nodes"] = nodes();
    operator.publish(status).await;
    let said = async || operator.annotation(ACCEPT_LOSS).await;
    let error = operator.run("failover cache --accept-loss").await.unwrap_err();
    assert!(error.contains("add --yes"), "{error}");
    let mut no = somebody(false);
    let error = operator.run_before(&mut no, "failover cache --accept-loss").await.unwrap_err();
    assert!(error.contains("nothing was accepted") && no.asked == 1, "{error}");
    assert_eq!(said().await, None);

    let mut yes = somebody(true);
    let told = operator.run_before(&mut yes, "failover cache --accept-loss").await.unwrap();
    assert!(told.contains("cache-2-c would take over: it lacks at least 7 bytes"), "{told}");
    let word = said().await.unwrap();
    assert!(word.starts_with("4 by=") && word.contains('@'), "{word}");
    operator.run("failover cache --to 2 --accept-loss --yes").await.unwrap();
    assert!(said().await.unwrap().starts_with("4 to=cache-2-c by="));
    let events = operator.run("events cache").await.unwrap();
    assert!(events.contains("4 to=cache-2-c by="), "{events}");
}

#[tokio::test]
async fn a_node_is_fenced_until_somebody_says_otherwise() {
    let operator = Operator::start().await;
    operator.apply(json!({"nodes": 3})).await.unwrap();
    operator.publish(json!({"nodes": nodes()})).await;
    let told = operator.run("fence cache 1").await.unwrap();
    assert!(told.contains("takes no writes and becomes no master"), "{told}");
    assert!(operator.annotation(FENCE).await.unwrap().starts_with("1 by="));
    // A manifest from a file knows nothing of it.
    operator.apply(json!({"nodes": 3})).await.unwrap();
    assert!(operator.annotation(FENCE).await.unwrap().starts_with("1 by="));
    operator.run("unfence cache 1").await.unwrap();
    assert_eq!(operator.annotation(FENCE).await.as_deref(), Some(""));
    let error = operator.run("unfence cache 1").await.unwrap_err();
    assert!(error.contains("is not fenced by anybody"), "{error}");
}

#[tokio::test]
async fn keys_to_a_storage_are_kept_encrypted_and_backups_are_asked_for_and_listed() {
    let operator = Operator::start().await;
    let none = operator.run("backups cache").await;
    assert!(none.is_err(), "there is no such cluster");
    operator.apply(json!({ "nodes": 3 })).await.unwrap();
    let without = operator.client.backup("cache").await.unwrap_err().to_string();
    assert!(without.contains("add spec.backup"), "{without}");

    let keys = operator.dir.path().join("keys");
    std::fs::write(&keys, "AKIA1:s3cr3t\n").unwrap();
    let spec = json!({ "nodes": 3, "backup": { "to": "s3://backups/x", "credentialsFrom": { "file": keys } } });
    operator.apply(spec.clone()).await.unwrap();
    let backup = operator.store.get("cache").await.unwrap().cluster.spec.backup.unwrap();
    assert_eq!(backup.credentials.as_deref(), Some("sealed:of-cache"));
    assert_eq!(backup.credentials_from, None);
    assert_eq!(operator.apply(spec).await.unwrap(), "rediscluster/cache unchanged\n");
    assert!(!operator.run("events cache").await.unwrap().contains("s3cr3t"));
    let said = operator.client.backup("cache").await.unwrap().message;
    assert!(said.contains("s3://backups/x"), "{said}");
    assert!(operator.annotation(crate::api::types::BACKUP).await.is_some());

    std::fs::write(&keys, "no keys").unwrap();
    let wrong = operator.apply(json!({ "nodes": 3, "backup": { "to": "s3://backups/x", "credentialsFrom": { "file": keys } } }));
    let wrong = wrong.await.unwrap_err();
    assert!(wrong.contains("no ACCESS_KEY_ID:SECRET_ACCESS_KEY is"), "{wrong}");

    let one = json!({ "id": "b1", "taken": "2026-11-26T03:00:00Z", "node": "cache-1-b", "keys": 5100, "bytes": 2048, "redis": "7.0.15", "ofThisCluster": true });
    operator.publish(json!({ "nodes": nodes(), "backup": { "backups": [one], "count": 1 } })).await;
    let listed = operator.run("backups cache").await.unwrap();
    assert!(
        listed.contains("b1") && listed.contains("5100") && listed.contains("2.0KiB"),
        "{listed}"
    );
    let none = VerifyBackup { id: Some("b9".into()) };
    let none = operator.client.verify_backup("cache", &none).await.unwrap_err().to_string();
    assert!(none.contains("there is no backup b9 of cache"), "{none}");
    let newest = VerifyBackup::default();
    let said = operator.client.verify_backup("cache", &newest).await.unwrap().message;
    assert!(said.contains("backup b1 of cache is restored into a throw-away"), "{said}");
    let word = operator.annotation(crate::api::types::VERIFY).await.unwrap();
    assert!(word.ends_with(" b1"), "{word}");
    assert_eq!(operator.run("dump cache").await.unwrap(), "REDIS0010");
    operator.publish(json!({})).await;
    let none = operator.run("dump cache").await.unwrap_err();
    assert!(none.contains("nothing to dump"), "{none}");
}

/// A second cluster, and never the one that is there.
#[tokio::test]
async fn a_new_cluster_begins_with_a_backup_of_another_one() {
    let operator = Operator::start().await;
    let none = operator.run("restore cache2 --from cache").await.unwrap_err();
    assert!(none.contains("cache is not there") && none.contains("-f FILE"), "{none}");
    operator.apply(json!({ "nodes": 3 })).await.unwrap();
    let without = operator.run("restore cache2 --from cache").await.unwrap_err();
    assert!(without.contains("there is no spec.backup"), "{without}");
    let keys = operator.dir.path().join("keys");
    std::fs::write(&keys, "AKIA1:s3cr3t\n").unwrap();
    let spec = json!({ "nodes": 3, "backup": { "to": "s3://backups/x", "credentialsFrom": { "file": keys } }, "bootstrap": { "onTotalLoss": "restore" } });
    operator.apply(spec).await.unwrap();
    let same = operator.run("restore cache --from cache").await.unwrap_err();
    assert!(same.contains("never over the one that is there"), "{same}");

    let line = "restore cache2 --from cache --to 2026-11-25T10:15:00Z";
    let printed = operator.run(&format!("{line} --dry-run")).await.unwrap();
    assert!(printed.contains("name: cache2") && printed.contains("cluster: cache"), "{printed}");
    assert!(operator.store.get("cache2").await.is_err(), "nothing is changed");
    assert_eq!(operator.run(line).await.unwrap(), "rediscluster/cache2 created\n");
    let made = operator.store.get("cache2").await.unwrap().cluster;
    let bootstrap = made.spec.bootstrap.unwrap();
    let from = bootstrap.from_backup.unwrap();
    assert_eq!((from.cluster.as_deref(), from.id), (Some("cache"), None));
    assert_eq!(from.at.as_deref(), Some("2026-11-25T10:15:00Z"));
    assert_eq!(bootstrap.on_total_loss, crate::api::types::OnTotalLoss::Restore);
    // The keys are its own.
    let credentials = made.spec.backup.unwrap().credentials;
    assert_eq!(credentials.as_deref(), Some("sealed:of-cache2"));
    let there = operator.run(line).await.unwrap_err();
    assert!(there.contains("cache2 is there already"), "{there}");

    // What was printed is a manifest of its own; the other cluster may be gone.
    let file = operator.dir.path().join("other.yaml");
    std::fs::write(&file, printed.replace("cache2", "cache3")).unwrap();
    let line = format!("restore cache3 --from gone --id b1 --keep-users -f {}", file.display());
    assert_eq!(operator.run(&line).await.unwrap(), "rediscluster/cache3 created\n");
    let made = operator.store.get("cache3").await.unwrap().cluster.spec.bootstrap.unwrap();
    let from = made.from_backup.unwrap();
    assert_eq!((from.cluster.as_deref(), from.id.as_deref()), (Some("gone"), Some("b1")));
    assert_eq!((from.at, from.users), (None, crate::api::types::RestoredUsers::Keep));
}
