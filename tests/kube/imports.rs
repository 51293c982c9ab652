//! A person with a kubeconfig begins a cluster with a running Redis and cuts over, by the command and
//! by what `kubectl` alone can do; and what is refused.

use std::time::Duration;

use akash_redis::devnet::net::Net;
use akash_redis::devnet::tailnet;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::apiserver::{Cluster, until};
use crate::life::at_home;
use crate::operators::Operator;
use crate::person::{Person, kubeconfig};
use crate::sandboxed::sandboxed;
use crate::source::{IMPORT_PASSWORD, PLAIN, RULES, of_the_source, source};
use crate::stage::{PASSWORD, Stage};

const LIMIT: Duration = Duration::from_mins(5);

fn manifest(name: &str, more: &str) -> String {
    let hash = hex::encode(Sha256::digest(PASSWORD));
    format!(
        "apiVersion: akash-redis.dev/v1alpha1\n\
         kind: RedisCluster\n\
         metadata: {{ name: {name} }}\n\
         spec:\n  \
           nodes: 1\n  \
           redis: {{ users: [{{ name: app, passwordSha256: {hash} }}] }}\n  \
           resources: {{ cpu: 500m, memory: 1Gi, data: {{ size: 4Gi, class: beta3 }} }}\n  \
           budget: {{ maxPerMonth: 16act }}\n{more}"
    )
}

/// What the condition `Imported` of an object says.
async fn imported(kube: &Cluster, name: &str) -> Option<(String, String)> {
    let object = kube.objects("default").get(name).await.ok()?;
    let all = object.data["status"]["conditions"].as_array()?.clone();
    let found = all.into_iter().find(|c| c["type"] == "Imported")?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Some((text(&found["reason"]), text(&found["message"])))
}

async fn until_imported(kube: &Cluster, name: &str, reason: &str, words: &str) {
    let message = until(&format!("{name}: {reason}"), async || {
        let (now, message) = imported(kube, name).await?;
        (now == reason && message.contains(words)).then_some(message)
    })
    .await;
    println!("{message}");
}

#[test]
fn a_person_imports_and_cuts_over_by_the_command_and_by_an_annotation() {
    const TEST: &str =
        "imports::a_person_imports_and_cuts_over_by_the_command_and_by_an_annotation";
    sandboxed(TEST, LIMIT, async |sandbox| {
        let stage = Stage::without_operator(&sandbox).await;
        let kube = Cluster::start(&sandbox.dir).await;
        at_home(&stage, &kube);
        let person = Person::new(&sandbox.dir, kubeconfig(&kube, &sandbox.dir).await);
        let _operator = Operator::start(&stage, &sandbox.dir, "redis-operator-7d4");
        let literal = format!("--from-literal=password={IMPORT_PASSWORD}");
        kube.says(&["create", "secret", "generic", "old-redis", &literal]).await;
        let from = format!(
            "  \
             bootstrap:\n    \
               fromRedis:\n      \
                 host: {}\n      \
                 port: {PLAIN}\n      \
                 user: importer\n      \
                 passwordFrom: {{ secretKeyRef: {{ name: old-redis, key: password }} }}\n",
            Net::GATEWAY
        );
        let apply = async |name: &str, more: &str| {
            let file = sandbox.dir.join(format!("{name}.yaml"));
            std::fs::write(&file, manifest(name, more)).unwrap();
            person.asks(&["apply", "-f", &file.display().to_string()]).await.unwrap()
        };
        let refused = async |name: &str, words: &str| {
            let why = person.asks(&["cutover", name]).await.unwrap_err();
            println!("{why}");
            assert!(why.contains(words), "{why}");
        };
        refused("other", "there is no RedisCluster named other").await;
        apply("plain", "").await;
        refused("plain", "plain imports from no Redis, so there is nothing to cut over").await;
        person.plugs(&["delete", "plain", "--yes-delete-data", "plain"]).await.unwrap();

        // The source is away: neither way cuts over, and the import goes on.
        apply("cache", &from).await;
        until_imported(&kube, "cache", "ImportFailed", "").await;
        refused("cache", "cannot be cut over now, and nothing was noted").await;
        kube.says(&["annotate", "rdc", "cache", "akash-redis.dev/cutover=1"]).await;
        until_imported(&kube, "cache", "ImportFailed", "the last cutover was not made").await;
        until("the event", async || {
            let shown = kube.says(&["describe", "rdc", "cache"]).await;
            shown.contains("CutoverRefused").then_some(())
        })
        .await;

        let (_source, _) = source(&sandbox, RULES);
        let mut there = of_the_source().await;
        redis::cmd("SET").arg(&["a", "1"]).exec_async(&mut there).await.unwrap();
        until_imported(&kube, "cache", "ImportReady", "link up").await;
        let cut = ["cutover", "cache", "--wait", "--timeout", "1m"];
        let said = person.plugs(&cut).await.unwrap();
        println!("{said}");
        assert!(said.contains("rediscluster/cache takes the writes"), "{said}");
        until_imported(&kube, "cache", "ImportCompleted", "has had the data").await;
        refused("cache", "cannot be cut over now").await;

        // By kubectl alone: the same word again is no new request, and another one is.
        apply("cache2", &from).await;
        until_imported(&kube, "cache2", "ImportReady", "link up").await;
        let word = ["annotate", "--overwrite", "rdc", "cache2", "akash-redis.dev/cutover=1"];
        kube.says(&word).await;
        kube.says(&["wait", "rdc/cache2", "--for=condition=Imported", "--timeout=60s"]).await;
        until_imported(&kube, "cache2", "ImportCompleted", "has had the data").await;

        let password = sandbox.dir.join("password");
        std::fs::write(&password, PASSWORD).unwrap();
        let (password, socks5) = (password.display().to_string(), tailnet::socks5().to_string());
        for name in ["cache", "cache2"] {
            person.plugs(&["wait", name, "--timeout", "60s"]).await.unwrap();
            let flags = ["connect", name, "--socks5", &socks5, "--password-file", &password];
            let redis = async |words: &[&str]| {
                person.asks(&[&flags[..], &["--"], words].concat()).await.unwrap()
            };
            assert_eq!(redis(&["get", "a"]).await, "1\n");
            assert_eq!(redis(&["set", "b", "2"]).await, "OK\n");
            person.plugs(&["delete", name, "--yes-delete-data", name]).await.unwrap();
            until("it to be gone", async || person.asks(&["get", name]).await.err()).await;
        }
        stage.assert_nothing_left().await;
    });
}
