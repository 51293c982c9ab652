//! The storage as a directory; `tests/live/backup.rs` has a real S3 server.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use wiremock::{Mock, MockServer, ResponseTemplate, matchers};

use super::format::BackupKey;
use super::storage::{Storage, StorageError};
use super::stream::{Expected, StreamError, Uploaded, decrypt, download, upload};
use super::{data_object, manifest, manifest_object};
use crate::model::backup::{
    BackupManifest, FORMAT, MasterSeen, Snapshot, StorageKeys, StorageSpec,
};
use crate::model::ids::IncarnationName;
use crate::model::time::UnixMs;
use crate::secrets::RootSecret;

fn root(byte: u8) -> RootSecret {
    RootSecret::new(vec![byte; 32].into()).unwrap()
}

fn directory() -> (tempfile::TempDir, Storage) {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("file://{}/backups", dir.path().display());
    let storage = Storage::open(&StorageSpec { url, ..StorageSpec::default() }, None).unwrap();
    (dir, storage)
}

/// Bytes that compress by about a half.
fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|i| if i % 2 == 0 { 0 } else { rand::random() }).collect()
}

async fn store(storage: &Storage, id: &str, plain: &[u8]) -> Uploaded {
    let key = BackupKey(root(1).backup_key(id));
    let object = data_object(&root(1).installation_id(), "cache", id);
    let from = std::io::Cursor::new(plain.to_vec());
    upload(storage, &object, (id, &key), from, plain.len() as u64, |_| {}).await.unwrap()
}

async fn fetch(
    storage: &Storage,
    id: &str,
    key: BackupKey,
    up: &Uploaded,
) -> Result<Vec<u8>, (usize, StreamError)> {
    let object = data_object(&root(1).installation_id(), "cache", id);
    let expected = Expected { bytes: up.plain_bytes, sha256: up.plain_sha256.clone() };
    let mut blocks = download(storage.clone(), object, (id.to_owned(), key), expected);
    let mut all = Vec::new();
    while let Some(block) = blocks.recv().await {
        match block {
            Ok(block) => all.extend_from_slice(&block),
            Err(error) => return Err((all.len(), error)),
        }
    }
    Ok(all)
}

fn manifest_of(id: &str, taken: u64, up: &Uploaded) -> BackupManifest {
    BackupManifest {
        format: FORMAT,
        id: id.into(),
        installation: root(1).installation_id(),
        cluster: "cache".into(),
        uid: "u".into(),
        incarnation: IncarnationName("cache-1-x7k2".into()),
        taken: UnixMs(taken),
        epoch: 1,
        snapshot: Snapshot {
            stored_bytes: up.stored_bytes,
            stored_sha256: up.stored_sha256.clone(),
            rdb_bytes: up.plain_bytes,
            rdb_sha256: up.plain_sha256.clone(),
            ..Snapshot::default()
        },
        master: MasterSeen::default(),
        users: Vec::new(),
    }
}

#[tokio::test]
async fn what_is_uploaded_comes_back_byte_by_byte() {
    let (_dir, storage) = directory();
    for (n, length) in [0, 1, 300_000, 24 * 1024 * 1024 + 5].into_iter().enumerate() {
        let (id, plain) = (format!("b{n}"), bytes(length));
        let up = store(&storage, &id, &plain).await;
        assert_eq!(up.plain_bytes, length as u64);
        let key = BackupKey(root(1).backup_key(&id));
        assert!(fetch(&storage, &id, key, &up).await.unwrap() == plain, "{length}");
        let object = data_object(&root(1).installation_id(), "cache", &id);
        assert_eq!(storage.size(&object).await.unwrap(), Some(up.stored_bytes));
        let stored = storage.get(&object, usize::MAX).await.unwrap();
        let mut out = Vec::new();
        let key_of = |id: &str| BackupKey(root(1).backup_key(id));
        assert_eq!(decrypt(&stored[..], key_of, &mut out).unwrap(), (id, length as u64));
        assert!(out == plain, "decrypted with the root secret alone");
    }
}

#[tokio::test]
async fn what_is_not_as_the_manifest_says_never_comes_to_its_end() {
    let (_dir, storage) = directory();
    let plain = bytes(3_000_000);
    let up = store(&storage, "b1", &plain).await;
    let key = || BackupKey(root(1).backup_key("b1"));
    let fails = async |key: BackupKey, up: &Uploaded, what: &str| {
        let (given, error) = fetch(&storage, "b1", key, up).await.unwrap_err();
        assert!(given < plain.len() && error.to_string().contains(what), "{given}: {error}");
    };
    let other = Uploaded { plain_sha256: "00".repeat(32), ..up.clone() };
    fails(key(), &other, "not those of the manifest").await;
    let longer = Uploaded { plain_bytes: up.plain_bytes + 1, ..up.clone() };
    fails(key(), &longer, "not those of the manifest").await;
    let shorter = Uploaded { plain_bytes: up.plain_bytes - 1, ..up.clone() };
    fails(key(), &shorter, "longer than their manifest").await;
    fails(BackupKey([9; 32]), &up, "cannot be decrypted").await;
    let object = data_object(&root(1).installation_id(), "cache", "b1");
    let stored = storage.get(&object, usize::MAX).await.unwrap();
    storage.put(&object, stored.slice(..stored.len() / 2)).await.unwrap();
    fails(key(), &up, "").await;
    let mut touched = stored.to_vec();
    touched[1_000_000] ^= 1;
    storage.put(&object, touched).await.unwrap();
    fails(key(), &up, "cannot be decrypted").await;
    storage.put(&object, Bytes::new()).await.unwrap();
    fails(key(), &up, "no encrypted backup").await;
}

#[tokio::test]
async fn a_list_tells_backups_from_what_is_none() {
    let (_dir, storage) = directory();
    let (ours, own) = (root(1), root(1).installation_id());
    let sign =
        |id: &str, taken: u64, up: &Uploaded| manifest::signed(&ours, &manifest_of(id, taken, up));
    for (id, taken) in [("b2", 2000), ("b1", 1000)] {
        let up = store(&storage, id, b"data").await;
        storage.put(&manifest_object(&own, "cache", id), sign(id, taken, &up)).await.unwrap();
    }
    store(&storage, "half", b"data").await;
    let up = store(&storage, "forged", b"data").await;
    let forged = sign("forged", 9, &up).replace("\"epoch\":1", "\"epoch\":2");
    storage.put(&manifest_object(&own, "cache", "forged"), forged).await.unwrap();
    storage.put(&manifest_object(&own, "cache", "gone"), sign("gone", 1, &up)).await.unwrap();
    let up = store(&storage, "x", b"data").await;
    storage.put(&manifest_object(&own, "cache2", "x"), sign("x", 1, &up)).await.unwrap();

    let listing = storage.list(&ours, "cache").await.unwrap();
    let ids: Vec<_> = listing.backups.iter().map(|b| b.id.as_str()).collect();
    assert_eq!(ids, ["b1", "b2"], "oldest first");
    let unusable: Vec<_> = listing.unusable.iter().map(|(id, _)| id.as_str()).collect();
    assert_eq!(unusable, ["forged", "gone"]);
    let unfinished: Vec<_> = listing.unfinished.iter().map(|(id, _)| id.as_str()).collect();
    assert_eq!(unfinished, ["half", "x"]);

    let theirs = storage.list(&root(2), "cache").await.unwrap();
    assert!(theirs.backups.is_empty(), "another root secret has none");
    assert_eq!(theirs.others, std::slice::from_ref(&own.0), "and is told whose they are");

    storage.delete(&own, "cache", "b1").await.unwrap();
    storage.delete(&own, "cache", "b1").await.unwrap();
    let left = storage.list(&ours, "cache").await.unwrap();
    assert_eq!(left.backups.iter().map(|b| b.id.as_str()).collect::<Vec<_>>(), ["b2"]);
}

#[tokio::test]
async fn an_upload_that_fails_says_why_and_leaves_nothing() {
    struct Breaks(u64);
    impl std::io::Read for Breaks {
        fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
            if self.0 == 0 {
                return Err(std::io::Error::other("the disk is gone"));
            }
            self.0 -= 1;
            into.fill_with(rand::random);
            Ok(into.len())
        }
    }
    let (_dir, storage) = directory();
    let key = BackupKey([1; 32]);
    let seen = Arc::new(AtomicU64::new(0));
    let progress = {
        let seen = seen.clone();
        move |done| seen.store(done, Ordering::Relaxed)
    };
    let failed = upload(&storage, "i/cache/b.rdb", ("b", &key), Breaks(40), 0, progress).await;
    assert!(failed.unwrap_err().to_string().contains("the disk is gone"));
    assert!(seen.load(Ordering::Relaxed) > 1_000_000, "progress was told");
    assert_eq!(storage.size("i/cache/b.rdb").await.unwrap(), None);
}

/// An S3 server on this machine.
fn s3(endpoint: String) -> Storage {
    let spec = StorageSpec { url: "s3://bucket/x".into(), endpoint, ..StorageSpec::default() };
    let keys = StorageKeys { id: "a".into(), secret: "b".to_owned().into() };
    Storage::open(&spec, Some(&keys)).unwrap()
}

/// What is read may be a file that another process still writes.
#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_the_storage_refuses_does_not_wait_for_what_it_reads() {
    struct GoesOn(u64, std::sync::mpsc::Receiver<()>);
    impl std::io::Read for GoesOn {
        fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
            if self.0 == 0 {
                let _ = self.1.recv();
                return Ok(0);
            }
            self.0 -= 1;
            rand::RngCore::fill_bytes(&mut rand::thread_rng(), into);
            Ok(into.len())
        }
    }
    let server = MockServer::start().await;
    let began = "<InitiateMultipartUploadResult><Bucket>b</Bucket><Key>k</Key><UploadId>u</UploadId></InitiateMultipartUploadResult>";
    let answer = |method: &str, answer| Mock::given(matchers::method(method)).respond_with(answer);
    answer("POST", ResponseTemplate::new(200).set_body_string(began)).mount(&server).await;
    answer("PUT", ResponseTemplate::new(403)).expect(1..).mount(&server).await;
    answer("DELETE", ResponseTemplate::new(204)).expect(1).mount(&server).await;
    let (over, goes_on) = std::sync::mpsc::channel();
    // Five parts at least.
    let from = GoesOn(100, goes_on);
    let key = BackupKey([1; 32]);
    let storage = s3(server.uri());
    let failed = upload(&storage, "i/cache/b.rdb", ("b", &key), from, 0, |_| {}).await;
    assert!(matches!(failed, Err(StreamError::Storage(_))), "{failed:?}");
    server.verify().await;
    drop(over);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_sends_comes_back_byte_by_byte_or_not_at_all() {
    let (_dir, storage) = directory();
    let plain = bytes(3_000_000);
    let up = store(&storage, "b1", &plain).await;
    let object = data_object(&root(1).installation_id(), "cache", "b1");
    let stored = storage.get(&object, usize::MAX).await.unwrap();
    let mut touched = stored.to_vec();
    touched[1_000_000] ^= 1;
    for (sent, good) in [(stored.to_vec(), true), (touched, false)] {
        let server = MockServer::start().await;
        let answer = ResponseTemplate::new(200).set_body_bytes(sent);
        let answer = answer.insert_header("ETag", "\"1\"");
        let answer = answer.insert_header("Last-Modified", "Thu, 26 Nov 2026 03:00:00 GMT");
        Mock::given(matchers::method("GET")).respond_with(answer).mount(&server).await;
        let key = BackupKey(root(1).backup_key("b1"));
        let got = fetch(&s3(server.uri()), "b1", key, &up).await;
        match got {
            Ok(all) => assert!(good && all == plain),
            Err((given, error)) => {
                assert!(!good && given < plain.len(), "{error}");
                assert!(error.to_string().contains("cannot be decrypted"), "{error}");
            }
        }
    }
}

#[test]
fn settings_that_cannot_be_used_are_refused_with_a_sentence() {
    let refused = |url: &str| {
        let spec = StorageSpec { url: url.to_owned(), ..StorageSpec::default() };
        let error = Storage::open(&spec, None).unwrap_err();
        assert!(matches!(error, StorageError::Setting(_)));
        error.to_string()
    };
    assert!(refused("s3://bucket/x").contains("credentialsFrom"));
    assert!(refused("ftp://x").contains("s3://BUCKET/PREFIX"));
}
