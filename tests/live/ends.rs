//! How a master ends: politely with its lease, together with all others, or in the moment after its
//! promotion. Nobody waits for a person.

use std::time::Duration;

use akash_redis::cli::demo::writer::Writer;
use akash_redis::devnet::sandbox::Sandbox;
use akash_redis::wire::akash::market::v1::LeaseClosedReason;

use crate::sandboxed::sandboxed;
use crate::stage::{Stage, cluster, is_ready};
use crate::writing::{nothing_lost, writes_go_on};

const LIMIT: Duration = Duration::from_mins(4);
/// The phase between the last look of an agent at its redis and its death differs from round to
/// round.
const ROUNDS: usize = 3;

/// The provider closes its lease: redis gets a SIGTERM, the agent's last word is that it exited,
/// then everything is gone.
#[test]
fn a_master_that_ends_politely_is_replaced_without_a_loss() {
    sandboxed(
        "ends::a_master_that_ends_politely_is_replaced_without_a_loss",
        LIMIT,
        async |sandbox: Sandbox| {
            let stage = Stage::start(&sandbox).await;
            stage.client.apply(&cluster(3)).await.unwrap();
            stage.until_ready().await;
            let (_proxy, access) = stage.proxy();
            let writer = Writer::start(access);
            for _ in 0..ROUNDS {
                writes_go_on(&writer).await;
                let master = stage.master().await;
                let (provider, _) = stage.local.market.find(master.dseq).unwrap();
                let provider = &stage.local.market.providers[provider].market;
                let lease = provider
                    .leases()
                    .await
                    .unwrap()
                    .into_iter()
                    .find(|l| l.dseq == master.dseq)
                    .unwrap();
                provider.close_lease(&lease, LeaseClosedReason::Unstable).await.unwrap();
                let gone = |c: &akash_redis::api::types::RedisCluster| {
                    is_ready(c)
                        && c.status.as_ref().is_some_and(|s| {
                            s.nodes.iter().all(|n| n.incarnation != master.incarnation)
                        })
                };
                stage.until("the master to be replaced", gone).await;
                nothing_lost(&writer, "the master's lease was closed").await;
            }
            drop(writer);
            stage.delete().await;
            stage.assert_nothing_left().await;
        },
    );
}

/// Their histories are written at different moments; the newest of those that answer is promoted.
#[test]
fn all_redis_that_die_in_one_moment_come_back_by_themselves() {
    sandboxed(
        "ends::all_redis_that_die_in_one_moment_come_back_by_themselves",
        LIMIT,
        async |sandbox: Sandbox| {
            let stage = Stage::start(&sandbox).await;
            stage.client.apply(&cluster(3)).await.unwrap();
            let mut status = stage.until_ready().await;
            let (_proxy, access) = stage.proxy();
            let writer = Writer::start(access);
            for _ in 0..ROUNDS {
                writes_go_on(&writer).await;
                for node in &status.nodes {
                    stage.kill_redis(node);
                }
                let epoch = status.epoch;
                stage
                    .until("a master of a later epoch", |c| {
                        c.status.as_ref().is_some_and(|s| s.epoch > epoch)
                    })
                    .await;
                status = stage.until_ready().await;
                nothing_lost(&writer, "all redis were killed").await;
            }
        },
    );
}

/// Its history is written before the promotion is confirmed, so that it is found again.
#[test]
fn a_first_master_that_dies_right_after_its_promotion_is_promoted_again() {
    sandboxed(
        "ends::a_first_master_that_dies_right_after_its_promotion_is_promoted_again",
        LIMIT,
        async |sandbox: Sandbox| {
            let stage = Stage::start(&sandbox).await;
            for _ in 0..ROUNDS {
                stage.client.apply(&cluster(1)).await.unwrap();
                let master = stage.master().await;
                stage.kill_redis(&master);
                stage
                    .until("another epoch", |c| c.status.as_ref().is_some_and(|s| s.epoch > 1))
                    .await;
                stage.until_ready().await;
                stage.delete().await;
            }
            stage.assert_nothing_left().await;
        },
    );
}
