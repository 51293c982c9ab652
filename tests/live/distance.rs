//! Nodes that are far apart: what works beside each other works at a distance, and a path that
//! stalls for a moment moves nobody.

use std::time::Duration;

use akash_redis::api::conditions::Phase;
use akash_redis::cli::demo::writer::{Access, Writer};
use akash_redis::cli::local::LocalOptions;
use akash_redis::devnet::distance::Distance;
use akash_redis::devnet::faults::{Fault, Time};
use akash_redis::devnet::sandbox::Sandbox;
use redis::IntoConnectionInfo as _;

use crate::sandboxed::sandboxed;
use crate::stage::{Stage, cluster, is_ready, until};
use crate::writing::{nothing_lost, writes_go_on};

const LIMIT: Duration = Duration::from_mins(4);
/// Beside another test: what is lost on the way decides how long the copies take.
const LOSSY_LIMIT: Duration = Duration::from_mins(10);
/// A replica on another continent answers after twice this.
const FAR: Duration = Duration::from_millis(40);
/// A bad path between continents: a full sync over it takes its time.
const LOSSY: &str = "1%";
const LOSSY_JITTER: Duration = Duration::from_millis(25);
const LOSSY_LATENCY: Duration = Duration::from_millis(75);
/// Bytes that are copied over it.
const DATA: usize = 2 << 20;
const PIECE: usize = 64 << 10;
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

/// A replica whose redis died gets everything anew, over a path that loses one packet of a hundred: in
/// one go, and it is told how far that is.
#[test]
fn a_full_sync_over_a_lossy_path_ends_and_is_never_begun_again() {
    let name = "distance::a_full_sync_over_a_lossy_path_ends_and_is_never_begun_again";
    sandboxed(name, LOSSY_LIMIT, async |sandbox: Sandbox| {
        let far = Distance {
            latency: Time(LOSSY_LATENCY),
            jitter: Some(Time(LOSSY_JITTER)),
            loss: Some(LOSSY.parse().unwrap()),
        };
        let options = LocalOptions { distance: Some(far), ..LocalOptions::default() };
        let stage = Stage::on(&sandbox, &options).await;
        stage.client.apply(&cluster(3)).await.unwrap();
        let status = stage.until_ready().await;
        let (_proxy, access) = stage.proxy();
        let writer = Writer::start(access.clone());
        writes_go_on(&writer).await;
        fill(&access).await;
        stage.until_ready().await;

        let replica = status.nodes.iter().find(|n| n.phase == Phase::Replica).unwrap();
        let copies = async || {
            let node = replica.ordinal.to_string();
            let asked = ["logs", "cache", &node, "--process", "redis", "--tail", "5000"];
            let said = stage.cli(&asked).await.stdout;
            String::from_utf8_lossy(&said).matches("Full resync from master").count()
        };
        let before = copies().await;
        let began = std::time::Instant::now();
        stage.kill_redis(replica);
        stage
            .until("how far the copy is", |c| {
                let mut waits = c.status.iter().flat_map(|s| &s.waiting);
                waits.any(|w| w.what.contains("(full sync, "))
            })
            .await;
        stage.until_ready().await;
        println!("{} MiB in {} s", DATA >> 20, began.elapsed().as_secs());
        assert_eq!(copies().await, before + 1, "one copy, however long it takes");
        nothing_lost(&writer, "full sync over a lossy path").await;
    });
}

/// What no compression makes smaller.
async fn fill(access: &Access) {
    let info = redis::RedisConnectionInfo::default()
        .set_username(access.user.as_str())
        .set_password(access.password.as_str());
    let address = redis::ConnectionAddr::Tcp(access.host.clone(), access.port);
    let info = address.into_connection_info().unwrap().set_redis_settings(info);
    let client = redis::Client::open(info).unwrap();
    let config = redis::AsyncConnectionConfig::new().set_response_timeout(Some(LOSSY_LIMIT));
    let mut left = DATA / PIECE;
    while left > 0 {
        let Ok(mut connection) = client.get_multiplexed_async_connection_with_config(&config).await
        else {
            continue;
        };
        // One connection until it ends: a dial and a log-in take several round trips.
        while left > 0 {
            let value: Vec<u8> = (0..PIECE).map(|_| rand::random()).collect();
            let mut set = redis::cmd("SET");
            set.arg(format!("piece-{left}")).arg(value);
            if set.exec_async(&mut connection).await.is_err() {
                break;
            }
            left -= 1;
        }
    }
}
