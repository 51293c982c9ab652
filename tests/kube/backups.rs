//! A person with a kubeconfig takes a backup, has it verified, and begins a cluster with it: each of
//! these is an object's, so that the apiserver alone is asked, and the operator obeys.

use std::time::Duration;

use akash_redis::devnet::tailnet;
use sha2::{Digest as _, Sha256};

use crate::apiserver::{Cluster, until};
use crate::life::at_home;
use crate::operators::Operator;
use crate::person::{Person, kubeconfig};
use crate::sandboxed::sandboxed;
use crate::stage::{PASSWORD, Stage};

const LIMIT: Duration = Duration::from_mins(5);

#[test]
fn a_person_backs_up_verifies_and_restores_over_the_apiserver() {
    const TEST: &str = "backups::a_person_backs_up_verifies_and_restores_over_the_apiserver";
    sandboxed(TEST, LIMIT, async |sandbox| {
        let stage = Stage::without_operator(&sandbox).await;
        let kube = Cluster::start(&sandbox.dir).await;
        at_home(&stage, &kube);
        let person = Person::new(&sandbox.dir, kubeconfig(&kube, &sandbox.dir).await);
        let _operator = Operator::start(&stage, &sandbox.dir, "redis-operator-7d4");
        let bucket = sandbox.dir.join("bucket");
        let (file, hash) = (sandbox.dir.join("cache.yaml"), hex::encode(Sha256::digest(PASSWORD)));
        let manifest = format!(
            "apiVersion: akash-redis.dev/v1alpha1\n\
             kind: RedisCluster\n\
             metadata: {{ name: cache }}\n\
             spec:\n  \
               nodes: 1\n  \
               redis: {{ users: [{{ name: app, passwordSha256: {hash} }}] }}\n  \
               resources: {{ cpu: 500m, memory: 1Gi, data: {{ size: 4Gi, class: beta3 }} }}\n  \
               budget: {{ maxPerMonth: 16act }}\n  \
               backup: {{ to: 'file://{}', verify: never }}\n",
            bucket.display()
        );
        std::fs::write(&file, manifest).unwrap();
        let password = sandbox.dir.join("password");
        std::fs::write(&password, PASSWORD).unwrap();
        let (password, socks5) = (password.display().to_string(), tailnet::socks5().to_string());
        let redis = async |cluster: &str, words: &[&str]| {
            let flags = ["connect", cluster, "--socks5", &socks5, "--password-file", &password];
            person.asks(&[&flags[..], &["--"], words].concat()).await.unwrap()
        };
        person.asks(&["apply", "-f", &file.display().to_string()]).await.unwrap();
        person.plugs(&["wait", "cache", "--timeout", "100s"]).await.unwrap();
        assert_eq!(redis("cache", &["set", "a", "1"]).await, "OK\n");

        let none = person.asks(&["backup", "verify", "cache"]).await.unwrap_err();
        assert!(none.contains("there is no backup of cache yet"), "{none}");
        let taken = person.asks(&["backup", "cache", "--wait", "--timeout", "1m"]).await.unwrap();
        println!("{taken}");
        assert!(taken.contains("is complete"), "{taken}");
        let verify = ["backup", "verify", "cache", "--wait", "--timeout", "1m"];
        let said = person.plugs(&verify).await.unwrap();
        println!("{said}");
        assert!(said.contains("with all of its 1 keys"), "{said}");
        let listed = person.plugs(&["backups", "cache"]).await.unwrap();
        assert!(listed.contains("test restore passed"), "{listed}");

        let over = person.asks(&["restore", "cache", "--from", "cache"]).await.unwrap_err();
        assert!(over.contains("never over the one that is there"), "{over}");
        let restore = ["restore", "cache2", "--from", "cache"];
        let shown = person.asks(&[&restore[..], &["--dry-run"]].concat()).await.unwrap();
        assert!(shown.contains("fromBackup") && shown.contains("name: cache2"), "{shown}");
        let own = sandbox.dir.join("cache2.yaml");
        std::fs::write(
            &own,
            std::fs::read_to_string(&file).unwrap().replace("name: cache ", "name: other "),
        )
        .unwrap();
        let own = own.display().to_string();
        let wait = ["-f", &own, "--wait", "--timeout", "100s"];
        let said = person.asks(&[&restore[..], &wait].concat()).await.unwrap();
        assert!(said.contains("rediscluster/cache2 created"), "{said}");
        assert_eq!(redis("cache2", &["get", "a"]).await, "1\n");

        let id = listed.lines().nth(1).unwrap().split_whitespace().next().unwrap();
        let installation = std::fs::read_dir(&bucket).unwrap().flatten().next().unwrap().path();
        let object = installation.join("cache").join(format!("{id}.rdb"));
        let mut bytes = std::fs::read(&object).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&object, bytes).unwrap();
        let refused = person.asks(&verify).await.unwrap_err();
        println!("{refused}");
        assert!(refused.contains("cannot be decrypted"), "{refused}");
        // The same again is an answer too.
        let refused = person.asks(&verify).await.unwrap_err();
        assert!(refused.contains("cannot be decrypted"), "{refused}");
        let asks = person.asks(&["backup", "decrypt", "--root-secret", "x"]).await.unwrap_err();
        assert!(asks.contains("this command asks no operator"), "{asks}");

        for name in ["cache", "cache2"] {
            person.plugs(&["delete", name, "--yes-delete-data", name]).await.unwrap();
            until("it to be gone", async || person.asks(&["get", name]).await.err()).await;
        }
        stage.assert_nothing_left().await;
    });
}
