//! One of several operators works at a time, and what another one does counts for nothing.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use akash_redis::store::kubernetes::lease::{Candidate, Lost, NAME, Pace};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tokio::process::{Child, Command};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::apiserver::{Cluster, STEP, until};
use crate::sandboxed::sandboxed;

const LIMIT: Duration = Duration::from_mins(4);

/// So slow that nothing happens by the passing of time alone.
const SLOW: Pace = Pace {
    duration: Duration::from_hours(1),
    renew: Duration::from_millis(200),
    give_up: Duration::from_mins(30),
};

fn candidate(cluster: &Cluster, identity: &str, pace: Pace) -> Candidate {
    Candidate::new(cluster.client.clone(), "default", identity.to_owned(), pace)
}

fn leases(cluster: &Cluster) -> Api<Lease> {
    Api::namespaced(cluster.client.clone(), "default")
}

async fn holder(cluster: &Cluster) -> Option<String> {
    leases(cluster).get_opt(NAME).await.unwrap()?.spec?.holder_identity
}

#[test]
fn a_lease_has_one_holder_and_goes_to_the_next_in_order_or_when_it_is_not_renewed() {
    const TEST: &str =
        "election::a_lease_has_one_holder_and_goes_to_the_next_in_order_or_when_it_is_not_renewed";
    sandboxed(TEST, LIMIT, async |sandbox| {
        let mut cluster = Cluster::start(&sandbox.dir).await;
        let never = CancellationToken::new();
        let (first, second) = (candidate(&cluster, "a", SLOW), candidate(&cluster, "b", SLOW));
        assert!(first.acquire(&never).await.unwrap());
        let stop = CancellationToken::new();
        let held = tokio::spawn({
            let (first, stop) = (first.clone(), stop.clone());
            async move { first.hold(&stop).await }
        });
        let waiting = tokio::spawn({
            let (second, never) = (second.clone(), never.clone());
            async move { second.acquire(&never).await }
        });
        // It is renewed, and stays where it is.
        let renewed = async || leases(&cluster).get(NAME).await.unwrap().spec.unwrap().renew_time;
        let before = renewed().await;
        until("it to be renewed", async || (renewed().await != before).then_some(())).await;
        assert_eq!((holder(&cluster).await.as_deref(), waiting.is_finished()), (Some("a"), false));
        // In order: at once, an hour before it would be free.
        let began = Instant::now();
        stop.cancel();
        assert_eq!(held.await.unwrap(), Lost::GivenBack);
        assert!(timeout(STEP, waiting).await.unwrap().unwrap().unwrap());
        println!("handed over after {:?}", began.elapsed());
        assert_eq!(holder(&cluster).await.as_deref(), Some("b"));
        // Somebody gave it to another one.
        let taken = tokio::spawn({
            let second = second.clone();
            async move { second.hold(&CancellationToken::new()).await }
        });
        let patch = Patch::Merge(json!({"spec": {"holderIdentity": "c"}}));
        leases(&cluster).patch(NAME, &PatchParams::default(), &patch).await.unwrap();
        assert_eq!(timeout(STEP, taken).await.unwrap().unwrap(), Lost::TakenOver);
        // Who does not renew it loses it, and whoever cannot stops by itself before that.
        let quick = Pace {
            duration: Duration::from_secs(3),
            renew: Duration::from_millis(200),
            give_up: Duration::from_secs(2),
        };
        let third = candidate(&cluster, "d", quick);
        assert!(timeout(STEP, third.acquire(&never)).await.unwrap().unwrap(), "c never renewed it");
        cluster.kill_apiserver().await;
        assert_eq!(timeout(STEP, third.hold(&never)).await.unwrap(), Lost::NotRenewed);
        // A wait ends with the process.
        let end = CancellationToken::new();
        end.cancel();
        assert!(!timeout(STEP, third.acquire(&end)).await.unwrap().unwrap());
    });
}

/// The settings of an operator whose chain and tailnet do not answer.
fn settings(cluster: &Cluster, dir: &Path) -> PathBuf {
    std::fs::create_dir_all(dir).unwrap();
    let words = "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about";
    for (name, text) in
        [("words", words), ("oauth", "x"), ("root", "0123456789abcdef0123456789abcdef")]
    {
        std::fs::write(dir.join(name), text).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(dir.join(name), mode).unwrap();
    }
    let file = |name: &str| dir.join(name).display().to_string();
    let settings = json!({
        "chain": {"id": "nowhere-1", "grpc": ["http://127.0.0.1:1"]},
        "wallet": {"mnemonicFile": file("words")},
        "mesh": {"api": "http://127.0.0.1:1", "oauthClientId": "k", "oauthSecretFile": file("oauth")},
        "node": {"image": format!("example.org/node@sha256:{}", "1".repeat(64))},
        "budget": {"global": "50act", "perClusterDefault": "12act"},
        "rootSecretFile": file("root"),
        "store": {"kubernetes": {"namespace": "default", "kubeconfig": cluster.kubeconfig()}},
        "api": {"socket": file("operator.sock")},
        "timing": {"tick": "1s"},
    });
    let path = dir.join("operator.yaml");
    std::fs::write(&path, settings.to_string()).unwrap();
    path
}

fn operator(settings: &Path) -> Child {
    let log = std::fs::File::create(settings.with_extension("log")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_akash-redis"));
    command.args(["operator", "--config"]).arg(settings).stdin(Stdio::null());
    command.stdout(log.try_clone().unwrap()).stderr(log).kill_on_drop(true).spawn().unwrap()
}

fn signal(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id().unwrap()).unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

#[test]
fn an_operator_that_stood_still_finds_that_another_one_works_and_ends() {
    const TEST: &str =
        "election::an_operator_that_stood_still_finds_that_another_one_works_and_ends";
    sandboxed(TEST, LIMIT, async |sandbox| {
        let cluster = Cluster::start(&sandbox.dir).await;
        let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), "default");
        let term = async || -> u64 {
            let map = maps.get_opt("akash-redis.installation").await.unwrap();
            map.and_then(|map| map.data?.get("term")?.parse().ok()).unwrap_or(0)
        };
        let after = async |last: u64| {
            until("an operator to take over", async || Some(term().await).filter(|t| *t > last))
                .await
        };
        let dirs = ["one", "two"].map(|name| settings(&cluster, &sandbox.dir.join(name)));
        let mut one = operator(&dirs[0]);
        let first = after(0).await;
        let mut two = operator(&dirs[1]);
        // A cluster that it looks after: with no chain in sight it can do nothing but say so.
        let cache = json!({
            "apiVersion": "akash-redis.dev/v1alpha1", "kind": "RedisCluster",
            "metadata": {"name": "cache"}, "spec": {"nodes": 3},
        });
        cluster.create("default", &cache).await.unwrap();
        let objects = cluster.objects("default");
        until("a status", async || {
            let status = objects.get("cache").await.unwrap().data["status"].clone();
            status["conditions"].is_array().then_some(())
        })
        .await;
        assert_eq!(term().await, first, "the second one waits");
        // One that went without us, whatever held it, stops nobody.
        let mut torn = cache.clone();
        torn["metadata"]["name"] = json!("torn");
        cluster.create("default", &torn).await.unwrap();
        until("it to be held", async || {
            objects.get("torn").await.unwrap().metadata.finalizers.filter(|all| !all.is_empty())
        })
        .await;
        let none = Patch::Merge(json!({"metadata": {"finalizers": null}}));
        objects.delete("torn", &DeleteParams::default()).await.unwrap();
        objects.patch("torn", &PatchParams::default(), &none).await.unwrap();
        until("it to be gone", async || {
            objects.get_opt("torn").await.unwrap().is_none().then_some(())
        })
        .await;
        let patch = Patch::Merge(json!({"spec": {"nodes": 5}}));
        objects.patch("cache", &PatchParams::default(), &patch).await.unwrap();
        until("the operator to go on", async || {
            assert_eq!(one.try_wait().unwrap(), None);
            let status = objects.get("cache").await.unwrap().data["status"].clone();
            (status["observedGeneration"] == 2).then_some(())
        })
        .await;
        signal(&one, Signal::STOP);
        let second = after(first).await;
        signal(&one, Signal::CONT);
        let ended = timeout(STEP, one.wait()).await.unwrap().unwrap();
        let said = std::fs::read_to_string(dirs[0].with_extension("log")).unwrap();
        assert!(!ended.success(), "{said}");
        let why = ["the lease was lost", "a later operator (term"];
        assert!(why.iter().any(|why| said.contains(why)), "{said}");
        assert_eq!(term().await, second, "it did not take over again");
        // In order, the next one begins at once.
        let mut three = operator(&dirs[0]);
        until("the third one to wait", async || {
            let said = std::fs::read_to_string(dirs[0].with_extension("log")).unwrap();
            said.contains("another operator holds the lease").then_some(())
        })
        .await;
        let began = Instant::now();
        signal(&two, Signal::TERM);
        after(second).await;
        println!("handed over after {:?}", began.elapsed());
        assert!(timeout(STEP, two.wait()).await.unwrap().unwrap().success());
        signal(&three, Signal::TERM);
        assert!(timeout(STEP, three.wait()).await.unwrap().unwrap().success());
    });
}
