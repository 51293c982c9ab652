//! Backups in a real S3 server, and clusters that begin with one.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use akash_redis::api::conditions::Phase;
use akash_redis::api::status::NodeStatus;
use akash_redis::api::types::RedisCluster;
use akash_redis::api::validate;
use akash_redis::backup::format::BackupKey;
use akash_redis::backup::storage::{Storage, StorageError};
use akash_redis::backup::stream::{Expected, download, upload};
use akash_redis::cli::demo::writer::Access;
use akash_redis::devnet::net::Net;
use akash_redis::devnet::sandbox::Sandbox;
use akash_redis::model::archive::Segment;
use akash_redis::model::backup::{StorageKeys, StorageSpec};
use akash_redis::model::time::UnixMs;
use redis::AsyncConnectionConfig;
use sha2::{Digest as _, Sha256};
use tokio::process::Command;

use crate::s3::{BUCKET, Fault, KEYS, S3, faulty};
use crate::sandboxed::sandboxed;
use crate::stage::{CLUSTER, PASSWORD, Stage, condition, program, until};

const LIMIT: Duration = Duration::from_mins(6);
/// Repetition in these tests.
const PATIENCE: Duration = Duration::from_secs(20);

fn bytes(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    rand::Rng::fill(&mut rand::thread_rng(), &mut bytes[..]);
    bytes
}

/// Uploads and downloads again; what came back.
async fn there_and_back(spec: &StorageSpec, plain: &[u8]) -> Result<Vec<u8>, String> {
    let keys = S3::keys();
    let storage = Storage::open_with(spec, Some(&keys), PATIENCE).map_err(|e| e.to_string())?;
    let key = BackupKey([5; 32]);
    let from = std::io::Cursor::new(plain.to_vec());
    let up = upload(&storage, "i/cache/b.rdb", ("b", &key), from, plain.len() as u64, |_| {});
    let up = up.await.map_err(|e| e.to_string())?;
    let expected = Expected { bytes: up.plain_bytes, sha256: up.plain_sha256 };
    let mut blocks = download(storage, "i/cache/b.rdb".into(), ("b".into(), key), expected);
    let mut all = Vec::new();
    while let Some(block) = blocks.recv().await {
        all.extend_from_slice(&block.map_err(|e| e.to_string())?);
    }
    Ok(all)
}

#[test]
fn a_real_s3_server_with_its_faults_takes_a_backup_or_says_why_not() {
    let name = "backup::a_real_s3_server_with_its_faults_takes_a_backup_or_says_why_not";
    sandboxed(name, LIMIT, async |sandbox: Sandbox| {
        let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let plain = bytes(13 * 1024 * 1024);
        let same = async |what: &str, spec: &StorageSpec| {
            let back = there_and_back(spec, &plain).await;
            assert!(back.as_ref().is_ok_and(|back| *back == plain), "{what}: {:?}", back.err());
            println!("{what}: as it was");
        };
        let open = S3::start(&sandbox.dir.join("open"), local(9000), false).await;
        same("plain", &open.spec(None)).await;
        for (fault, times) in [
            (Fault::Unavailable, 3),
            (Fault::CutUp(2_000_000), 1),
            (Fault::CutDown(3_000_000), 1),
            (Fault::Slow, usize::MAX),
        ] {
            let through = faulty(open.address, fault, times).await;
            same(&format!("{fault:?}"), &open.spec(Some(through))).await;
        }
        let tls = S3::start(&sandbox.dir.join("tls"), local(9001), true).await;
        same("TLS", &tls.spec(None)).await;

        let fails = async |spec: &StorageSpec, keys: &str, what: &str| {
            let keys = StorageKeys::read(keys).unwrap();
            let storage = Storage::open_with(spec, Some(&keys), Duration::from_secs(3)).unwrap();
            let error = storage.put("i/cache/x", "content").await.unwrap_err();
            println!("{error}");
            assert!(error.to_string().contains(what), "{error}");
            error
        };
        let untrusted = StorageSpec { ca: String::new(), ..tls.spec(None) };
        fails(&untrusted, KEYS, "ertificate").await;
        let wrong = fails(&open.spec(None), "AKIATESTTESTTEST:wrong", "refuses the keys").await;
        assert!(matches!(wrong, StorageError::Refused { .. }) && !wrong.may_pass());
        let unknown = fails(&open.spec(None), "AKIAOTHER:wrong", "refuses the keys").await;
        assert!(!unknown.may_pass());
        let missing = StorageSpec { url: "s3://no-such-bucket/x".into(), ..open.spec(None) };
        let missing = fails(&missing, KEYS, "no such bucket").await;
        assert!(matches!(missing, StorageError::Missing { .. }));
        let nobody = StorageSpec { endpoint: "http://127.0.0.1:9009".into(), ..open.spec(None) };
        assert!(fails(&nobody, KEYS, "may be away").await.may_pass());

        let small = sandbox.dir.join("small");
        std::fs::create_dir_all(&small).unwrap();
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=6m", "tmpfs"])
            .arg(&small)
            .status()
            .await;
        assert!(mount.unwrap().success());
        let full = S3::start(&small, local(9002), false).await;
        let error = there_and_back(&full.spec(None), &plain).await.unwrap_err();
        println!("{error}");
        assert!(error.contains("full"), "{error}");
    });
}

/// The tests' cluster with backups in that server, and more of a spec.
fn manifest(s3: &S3, keys: &Path, more: &str) -> String {
    let hash = hex::encode(Sha256::digest(PASSWORD));
    let ca = s3.ca.lines().fold(String::new(), |all, line| all + "      " + line + "\n");
    format!(
        "apiVersion: akash-redis.dev/v1alpha1\n\
         kind: RedisCluster\n\
         metadata: {{ name: {CLUSTER} }}\n\
         spec:\n  \
           nodes: 3\n  \
           redis: {{ users: [{{ name: app, passwordSha256: {hash} }}] }}\n  \
           resources: {{ cpu: 500m, memory: 1Gi, data: {{ size: 4Gi, class: beta3 }} }}\n  \
           budget: {{ maxPerMonth: 16act }}\n  \
           backup:\n    \
             to: s3://{BUCKET}/some/prefix\n    \
             endpoint: https://{}\n    \
             credentialsFrom: {{ file: {} }}\n    \
             ca: |\n{ca}{more}",
        s3.address,
        keys.display(),
    )
}

/// What a command printed; it did what was asked.
async fn said(stage: &Stage, arguments: &[&str]) -> String {
    let said = stage.cli(arguments).await;
    let (out, error) =
        (String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
    assert!(said.status.success(), "{arguments:?}: {out}{error}");
    println!("$ akash-redis {}\n{out}", arguments.join(" "));
    out.into_owned()
}

async fn connected(access: &Access) -> redis::aio::MultiplexedConnection {
    let Access { host, port, user, password } = access;
    let url = format!("redis://{user}:{password}@{host}:{port}/");
    let client = redis::Client::open(url).unwrap();
    // A busy machine is no fault.
    let config = AsyncConnectionConfig::new().set_response_timeout(Some(PATIENCE));
    for _ in 0..600 {
        let connection = client.get_multiplexed_async_connection_with_config(&config);
        if let Ok(connection) = connection.await {
            return connection;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the proxy lets nobody in");
}

/// Every key with its value, as Redis serializes it.
async fn all(access: &Access) -> BTreeMap<String, Vec<u8>> {
    let mut connection = connected(access).await;
    let (mut cursor, mut found) = (0u64, BTreeMap::new());
    loop {
        let mut scan = redis::cmd("SCAN");
        scan.arg(cursor).arg("COUNT").arg(1000);
        let (next, keys): (u64, Vec<String>) = scan.query_async(&mut connection).await.unwrap();
        for key in keys {
            let value = redis::cmd("DUMP").arg(&key).query_async(&mut connection).await.unwrap();
            found.insert(key, value);
        }
        cursor = next;
        if cursor == 0 {
            return found;
        }
    }
}

async fn fill(access: &Access) {
    let mut connection = connected(access).await;
    for n in 0..50 {
        let mut pipe = redis::pipe();
        for m in 0..100 {
            pipe.cmd("SET").arg(format!("key:{n}:{m}")).arg(bytes(n * 20)).ignore();
        }
        pipe.cmd("ZADD").arg(format!("zset:{n}")).arg(n).arg("a").arg(0.5).arg("b").ignore();
        pipe.cmd("HSET").arg(format!("hash:{n}")).arg("f").arg(n).ignore();
        pipe.exec_async(&mut connection).await.unwrap();
    }
}

async fn apply(stage: &Stage, dir: &Path, text: &str) {
    let file = dir.join("cluster.yaml");
    std::fs::write(&file, text).unwrap();
    said(stage, &["apply", "-f", &file.display().to_string()]).await;
}

fn held(cluster: &RedisCluster, kind: &str, reason: &str) -> bool {
    cluster.status.as_ref().is_some_and(|s| condition(s, kind).1 == reason)
}

/// An RDB file with so many keys.
async fn is_whole(file: &Path, keys: usize) {
    let checked = Command::new("redis-check-rdb").arg(file).output().await.unwrap();
    let checked = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(checked.contains(&format!("{keys} keys read")), "{checked}");
}

/// The backup is read with the root secret alone, and the data of now without a storage.
async fn reads_as(stage: &Stage, dir: &Path, object: &Path) {
    let dump = dir.join("dump.rdb");
    let decrypted = Command::new(program())
        .args(["backup", "decrypt", "--root-secret"])
        .arg(dir.join("root.secret"))
        .stdin(Stdio::from(std::fs::File::open(object).unwrap()))
        .stdout(Stdio::from(std::fs::File::create(&dump).unwrap()))
        .status()
        .await;
    assert!(decrypted.unwrap().success());
    is_whole(&dump, 5100).await;
    let now = dir.join("now.rdb");
    let dumped = Command::new(program())
        .arg("--socket")
        .arg(stage.local.socket())
        .args(["dump", CLUSTER])
        .stdout(Stdio::from(std::fs::File::create(&now).unwrap()))
        .status()
        .await;
    assert!(dumped.unwrap().success());
    is_whole(&now, 5100).await;
}

#[test]
fn a_cluster_comes_back_from_its_backup_on_new_providers_key_by_key() {
    let name = "backup::a_cluster_comes_back_from_its_backup_on_new_providers_key_by_key";
    sandboxed(name, LIMIT, async |sandbox: Sandbox| {
        let stage = Stage::start(&sandbox).await;
        let address = SocketAddr::from((Net::GATEWAY, 9000));
        let s3 = S3::start(&sandbox.dir.join("s3"), address, true).await;
        let keys = sandbox.dir.join("keys");
        std::fs::write(&keys, format!("{KEYS}\n")).unwrap();
        let begins = manifest(&s3, &keys, "");
        assert!(validate::parse(&begins).is_ok());
        apply(&stage, &sandbox.dir, &begins).await;
        let before = stage.until_ready().await;
        let (_proxy, access) = stage.proxy();
        fill(&access).await;
        let there = all(&access).await;
        assert_eq!(there.len(), 5100);

        let taken = stage.cli(&["backup", CLUSTER, "--wait", "--timeout", "1m"]).await;
        let taken = String::from_utf8_lossy(&taken.stdout).into_owned();
        assert!(taken.contains("is complete"), "{taken}");
        let listed = said(&stage, &["backups", CLUSTER]).await;
        let master = stage.master().await.incarnation;
        let row = listed.lines().nth(1).unwrap();
        assert!(row.contains(" 5100 ") && !row.contains(&master), "{listed}, master {master}");
        let id = row.split_whitespace().next().unwrap().to_owned();
        let described = said(&stage, &["describe", CLUSTER]).await;
        assert!(described.contains("BackedUp"), "{described}");

        // Nobody sees the keys.
        let secret = KEYS.split(':').nth(1).unwrap();
        let shown = said(&stage, &["get", CLUSTER, "-o", "yaml"]).await;
        assert!(shown.contains("sealed:") && !shown.contains(secret));
        let log = std::fs::read_to_string(sandbox.dir.join("operator.log")).unwrap_or_default();
        assert!(!log.contains(secret), "the log has the keys");

        // The root secret alone is enough.
        let installation = s3.dir.join("some/prefix");
        let installation = std::fs::read_dir(installation).unwrap().next().unwrap().unwrap().path();
        let (object, made) = (
            installation.join(CLUSTER).join(format!("{id}.rdb")),
            installation.join(CLUSTER).join(format!("{id}.manifest")),
        );
        reads_as(&stage, &sandbox.dir, &object).await;

        // An apply of the same again changes nothing.
        let file = sandbox.dir.join("cluster.yaml").display().to_string();
        assert!(said(&stage, &["apply", "-f", &file]).await.contains("unchanged"));

        stage.delete().await;
        stage.assert_nothing_left().await;
        let from = "  bootstrap: { fromBackup: {} }\n";
        apply(&stage, &sandbox.dir, &manifest(&s3, &keys, from)).await;
        let after = stage.until_ready().await;
        assert!(held(&stage.client.get(CLUSTER).await.unwrap(), "Restored", "RestoreCompleted"));
        let dseqs = |s: &akash_redis::api::status::Status| {
            s.nodes.iter().map(|n| n.dseq).collect::<Vec<_>>()
        };
        assert!(dseqs(&after).iter().all(|dseq| !dseqs(&before).contains(dseq)));
        let back = all(&access).await;
        assert_eq!(back.len(), there.len());
        assert!(back == there, "a value is another one");
        let mut connection = connected(&access).await;
        let set = redis::cmd("SET").arg("after").arg("1").exec_async(&mut connection).await;
        set.unwrap();
        stage.delete().await;
        stage.assert_nothing_left().await;

        // What was touched is refused before anything is bought.
        let good = std::fs::read_to_string(&made).unwrap();
        std::fs::write(&made, good.replace("\"keys\":5100", "\"keys\":5101")).unwrap();
        apply(&stage, &sandbox.dir, &manifest(&s3, &keys, from)).await;
        let refused = stage.until("the refusal", |c| held(c, "Restored", "RestoreRefused")).await;
        let why = condition(refused.status.as_ref().unwrap(), "Restored").2.to_owned();
        println!("{why}");
        assert!(why.contains("changed or damaged"), "{why}");
        assert_eq!(stage.left().await.deployments, 0, "nothing was bought");
        stage.delete().await;

        // What is touched in the data never becomes data, and is told.
        std::fs::write(&made, good).unwrap();
        let mut touched = std::fs::read(&object).unwrap();
        let middle = touched.len() / 2;
        touched[middle] ^= 1;
        std::fs::write(&object, touched).unwrap();
        apply(&stage, &sandbox.dir, &manifest(&s3, &keys, from)).await;
        let failed = stage.until("the failure", |c| held(c, "Restored", "RestoreFailed")).await;
        let why = condition(failed.status.as_ref().unwrap(), "Restored").2.to_owned();
        println!("{why}");
        assert!(why.contains("cannot be decrypted"), "{why}");
        assert_eq!(failed.status.unwrap().master, None, "nobody is master without the data");
        stage.delete().await;
        until("nothing to be left", async || stage.left().await.deployments == 0).await;
    });
}

/// The segments of the log that are stored, wherever they are below a directory.
fn segments(dir: &Path, all: &mut Vec<Segment>) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        if entry.path().is_dir() {
            segments(&entry.path(), all);
        } else {
            all.extend(Segment::read("", "", &entry.file_name().to_string_lossy()));
        }
    }
}

/// RFC 3339 with milliseconds.
fn exact(at: UnixMs) -> String {
    at.to_string().replace('Z', &format!(".{:03}Z", at.0 % 1000))
}

/// Somebody empties the database by mistake, after a failover.
#[test]
fn the_moment_before_a_mistake_comes_back_on_new_providers_key_by_key() {
    let name = "backup::the_moment_before_a_mistake_comes_back_on_new_providers_key_by_key";
    sandboxed(name, LIMIT, async |sandbox: Sandbox| {
        let stage = Stage::start(&sandbox).await;
        let address = SocketAddr::from((Net::GATEWAY, 9000));
        let s3 = S3::start(&sandbox.dir.join("s3"), address, true).await;
        let keys = sandbox.dir.join("keys");
        std::fs::write(&keys, format!("{KEYS}\n")).unwrap();
        let log = "    schedule: '0 3 * * *'\n    pointInTime: true\n";
        apply(&stage, &sandbox.dir, &manifest(&s3, &keys, log)).await;
        stage.until_ready().await;
        let current = |c: &RedisCluster| held(c, "PointInTime", "ArchiveCurrent");
        let cluster = stage.until("the log to be archived", current).await;
        println!("{}", condition(cluster.status.as_ref().unwrap(), "PointInTime").2);
        let (_proxy, access) = stage.proxy();
        fill(&access).await;

        let old = stage.master().await;
        stage.kill_redis(&old);
        stage
            .until_status("another master", |s| {
                let is =
                    |n: &NodeStatus| n.phase == Phase::Master && n.incarnation != old.incarnation;
                s.nodes.iter().any(is)
            })
            .await;
        stage.until_ready().await;
        let mut connection = connected(&access).await;
        for n in 0..200 {
            let mut pipe = redis::pipe();
            pipe.atomic().cmd("INCR").arg("count").cmd("SET").arg(format!("late:{n}")).arg(n);
            pipe.exec_async(&mut connection).await.unwrap();
        }
        let there = all(&access).await;
        assert_eq!(there.len(), 5301);
        let has: i64 =
            redis::cmd("WAIT").arg(2).arg(10_000).query_async(&mut connection).await.unwrap();
        assert_eq!(has, 2, "whoever archives has it");
        let to = UnixMs::now();
        until("the next second", async || UnixMs::now().0 >= to.0 + 1000).await;
        for key in there.keys() {
            redis::cmd("DEL").arg(key).exec_async(&mut connection).await.unwrap();
        }
        redis::cmd("SET").arg("after").arg("1").exec_async(&mut connection).await.unwrap();
        assert_eq!(all(&access).await.len(), 1);
        let gone = UnixMs::now();
        until("all of it to be stored", async || {
            let mut stored = Vec::new();
            segments(&s3.dir, &mut stored);
            stored.iter().any(|s| s.until > gone)
        })
        .await;
        let behind = UnixMs::now().since(gone);
        println!("stored {behind:?} after it was written");
        stage.delete().await;
        stage.assert_nothing_left().await;

        let from = |at: UnixMs| {
            let at = exact(at);
            format!("{log}  bootstrap: {{ fromBackup: {{ at: '{at}' }} }}\n")
        };
        let late = UnixMs(UnixMs::now().0 + 600_000);
        apply(&stage, &sandbox.dir, &manifest(&s3, &keys, &from(late))).await;
        let refused = stage.until("the refusal", |c| held(c, "Restored", "RestoreRefused")).await;
        let why = condition(refused.status.as_ref().unwrap(), "Restored").2.to_owned();
        println!("{why}");
        assert!(why.contains("write a time until"), "{why}");
        assert_eq!(stage.left().await.deployments, 0, "nothing was bought");

        // The corrected manifest.
        apply(&stage, &sandbox.dir, &manifest(&s3, &keys, &from(to))).await;
        stage.until_ready().await;
        let cluster = stage.client.get(CLUSTER).await.unwrap();
        assert!(held(&cluster, "Restored", "RestoreCompleted"));
        let back = all(&access).await;
        assert_eq!(back.len(), there.len());
        assert!(back == there, "a value is another one");
        stage.until("its own log to be archived", current).await;
        stage.delete().await;
        stage.assert_nothing_left().await;
    });
}
