//! Passwords in Secrets: found, changed, missing, and never anybody's but the cluster's own.

use std::time::Duration;

use akash_redis::api::conditions::ConditionType;
use akash_redis::api::from_redis::FromRedis;
use akash_redis::api::status::{Condition, Status};
use akash_redis::cli::demo::writer::{Access, Writer};
use akash_redis::config::KubernetesHome;
use akash_redis::model::record::Record;
use akash_redis::secrets::RootSecret;
use akash_redis::store::kubernetes::KubernetesStore;
use akash_redis::store::{Events as _, Leadership as _, Objects as _, Records as _};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::apiserver::{Cluster, until};
use crate::chart::{CHART, NAMESPACE, VALUES, account, helm};
use crate::life::keep_in;
use crate::sandboxed::sandboxed;
use crate::stage::{PASSWORD, Stage, cluster};
use crate::writing::writes_go_on;

const LIMIT: Duration = Duration::from_mins(5);

fn hash(password: &str) -> String {
    hex::encode(Sha256::digest(password))
}

/// A cluster whose user has these entries of the Secret `app`.
fn object(name: &str, keys: &[&str]) -> Value {
    let entry = |key: &&str| json!({"secretKeyRef": {"name": "app", "key": key}});
    let passwords: Vec<Value> = keys.iter().map(entry).collect();
    json!({
        "apiVersion": "akash-redis.dev/v1alpha1", "kind": "RedisCluster", "metadata": {"name": name},
        "spec": {"nodes": 3, "redis": {"users": [{"name": "app", "passwords": passwords}]}},
    })
}

async fn keep(kube: &Cluster, namespace: &str, entries: &[(&str, &str)]) {
    let data: serde_json::Map<_, _> =
        entries.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "app"}, "stringData": data,
    });
    let api: Api<Secret> = Api::namespaced(kube.client.clone(), namespace);
    let params = PatchParams::apply("test").force();
    api.patch("app", &params, &Patch::Apply(&secret)).await.unwrap();
}

async fn drop_it(kube: &Cluster, namespace: &str) {
    let api: Api<Secret> = Api::namespaced(kube.client.clone(), namespace);
    api.delete("app", &DeleteParams::default()).await.unwrap();
}

/// Whoever changes an object has its Secrets read at once.
async fn nudge(kube: &Cluster, namespace: &str, name: &str, word: &str) {
    let patch = Patch::Merge(json!({"metadata": {"annotations": {"test": word}}}));
    kube.objects(namespace).patch(name, &PatchParams::default(), &patch).await.unwrap();
}

async fn accepted(kube: &Cluster, namespace: &str, name: &str) -> Option<Condition> {
    let object = kube.objects(namespace).get(name).await.unwrap();
    let status: Status = serde_json::from_value(object.data["status"].clone()).ok()?;
    status.condition(ConditionType::Accepted).cloned()
}

async fn told(kube: &Cluster, namespace: &str, name: &str, words: &str) {
    until(words, async || {
        let found = accepted(kube, namespace, name).await?;
        (found.reason.to_string() == "SecretMissing" && found.message.contains(words)).then_some(())
    })
    .await;
}

async fn hashes(store: &KubernetesStore, name: &str) -> Option<Vec<String>> {
    Some(store.get(name).await.ok()?.cluster.spec.redis.users[0].hashes())
}

async fn until_hashes(store: &KubernetesStore, name: &str, passwords: &[&str]) {
    let wanted: Vec<String> = passwords.iter().map(|password| hash(password)).collect();
    until("the passwords", async || hashes(store, name).await.filter(|hashes| *hashes == wanted))
        .await;
}

#[test]
fn a_password_is_what_its_secret_says_and_stays_when_that_is_gone() {
    const TEST: &str = "passwords::a_password_is_what_its_secret_says_and_stays_when_that_is_gone";
    sandboxed(TEST, LIMIT, async |sandbox| {
        let kube = Cluster::start(&sandbox.dir).await;
        for name in ["a", "b", "operator"] {
            kube.namespace(name).await;
        }
        let at_work = async || {
            let home: KubernetesHome = kube.home("operator");
            let store = kube.store_at(home).await;
            store.take_over().await.unwrap();
            store
        };
        let store = at_work().await;
        // None yet: it is not begun, and told why. Another one of that name elsewhere is no help.
        keep(&kube, "b", &[("old", "of b")]).await;
        kube.create("a", &object("cache", &["old"])).await.unwrap();
        told(&kube, "a", "cache", "the Secret app of namespace a, which is missing").await;
        assert!(store.get("cache").await.is_err(), "it is not run");
        keep(&kube, "a", &[("new", "two")]).await;
        told(&kube, "a", "cache", "which has no entry old").await;
        // Nobody touches the object: it is looked at again by itself.
        keep(&kube, "a", &[("old", "one\n"), ("new", "two")]).await;
        until_hashes(&store, "cache", &["one"]).await;
        store.set_record("cache", 0, &Record { epoch: 3, ..Record::default() }).await.unwrap();
        store.set_status("cache", &Status { epoch: 3, ..Status::default() }).await.unwrap();
        assert_eq!(accepted(&kube, "a", "cache").await, None);
        let object_now = kube.objects("a").get("cache").await.unwrap();
        assert!(!object_now.data.to_string().contains(&hash("one")), "no hash in the object");

        // A rotation: two entries of which each is taken, then the new one alone.
        let users = object("cache", &["old", "new"])["spec"]["redis"]["users"].clone();
        let both = Patch::Merge(json!({"spec": {"redis": {"users": users}}}));
        kube.objects("a").patch("cache", &PatchParams::default(), &both).await.unwrap();
        until_hashes(&store, "cache", &["one", "two"]).await;
        keep(&kube, "a", &[("old", "three"), ("new", "two")]).await;
        nudge(&kube, "a", "cache", "1").await;
        until_hashes(&store, "cache", &["three", "two"]).await;
        let events = store.events("cache").await.unwrap();
        let changed = |reason: &str| events.iter().filter(|event| event.reason == reason).count();
        assert_eq!(changed("PasswordChanged"), 1, "{events:?}");
        assert!(!format!("{events:?}").contains(&hash("three")));

        // It goes: whoever logs in goes on, also with the next operator, and a status says so.
        drop_it(&kube, "a").await;
        nudge(&kube, "a", "cache", "2").await;
        told(&kube, "a", "cache", "it goes on as it was: the password of user app").await;
        until_hashes(&store, "cache", &["three", "two"]).await;
        let next = at_work().await;
        until_hashes(&next, "cache", &["three", "two"]).await;
        let patch = Patch::Merge(json!({"spec": {"nodes": 5}}));
        kube.objects("a").patch("cache", &PatchParams::default(), &patch).await.unwrap();
        until("another number of nodes", async || {
            let spec = next.get("cache").await.unwrap().cluster.spec;
            assert_eq!(spec.redis.users[0].hashes(), [hash("three"), hash("two")]);
            (spec.nodes == 5).then_some(())
        })
        .await;
        // Whoever writes the object back writes where the password is.
        let mut edited = next.get("cache").await.unwrap().cluster;
        edited.spec.nodes = 3;
        edited.metadata.resource_version = None;
        next.apply(edited).await.unwrap();
        let written = kube.objects("a").get("cache").await.unwrap().data["spec"].clone();
        assert_eq!(written["nodes"], 3);
        assert_eq!(written["redis"]["users"][0]["passwords"][0]["secretKeyRef"]["key"], "old");
        assert!(!written.to_string().contains(&hash("two")));
        keep(&kube, "a", &[("old", "four"), ("new", "two")]).await;
        nudge(&kube, "a", "cache", "3").await;
        until_hashes(&next, "cache", &["four", "two"]).await;
        until("the word to be gone", async || {
            accepted(&kube, "a", "cache").await.is_none().then_some(())
        })
        .await;
    });
}

/// What the operator has to use itself of the Secret `app`.
async fn used(store: &KubernetesStore, root: &RootSecret) -> Option<(String, String)> {
    let cluster = store.get("cache").await.ok()?.cluster;
    let sealed = cluster.spec.backup.as_ref()?.sealed()?;
    let source = FromRedis::source(&cluster)?.sealed;
    let plain = |sealed: &str| Some(root.unseal("cache", sealed)?.expose_secret().to_owned());
    Some((plain(&sealed)?, plain(&source)?))
}

async fn until_used(store: &KubernetesStore, root: &RootSecret, keys: &str, password: &str) {
    let wanted = Some((keys.to_owned(), password.to_owned()));
    until("keys and password", async || (used(store, root).await == wanted).then_some(())).await;
}

#[test]
fn keys_of_a_bucket_and_the_password_of_a_source_are_what_their_secret_says_to_the_end() {
    const TEST: &str = "passwords::keys_of_a_bucket_and_the_password_of_a_source_are_what_their_secret_says_to_the_end";
    sandboxed(TEST, LIMIT, async |sandbox| {
        let kube = Cluster::start(&sandbox.dir).await;
        for name in ["a", "operator"] {
            kube.namespace(name).await;
        }
        let root = RootSecret::new(vec![7; 32].into()).unwrap();
        let at_work = async || {
            let home: KubernetesHome = kube.home("operator");
            let store = kube.store_at(home).await;
            store.seal_with(root.clone());
            store.take_over().await.unwrap();
            store
        };
        let store = at_work().await;
        let entry = |key: &str| json!({"secretKeyRef": {"name": "app", "key": key}});
        let object = json!({
            "apiVersion": "akash-redis.dev/v1alpha1", "kind": "RedisCluster",
            "metadata": {"name": "cache"},
            "spec": {
                "nodes": 3, "deletionPolicy": "Backup",
                "backup": {"to": "s3://backups", "credentialsFrom": entry("keys")},
                "bootstrap": {"fromRedis": {
                    "host": "old.example.org", "user": "importer", "passwordFrom": entry("old"),
                }},
            },
        });
        keep(&kube, "a", &[("keys", "no keys"), ("old", "secret\n")]).await;
        kube.create("a", &object).await.unwrap();
        told(&kube, "a", "cache", "whose entry keys is no ACCESS_KEY_ID:SECRET_ACCESS_KEY").await;
        assert!(store.get("cache").await.is_err(), "it is not run");
        keep(&kube, "a", &[("keys", "ID:KEY\n"), ("old", "secret\n")]).await;
        until_used(&store, &root, "ID:KEY", "secret").await;
        store.set_record("cache", 0, &Record { epoch: 3, ..Record::default() }).await.unwrap();
        store.set_status("cache", &Status { epoch: 3, ..Status::default() }).await.unwrap();
        // Whoever writes the object back writes where they are.
        let mut edited = store.get("cache").await.unwrap().cluster;
        edited.spec.nodes = 5;
        edited.metadata.resource_version = None;
        store.apply(edited).await.unwrap();
        let written = kube.objects("a").get("cache").await.unwrap().data.to_string();
        assert!(!written.contains("sealed:") && written.contains("secretKeyRef"), "{written}");

        // It goes: the next operator has them too, and says that it is gone.
        drop_it(&kube, "a").await;
        nudge(&kube, "a", "cache", "1").await;
        told(&kube, "a", "cache", "it goes on as it was: the keys of spec.backup").await;
        let next = at_work().await;
        until_used(&next, &root, "ID:KEY", "secret").await;

        // Its end is held up by a last backup: keys that are rotated meanwhile are noticed.
        keep(&kube, "a", &[("keys", "ID:OTHER"), ("old", "another")]).await;
        until_used(&next, &root, "ID:OTHER", "another").await;
        kube.objects("a").delete("cache", &DeleteParams::default()).await.unwrap();
        until("the end to be held up", async || {
            let cluster = next.get("cache").await.unwrap().cluster;
            cluster.metadata.deletion_timestamp.map(drop)
        })
        .await;
        keep(&kube, "a", &[("keys", "ID:ROTATED"), ("old", "another")]).await;
        until_used(&next, &root, "ID:ROTATED", "another").await;
        let events = next.events("cache").await.unwrap();
        let told = format!("{events:?}");
        assert!(
            told.contains("the keys of spec.backup.credentialsFrom are other than before"),
            "{told}"
        );
        assert!(!told.contains("ROTATED") && !told.contains("sealed:"));
    });
}

/// An application with a password.
fn with(access: &Access, password: &str) -> Access {
    Access { password: password.to_owned(), ..access.clone() }
}

#[test]
fn an_application_logs_in_by_a_secret_that_the_operator_alone_was_permitted() {
    const TEST: &str =
        "passwords::an_application_logs_in_by_a_secret_that_the_operator_alone_was_permitted";
    sandboxed(TEST, LIMIT, async |sandbox| {
        let mut stage = Stage::without_operator(&sandbox).await;
        let kube = Cluster::bare(&sandbox.dir).await;
        let to = kube.kubeconfig().display().to_string();
        let run = |arguments: &[&str]| {
            helm(&sandbox.dir, &[arguments, &["--kubeconfig", &to, "-n", NAMESPACE]].concat())
        };
        run(&["install", "akash-redis", CHART, "--create-namespace", "-f", VALUES]).unwrap();
        kube.served("redisclusters.akash-redis.dev").await;
        let kubeconfig = account(&kube, &sandbox.dir).await;
        let home = json!({
            "namespace": NAMESPACE, "watchNamespace": NAMESPACE, "kubeconfig": kubeconfig,
        });
        keep_in(&stage, &json!({"kubernetes": home}));
        stage.local.start_operator().await.unwrap();
        keep(&kube, NAMESPACE, &[("old", PASSWORD), ("new", "another")]).await;
        let mut manifest = serde_json::to_value(cluster(3)).unwrap();
        manifest["spec"]["redis"]["users"] =
            object("cache", &["old"])["spec"]["redis"]["users"].clone();
        kube.create(NAMESPACE, &manifest).await.unwrap();
        // As installed it may read no Secret at all.
        told(&kube, NAMESPACE, "cache", "which the operator may not read").await;
        let allow = "secrets.read=true,secrets.names={app}";
        run(&["upgrade", "akash-redis", CHART, "-f", VALUES, "--set", allow]).unwrap();
        nudge(&kube, NAMESPACE, "cache", "1").await;
        stage.until_ready().await;
        let (_proxy, access) = stage.proxy();
        let old = Writer::start(access.clone());
        writes_go_on(&old).await;
        // Both, while applications change over.
        let users = object("cache", &["old", "new"])["spec"]["redis"]["users"].clone();
        let both = Patch::Merge(json!({"spec": {"redis": {"users": users}}}));
        let objects = kube.objects(NAMESPACE);
        objects.patch("cache", &PatchParams::default(), &both).await.unwrap();
        let new = Writer::start(with(&access, "another"));
        writes_go_on(&new).await;
        writes_go_on(&old).await;
        // No Secret but the one that was named.
        let can = |name: &str| {
            let account = format!("system:serviceaccount:{NAMESPACE}:akash-redis");
            let name = format!("secrets/{name}");
            let arguments = ["auth", "can-i", "get", &name, "-n", NAMESPACE, "--as", &account];
            let command = kube.kubectl(&arguments).output();
            async { String::from_utf8(command.await.unwrap().stdout).unwrap() }
        };
        assert_eq!((can("app").await.trim(), can("akash-redis").await.trim()), ("yes", "no"));
    });
}
