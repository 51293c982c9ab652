//! A backup is restored on a replica's node to see that it can be: what comes of it is told, and
//! nobody who works with the cluster notices.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use akash_redis::devnet::sandbox::Sandbox;
use redis::aio::MultiplexedConnection;
use tokio::process::Command;
use tokio::sync::watch;

use crate::backed::{Backed, has, message, touch};
use crate::data::{FILLED, connected, fill, url};
use crate::sandboxed::sandboxed;
use crate::stage::{CLUSTER, PASSWORD, Stage, program, until};

const LIMIT: Duration = Duration::from_mins(6);
/// It has the lowest priority, so that it may take on a busy machine.
const VERIFY: [&str; 6] = ["backup", "verify", CLUSTER, "--wait", "--timeout", "3m"];

/// The `run_id` of each node's redis, which another process would not have.
async fn run_ids(stage: &Stage, password: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for node in stage.client.get(CLUSTER).await.unwrap().status.unwrap().nodes {
        let asked = Command::new(program())
            .arg("--socket")
            .arg(stage.local.socket())
            .args(["exec", CLUSTER, &node.ordinal.to_string(), "--password-file"])
            .arg(password)
            .args(["--", "redis-cli", "INFO", "server"])
            .kill_on_drop(true)
            .output()
            .await
            .unwrap();
        let said = String::from_utf8_lossy(&asked.stdout).into_owned();
        let run_id = said.lines().find_map(|line| line.trim().strip_prefix("run_id:"));
        let why = String::from_utf8_lossy(&asked.stderr);
        let run_id = run_id.unwrap_or_else(|| panic!("{}: {said}{why}", node.incarnation));
        found.insert(format!("{} {}", node.incarnation, node.phase), run_id.to_owned());
    }
    found
}

/// Redis servers that run in the node's containers.
fn servers(stage: &Stage, dseqs: &[u64]) -> usize {
    let of = |dseq: &u64| {
        let (provider, lease) = stage.local.market.find(*dseq).unwrap();
        stage.local.market.providers[provider].runner.processes(&lease, "redis-server").len()
    };
    dseqs.iter().map(of).sum()
}

/// Writes on one connection until it is told to stop, or a write fails; how many were acknowledged.
async fn write(
    mut connection: MultiplexedConnection,
    mut stop: watch::Receiver<bool>,
    done: watch::Sender<u64>,
) -> redis::RedisResult<u64> {
    let mut written = 0;
    while !*stop.borrow_and_update() {
        redis::cmd("SET").arg("counter").arg(written).exec_async(&mut connection).await?;
        written += 1;
        done.send_replace(written);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(written)
}

/// A rehearsal that finds the backup to be no good, by the command and by the condition.
async fn is_refused(backed: &Backed, what: &str) {
    let said = backed.stage.cli(&VERIFY).await;
    let error = String::from_utf8_lossy(&said.stderr).into_owned();
    println!("{error}");
    assert!(!said.status.success() && error.contains(what), "{error}");
    let cluster = backed.stage.client.get(CLUSTER).await.unwrap();
    assert!(has(&cluster, "BackupVerified", "BackupVerificationFailed"));
    let why = message(&cluster, "BackupVerified");
    assert!(why.contains("could not be restored on") && why.contains(what), "{why}");
    assert!(has(&cluster, "Degraded", "BackupVerificationFailed"));
}

#[test]
fn a_rehearsal_tells_a_good_backup_from_a_damaged_one_and_disturbs_nobody() {
    let name = "rehearsal::a_rehearsal_tells_a_good_backup_from_a_damaged_one_and_disturbs_nobody";
    sandboxed(name, LIMIT, async |sandbox: Sandbox| {
        let backed = Backed::start(&sandbox).await;
        let stage = &backed.stage;
        // Only by command, so that each is one that the test asked for.
        backed.apply("    verify: never\n").await;
        let status = stage.until_ready().await;
        let (_proxy, access) = stage.proxy();
        let mut connection = connected(&url(&access)).await;
        fill(&mut connection).await;
        let id = backed.back_up().await;
        let master = stage.master().await.incarnation;
        let password = sandbox.dir.join("password");
        std::fs::write(&password, PASSWORD).unwrap();
        let dseqs: Vec<u64> = status.nodes.iter().map(|node| node.dseq).collect();
        let before = run_ids(stage, &password).await;
        assert_eq!((before.len(), servers(stage, &dseqs)), (3, 3), "{before:?}");

        let (stop, stopped) = watch::channel(false);
        let (done, written) = watch::channel(0);
        let writer = tokio::spawn(write(connection, stopped, done));
        let good = async || {
            let said = stage.says(&VERIFY).await;
            assert!(said.contains(&format!("with all of its {FILLED} keys")), "{said}");
            assert!(!said.contains(&format!("was restored on {master}")), "the master: {said}");
            let is = |c: &_| has(c, "BackupVerified", "BackupRestorable");
            let cluster = stage.until("the condition to be True", is).await;
            assert!(message(&cluster, "BackupVerified").contains(&id));
            assert!(!has(&cluster, "Degraded", "BackupVerificationFailed"));
        };
        good().await;
        let listed = stage.says(&["backups", CLUSTER]).await;
        assert!(listed.lines().nth(1).unwrap().contains("test restore passed"), "{listed}");

        let object = backed.object(&id, "rdb");
        let kept = std::fs::read(&object).unwrap();
        touch(&object);
        is_refused(&backed, "cannot be decrypted").await;
        std::fs::write(&object, &kept).unwrap();
        good().await;
        std::fs::remove_file(&object).unwrap();
        is_refused(&backed, "no such bucket or object").await;

        // What the list of the storage says is told without anybody's asking.
        std::fs::write(&object, &kept).unwrap();
        good().await;
        std::fs::remove_file(&object).unwrap();
        let newest = backed.back_up().await;
        let cluster = stage.client.get(CLUSTER).await.unwrap();
        assert!(has(&cluster, "BackupVerified", "BackupVerificationFailed"), "{newest}");
        let why = message(&cluster, "BackupVerified");
        assert!(why.contains(&format!("the data of backup {id} are gone")), "{why}");

        let seen = *written.borrow();
        until("writes to go on", async || *written.borrow() >= seen + 100).await;
        stop.send_replace(true);
        let written = writer.await.unwrap().expect("the client saw no error");
        println!("{written} writes meanwhile, all on one connection");
        assert_eq!(run_ids(stage, &password).await, before, "the same processes in their roles");
        assert_eq!(servers(stage, &dseqs), 3, "no other redis-server is left");
        let after = stage.until_ready().await;
        assert_eq!(after.epoch, status.epoch);
        assert!(after.nodes.iter().all(|node| node.phase.is_serving()));
        stage.delete().await;
    });
}
