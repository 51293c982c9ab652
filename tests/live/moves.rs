//! Planned changes of a cluster under load: no acknowledged write is lost.

use std::time::Duration;

use akash_redis::api::conditions::Phase;
use akash_redis::api::status::Status;
use akash_redis::cli::demo::writer::Writer;
use akash_redis::devnet::sandbox::Sandbox;

use crate::sandboxed::sandboxed;
use crate::stage::{Stage, cluster, is_ready};
use crate::writing::{nothing_lost, writes_go_on};

const LIMIT: Duration = Duration::from_mins(3);

fn master(status: &Status) -> Option<&str> {
    status.nodes.iter().find(|n| n.phase == Phase::Master).map(|n| n.incarnation.as_str())
}

#[test]
fn switchovers_and_scaling_lose_no_acknowledged_write() {
    sandboxed(
        "moves::switchovers_and_scaling_lose_no_acknowledged_write",
        LIMIT,
        async |sandbox: Sandbox| {
            let stage = Stage::start(&sandbox).await;
            stage.client.apply(&cluster(2)).await.unwrap();
            stage.until_ready().await;
            let (_proxy, access) = stage.proxy();
            let writer = Writer::start(access);
            writes_go_on(&writer).await;

            let before = stage.master().await;
            let said = stage.cli(&["switchover", "cache"]).await;
            assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
            stage
                .until("another master", |c| {
                    is_ready(c)
                        && c.status
                            .as_ref()
                            .and_then(master)
                            .is_some_and(|m| m != before.incarnation)
                })
                .await;
            nothing_lost(&writer, "switchover").await;

            scale(&stage, 3).await;
            nothing_lost(&writer, "from two nodes to three").await;

            let back = stage.cli(&["switchover", "cache", "--to", &before.incarnation]).await;
            assert!(back.status.success(), "{}", String::from_utf8_lossy(&back.stderr));
            stage
                .until("the first master", |c| {
                    is_ready(c) && c.status.as_ref().and_then(master) == Some(&before.incarnation)
                })
                .await;
            nothing_lost(&writer, "switchover to a named node").await;

            scale(&stage, 1).await;
            nothing_lost(&writer, "from three nodes to one").await;
            drop(writer);
            stage.delete().await;
            stage.assert_nothing_left().await;
        },
    );
}

/// Changes the number of nodes and waits until the cluster has exactly that many.
async fn scale(stage: &Stage, nodes: u32) {
    let said = stage.cli(&["scale", "cache", "--nodes", &nodes.to_string()]).await;
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let exactly =
        |status: &Status| status.nodes.len() == nodes as usize && master(status).is_some();
    stage
        .until("the wanted number of nodes", |c| {
            is_ready(c) && c.status.as_ref().is_some_and(exactly)
        })
        .await;
}
