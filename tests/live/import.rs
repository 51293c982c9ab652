//! A cluster that begins with a running Redis which is written to all the time, and the cutover.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use akash_redis::api::types::RedisCluster;
use akash_redis::cli::demo::writer::Access;
use akash_redis::devnet::net::Net;
use akash_redis::devnet::sandbox::Sandbox;
use redis::AsyncConnectionConfig;
use sha2::{Digest as _, Sha256};
use tokio::time::sleep;

use crate::data::{FILLED, all, connected, fill, url};
use crate::sandboxed::sandboxed;
use crate::source::{COPY_RULES, IMPORT_PASSWORD, RULES, TLS, of_the_source, source};
use crate::stage::{CLUSTER, PASSWORD, Stage, condition, is_ready};

const LIMIT: Duration = Duration::from_mins(6);

fn manifest(sandbox: &Sandbox, ca: &str, password: &str) -> String {
    let hash = hex::encode(Sha256::digest(PASSWORD));
    let file = sandbox.dir.join("password");
    std::fs::write(&file, format!("{password}\n")).unwrap();
    let ca = ca.lines().fold(String::new(), |all, line| all + "          " + line + "\n");
    format!(
        "apiVersion: akash-redis.dev/v1alpha1\n\
         kind: RedisCluster\n\
         metadata: {{ name: {CLUSTER} }}\n\
         spec:\n  \
           nodes: 3\n  \
           redis: {{ users: [{{ name: app, passwordSha256: {hash} }}] }}\n  \
           resources: {{ cpu: 500m, memory: 1Gi, data: {{ size: 4Gi, class: beta3 }} }}\n  \
           budget: {{ maxPerMonth: 16act }}\n  \
           bootstrap:\n    \
             fromRedis:\n      \
               host: {}\n      \
               port: {TLS}\n      \
               user: importer\n      \
               passwordFrom: {{ file: {} }}\n      \
               tls:\n        \
                 serverName: old.example.org\n        \
                 ca: |\n{ca}",
        Net::GATEWAY,
        file.display(),
    )
}

async fn apply(stage: &Stage, sandbox: &Sandbox, text: &str) {
    let file = sandbox.dir.join("cluster.yaml");
    std::fs::write(&file, text).unwrap();
    let said = stage.cli(&["apply", "-f", &file.display().to_string()]).await;
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    println!("{}", String::from_utf8_lossy(&said.stdout));
}

fn import(cluster: &RedisCluster) -> (String, String) {
    let (_, reason, message) =
        cluster.status.as_ref().map(|s| condition(s, "Imported")).unwrap_or_default();
    (reason.to_owned(), message.to_owned())
}

/// Writes to the source until that takes no more; how many were acknowledged, and when the last was.
async fn write(held: Arc<AtomicBool>) -> (u64, Instant) {
    let mut connection = of_the_source().await;
    connection.set_response_timeout(Duration::from_millis(800));
    let (mut done, mut last) = (0, Instant::now());
    loop {
        let mut set = redis::cmd("SET");
        set.arg(format!("during:{done}")).arg(done);
        match set.exec_async(&mut connection).await {
            Ok(()) => (done, last) = (done + 1, Instant::now()),
            Err(_) if held.load(Ordering::SeqCst) => return (done, last),
            Err(error) => println!("a write of the source waits: {error}"),
        }
    }
}

/// Asks until the cluster takes a write; when that was.
async fn first_write(access: Access) -> Instant {
    let client = redis::Client::open(url(&access)).unwrap();
    let config =
        AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_millis(300)));
    loop {
        let opened = client.get_multiplexed_async_connection_with_config(&config).await;
        if let Ok(mut connection) = opened {
            let mut set = redis::cmd("SET");
            set.arg("first").arg("1");
            if set.exec_async(&mut connection).await.is_ok() {
                return Instant::now();
            }
        }
        sleep(Duration::from_millis(10)).await;
    }
}

/// What the command says that ends the import. An operator that has just begun may not have heard its
/// nodes yet: then it is asked again.
async fn cut_over(stage: &Stage) -> String {
    let command = ["cutover", CLUSTER, "--wait"];
    let said = loop {
        let said = stage.cli(&command).await;
        if !String::from_utf8_lossy(&said.stderr).contains("is not heard") {
            break said;
        }
        sleep(Duration::from_millis(100)).await;
    };
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let out = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(out.contains("takes the writes"), "{out}");
    out
}

/// A command is refused with these words.
async fn refused(stage: &Stage, command: &[&str], words: &str) {
    let said = stage.cli(command).await;
    let why = String::from_utf8_lossy(&said.stderr).into_owned();
    println!("{why}");
    assert!(!said.status.success() && why.contains(words), "{why}");
}

/// The condition `Imported` has this reason; what it says.
async fn until_import(stage: &Stage, what: &str, reason: &str) -> RedisCluster {
    let found = stage.until(what, |c| import(c).0 == reason).await;
    println!("{}", import(&found).1);
    found
}

#[test]
fn a_cluster_takes_over_from_a_redis_that_is_written_to_and_has_every_write() {
    let name = "import::a_cluster_takes_over_from_a_redis_that_is_written_to_and_has_every_write";
    sandboxed(name, LIMIT, async |sandbox: Sandbox| {
        let mut stage = Stage::start(&sandbox).await;
        let (_source, ca) = source(&sandbox, RULES);
        let mut there = of_the_source().await;
        fill(&mut there).await;

        // A wrong password is said, and corrected while the leases stay.
        apply(&stage, &sandbox, &manifest(&sandbox, &ca, "wrong")).await;
        let failed = until_import(&stage, "the refusal", "ImportFailed").await;
        assert!(import(&failed).1.contains("refuses the user"), "{}", import(&failed).1);
        refused(&stage, &["cutover", CLUSTER], "cannot be cut over now").await;
        apply(&stage, &sandbox, &manifest(&sandbox, &ca, IMPORT_PASSWORD)).await;

        let held = Arc::new(AtomicBool::new(false));
        let writer = tokio::spawn(write(held.clone()));
        let ready = until_import(&stage, "the copy", "ImportReady").await;
        assert!(!is_ready(&ready) && ready.status.as_ref().unwrap().master.is_none());
        let shown = stage.client.get(CLUSTER).await.unwrap();
        let text = serde_json::to_string(&shown).unwrap();
        assert!(!text.contains(IMPORT_PASSWORD), "the password is kept encrypted");

        // An operator that was started anew goes on.
        stage.local.kill_operator().await;
        stage.local.start_operator().await.unwrap();
        until_import(&stage, "the import to go on", "ImportReady").await;

        let (_proxy, access) = stage.proxy();
        let first = tokio::spawn(first_write(access.clone()));
        held.store(true, Ordering::SeqCst);
        cut_over(&stage).await;
        let (written, last) = writer.await.unwrap();
        let first = first.await.unwrap();
        println!(
            "{written} writes were acknowledged by the source meanwhile; {:?} from the last of them to the first of the cluster",
            first.saturating_duration_since(last)
        );
        assert!(written > 0);

        let mut here = connected(&url(&access)).await;
        let (mut kept, old) = (all(&mut here).await, all(&mut there).await);
        assert!(kept.remove("first").is_some());
        assert!(old.len() as u64 >= FILLED as u64 + written, "{} keys", old.len());
        assert_eq!(kept.len(), old.len());
        assert!(kept == old, "a value is another one");
        stage.until_ready().await;
        assert_eq!(import(&stage.client.get(CLUSTER).await.unwrap()).0, "ImportCompleted");
        stage.delete().await;
        stage.assert_nothing_left().await;
    });
}

#[test]
fn a_redis_that_lets_nobody_replicate_is_copied_and_the_difference_is_told() {
    let name = "import::a_redis_that_lets_nobody_replicate_is_copied_and_the_difference_is_told";
    sandboxed(name, LIMIT, async |sandbox: Sandbox| {
        let stage = Stage::start(&sandbox).await;
        let (_source, ca) = source(&sandbox, COPY_RULES);
        let mut there = of_the_source().await;
        fill(&mut there).await;
        let text = manifest(&sandbox, &ca, IMPORT_PASSWORD);
        apply(&stage, &sandbox, &text).await;
        let failed = until_import(&stage, "the refusal", "ImportFailed").await;
        assert!(import(&failed).1.contains("method: copy"), "{}", import(&failed).1);
        let held = Arc::new(AtomicBool::new(false));
        let writer = tokio::spawn(write(held.clone()));
        let text = text.replace("user: importer", "user: importer\n      method: copy");
        apply(&stage, &sandbox, &text).await;
        let ready = until_import(&stage, "the copy", "ImportReady").await;
        assert!(!is_ready(&ready) && ready.status.as_ref().unwrap().master.is_none());
        redis::cmd("DEL").arg("key:1:1").exec_async(&mut there).await.unwrap();

        // A key that cannot be copied keeps the cluster from taking over, by its name.
        redis::cmd("SETRANGE")
            .arg(&["huge", "90000000", "x"])
            .exec_async(&mut there)
            .await
            .unwrap();
        refused(&stage, &["cutover", CLUSTER, "--wait"], "\"huge\" of database 0").await;
        until_import(&stage, "the import to go on", "ImportReady").await;
        redis::cmd("DEL").arg("huge").exec_async(&mut there).await.unwrap();

        held.store(true, Ordering::SeqCst);
        let out = cut_over(&stage).await;
        assert!(out.contains(" added, ") && out.contains("no key differs now"), "{out}");
        let (written, _) = writer.await.unwrap();
        println!("{written} writes were acknowledged by the source meanwhile");
        assert!(written > 0);
        let (_proxy, access) = stage.proxy();
        stage.until_ready().await;
        let mut here = connected(&url(&access)).await;
        let (kept, old) = (all(&mut here).await, all(&mut there).await);
        assert!(!kept.contains_key("key:1:1") && old.len() as u64 >= 5149 + written);
        assert_eq!(kept.len(), old.len());
        assert!(kept == old, "a value is another one");
        stage.delete().await;
        stage.assert_nothing_left().await;
    });
}
