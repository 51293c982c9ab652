//! A partition that carries one way only: what the master sends is lost, what its replicas
//! acknowledge still arrives.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use akash_redis::cli::demo::writer::Writer;
use akash_redis::devnet::sandbox::Sandbox;
use tokio::process::{Child, Command};

use crate::sandboxed::sandboxed;
use crate::stage::{PASSWORD, Stage, cluster, until};
use crate::writing::writes_go_on;

const LIMIT: Duration = Duration::from_mins(3);

/// An application beside the old master is told "OK" for nothing once another master takes writes.
#[test]
fn a_master_that_only_hears_stops_before_the_next_one_takes_writes() {
    sandboxed(
        "one_way::a_master_that_only_hears_stops_before_the_next_one_takes_writes",
        LIMIT,
        async |sandbox: Sandbox| {
            let stage = Stage::start(&sandbox).await;
            stage.client.apply(&cluster(3)).await.unwrap();
            stage.until_ready().await;
            let (_proxy, access) = stage.proxy();
            let writer = Writer::start(access);
            writes_go_on(&writer).await;
            let old = stage.master().await;
            let (provider, lease) = stage.local.market.find(old.dseq).unwrap();
            let pid = stage.local.market.providers[provider].runner.pid(&lease).unwrap();

            let answers = sandbox.dir.join("answers");
            let _beside = beside(pid, &answers);
            until("its answers", async || {
                std::fs::read_to_string(&answers).is_ok_and(|text| text.lines().count() > 10)
            })
            .await;
            assert!(last_ok(&answers).is_some(), "{}", std::fs::read_to_string(&answers).unwrap());
            inside(pid, &["nft", "add table inet mute; add chain inet mute output { type filter hook output priority 0; }"]).await;
            inside(pid, &["nft", "add rule inet mute output oifname != lo drop"]).await;

            let status = stage
                .until_status("another master", |s| {
                    s.last_failover.as_ref().is_some_and(|f| f.old == old.incarnation)
                })
                .await;
            let before = writer.acknowledged();
            until("a write to the new master", async || writer.acknowledged() > before).await;
            let taken = now();
            writes_go_on(&writer).await;
            let last = last_ok(&answers).unwrap();
            let report = status.last_failover.unwrap();
            println!(
                "the old master's last OK came {} ms before a write to the new one was seen; {report:?}",
                (taken - last) / 1_000_000
            );
            assert!(last <= taken, "both took writes: {report:#?}");
        },
    );
}

/// A program in the network of a node.
async fn inside(pid: u32, command: &[&str]) {
    let output = Command::new("nsenter")
        .arg(format!("--net=/proc/{pid}/ns/net"))
        .args(command)
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// An application that writes to this node alone, and notes when it was told what.
fn beside(pid: u32, answers: &Path) -> Child {
    let script = format!(
        "while :; do a=$(REDISCLI_AUTH={PASSWORD} timeout 1 redis-cli --user app SET beside x 2>&1); echo \"$a $(date +%s%N)\" >> {}; done",
        answers.display()
    );
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/proc/{pid}/ns/net")).args(["sh", "-c", &script]);
    command.stdin(Stdio::null()).kill_on_drop(true).spawn().unwrap()
}

/// When it was last told that a write is done, nanoseconds.
fn last_ok(answers: &Path) -> Option<i128> {
    let text = std::fs::read_to_string(answers).ok()?;
    text.lines().rev().find_map(|line| line.strip_prefix("OK ")?.trim().parse().ok())
}

fn now() -> i128 {
    i128::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()).unwrap()
}
