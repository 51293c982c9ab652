//! By which way the nodes reach each other, as the operator tells it.

use std::time::Duration;

use akash_redis::api::conditions::Phase;
use akash_redis::api::events::EventReason;
use akash_redis::api::status::{NodeStatus, Status};
use akash_redis::devnet::sandbox::Sandbox;
use akash_redis::http_client::unix_socket;
use akash_redis::store::Event;
use tokio::process::Command;

use crate::sandboxed::sandboxed;
use crate::stage::{Stage, cluster, condition, is_ready, until};

const LIMIT: Duration = Duration::from_mins(4);
/// Relay of the sandbox's control server, as paths name it.
const RELAYED: &str = "DERP(test)";

async fn nft(commands: &str) {
    let output = Command::new("nft").arg(commands).output().await.unwrap();
    assert!(output.status.success(), "nft {commands}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Every replica reaches the master by such a way, with a round trip.
fn paths(status: &Status, way: &str) -> bool {
    let good = |node: &&NodeStatus| {
        node.path.as_ref().is_some_and(|path| path.starts_with(way) && path.ends_with(" ms"))
    };
    status.nodes.iter().filter(|node| node.phase == Phase::Replica).filter(good).count() == 2
}

/// What a monitoring system reads of the ways between nodes.
async fn direct_in_metrics(stage: &Stage) -> Vec<String> {
    let http = unix_socket(&stage.local.socket(), Some(Duration::from_secs(5))).unwrap();
    let text = http.get("http://operator/metrics").send().await.unwrap().text().await.unwrap();
    text.lines()
        .filter(|line| line.starts_with("akash_redis_path_direct{"))
        .map(|line| line.rsplit(' ').next().unwrap().to_owned())
        .collect()
}

#[test]
fn a_way_through_a_relay_is_told_with_a_warning_and_a_direct_one_without() {
    let name = "paths::a_way_through_a_relay_is_told_with_a_warning_and_a_direct_one_without";
    sandboxed(name, LIMIT, async |sandbox: Sandbox| {
        let stage = Stage::start(&sandbox).await;
        stage.client.apply(&cluster(3)).await.unwrap();
        stage.until_ready().await;
        stage
            .until_status("direct paths", |s| {
                paths(s, "direct, ") && condition(s, "DirectPaths").0 == "True"
            })
            .await;
        until("every path in the metrics", async || direct_in_metrics(&stage).await == ["1"; 6])
            .await;

        // Between nodes, which are on a bridge; not to the control server, which is the bridge's
        // own address.
        nft("add table bridge between; add chain bridge between nodes { type filter hook forward priority 0; }").await;
        nft("add rule bridge between nodes meta l4proto udp drop").await;
        let relayed = stage.until("relayed paths", |c| {
            c.status
                .as_ref()
                .is_some_and(|s| paths(s, RELAYED) && condition(s, "DirectPaths").1 == "AllRelayed")
        });
        let relayed = relayed.await;
        assert!(is_ready(&relayed), "a relay works: {relayed:#?}");
        let status = relayed.status.unwrap();
        assert!(
            condition(&status, "DirectPaths").2.contains("choose other providers"),
            "{status:#?}"
        );
        let events = stage.client.events("cache").await.unwrap();
        let told = |event: &&Event| {
            event.reason == EventReason::PathsRelayed.to_string()
                && event.message.starts_with("all traffic between the nodes")
        };
        assert_eq!(events.iter().filter(told).count(), 1, "{events:#?}");
        assert!(direct_in_metrics(&stage).await.contains(&"0".to_owned()));

        nft("delete table bridge between").await;
        let status = stage
            .until_status("direct paths again", |s| {
                paths(s, "direct, ") && condition(s, "DirectPaths").0 == "True"
            })
            .await;
        assert_eq!(status.epoch, 1, "the master never moved for it: {status:#?}");
        stage.delete().await;
        assert!(direct_in_metrics(&stage).await.is_empty(), "what is gone is not measured");
    });
}
