//! Backups in a real S3 server, and clusters that begin with one.

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
use akash_redis::devnet::sandbox::Sandbox;
use akash_redis::model::archive::Segment;
use akash_redis::model::backup::{StorageKeys, StorageSpec};
use akash_redis::model::time::UnixMs;
use tokio::process::Command;

use crate::backed::{Backed, has, message, touch};
use crate::data::{FILLED, PATIENCE, all, bytes, connected, fill, url};
use crate::s3::{Fault, KEYS, S3, faulty};
use crate::sandboxed::sandboxed;
use crate::stage::{CLUSTER, Stage, program, until};

const LIMIT: Duration = Duration::from_mins(6);

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
    is_whole(&dump, FILLED).await;
    let now = dir.join("now.rdb");
    let dumped = Command::new(program())
        .arg("--socket")
        .arg(stage.local.socket())
        .args(["dump", CLUSTER])
        .stdout(Stdio::from(std::fs::File::create(&now).unwrap()))
        .status()
        .await;
    assert!(dumped.unwrap().success());
    is_whole(&now, FILLED).await;
}

#[test]
fn a_cluster_comes_back_from_its_backup_on_new_providers_key_by_key() {
    let name = "backup::a_cluster_comes_back_from_its_backup_on_new_providers_key_by_key";
    sandboxed(name, LIMIT, async |sandbox: Sandbox| {
        let backed = Backed::start(&sandbox).await;
        let stage = &backed.stage;
        assert!(validate::parse(&backed.manifest("")).is_ok());
        backed.apply("").await;
        let before = stage.until_ready().await;
        let (_proxy, access) = stage.proxy();
        let mut connection = connected(&url(&access)).await;
        fill(&mut connection).await;
        let there = all(&mut connection).await;
        assert_eq!(there.len(), FILLED);

        let id = backed.back_up().await;
        let listed = stage.says(&["backups", CLUSTER]).await;
        let master = stage.master().await.incarnation;
        let row = listed.lines().nth(1).unwrap();
        assert!(
            row.contains(&format!(" {FILLED} ")) && !row.contains(&master),
            "{listed}, master {master}"
        );
        assert!(row.contains(&id), "{listed}");
        let described = stage.says(&["describe", CLUSTER]).await;
        assert!(described.contains("BackedUp"), "{described}");

        // Nobody sees the keys.
        let secret = KEYS.split(':').nth(1).unwrap();
        let shown = stage.says(&["get", CLUSTER, "-o", "yaml"]).await;
        assert!(shown.contains("sealed:") && !shown.contains(secret));
        let log = std::fs::read_to_string(sandbox.dir.join("operator.log")).unwrap_or_default();
        assert!(!log.contains(secret), "the log has the keys");

        // The root secret alone is enough.
        let (object, made) = (backed.object(&id, "rdb"), backed.object(&id, "manifest"));
        reads_as(stage, &sandbox.dir, &object).await;

        // An apply of the same again changes nothing.
        let file = sandbox.dir.join("cluster.yaml").display().to_string();
        assert!(stage.says(&["apply", "-f", &file]).await.contains("unchanged"));

        stage.delete().await;
        stage.assert_nothing_left().await;
        let from = "  bootstrap: { fromBackup: {} }\n";
        backed.apply(from).await;
        let after = stage.until_ready().await;
        assert!(has(&stage.client.get(CLUSTER).await.unwrap(), "Restored", "RestoreCompleted"));
        let dseqs = |s: &akash_redis::api::status::Status| {
            s.nodes.iter().map(|n| n.dseq).collect::<Vec<_>>()
        };
        assert!(dseqs(&after).iter().all(|dseq| !dseqs(&before).contains(dseq)));
        let mut connection = connected(&url(&access)).await;
        let back = all(&mut connection).await;
        assert_eq!(back.len(), there.len());
        assert!(back == there, "a value is another one");
        let set = redis::cmd("SET").arg("after").arg("1").exec_async(&mut connection).await;
        set.unwrap();
        stage.delete().await;
        stage.assert_nothing_left().await;

        // What was touched is refused before anything is bought.
        let good = std::fs::read_to_string(&made).unwrap();
        std::fs::write(&made, good.replace(&format!("\"keys\":{FILLED}"), "\"keys\":1")).unwrap();
        backed.apply(from).await;
        let refused = stage.until("the refusal", |c| has(c, "Restored", "RestoreRefused")).await;
        let why = message(&refused, "Restored");
        assert!(why.contains("changed or damaged"), "{why}");
        assert_eq!(stage.left().await.deployments, 0, "nothing was bought");
        stage.delete().await;

        // What is touched in the data never becomes data, and is told.
        std::fs::write(&made, good).unwrap();
        touch(&object);
        backed.apply(from).await;
        let failed = stage.until("the failure", |c| has(c, "Restored", "RestoreFailed")).await;
        let why = message(&failed, "Restored");
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
        let backed = Backed::start(&sandbox).await;
        let stage = &backed.stage;
        let log = "    schedule: '0 3 * * *'\n    pointInTime: true\n";
        backed.apply(log).await;
        stage.until_ready().await;
        let current = |c: &RedisCluster| has(c, "PointInTime", "ArchiveCurrent");
        let cluster = stage.until("the log to be archived", current).await;
        message(&cluster, "PointInTime");
        let (_proxy, access) = stage.proxy();
        fill(&mut connected(&url(&access)).await).await;

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
        let mut connection = connected(&url(&access)).await;
        for n in 0..200 {
            let mut pipe = redis::pipe();
            pipe.atomic().cmd("INCR").arg("count").cmd("SET").arg(format!("late:{n}")).arg(n);
            pipe.exec_async(&mut connection).await.unwrap();
        }
        let there = all(&mut connection).await;
        assert_eq!(there.len(), FILLED + 201);
        let reached: i64 =
            redis::cmd("WAIT").arg(2).arg(10_000).query_async(&mut connection).await.unwrap();
        assert_eq!(reached, 2, "whoever archives has it");
        let to = UnixMs::now();
        until("the next second", async || UnixMs::now().0 >= to.0 + 1000).await;
        for key in there.keys() {
            redis::cmd("DEL").arg(key).exec_async(&mut connection).await.unwrap();
        }
        redis::cmd("SET").arg("after").arg("1").exec_async(&mut connection).await.unwrap();
        assert_eq!(all(&mut connection).await.len(), 1);
        let gone = UnixMs::now();
        until("all of it to be stored", async || {
            let mut stored = Vec::new();
            segments(&backed.s3.dir, &mut stored);
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
        backed.apply(&from(late)).await;
        let refused = stage.until("the refusal", |c| has(c, "Restored", "RestoreRefused")).await;
        let why = message(&refused, "Restored");
        assert!(why.contains("write a time until"), "{why}");
        assert_eq!(stage.left().await.deployments, 0, "nothing was bought");

        // The corrected manifest.
        backed.apply(&from(to)).await;
        stage.until_ready().await;
        let cluster = stage.client.get(CLUSTER).await.unwrap();
        assert!(has(&cluster, "Restored", "RestoreCompleted"));
        let back = all(&mut connected(&url(&access)).await).await;
        assert_eq!(back.len(), there.len());
        assert!(back == there, "a value is another one");
        stage.until("its own log to be archived", current).await;
        stage.delete().await;
        stage.assert_nothing_left().await;
    });
}
