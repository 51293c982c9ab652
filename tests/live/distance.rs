//! Nodes that are far apart: what works beside each other works at a distance, and a path that
//! stalls for a moment moves nobody.

use std::time::Duration;

use akash_redis::api::conditions::Phase;
use akash_redis::cli::demo::writer::Writer;
use akash_redis::cli::local::LocalOptions;
use akash_redis::devnet::distance::Distance;
use akash_redis::devnet::faults::{Fault, Time};
use akash_redis::devnet::sandbox::Sandbox;

use crate::sandboxed::sandboxed;
use crate::stage::{Stage, cluster, is_ready, until};
use crate::writing::{nothing_lost, writes_go_on};

const LIMIT: Duration = Duration::from_mins(4);
/// A replica on another continent answers after twice this.
const FAR: Duration = Duration::from_millis(40);
/// Shorter than `failover.downAfter`, longer than many a time-out.
const STALL: Duration = Duration::from_secs(4);

#[test]
fn a_cluster_between_continents_moves_its_master_and_loses_nothing() {
    let name = "distance::a_cluster_between_continents_moves_its_master_and_loses_nothing";
    sandboxed(name, LIMIT, async |sandbox: Sandbox| {
        let far = Distance { latency: Time(FAR), jitter: None, loss: None };
        let options = LocalOptions { distance: Some(far), ..LocalOptions::default() };
        let stage = Stage::on(&sandbox, &options).await;
        stage.client.apply(&cluster(3)).await.unwrap();
        stage.until_ready().await;
        let round_trip = |path: &str| {
            path.strip_suffix(" ms").and_then(|p| p.rsplit(' ').next()?.parse::<f64>().ok())
        };
        stage
            .until_status("paths as long as they are", |s| {
                let measured = s.nodes.iter().filter_map(|n| n.path.as_deref());
                measured.filter_map(round_trip).filter(|ms| *ms >= 80.0).count() == 2
            })
            .await;
        let (_proxy, access) = stage.proxy();
        let writer = Writer::start(access);
        writes_go_on(&writer).await;

        let before = stage.master().await;
        let said = stage.cli(&["switchover", "cache"]).await;
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
        let moved = stage.until("another master", |c| {
            let masters = c.status.iter().flat_map(|s| &s.nodes);
            let mut masters = masters.filter(|n| n.phase == Phase::Master);
            is_ready(c) && masters.any(|n| n.incarnation != before.incarnation)
        });
        let epoch = moved.await.status.unwrap().epoch;
        nothing_lost(&writer, "switchover at a distance").await;

        let master = stage.master().await;
        let faults = stage.local.market.faults();
        let said = faults.inject(&Fault::Stall { dseq: master.dseq, time: Time(STALL) }).await;
        assert!(said.unwrap().starts_with("nothing passes to or from the node"));
        let behind = stage.until("the silence to be seen", |c| !is_ready(c));
        behind.await;
        let status = stage.until_ready().await;
        assert_eq!(status.epoch, epoch, "a stall of {STALL:?} moves no master: {status:#?}");
        nothing_lost(&writer, "stall of the master's path").await;
        drop(writer);
        stage.delete().await;
        until("nothing left", async || stage.left().await.devices == 0).await;
    });
}
