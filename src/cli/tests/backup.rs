//! Backups: keys to the storage, what is listed, what a new cluster begins with.

use super::*;

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
    assert!(operator.annotation(crate::api::annotations::BACKUP).await.is_some());

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
    let word = operator.annotation(crate::api::annotations::VERIFY).await.unwrap();
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
    assert_eq!(bootstrap.on_total_loss, crate::api::backup::OnTotalLoss::Restore);
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
    assert_eq!((from.at, from.users), (None, crate::api::backup::RestoredUsers::Keep));
}
