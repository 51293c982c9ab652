//! What passes by itself moves no master: paths that stall for a moment, processes that are starved,
//! a control server that is away.
//!
//! For as many minutes as `STALL_LIVE_MINUTES` says; `make soak-stalls` takes an hour. `STALL_SEED`
//! repeats one.

use std::time::{Duration, Instant};

use akash_redis::api::conditions::Phase;
use akash_redis::cli::demo::writer::Writer;
use akash_redis::devnet::sandbox::Sandbox;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::sleep;

use crate::sandboxed::sandboxed;
use crate::soak::faults::{Blow, Kind};
use crate::soak::masters::Masters;
use crate::stage::{CLUSTER, Stage, cluster};
use crate::writing::{nothing_lost, writes_go_on};

/// Longest of each, in milliseconds.
const STALL: u64 = 7_000;
const STARVED: u64 = 5_000;
const AWAY: u64 = 20_000;

fn asked(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

#[test]
fn what_passes_by_itself_moves_no_master() {
    let minutes = Duration::from_mins(asked("STALL_LIVE_MINUTES").unwrap_or(1));
    let seed = asked("STALL_SEED").unwrap_or_else(|| rand::thread_rng().gen_range(1..100_000));
    let test = "stalls::what_passes_by_itself_moves_no_master";
    sandboxed(test, minutes + Duration::from_mins(4), async |sandbox: Sandbox| {
        let stage = Stage::start(&sandbox).await;
        stage.client.apply(&cluster(3)).await.unwrap();
        let first = stage.until_ready().await;
        let (_proxy, access) = stage.proxy();
        let writer = Writer::start(access);
        writes_go_on(&writer).await;
        println!("seed {seed}");
        let mut random = StdRng::seed_from_u64(seed);
        let begun = Instant::now();
        let outages = async {
            let mut random = StdRng::seed_from_u64(seed + 1);
            let mut times = 0;
            while begun.elapsed() < minutes {
                sleep(Duration::from_millis(random.gen_range(2_000..30_000))).await;
                control_is_away(&stage, Duration::from_millis(random.gen_range(500..AWAY))).await;
                times += 1;
            }
            times
        };
        let blows = async {
            let (mut stalls, mut starved) = (0, 0);
            while begun.elapsed() < minutes {
                let status = stage.until_ready().await;
                let node = &status.nodes[random.gen_range(0..status.nodes.len())];
                let (kind, lasts) = if random.gen_bool(0.5) {
                    stalls += 1;
                    (Kind::Stall, random.gen_range(500..STALL))
                } else {
                    starved += 1;
                    (Kind::NodeStopped, random.gen_range(200..STARVED))
                };
                let lasts = Duration::from_millis(lasts);
                let (stage, masters) = (&stage, &Masters::default());
                let random = &mut random;
                let mut blow = Blow { stage, cluster: CLUSTER, node, masters, kind, lasts, random };
                assert_eq!(blow.strike().await, "");
                let said = format!("seed {seed}: {kind:?} of {} for {lasts:?}", node.incarnation);
                let status = stage.until_ready().await;
                assert_eq!(status.epoch, first.epoch, "{said}: {:#?}", status.last_failover);
                assert_eq!(status.nodes.len(), 3, "{said}");
                sleep(Duration::from_millis(random.gen_range(0..3_000))).await;
            }
            (stalls, starved)
        };
        let (away, (stalls, starved)) = futures::join!(outages, blows);
        println!("{stalls} stalls, {starved} starved nodes, control server away {away} times");
        let status = stage.until_ready().await;
        assert_eq!(status.epoch, first.epoch, "seed {seed}: {:#?}", status.last_failover);
        nothing_lost(&writer, "what passes by itself").await;
    });
}

/// tailscaled forgets a direct path that was silent for 6.5 s, and the relay is the control server's.
/// A master that lives was replaced after such a stall (an hour of them, seed 88850).
const FORGOTTEN: Duration = Duration::from_millis(6_600);

#[test]
fn a_path_that_tailscaled_forgot_is_found_again_in_time() {
    let test = "stalls::a_path_that_tailscaled_forgot_is_found_again_in_time";
    sandboxed(test, Duration::from_mins(4), async |sandbox: Sandbox| {
        let stage = Stage::start(&sandbox).await;
        stage.client.apply(&cluster(3)).await.unwrap();
        let first = stage.until_ready().await;
        for _ in 0..2 {
            let status = stage.until_ready().await;
            let node = status.nodes.iter().find(|node| node.phase == Phase::Master).unwrap();
            let (stage, masters, random) =
                (&stage, &Masters::default(), &mut StdRng::seed_from_u64(0));
            let (kind, lasts) = (Kind::Stall, FORGOTTEN);
            let mut blow = Blow { stage, cluster: CLUSTER, node, masters, kind, lasts, random };
            let control = control_is_away(stage, FORGOTTEN * 2);
            let (said, ()) = futures::join!(blow.strike(), control);
            assert_eq!(said, "");
            let status = stage.until_ready().await;
            assert_eq!(status.epoch, first.epoch, "{:#?}", status.last_failover);
        }
    });
}

async fn control_is_away(stage: &Stage, lasts: Duration) {
    let pid = stage.local.tailnet.control_pid().and_then(|pid| Pid::from_raw(pid.cast_signed()));
    let pid = pid.expect("the control server runs");
    kill_process(pid, Signal::STOP).unwrap();
    sleep(lasts).await;
    kill_process(pid, Signal::CONT).unwrap();
}
