//! The operator's store is deleted while the cluster serves: a new operator takes it over.

use std::time::Duration;

use akash_redis::cli::demo::writer::Writer;
use akash_redis::devnet::sandbox::Sandbox;
use akash_redis::plan::recover::EPOCH_STEP;
use serde_json::Value;

use crate::sandboxed::sandboxed;
use crate::stage::{Stage, cluster, until};
use crate::writing::{nothing_lost, writes_go_on};

const LIMIT: Duration = Duration::from_mins(4);

/// What a command printed; it did what was asked.
async fn said(stage: &Stage, arguments: &[&str]) -> String {
    let said = stage.cli(arguments).await;
    let (out, error) =
        (String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
    assert!(said.status.success(), "{arguments:?}: {out}{error}");
    println!("$ akash-redis {}\n{out}", arguments.join(" "));
    out.into_owned()
}

#[test]
fn a_deleted_store_is_built_anew_while_writes_go_on() {
    sandboxed(
        "recover::a_deleted_store_is_built_anew_while_writes_go_on",
        LIMIT,
        async |sandbox: Sandbox| {
            let mut stage = Stage::start(&sandbox).await;
            stage.client.apply(&cluster(3)).await.unwrap();
            let before = stage.until_ready().await;
            let (_proxy, access) = stage.proxy();
            let writer = Writer::start(access);
            writes_go_on(&writer).await;
            let master = stage.master().await;

            stage.local.kill_operator().await;
            for file in ["store.db", "store.db-wal", "store.db-shm"] {
                let _ = std::fs::remove_file(sandbox.dir.join(file));
            }
            stage.local.start_operator().await.unwrap();
            until("the operator to miss its store", async || {
                stage.client.operator().await.is_ok_and(|o| o.store_lost.is_some())
            })
            .await;
            assert!(said(&stage, &["status"]).await.contains("akash-redis recover"));
            let listed: Value =
                serde_json::from_str(&said(&stage, &["orphans", "-o", "json"]).await).unwrap();
            assert_eq!(listed["orphans"].as_array().unwrap().len(), 3, "{listed:#}");
            let refused = stage.cli(&["orphans", "--close", "--yes", "--timeout", "1s"]).await;
            assert!(
                !refused.status.success(),
                "a cluster that may be alive is closed by name only"
            );
            assert!(
                String::from_utf8_lossy(&refused.stdout)
                    .contains("not closed: it belongs to cache")
            );

            // Its own tailscaled was started anew with it.
            until("the nodes to answer", async || {
                let looked = stage.client.recover(None, false).await.unwrap();
                looked.clusters.iter().all(|c| c.refused.is_none() && c.problems.is_empty())
            })
            .await;
            let found = said(&stage, &["recover"]).await;
            assert!(found.contains("Nothing was written") && found.contains("the master stays"));
            assert!(stage.client.list().await.unwrap().is_empty());
            let taken = said(&stage, &["recover", "--confirm"]).await;
            assert!(taken.contains("cache is taken over"));
            let after = stage.until_ready().await;
            assert_eq!(stage.master().await.incarnation, master.incarnation, "the same master");
            assert!(after.epoch >= EPOCH_STEP && after.last_failover.is_none());
            let nodes = |s: &akash_redis::api::status::Status| {
                s.nodes.iter().map(|n| n.incarnation.clone()).collect::<Vec<_>>()
            };
            assert_eq!(nodes(&after), nodes(&before), "the same nodes");
            assert_eq!(stage.client.operator().await.unwrap().store_lost, None);
            nothing_lost(&writer, "the store was lost and built anew").await;

            let moved = stage.cli(&["switchover", "cache"]).await;
            assert!(moved.status.success(), "{}", String::from_utf8_lossy(&moved.stderr));
            stage
                .until_status("another master", |s| {
                    s.master.as_ref().is_some_and(|m| m.incarnation != master.incarnation)
                })
                .await;
            stage.until_ready().await;
            nothing_lost(&writer, "a switchover after it").await;
            drop(writer);
            stage.delete().await;
            stage.assert_nothing_left().await;
        },
    );
}
