use std::collections::BTreeMap;
use std::path::PathBuf;

use rusqlite::Connection;
use tempfile::TempDir;

use super::*;
use crate::changes::Change;

fn cluster(name: &str, nodes: u32) -> RedisCluster {
    serde_json::from_value(serde_json::json!({
        "apiVersion": "akash-redis.dev/v1alpha1", "kind": "RedisCluster", "metadata": {"name": name}, "spec": {"nodes": nodes}
    }))
    .unwrap()
}

fn signed(hash: &str) -> SignedTx {
    SignedTx {
        dseq: 7,
        purpose: "create".into(),
        bytes: vec![0, 255, 1],
        hash: hash.into(),
        timeout: UnixMs(5),
    }
}

fn event(n: u64) -> Event {
    Event {
        at: UnixMs(n),
        cluster: "cache".into(),
        reason: "Tested".into(),
        message: format!("number {n}"),
    }
}

#[tokio::test]
async fn generation_follows_the_spec_and_the_version_follows_every_change() {
    let store = SqliteStore::open_in_memory().unwrap();
    let made = store.apply(cluster("cache", 3)).await.unwrap().cluster.metadata;
    assert_eq!((made.generation, made.resource_version.as_deref()), (Some(1), Some("1")));

    let same = store.apply(cluster("cache", 3)).await.unwrap().cluster.metadata;
    assert_eq!(same, made, "nothing changed, so nothing moved");

    let mut labelled = cluster("cache", 3);
    labelled.metadata.labels = BTreeMap::from([("team".into(), "red".into())]);
    let labelled = store.apply(labelled).await.unwrap().cluster.metadata;
    assert_eq!((labelled.generation, labelled.resource_version.as_deref()), (Some(1), Some("2")));

    store.set_status("cache", &Status { epoch: 4, ..Status::default() }).await.unwrap();
    let grown = store.apply(cluster("cache", 5)).await.unwrap();
    assert_eq!(
        (grown.cluster.metadata.generation, grown.cluster.metadata.resource_version.as_deref()),
        (Some(2), Some("4"))
    );
    assert_eq!(grown.cluster.status.unwrap().epoch, 4, "an apply leaves the status alone");
    assert_eq!(grown.cluster.metadata.creation_timestamp, made.creation_timestamp);
}

#[tokio::test]
async fn a_change_of_what_is_wanted_is_announced_by_name_and_nothing_else_is() {
    let store = SqliteStore::open_in_memory().unwrap();
    let mut changes = store.changes();
    for name in ["cache", "cache", "other"] {
        store.apply(cluster(name, 3)).await.unwrap();
    }
    store.set_status("cache", &Status { epoch: 4, ..Status::default() }).await.unwrap();
    store.set_record("cache", 0, &Record::default()).await.unwrap();
    store.mark_deleted("cache").await.unwrap();
    store.remove("cache").await.unwrap();
    drop(store);
    let mut heard = Vec::new();
    while let Some(change) = changes.next().await {
        heard.push(change);
    }
    let names = ["cache", "other", "cache", "cache"].map(|name| Change::Key(name.to_owned()));
    assert_eq!(heard, names, "made, made, marked, removed");
}

#[tokio::test]
async fn a_change_of_something_that_moved_meanwhile_is_a_conflict() {
    let store = SqliteStore::open_in_memory().unwrap();
    let mut stale = store.apply(cluster("cache", 3)).await.unwrap().cluster;
    store.apply(cluster("cache", 4)).await.unwrap();
    stale.spec.nodes = 5;
    assert!(matches!(store.apply(stale).await, Err(StoreError::Conflict { .. })));

    let record = Record { epoch: 1, ..Record::default() };
    assert_eq!(store.set_record("cache", 0, &record).await.unwrap(), 1);
    assert!(matches!(
        store.set_record("cache", 0, &Record::default()).await,
        Err(StoreError::Conflict { .. })
    ));
    let stored = store.get("cache").await.unwrap();
    assert_eq!((stored.record, stored.record_version, stored.cluster.spec.nodes), (record, 1, 4));
}

#[tokio::test]
async fn a_version_of_something_that_is_not_there_is_a_conflict() {
    let store = SqliteStore::open_in_memory().unwrap();
    let mut ghost = cluster("cache", 3);
    ghost.metadata.resource_version = Some("9".into());
    assert!(matches!(store.apply(ghost).await, Err(StoreError::Conflict { .. })));
    assert!(matches!(store.get("cache").await, Err(StoreError::NotFound { .. })));
}

#[tokio::test]
async fn an_operator_that_was_superseded_writes_nothing() {
    let old = SqliteStore::open_in_memory().unwrap();
    let new = old.as_another_operator();
    old.apply(cluster("cache", 3)).await.unwrap();
    let first = old.take_over().await.unwrap();
    old.set_record("cache", 0, &Record::default()).await.unwrap();
    let second = new.take_over().await.unwrap();
    assert!(second > first);

    let superseded = |r: Result<(), StoreError>| matches!(r, Err(StoreError::Superseded { ours, theirs }) if (ours, theirs) == (first, second));
    assert!(superseded(
        old.set_record("cache", 1, &Record { epoch: 9, ..Record::default() }).await.map(drop)
    ));
    assert!(superseded(old.set_status("cache", &Status::default()).await));
    assert!(superseded(old.keep_tx("cache", &signed("A")).await));
    assert!(superseded(old.drop_tx("A").await));
    assert!(superseded(old.add_events(&[event(1)]).await));
    assert!(superseded(old.remove("cache").await));

    let seen = new.get("cache").await.unwrap();
    assert_eq!((seen.record.epoch, seen.cluster.status), (0, None));
    assert!(
        new.kept_txs().await.unwrap().is_empty() && new.events("cache").await.unwrap().is_empty()
    );
    new.set_record("cache", 1, &Record::default()).await.unwrap();
}

#[tokio::test]
async fn deletion_is_marked_once_and_carried_out_by_the_operator() {
    let store = SqliteStore::open_in_memory().unwrap();
    store.apply(cluster("cache", 3)).await.unwrap();
    store.mark_deleted("cache").await.unwrap();
    let marked = store.get("cache").await.unwrap().cluster.metadata;
    assert!(marked.deletion_timestamp.is_some());
    store.mark_deleted("cache").await.unwrap();
    assert_eq!(store.get("cache").await.unwrap().cluster.metadata, marked);
    let again = store.apply(cluster("cache", 5)).await.unwrap().cluster.metadata;
    assert_eq!(
        again.deletion_timestamp, marked.deletion_timestamp,
        "an apply does not take a deletion back"
    );

    store.keep_tx("cache", &signed("A")).await.unwrap();
    store.remove("cache").await.unwrap();
    assert!(matches!(store.mark_deleted("cache").await, Err(StoreError::NotFound { .. })));
    assert_eq!(
        store.kept_txs().await.unwrap().len(),
        1,
        "a transaction may land after its cluster is gone"
    );
}

#[tokio::test]
async fn the_newest_events_are_kept_and_a_new_cluster_starts_without_them() {
    let store = SqliteStore::open_in_memory().unwrap();
    store.apply(cluster("cache", 3)).await.unwrap();
    store.add_events(&(0..1003).map(event).collect::<Vec<_>>()).await.unwrap();
    let kept = store.events("cache").await.unwrap();
    assert_eq!((kept.len(), kept[0].at, kept[999].at), (1000, UnixMs(3), UnixMs(1002)));

    store.add_events(&[Event { at: UnixMs::now(), ..event(0) }]).await.unwrap();
    store.remove("cache").await.unwrap();
    assert_eq!(store.events("cache").await.unwrap().len(), 1, "how it ended can still be read");
    store.apply(cluster("cache", 1)).await.unwrap();
    assert!(store.events("cache").await.unwrap().is_empty());
}

#[tokio::test]
async fn a_file_in_use_is_refused_with_a_sentence() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("store.db");
    let first = SqliteStore::open(&path).unwrap();
    let refused = SqliteStore::open(&path).unwrap_err();
    assert!(matches!(refused, StoreError::Locked { .. }));
    assert!(refused.to_string().contains("in use by another operator"));
    drop(first);
    SqliteStore::open(&path).unwrap();
}

#[tokio::test]
async fn a_store_belongs_to_the_root_secret_that_it_was_first_used_with() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("store.db");
    let (ours, theirs) = (InstallationId("abc123".into()), InstallationId("zzz999".into()));
    let store = SqliteStore::open(&path).unwrap();
    store.belong_to(&ours).await.unwrap();
    store.apply(cluster("cache", 3)).await.unwrap();
    drop(store);
    let store = SqliteStore::open(&path).unwrap();
    let refused = store.belong_to(&theirs).await.unwrap_err();
    assert!(
        refused.to_string().contains("of installation abc123")
            && refused.to_string().contains("zzz999"),
        "{refused}"
    );
    store.belong_to(&ours).await.unwrap();
    assert_eq!(store.list().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_store_of_the_first_release_is_taken_over_by_who_uses_it_next() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("store.db");
    let mut old = Connection::open(&path).unwrap();
    schema::migrate(&mut old, Some(&path), &schema::MIGRATIONS[..1]).unwrap();
    drop(old);
    let store = SqliteStore::open(&path).unwrap();
    store.belong_to(&InstallationId("abc123".into())).await.unwrap();
    assert!(store.belong_to(&InstallationId("zzz999".into())).await.is_err());
    assert!(path.with_added_extension("v1.backup").exists(), "a copy was made before");
}

/// What a machine that lost its power now would find: the files as they are, with the store still
/// open.
fn crashed_copy(dir: &TempDir) -> (TempDir, PathBuf) {
    let copy = TempDir::new().unwrap();
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    let path = copy.path().join("store.db");
    (copy, path)
}

#[tokio::test]
async fn every_write_survives_a_crash_right_after_it() {
    let dir = TempDir::new().unwrap();
    let store = SqliteStore::open(&dir.path().join("store.db")).unwrap();
    let term = store.take_over().await.unwrap();
    let (_keep, path) = crashed_copy(&dir);
    assert!(SqliteStore::open(&path).unwrap().take_over().await.unwrap() > term);

    store.apply(cluster("cache", 3)).await.unwrap();
    let (_keep, path) = crashed_copy(&dir);
    assert_eq!(SqliteStore::open(&path).unwrap().get("cache").await.unwrap().cluster.spec.nodes, 3);

    for epoch in 1..5 {
        let record = Record { epoch, ..Record::default() };
        assert_eq!(store.set_record("cache", epoch - 1, &record).await.unwrap(), epoch);
        store.keep_tx("cache", &signed(&epoch.to_string())).await.unwrap();
        let (_keep, path) = crashed_copy(&dir);
        let found = SqliteStore::open(&path).unwrap();
        let stored = found.get("cache").await.unwrap();
        assert_eq!((stored.record, stored.record_version), (record, epoch));
        assert_eq!(found.kept_txs().await.unwrap().len(), usize::try_from(epoch).unwrap());
    }
    assert_eq!(store.kept_txs().await.unwrap()[0], ("cache".into(), signed("1")));
    store.drop_tx("1").await.unwrap();
    let (_keep, path) = crashed_copy(&dir);
    assert_eq!(SqliteStore::open(&path).unwrap().kept_txs().await.unwrap().len(), 3);
}

#[test]
fn the_file_is_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let dir = TempDir::new().unwrap();
    let _store = SqliteStore::open(&dir.path().join("store.db")).unwrap();
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(
            entry.metadata().unwrap().permissions().mode() & 0o077,
            0,
            "{}",
            entry.path().display()
        );
    }
}

#[test]
fn an_upgrade_leaves_a_copy_and_a_later_file_is_refused() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("store.db");
    let first = "CREATE TABLE a (n INTEGER); INSERT INTO a VALUES (1)";
    let mut connection = Connection::open(&path).unwrap();
    schema::migrate(&mut connection, Some(&path), &[first]).unwrap();
    schema::migrate(&mut connection, Some(&path), &[first]).unwrap();
    let copy = dir.path().join("store.db.v1.backup");
    assert!(!copy.exists(), "nothing to upgrade, nothing to copy");

    schema::migrate(&mut connection, Some(&path), &[first, "UPDATE a SET n = 2"]).unwrap();
    let n =
        |c: &Connection| c.query_row("SELECT n FROM a", [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!((n(&connection), n(&Connection::open(&copy).unwrap())), (2, 1));

    assert!(
        schema::migrate(
            &mut connection,
            Some(&path),
            &[first, "UPDATE a SET n = 2", "UPDATE a SET n = 3; not SQL"]
        )
        .is_err()
    );
    assert_eq!(n(&connection), 2, "a migration that fails changes nothing");
    let later = schema::migrate(&mut connection, Some(&path), &[first]).unwrap_err();
    assert!(later.to_string().contains("later release"), "{later}");
}
