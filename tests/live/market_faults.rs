//! `akash-redis devnet fault`: what a person can make go wrong, and that a cluster outlives it.

use std::time::Duration;

use akash_redis::api::conditions::Phase;
use akash_redis::devnet::sandbox::Sandbox;

use crate::sandboxed::sandboxed;
use crate::stage::{Left, Stage, cluster, is_ready, until};

const LIMIT: Duration = Duration::from_mins(5);

/// Types `devnet fault`; gives what it said.
async fn fault(stage: &Stage, words: &[&str]) -> String {
    let config = stage.local.config();
    let dir = config.parent().unwrap().to_str().unwrap();
    let typed = [&["devnet", "fault", "--dir", dir], words].concat();
    let output = stage.cli(&typed).await;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let wrong = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words:?}: {said}{wrong}");
    said
}

#[test]
fn a_cluster_outlives_faults_made_by_command() {
    let test = "market_faults::a_cluster_outlives_faults_made_by_command";
    sandboxed(test, LIMIT, async |sandbox: Sandbox| {
        let stage = Stage::start(&sandbox).await;
        assert_eq!(fault(&stage, &["list"]).await, "nothing is wrong\n");

        // The cheapest provider wins the first lease and runs nothing.
        fault(&stage, &["lies-ready", "provider1"]).await;
        assert!(fault(&stage, &["list"]).await.starts_with("lies-ready provider1: "));
        stage.client.apply(&cluster(2)).await.unwrap();
        let orders = async || stage.local.market.chain.view().deployments().count();
        until("the one that lies to be given up", async || orders().await >= 3).await;
        let status = stage.until_ready().await;
        let liar = |host: &Option<String>| host.as_deref() == Some("provider1.devnet.test");
        assert!(!status.nodes.iter().any(|node| liar(&node.provider_host)), "{:?}", status.nodes);

        // A replica's provider closes its lease while the chain is slow and its gateway another's.
        fault(&stage, &["clear"]).await;
        fault(&stage, &["slow-blocks", "1s"]).await;
        fault(&stage, &["change-certificate", "provider4"]).await;
        let replica = status.nodes.iter().find(|node| node.phase == Phase::Replica).unwrap();
        let (lost, dseq) = (replica.incarnation.clone(), replica.dseq.to_string());
        fault(&stage, &["close-lease", &dseq, "--reason", "decommission"]).await;
        let replaced = |c: &akash_redis::api::types::RedisCluster| {
            let nodes = c.status.as_ref().map(|s| s.nodes.as_slice()).unwrap_or_default();
            is_ready(c) && nodes.len() == 2 && nodes.iter().all(|n| n.incarnation != lost)
        };
        stage.until("the replica to be replaced", replaced).await;

        // The master's redis dies while the chain stands still: no lease is needed for that.
        fault(&stage, &["clear"]).await;
        fault(&stage, &["halt-chain"]).await;
        let master = stage.master().await;
        stage.kill_redis(&master);
        stage
            .until_status("another master", |s| {
                s.master.as_ref().is_some_and(|m| m.incarnation != master.incarnation)
                    && s.nodes.iter().any(|n| n.phase == Phase::Master)
            })
            .await;
        fault(&stage, &["clear", "halt-chain"]).await;
        stage.until_ready().await;
        stage.delete().await;
        stage.assert_nothing_left().await;
    });
}

/// A provider closes the master's lease, its container goes on, and no gateway of those in use
/// answers: another node is master, a third one is bought, and nobody is left with the data.
#[test]
fn a_master_that_outlives_its_lease_is_replaced() {
    let test = "market_faults::a_master_that_outlives_its_lease_is_replaced";
    sandboxed(test, LIMIT, async |sandbox: Sandbox| {
        let stage = Stage::start(&sandbox).await;
        stage.client.apply(&cluster(2)).await.unwrap();
        let status = stage.until_ready().await;
        for host in status.nodes.iter().filter_map(|node| node.provider_host.as_deref()) {
            let provider = host.split('.').next().unwrap();
            fault(&stage, &["keeps-running", provider]).await;
            fault(&stage, &["gateway-silent", provider]).await;
        }
        let master = stage.master().await;
        fault(&stage, &["close-lease", &master.dseq.to_string()]).await;
        let replaced = |c: &akash_redis::api::types::RedisCluster| {
            let nodes = c.status.as_ref().map(|s| s.nodes.as_slice()).unwrap_or_default();
            is_ready(c)
                && nodes.len() == 2
                && nodes.iter().all(|n| n.incarnation != master.incarnation)
        };
        stage.until("the master to be replaced", replaced).await;
        until("its device to be gone", async || stage.devices().await == 2).await;
        fault(&stage, &["clear"]).await;
        stage.until_ready().await;
        stage.delete().await;
        // What its provider did not end goes on, and reaches nobody.
        let left = Left { workloads: 1, ..Left::default() };
        until("nothing of it to be paid for", async || stage.left().await == left).await;
    });
}
