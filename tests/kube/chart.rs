//! The Helm chart: what it makes, what it refuses, and that it permits the operator what it needs and
//! nothing else.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use akash_redis::api::conditions::Phase;
use akash_redis::api_client::Client;
use akash_redis::server::messages::Switchover;
use serde_json::{Value, json};
use tokio::process::{Child, Command};

use crate::apiserver::{Cluster, peers, until};
use crate::life::keep_in;
use crate::sandboxed::sandboxed;
use crate::stage::{CLUSTER, PROGRAM, Stage, cluster};

pub const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/akash-redis");
pub const VALUES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kube/values.yaml");
pub const NAMESPACE: &str = "redis";
const LIMIT: Duration = Duration::from_mins(5);

/// What Helm says, or why it does not.
pub fn helm(home: &Path, arguments: &[&str]) -> Result<String, String> {
    let output = std::process::Command::new(peers().join("helm"))
        .args(arguments)
        .env("HOME", home)
        .env_remove("KUBECONFIG")
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

fn rendered(more: &[&str]) -> Result<String, String> {
    let home = tempfile::tempdir().unwrap();
    let base = ["template", "akash-redis", CHART, "--namespace", NAMESPACE, "--values", VALUES];
    helm(home.path(), &[&base[..], more].concat())
}

/// All but the definition of our objects, which has a test of its own.
fn without_definition(text: &str) -> String {
    let of_it = |document: &&str| !document.contains("kind: CustomResourceDefinition");
    text.split("\n---\n").filter(of_it).collect::<Vec<_>>().join("\n---\n")
}

#[test]
fn what_helm_makes_of_the_least_and_of_everything() {
    let home = tempfile::tempdir().unwrap();
    helm(home.path(), &["lint", "--strict", CHART, "--values", VALUES]).unwrap();
    insta::assert_snapshot!("least", without_definition(&rendered(&[]).unwrap()));
    let all = [
        "--set=watch.allNamespaces=true,watch.selector=team=web,replicas=3",
        "--set=metrics.serviceMonitor.create=true,metrics.prometheusRule.create=true",
        "--set=networkPolicy.metricsFrom[0].namespaceSelector.matchLabels.name=monitoring",
    ];
    insta::assert_snapshot!("everything", without_definition(&rendered(&all).unwrap()));
    let named = rendered(&["--set", "secrets.read=true,secrets.names={app,web}"]).unwrap();
    assert!(named.contains("resourceNames:\n    - app\n    - web\n"), "{named}");
    let dashboard = rendered(&["--set", "metrics.dashboard.create=true"]).unwrap();
    assert!(dashboard.contains("grafana_dashboard"), "{dashboard}");
}

#[test]
fn values_that_cannot_work_are_refused_before_anything_is_made() {
    for (change, said) in [
        ("image.repository=", "image.repository: name the operator's image"),
        ("existingSecret=", "existingSecret: name the Secret"),
        ("settings.chain.grpc=null", "settings.chain.grpc: name at least one"),
        ("settings.node.image=nginx:latest", "image"),
        ("settings.budget.global=40", "global"),
        ("image.digest=sha256:12", "digest"),
        ("replicas=many", "replicas"),
        ("imgae.tag=1", "imgae"),
        ("settings.store.sqlite=/tmp/x", "settings"),
    ] {
        let error = rendered(&["--set", change]).expect_err(change);
        assert!(error.contains(said), "{change}: {error}");
    }
}

/// What somebody may do, or did: group, resource and verb.
type Right = (String, String, String);

/// The rights of all roles that Helm makes.
fn rights(text: &str) -> BTreeSet<Right> {
    let mut all = BTreeSet::new();
    for document in text.split("\n---\n") {
        let object: Value = serde_saphyr::from_str(document).unwrap();
        if !matches!(object["kind"].as_str(), Some("Role" | "ClusterRole")) {
            continue;
        }
        let words = |value: &Value| -> Vec<String> {
            value.as_array().unwrap().iter().map(|v| v.as_str().unwrap().to_owned()).collect()
        };
        for rule in object["rules"].as_array().unwrap() {
            assert!(rule.get("nonResourceURLs").is_none(), "{rule}");
            for group in words(&rule["apiGroups"]) {
                for resource in words(&rule["resources"]) {
                    for verb in words(&rule["verbs"]) {
                        assert!(![&group, &resource, &verb].contains(&&"*".to_owned()), "{rule}");
                        all.insert((group.clone(), resource.clone(), verb));
                    }
                }
            }
        }
    }
    all
}

/// What is done a day after a cluster was deleted: its events go.
const RARE: [(&str, &str, &str); 1] = [("", "configmaps", "delete")];

/// What service accounts did, by the apiserver's own log, and what they were refused.
fn deeds(log: &str) -> (BTreeSet<Right>, Vec<Value>) {
    let (mut done, mut refused) = (BTreeSet::new(), Vec::new());
    for line in log.lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        let Some(about) = event.get("objectRef") else { continue };
        let word = |key: &str| about[key].as_str().unwrap_or_default().to_owned();
        let sub = about["subresource"].as_str().map(|sub| format!("/{sub}")).unwrap_or_default();
        let verb = event["verb"].as_str().unwrap().to_owned();
        if event["responseStatus"]["code"] == 403 {
            refused.push(event.clone());
        }
        done.insert((word("apiGroup"), word("resource") + &sub, verb));
    }
    (done, refused)
}

/// A kubeconfig with which the service account of the chart comes.
pub async fn account(kube: &Cluster, dir: &Path) -> PathBuf {
    let token = kube.says(&["create", "token", "akash-redis", "-n", NAMESPACE]).await;
    let text = std::fs::read_to_string(kube.kubeconfig()).unwrap();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    config["users"][0]["user"] = json!({"token": token.trim()});
    let file = dir.join("account.kubeconfig");
    std::fs::write(&file, config.to_string()).unwrap();
    file
}

/// Another operator of the same settings, and how it is asked: it waits, and says that it is well.
async fn waiting(stage: &Stage, dir: &Path) -> (Child, Client) {
    let socket = dir.join("second.sock");
    let metrics = "127.0.0.1:9701";
    let settings = std::fs::read_to_string(stage.local.config()).unwrap();
    let api = format!("api: {{ socket: {}, metrics: \"{metrics}\" }}", socket.display());
    let line = |line: &str| if line.starts_with("api:") { api.clone() } else { line.to_owned() };
    let settings: Vec<String> = settings.lines().map(line).collect();
    let file = dir.join("second.yaml");
    std::fs::write(&file, settings.join("\n")).unwrap();
    let mut command = Command::new(PROGRAM);
    command.args(["operator", "--config"]).arg(&file).kill_on_drop(true);
    let second = command.spawn().unwrap();
    let ask = |path: &str| reqwest::get(format!("http://{metrics}{path}"));
    until("a sign of life", async || ask("/healthz").await.ok()?.error_for_status().ok()).await;
    let shown = ask("/metrics").await.unwrap().text().await.unwrap();
    assert!(shown.contains("akash_redis_works 0"), "{shown}");
    let client = Client::new(&socket).unwrap();
    assert!(client.list().await.is_err(), "it is not its turn");
    (second, client)
}

/// The master moves to a node that is in sync.
async fn switch(stage: &Stage) {
    let before = stage.until_ready().await;
    let target = before.nodes.iter().find(|node| node.phase == Phase::Replica).unwrap();
    let to = Some(target.incarnation.clone());
    stage.client.switchover(CLUSTER, &Switchover { to }).await.unwrap();
    until("the master to have moved", async || {
        let now = stage.until_ready().await;
        (now.epoch > before.epoch).then_some(())
    })
    .await;
}

#[test]
fn the_operator_may_do_what_it_needs_and_nothing_else() {
    let test = "chart::the_operator_may_do_what_it_needs_and_nothing_else";
    sandboxed(test, LIMIT, async |sandbox| {
        let mut stage = Stage::without_operator(&sandbox).await;
        let kube = Cluster::bare(&sandbox.dir).await;
        let to = kube.kubeconfig().display().to_string();
        let run = |arguments: &[&str]| {
            helm(&sandbox.dir, &[arguments, &["--kubeconfig", &to, "-n", NAMESPACE]].concat())
        };
        let said = run(&["install", "akash-redis", CHART, "--create-namespace", "-f", VALUES]);
        assert!(
            said.unwrap().contains("kubectl akash-redis --namespace redis apply"),
            "the next step"
        );
        kube.served("redisclusters.akash-redis.dev").await;

        // The settings are the chart's, but for what stands on this machine.
        let get = ["get", "configmap", "akash-redis-settings", "-n", NAMESPACE, "-o", "json"];
        let map: Value = serde_json::from_str(&kube.says(&get).await).unwrap();
        let made: Value =
            serde_saphyr::from_str(map["data"]["operator.yaml"].as_str().unwrap()).unwrap();
        let mut store = made["store"].clone();
        store["kubernetes"]["kubeconfig"] = json!(account(&kube, &sandbox.dir).await);
        keep_in(&stage, &store);
        stage.local.start_operator().await.unwrap();
        let (process, second) = waiting(&stage, &sandbox.dir).await;

        // A life, by the operator's own API and by kubectl.
        let mut manifest = cluster(3);
        stage.client.apply(&manifest).await.unwrap();
        stage.until_ready().await;
        manifest.spec.redis.config.insert("maxmemory-policy".to_owned(), "allkeys-lru".to_owned());
        stage.client.apply(&manifest).await.unwrap();
        let ready = ["wait", "rdc/cache", "-n", NAMESPACE, "--for=condition=SettingsApplied"];
        kube.says(&ready).await;
        run(&["upgrade", "akash-redis", CHART, "-f", VALUES, "--set", "replicas=1"]).unwrap();
        // There and back: some events are the same again.
        for _ in 0..2 {
            switch(&stage).await;
        }
        stage.local.kill_operator().await;
        until("the second operator", async || second.list().await.ok()).await;
        second.delete(CLUSTER, true).await.unwrap();
        until("the cluster to be gone", async || {
            second.list().await.unwrap().is_empty().then_some(())
        })
        .await;

        let log = until("the audit log", async || std::fs::read_to_string(kube.audit()).ok()).await;
        let (done, refused) = deeds(&log);
        assert!(refused.is_empty(), "what the chart does not permit: {refused:#?}");
        let may = rights(&rendered(&[]).unwrap());
        let rare = RARE.map(|(group, what, verb)| (group.into(), what.into(), verb.into()));
        let idle: Vec<_> = may.difference(&done).filter(|right| !rare.contains(right)).collect();
        assert!(idle.is_empty(), "permitted, and never done: {idle:#?}");

        // With nobody who could close its leases.
        drop(process);
        let manifest = serde_json::to_value(cluster(3)).unwrap();
        kube.create(NAMESPACE, &manifest).await.unwrap();
        run(&["uninstall", "akash-redis"]).unwrap();
        let kept = kube.says(&["get", "rdc", "-n", NAMESPACE]).await;
        assert!(kept.contains(CLUSTER), "uninstalling deletes no cluster: {kept}");
        run(&["install", "akash-redis", CHART, "-f", VALUES]).expect("it takes up what stayed");
    });
}
