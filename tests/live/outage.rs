//! Something that the operator depends on is away for a while: it says so, nothing is bought in its
//! place, and it goes on afterwards.

use std::time::Duration;

use akash_redis::api::conditions::Phase;
use akash_redis::api::status::Status;
use akash_redis::devnet::sandbox::Sandbox;
use akash_redis::wire::akash::market::v1::lease;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Command;

use crate::sandboxed::sandboxed;
use crate::stage::{Stage, cluster, condition, until};

const LIMIT: Duration = Duration::from_mins(3);

/// Whether something that is waited for has these words.
fn waits_for(status: &Status, words: &str) -> bool {
    status.waiting.iter().any(|waiting| waiting.what.contains(words) && !waiting.then.is_empty())
}

/// One deployment and one lease were made for one node, whatever happened meanwhile; then all of it
/// goes.
async fn ends_with_one_of_each(stage: &Stage) {
    stage.until_ready().await;
    stage.delete().await;
    stage.assert_nothing_left().await;
    let view = stage.local.market.chain.view();
    assert_eq!(
        (view.deployments().count(), view.leases().count()),
        (1, 1),
        "nothing is bought twice"
    );
}

fn leased(stage: &Stage) -> bool {
    stage.local.market.chain.view().leases().any(|l| l.state == i32::from(lease::State::Active))
}

#[test]
fn a_chain_that_is_silent_at_the_start_is_waited_for() {
    sandboxed(
        "outage::a_chain_that_is_silent_at_the_start_is_waited_for",
        LIMIT,
        async |sandbox: Sandbox| {
            let mut stage = Stage::without_operator(&sandbox).await;
            let faults = stage.local.market.chain.faults();
            faults.set_silent(true);
            stage.local.start_operator().await.unwrap();
            stage.client.apply(&cluster(1)).await.unwrap();
            let status = stage
                .until_status("the chain to be missed", |s| {
                    condition(s, "Funded").1 == "ChainUnavailable"
                })
                .await;
            assert_eq!(condition(&status, "Ready").0, "False");
            assert!(status.nodes.iter().all(|n| n.phase == Phase::Unknown), "{status:#?}");
            stage.local.market.chain.faults().set_silent(false);
            ends_with_one_of_each(&stage).await;
        },
    );
}

#[test]
fn a_chain_that_falls_silent_stops_purchases_and_not_redis() {
    sandboxed(
        "outage::a_chain_that_falls_silent_stops_purchases_and_not_redis",
        LIMIT,
        async |sandbox: Sandbox| {
            let stage = Stage::start(&sandbox).await;
            let faults = stage.local.market.chain.faults();
            stage.client.apply(&cluster(1)).await.unwrap();
            until("the deployment", async || {
                stage.local.market.chain.view().deployments().count() == 1
            })
            .await;
            faults.set_silent(true);
            let status = stage
                .until_status("the chain to be waited for", |s| waits_for(s, "the chain, for "))
                .await;
            assert_eq!(condition(&status, "Funded").1, "ChainUnavailable");
            faults.set_silent(false);
            stage.until_ready().await;

            faults.set_silent(true);
            let status = stage
                .until_status("the chain to be missed", |s| {
                    condition(s, "Funded").1 == "ChainUnavailable"
                })
                .await;
            assert_eq!(
                status.nodes.first().map(|n| n.phase),
                Some(Phase::Master),
                "Redis goes on: {status:#?}"
            );
            faults.set_silent(false);
            ends_with_one_of_each(&stage).await;
        },
    );
}

#[test]
fn a_chain_that_makes_no_blocks_is_waited_for() {
    sandboxed(
        "outage::a_chain_that_makes_no_blocks_is_waited_for",
        LIMIT,
        async |sandbox: Sandbox| {
            let stage = Stage::start(&sandbox).await;
            let faults = stage.local.market.chain.faults();
            faults.stop_blocks(true);
            stage.client.apply(&cluster(1)).await.unwrap();
            stage
                .until_status("the transaction to be waited for", |s| {
                    waits_for(s, "to be in a block")
                })
                .await;
            faults.stop_blocks(false);
            ends_with_one_of_each(&stage).await;
        },
    );
}

#[test]
fn a_frozen_control_server_is_waited_for_in_the_middle_of_a_bring_up() {
    sandboxed(
        "outage::a_frozen_control_server_is_waited_for_in_the_middle_of_a_bring_up",
        LIMIT,
        async |sandbox: Sandbox| {
            let stage = Stage::start(&sandbox).await;
            let control = stage
                .local
                .tailnet
                .control_pid()
                .and_then(|pid| Pid::from_raw(pid.try_into().ok()?))
                .unwrap();
            stage.client.apply(&cluster(1)).await.unwrap();
            until("the deployment", async || {
                stage.local.market.chain.view().deployments().count() == 1
            })
            .await;
            kill_process(control, Signal::STOP).unwrap();
            // Its key was minted before anything was bought, so that the manifest is delivered;
            // nobody can log in.
            stage
                .until_status("the node to be waited for", |s| {
                    waits_for(s, "to start and join the mesh")
                })
                .await;
            kill_process(control, Signal::CONT).unwrap();
            ends_with_one_of_each(&stage).await;
        },
    );
}

#[test]
fn a_gateway_that_is_away_is_waited_for() {
    sandboxed("outage::a_gateway_that_is_away_is_waited_for", LIMIT, async |sandbox: Sandbox| {
        let stage = Stage::start(&sandbox).await;
        nft(
            "add table inet away; add chain inet away input { type filter hook input priority 0; }",
        )
        .await;
        nft("add rule inet away input tcp dport 8443 reject with tcp reset").await;
        stage.client.apply(&cluster(1)).await.unwrap();
        until("the lease", async || leased(&stage)).await;
        let status = stage
            .until_status("the gateway to be waited for", |s| waits_for(s, "the gateway of "))
            .await;
        let said = status.nodes.first().and_then(|n| n.message.clone()).unwrap_or_default();
        assert!(said.starts_with("the provider's gateway does not answer"), "{status:#?}");
        nft("delete table inet away").await;
        ends_with_one_of_each(&stage).await;
    });
}

/// Changes the packet filter of the sandbox.
pub async fn nft(commands: &str) {
    let output = Command::new("nft").arg(commands).output().await.unwrap();
    assert!(output.status.success(), "nft {commands}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_failover_waits_neither_for_the_chain_nor_for_the_control_server() {
    sandboxed(
        "outage::a_failover_waits_neither_for_the_chain_nor_for_the_control_server",
        LIMIT,
        async |sandbox: Sandbox| {
            let stage = Stage::start(&sandbox).await;
            stage.client.apply(&cluster(3)).await.unwrap();
            stage.until_ready().await;
            let old = stage.master().await;
            let control = stage
                .local
                .tailnet
                .control_pid()
                .and_then(|pid| Pid::from_raw(pid.try_into().ok()?))
                .unwrap();
            let height = stage.local.market.chain.view().block().height;
            stage.local.market.chain.faults().set_silent(true);
            kill_process(control, Signal::STOP).unwrap();
            // Longer than the operator's tick: it asks both by now.
            until("some blocks", async || {
                stage.local.market.chain.view().block().height > height + 3
            })
            .await;
            stage.kill_redis(&old);
            let moved =
                |s: &Status| s.last_failover.as_ref().is_some_and(|f| f.old == old.incarnation);
            let status = stage.until_status("another master", moved).await;
            assert_ne!(
                condition(&status, "Funded").1,
                "ChainUnavailable",
                "the master moved only after the silent chain was given up"
            );
            kill_process(control, Signal::CONT).unwrap();
            stage.local.market.chain.faults().set_silent(false);
            stage.until_ready().await;
        },
    );
}
