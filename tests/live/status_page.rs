//! A node that the operator cannot reach over the mesh is still seen, by its page and by its
//! provider.

use std::net::Ipv4Addr;
use std::time::Duration;

use akash_redis::api::conditions::{KnownBy, Phase};
use akash_redis::api::status::NodeStatus;
use akash_redis::devnet::sandbox::Sandbox;
use tokio::process::Command;

use crate::sandboxed::sandboxed;
use crate::stage::{Stage, cluster};

const LIMIT: Duration = Duration::from_mins(3);

#[test]
fn a_master_that_dies_while_the_mesh_is_silent_is_given_up_by_its_signed_page() {
    sandboxed(
        "status_page::a_master_that_dies_while_the_mesh_is_silent_is_given_up_by_its_signed_page",
        LIMIT,
        async |sandbox: Sandbox| {
            let stage = Stage::start(&sandbox).await;
            stage.client.apply(&cluster(3)).await.unwrap();
            stage.until_ready().await;
            let old = stage.master().await;
            cut_from_operator(address(&stage, &old)).await;
            let status = stage
                .until_status("the page of the silent master", |s| {
                    known_by(&find(&s.nodes, &old), KnownBy::StatusPage)
                })
                .await;
            let said = find(&status.nodes, &old).message.unwrap_or_default();
            assert!(
                said.contains(
                    "its status page says: mesh Running, redis runs as master and takes writes"
                ),
                "{said}"
            );
            assert!(
                status.last_failover.is_none(),
                "its replicas hear it, so nothing is changed: {status:#?}"
            );

            stage.kill_redis(&old);
            let status = stage.until_status("another master", |s| s.last_failover.is_some()).await;
            let report = status.last_failover.unwrap();
            assert!(
                report.witnesses.contains(&format!("status page of {}", old.incarnation)),
                "{report:#?}"
            );
            assert!(report.fence.contains("signed status page"), "{report:#?}");
            nft("delete table inet cut").await;
            stage.until_ready().await;
        },
    );
}

fn find(nodes: &[NodeStatus], wanted: &NodeStatus) -> NodeStatus {
    nodes.iter().find(|node| node.incarnation == wanted.incarnation).cloned().unwrap_or_default()
}

fn known_by(node: &NodeStatus, way: KnownBy) -> bool {
    node.phase == Phase::Unreachable && node.known_by == way
}

fn address(stage: &Stage, node: &NodeStatus) -> Ipv4Addr {
    let (provider, lease) = stage.local.market.find(node.dseq).unwrap();
    stage.local.market.providers[provider].runner.address(&lease).unwrap()
}

/// Nothing of the node reaches the operator, the relay or the control server, but the answers of
/// its page. Nodes go on to reach each other.
async fn cut_from_operator(node: Ipv4Addr) {
    nft("add table inet cut; add chain inet cut input { type filter hook input priority 0; }")
        .await;
    nft(&format!("add rule inet cut input ip saddr {node} tcp sport 8080 accept")).await;
    nft(&format!("add rule inet cut input ip saddr {node} drop")).await;
}

async fn nft(commands: &str) {
    let output = Command::new("nft").arg(commands).output().await.unwrap();
    assert!(output.status.success(), "nft {commands}: {}", String::from_utf8_lossy(&output.stderr));
}
