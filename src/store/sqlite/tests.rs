//! What is the file's own; what every store promises stands in `tests/sim/store_contract.rs`.

use std::path::PathBuf;

use rusqlite::Connection;
use tempfile::TempDir;

use super::*;
use crate::store::Books as _;

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

#[tokio::test]
async fn events_of_an_earlier_release_are_counted_on() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("store.db");
    let mut old = Connection::open(&path).unwrap();
    schema::migrate(&mut old, Some(&path), &schema::MIGRATIONS[..2]).unwrap();
    for at in [5, 9] {
        let row = params!["cache", at, "EffectFailed", "x"];
        old.execute(
            "INSERT INTO event (cluster, at, reason, message) VALUES (?1, ?2, ?3, ?4)",
            row,
        )
        .unwrap();
    }
    drop(old);
    let store = SqliteStore::open(&path).unwrap();
    assert_eq!(
        store.events("cache").await.unwrap(),
        [5, 9].map(|at| Event::new(UnixMs(at), "cache", "EffectFailed", "x"))
    );
    store.add_events(&[Event::new(UnixMs(12), "cache", "EffectFailed", "x")]).await.unwrap();
    let whole = Event {
        first: UnixMs(5),
        count: 3,
        ..Event::new(UnixMs(12), "cache", "EffectFailed", "x")
    };
    assert_eq!(store.events("cache").await.unwrap(), [whole]);
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

#[tokio::test]
async fn an_object_of_an_earlier_release_gets_a_uid_and_empty_books() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("store.db");
    let mut old = Connection::open(&path).unwrap();
    schema::migrate(&mut old, Some(&path), &schema::MIGRATIONS[..3]).unwrap();
    let spec = serde_json::to_string(&cluster("cache", 3).spec).unwrap();
    for name in ["a", "b"] {
        let row = params![name, spec];
        old.execute(
            "INSERT INTO object VALUES (?1, '{}', '{}', ?2, NULL, 1, 1, 'x', NULL, '{}', 0)",
            row,
        )
        .unwrap();
    }
    drop(old);
    let store = SqliteStore::open(&path).unwrap();
    let uids: Vec<_> =
        store.list().await.unwrap().into_iter().map(|s| s.cluster.metadata.uid.unwrap()).collect();
    assert!(uids[0].len() == 32 && uids[0] != uids[1], "{uids:?}");
    assert_eq!(store.accounts().await.unwrap(), []);
}

#[tokio::test]
async fn experience_with_providers_is_kept_and_bounded() {
    use super::super::{Leadership as _, ProviderExperience as _};
    use crate::model::experience::{Experience, Experiences, PROVIDERS_KEPT};
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("store.db");
    let one = |bids, seen| Experience { bids, seen: UnixMs(seen), ..Experience::default() };
    {
        let store = SqliteStore::open(&path).expect("a store");
        store.take_over().await.expect("a term");
        store.put_experience(&Experiences::from([("a".into(), one(1, 1))])).await.expect("put");
        store.put_experience(&Experiences::from([("a".into(), one(2, 2))])).await.expect("put");
        let later = store.as_another_operator();
        later.take_over().await.expect("a term");
        let refused = store.put_experience(&Experiences::from([("a".into(), one(3, 3))])).await;
        assert!(matches!(refused, Err(StoreError::Superseded { .. })));
    }
    let store = SqliteStore::open(&path).expect("a store");
    store.take_over().await.expect("a term");
    assert_eq!(store.experience().await.expect("read")["a"], one(2, 2));
    let many = (0..PROVIDERS_KEPT as u64).map(|n| (format!("p{n}"), one(1, 10 + n))).collect();
    store.put_experience(&many).await.expect("put");
    let known = store.experience().await.expect("read");
    assert_eq!((known.len(), known.contains_key("a")), (PROVIDERS_KEPT, false), "the oldest went");
}
