//! What goes wrong around the store: the apiserver or etcd die, words come late or not at all,
//! objects are changed behind its back or cannot be run.

use std::collections::BTreeSet;
use std::time::Duration;

use akash_redis::api::conditions::{ConditionStatus, ConditionType, Reason};
use akash_redis::api::status::{Condition, Status};
use akash_redis::changes::Change;
use akash_redis::config::KubernetesHome;
use akash_redis::model::record::Record;
use akash_redis::model::time::UnixMs;
use akash_redis::store::kubernetes::{FINALIZER, KubernetesStore};
use akash_redis::store::{
    Event, Events as _, Leadership as _, Objects as _, Records as _, StoreError,
};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{
    DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams,
};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::apiserver::{Cluster, until};
use crate::sandboxed::sandboxed;

const LIMIT: Duration = Duration::from_mins(4);

fn object(name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "akash-redis.dev/v1alpha1", "kind": "RedisCluster", "metadata": {"name": name}, "spec": spec,
    })
}

fn epoch(epoch: u64) -> Record {
    Record { epoch, ..Record::default() }
}

/// The operator of a namespace, at work.
async fn at_work(cluster: &Cluster, namespace: &str) -> std::sync::Arc<KubernetesStore> {
    let store = cluster.store(namespace).await;
    store.take_over().await.unwrap();
    store
}

/// Waits until the store has an object, which is held before that.
async fn visible(store: &KubernetesStore, name: &str) {
    until(&format!("{name} to be run"), async || store.get(name).await.ok()).await;
}

#[test]
fn the_store_goes_on_when_the_apiserver_or_etcd_died_and_came_back() {
    const NAME: &str = "faults::the_store_goes_on_when_the_apiserver_or_etcd_died_and_came_back";
    sandboxed(NAME, LIMIT, async |sandbox| {
        let mut cluster = Cluster::start(&sandbox.dir).await;
        let store = at_work(&cluster, "default").await;
        cluster.create("default", &object("cache", &json!({"nodes": 3}))).await.unwrap();
        visible(&store, "cache").await;
        let mut changes = store.changes();
        for round in 1..=2 {
            if round == 1 {
                cluster.kill_apiserver().await;
                let first = epoch(1);
                let write = store.set_record("cache", 0, &first);
                let ((), written) = tokio::join!(async { cluster.start_apiserver() }, write);
                println!("written while it was away: {written:?}");
            } else {
                cluster.kill_etcd().await;
                cluster.start_etcd();
            }
            // A write is there or it is not: whoever reads it again can go on.
            until("a record to be written", async || {
                let stored = store.get("cache").await.ok()?;
                let next = epoch(stored.record.epoch + 1);
                store.set_record("cache", stored.record_version, &next).await.ok()
            })
            .await;
            cluster.ready().await;
            // And what is wanted is heard of.
            let name = format!("new{round}");
            until("an object to be made", async || {
                cluster.create("default", &object(&name, &json!({"nodes": 1}))).await.ok()
            })
            .await;
            visible(&store, &name).await;
            while changes.next().await != Some(Change::Key(name.clone())) {}
        }
        let stored = store.get("cache").await.unwrap();
        let again = at_work(&cluster, "default").await.get("cache").await.unwrap();
        assert_eq!((again.record, again.record_version), (stored.record, stored.record_version));
    });
}

#[test]
fn what_happened_while_nobody_heard_of_it_is_noticed() {
    const NAME: &str = "faults::what_happened_while_nobody_heard_of_it_is_noticed";
    sandboxed(NAME, LIMIT, async |sandbox| {
        let mut cluster = Cluster::start(&sandbox.dir).await;
        for name in ["run", "other"] {
            cluster.namespace(name).await;
        }
        let store = at_work(&cluster, "run").await;
        for name in ["stays", "goes"] {
            cluster.create("run", &object(name, &json!({"nodes": 3}))).await.unwrap();
            visible(&store, name).await;
        }
        let listed = cluster.objects("run").list(&ListParams::default()).await.unwrap();
        let version = listed.metadata.resource_version.unwrap();
        for n in 0..20 {
            let one = object(&format!("n{n}"), &json!({"nodes": 1}));
            cluster.create("other", &one).await.unwrap();
        }
        // An object vanishes from the store below while the apiserver is away, and the versions
        // before that are forgotten: a watch cannot go on from where it was.
        cluster.kill_apiserver().await;
        let key = "/registry/akash-redis.dev/redisclusters/run/goes";
        let gone = cluster.etcd("deleterange", &json!({"key": BASE64_STANDARD.encode(key)})).await;
        assert_eq!(gone["deleted"], "1", "{gone}");
        let revision = gone["header"]["revision"].as_str().unwrap();
        cluster.etcd("compaction", &json!({"revision": revision, "physical": true})).await;
        cluster.start_apiserver();
        cluster.ready().await;
        let params = WatchParams::default();
        let objects = cluster.objects("run");
        let code = until("an answer about that version", async || {
            let code = match objects.watch(&params, &version).await {
                Ok(watch) => match std::pin::pin!(watch).next().await {
                    Some(Ok(WatchEvent::Error(status))) => status.code,
                    other => panic!("{other:?}"),
                },
                Err(kube::Error::Api(status)) => status.code,
                Err(error) => panic!("{error}"),
            };
            // An apiserver that starts has to be asked again.
            (![429, 503].contains(&code)).then_some(code)
        })
        .await;
        assert_eq!(code, 410, "gone");

        until("it to be missed", async || {
            matches!(store.get("goes").await, Err(StoreError::NotFound { .. })).then_some(())
        })
        .await;
        cluster.create("run", &object("new", &json!({"nodes": 1}))).await.unwrap();
        visible(&store, "new").await;
        let names = store.list().await.unwrap().into_iter().map(|s| s.cluster.metadata.name);
        assert_eq!(names.collect::<Vec<_>>(), ["new", "stays"]);
    });
}

/// A path to the apiserver. At each word connections that are there die without one: they stay open
/// and carry nothing.
async fn path_to(server: &str) -> (String, watch::Sender<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let path = format!("https://{}", listener.local_addr().unwrap());
    let server = server.strip_prefix("https://").unwrap().to_owned();
    let (deaths, dies) = watch::channel(());
    tokio::spawn(async move {
        loop {
            let (mut from, _) = listener.accept().await.unwrap();
            let (server, mut dies) = (server.clone(), dies.clone());
            dies.mark_unchanged();
            tokio::spawn(async move {
                let mut to = TcpStream::connect(server).await.unwrap();
                tokio::select! {
                    _ = copy_bidirectional(&mut from, &mut to) => {}
                    _ = dies.changed() => std::future::pending().await,
                }
            });
        }
    });
    (path, deaths)
}

#[test]
fn a_connection_that_died_without_a_word_is_noticed() {
    const NAME: &str = "faults::a_connection_that_died_without_a_word_is_noticed";
    sandboxed(NAME, LIMIT, async |sandbox| {
        let cluster = Cluster::start(&sandbox.dir).await;
        let home = cluster.home("default");
        let text = std::fs::read(home.kubeconfig.as_ref().unwrap()).unwrap();
        let mut kubeconfig: Value = serde_json::from_slice(&text).unwrap();
        let server = &mut kubeconfig["clusters"][0]["cluster"]["server"];
        let (path, deaths) = path_to(server.as_str().unwrap()).await;
        *server = path.into();
        let file = sandbox.dir.join("kubeconfig-of-the-path");
        std::fs::write(&file, kubeconfig.to_string()).unwrap();
        let store = cluster.store_at(KubernetesHome { kubeconfig: Some(file), ..home }).await;
        store.take_over().await.unwrap();
        for name in ["before", "after"] {
            cluster.create("default", &object(name, &json!({"nodes": 3}))).await.unwrap();
            visible(&store, name).await;
            deaths.send_replace(());
        }
    });
}

#[test]
fn what_is_changed_behind_its_back_is_seen_and_put_right() {
    const NAME: &str = "faults::what_is_changed_behind_its_back_is_seen_and_put_right";
    sandboxed(NAME, LIMIT, async |sandbox| {
        let cluster = Cluster::start(&sandbox.dir).await;
        let (store, api) = (at_work(&cluster, "default").await, cluster.objects("default"));
        cluster.create("default", &object("cache", &json!({"nodes": 3}))).await.unwrap();
        visible(&store, "cache").await;

        // A status that somebody wrote by hand, fields of ours and others.
        let ours = Status {
            epoch: 4,
            ready_nodes: 3,
            conditions: vec![Condition {
                kind: ConditionType::Ready,
                status: ConditionStatus::True,
                reason: Reason::AllInSync,
                message: "well".into(),
                last_transition_time: "2026-01-01T00:00:00Z".into(),
            }],
            ..Status::default()
        };
        store.set_status("cache", &ours).await.unwrap();
        let theirs = json!({"status": {
            "epoch": 9, "conditions": [], "atStake": {"epoch": 9, "missing": []},
        }});
        api.patch_status("cache", &PatchParams::default(), &Patch::Merge(&theirs)).await.unwrap();
        until("it to be seen", async || {
            let seen = store.get("cache").await.unwrap().cluster.status.unwrap();
            (seen.epoch == 9 && seen.at_stake.is_some()).then_some(())
        })
        .await;
        store.set_status("cache", &ours).await.unwrap();
        let there: Status =
            serde_json::from_value(api.get("cache").await.unwrap().data["status"].clone()).unwrap();
        assert_eq!(there, ours);
        let version = api.get("cache").await.unwrap().resource_version();
        store.set_status("cache", &ours).await.unwrap();
        assert_eq!(api.get("cache").await.unwrap().resource_version(), version, "nothing to write");

        // A write of the operator before, which was under way when this one took over.
        assert_eq!(store.set_record("cache", 0, &epoch(1)).await.unwrap(), 1);
        let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), "default");
        let name = "akash-redis.cluster.cache";
        let mut late = maps.get(name).await.unwrap();
        let text = late.data.as_mut().unwrap().get_mut("memory").unwrap();
        let mut memory: Value = serde_json::from_str(text).unwrap();
        (memory["record"]["epoch"], memory["recordVersion"]) = (json!(7), json!(2));
        *text = memory.to_string();
        maps.replace(name, &PostParams::default(), &late).await.unwrap();
        let conflict = store.set_record("cache", 1, &epoch(2)).await;
        assert!(matches!(conflict, Err(StoreError::Conflict { .. })), "{conflict:?}");
        let seen = store.get("cache").await.unwrap();
        assert_eq!((seen.record.epoch, seen.record_version), (7, 2), "it plans with what is there");
        assert_eq!(store.set_record("cache", 2, &epoch(8)).await.unwrap(), 3);
        // One that nobody can read stops its own cluster alone.
        cluster.create("default", &object("other", &json!({"nodes": 3}))).await.unwrap();
        visible(&store, "other").await;
        let junk = json!({"data": {"memory": "{"}});
        maps.patch(name, &PatchParams::default(), &Patch::Merge(&junk)).await.unwrap();
        let next = at_work(&cluster, "default").await;
        let names = next.list().await.unwrap().into_iter().map(|s| s.cluster.metadata.name);
        assert_eq!(names.collect::<Vec<_>>(), ["other"]);

        // What happened stands at the object too.
        let told = |at| Event::new(UnixMs(at), "other", "EffectFailed", "the provider said no");
        next.add_events(&[told(1_795_000_000_000)]).await.unwrap();
        next.add_events(&[told(1_795_000_001_000)]).await.unwrap();
        until("the events of Kubernetes", async || {
            let shown = cluster.says(&["describe", "rdc", "other"]).await;
            (shown.contains("Warning")
                && shown.contains("the provider said no")
                && shown.contains("x2"))
            .then_some(())
        })
        .await;
    });
}

/// A definition that takes anything: as if admission had been bypassed.
fn lax() -> Value {
    let mut definition = akash_redis::api::crd::definition();
    let version = &mut definition["spec"]["versions"][0];
    // Whatever can be scaled has a number of nodes.
    version["subresources"].as_object_mut().unwrap().remove("scale");
    let schema = &mut version["schema"]["openAPIV3Schema"];
    schema.as_object_mut().unwrap().remove("x-kubernetes-validations");
    schema.as_object_mut().unwrap().remove("required");
    schema["properties"]["spec"] = json!({"x-kubernetes-preserve-unknown-fields": true});
    definition
}

fn accepted(object: &kube::core::DynamicObject) -> Option<(String, String)> {
    let status: Status = serde_json::from_value(object.data["status"].clone()).ok()?;
    let condition = status.condition(ConditionType::Accepted)?;
    assert_eq!(condition.status, ConditionStatus::False);
    Some((condition.reason.to_string(), condition.message.clone()))
}

#[test]
fn an_object_that_cannot_be_run_is_told_why_and_stops_no_other() {
    const NAME: &str = "faults::an_object_that_cannot_be_run_is_told_why_and_stops_no_other";
    sandboxed(NAME, LIMIT, async |sandbox| {
        let cluster = Cluster::start(&sandbox.dir).await;
        cluster.define(&lax()).await;
        let (store, api) = (at_work(&cluster, "default").await, cluster.objects("default"));
        let bad = [
            ("number", json!({"nodes": 30}), "30 nodes cannot be run"),
            ("text", json!({"nodes": "many"}), "the manifest cannot be read"),
            ("list", json!([1, 2]), "the manifest cannot be read"),
            ("nothing", Value::Null, "the manifest cannot be read"),
            ("word", json!({"nodes": 3, "replicas": 2}), "unknown field `replicas`"),
            (
                "bind",
                json!({"nodes": 3, "redis": {"config": {"bind": "0.0.0.0"}}}),
                "spec.redis.config.bind",
            ),
            (
                "password",
                json!({"nodes": 3, "redis": {"users": [{"name": "app", "passwordFrom": {"env": "X"}}]}}),
                "passwordFrom of user app is read by",
            ),
        ];
        for (name, spec, _) in &bad {
            // The definition as it was is in force for a moment more.
            until("it to be taken", async || {
                cluster.create("default", &object(name, spec)).await.ok()
            })
            .await;
        }
        let config =
            json!({"timeout": 300, "maxmemory-policy": "allkeys-lru", "activedefrag": false});
        let good = json!({"nodes": 3, "redis": {"config": config}});
        cluster.create("default", &object("good", &good)).await.unwrap();
        visible(&store, "good").await;
        let spec = store.get("good").await.unwrap().cluster.spec;
        assert_eq!(spec.redis.config["timeout"], "300");
        assert_eq!(spec.redis.config["activedefrag"], "no", "`kubectl` sends `no` as false");
        for (name, _, says) in &bad {
            let (reason, message) = until(&format!("{name} to be told why"), async || {
                accepted(&api.get(name).await.unwrap())
            })
            .await;
            assert_eq!(reason, "ManifestInvalid");
            assert!(message.contains(says), "{name}: {message}");
            assert!(store.get(name).await.is_err(), "{name} is not run");
        }
        let names = async |store: &KubernetesStore| -> Vec<String> {
            let all = store.list().await.unwrap();
            all.into_iter().map(|stored| stored.cluster.metadata.name).collect()
        };
        assert_eq!(names(&store).await, ["good"]);
        // It is run once it can be, and went without a word before.
        let patch = Patch::Merge(json!({"spec": {"nodes": 1}}));
        api.patch("number", &PatchParams::default(), &patch).await.unwrap();
        visible(&store, "number").await;
        api.delete("text", &DeleteParams::default()).await.unwrap();
        until("it to be gone", async || api.get_opt("text").await.unwrap().is_none().then_some(()))
            .await;

        // One that runs goes on as it was, also with the next operator, and is deleted as it was.
        store.set_record("good", 0, &epoch(3)).await.unwrap();
        let patch = Patch::Merge(json!({"spec": {"nodes": 30}}));
        api.patch("good", &PatchParams::default(), &patch).await.unwrap();
        for next in [false, true] {
            let store = if next { at_work(&cluster, "default").await } else { store.clone() };
            until("it to be seen", async || {
                let seen = store.get("good").await.unwrap().cluster;
                assert_eq!(seen.spec.nodes, 3, "nothing is done by what cannot be run");
                (seen.metadata.generation == Some(2)).then_some(())
            })
            .await;
            let status = Status { epoch: 3, ..Status::default() };
            store.set_status("good", &status).await.unwrap();
            let seen = api.get("good").await.unwrap();
            let (_, message) = accepted(&seen).unwrap();
            assert!(message.starts_with("it goes on as it was: spec.nodes: 30 nodes"), "{message}");
            assert_eq!(seen.data["status"]["epoch"], 3);
            assert_eq!(names(&store).await, ["good", "number"]);
            assert_eq!(seen.finalizers(), [FINALIZER], "it is held");
        }
    });
}

#[test]
fn of_two_with_one_name_the_first_is_run_and_the_other_when_that_is_gone() {
    const NAME: &str =
        "faults::of_two_with_one_name_the_first_is_run_and_the_other_when_that_is_gone";
    sandboxed(NAME, LIMIT, async |sandbox| {
        let cluster = Cluster::start(&sandbox.dir).await;
        for name in ["a", "b", "c", "operator"] {
            cluster.namespace(name).await;
        }
        let labelled = |name: &str, nodes: u32| {
            let mut object = object(name, &json!({"nodes": nodes}));
            object["metadata"]["labels"] = json!({"team": "red"});
            object
        };
        let selector = Some("team=red".to_owned());
        let home = KubernetesHome { selector, ..cluster.home("operator") };
        let store = cluster.store_at(home.clone()).await;
        store.take_over().await.unwrap();
        cluster.create("c", &object("cache", &json!({"nodes": 9}))).await.unwrap();
        cluster.create("b", &labelled("cache", 3)).await.unwrap();
        visible(&store, "cache").await;
        store.set_record("cache", 0, &epoch(5)).await.unwrap();
        cluster.create("a", &labelled("cache", 5)).await.unwrap();
        let (reason, message) = until("the other to be told why", async || {
            accepted(&cluster.objects("a").get("cache").await.unwrap())
        })
        .await;
        assert_eq!(reason, "NameTaken");
        assert!(message.contains("of namespace b came first"), "{message}");
        assert_eq!(store.get("cache").await.unwrap().cluster.spec.nodes, 3);
        let foreign = cluster.objects("c").get("cache").await.unwrap();
        assert!(foreign.data["status"].is_null() && foreign.finalizers().is_empty(), "not ours");

        // Deleted by kubectl, it stays until its leases are closed; then the other one has the name,
        // and nothing of the first one's memory.
        cluster.says(&["delete", "rdc", "cache", "-n", "b", "--wait=false"]).await;
        until("the deletion to be seen", async || {
            let seen = store.get("cache").await.unwrap().cluster;
            assert_eq!(seen.spec.nodes, 3);
            seen.metadata.deletion_timestamp
        })
        .await;
        let held = cluster.objects("b").get("cache").await.unwrap();
        assert_eq!(held.finalizers(), [FINALIZER]);
        store
            .add_events(&[Event::new(UnixMs::now(), "cache", "ClusterDeleted", "b")])
            .await
            .unwrap();
        store.remove("cache").await.unwrap();
        assert_eq!(cluster.objects("b").get_opt("cache").await.unwrap().map(|_| ()), None);
        let next = until("the other to be run", async || store.get("cache").await.ok()).await;
        assert_eq!((next.cluster.spec.nodes, next.record.epoch, next.record_version), (5, 0, 0));
        assert_eq!(store.events("cache").await.unwrap(), [], "another one's story");
        // An object that lost what held it and was made anew goes on with its record: whoever lost
        // the one still pays for the leases of the other.
        store.set_record("cache", 0, &epoch(2)).await.unwrap();
        let api = cluster.objects("a");
        let none = Patch::Merge(json!({"metadata": {"finalizers": null}}));
        api.delete("cache", &DeleteParams::default()).await.unwrap();
        api.patch("cache", &PatchParams::default(), &none).await.unwrap();
        until("it to be gone", async || store.get("cache").await.is_err().then_some(())).await;
        cluster.create("a", &labelled("cache", 5)).await.unwrap();
        let again = until("it to be run", async || store.get("cache").await.ok()).await;
        assert_eq!((again.record.epoch, again.record_version), (2, 1));
    });
}

#[test]
fn a_namespace_that_is_being_deleted_keeps_its_clusters_until_they_are_closed() {
    const NAME: &str =
        "faults::a_namespace_that_is_being_deleted_keeps_its_clusters_until_they_are_closed";
    sandboxed(NAME, LIMIT, async |sandbox| {
        let cluster = Cluster::start(&sandbox.dir).await;
        for name in ["team", "operator"] {
            cluster.namespace(name).await;
        }
        let store = cluster.store_at(cluster.home("operator")).await;
        store.take_over().await.unwrap();
        cluster.create("team", &object("cache", &json!({"nodes": 3}))).await.unwrap();
        visible(&store, "cache").await;
        let version = store.set_record("cache", 0, &epoch(5)).await.unwrap();
        let spaces: Api<Namespace> = Api::all(cluster.client.clone());
        spaces.delete("team", &DeleteParams::default()).await.unwrap();
        // What the controller of namespaces does.
        let (none, all) = (DeleteParams::default(), ListParams::default());
        cluster.objects("team").delete_collection(&none, &all).await.unwrap();
        let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), "team");
        maps.delete_collection(&none, &all).await.unwrap();
        until("the deletion to be seen", async || {
            store.get("cache").await.unwrap().cluster.metadata.deletion_timestamp
        })
        .await;
        let next = cluster.store_at(cluster.home("operator")).await;
        next.take_over().await.unwrap();
        let seen = next.get("cache").await.unwrap();
        assert_eq!((seen.record.epoch, seen.record_version), (5, version), "nothing is forgotten");
        next.set_record("cache", version, &epoch(6)).await.unwrap();
        next.set_status("cache", &Status { epoch: 6, ..Status::default() }).await.unwrap();
        next.add_events(&[Event::new(UnixMs::now(), "cache", "ClusterDeleted", "gone")])
            .await
            .unwrap();
        next.remove("cache").await.unwrap();
        let left = cluster.objects("team").list(&all).await.unwrap().items;
        assert_eq!(left.iter().map(ResourceExt::name_any).collect::<BTreeSet<_>>(), [].into());
        assert_eq!(next.events("cache").await.unwrap().len(), 1, "how it ended can be read");
    });
}
