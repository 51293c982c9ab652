//! What an application notices when its master moves, beside Sentinel: `make bench`.
//!
//! Real redis-server and tailscaled, an application that writes every millisecond through
//! `akash-redis proxy`, medians. Ours runs at several distances, Sentinel on loopback in the same
//! run. A table goes to the terminal, the figures to `target/bench/ha.json`. `HA_ROUNDS` is how
//! often each is done (20), `HA_DISTANCES` where, in milliseconds one way (`0,30,75,125`).

mod application;
#[path = "../mesh/figure.rs"]
mod figure;
mod ours;
mod sentinel;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use akash_redis::devnet::distance::Distance;
use akash_redis::devnet::faults::Time;
use akash_redis::devnet::sandbox::{self, Sandbox};
use application::{Application, Noticed};
use figure::{Figure, median};
use ours::Ours;
use sentinel::Peer;

/// Of the program.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_akash-redis");
/// Writes that show that all goes on.
const SOME: usize = 100;
/// What takes ten seconds is done less often.
const SLOW: usize = 4;

#[tokio::main]
async fn main() -> ExitCode {
    // `cargo test --all-targets` runs this program too, and not for its figures.
    if !std::env::args().any(|argument| argument == "--bench") {
        return ExitCode::SUCCESS;
    }
    if !sandbox::inside() {
        return sandbox::enter(&["--bench".into()]).await.unwrap_or_else(|error| {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        });
    }
    rustls::crypto::ring::default_provider().install_default().expect("nobody was earlier");
    let sandbox = Sandbox::set_up().await.expect("a sandbox");
    let rounds = setting("HA_ROUNDS", "20").parse().expect("HA_ROUNDS is a number");
    let mut figures = Vec::new();
    eprintln!("Sentinel beside it");
    let peer = beside(&sandbox.dir, rounds).await;
    for (number, one_way) in setting("HA_DISTANCES", "0,30,75,125").split(',').enumerate() {
        let one_way: u64 = one_way.trim().parse().expect("HA_DISTANCES are milliseconds");
        let far =
            Distance { latency: Time(Duration::from_millis(one_way)), jitter: None, loss: None };
        eprintln!("ours, {one_way} ms one way");
        let dir = sandbox.dir.join(format!("m{number}"));
        let ours = Ours::start(&dir, (one_way > 0).then_some(far)).await;
        let seen = ours_at(&ours, rounds).await;
        ours.stop().await;
        for (what, (ours, peer)) in
            ["redis killed", "planned", "node silent"].iter().zip(seen.iter().zip(&peer))
        {
            report(&mut figures, &format!("{what}, round trip {} ms", 2 * one_way), ours, peer);
        }
    }
    println!("{}", figure::table(&figures));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench/ha.json");
    std::fs::create_dir_all(path.parent().expect("a directory")).expect("the directory of figures");
    std::fs::write(&path, figure::json(&figures)).expect("the file of figures");
    println!("written to {}", path.display());
    ExitCode::SUCCESS
}

fn setting(name: &str, usual: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| usual.to_owned())
}

/// Redis killed, planned, node silent.
type Seen = [Vec<Noticed>; 3];

async fn ours_at(ours: &Ours, rounds: usize) -> Seen {
    let application = Application::start(Ours::finds());
    let mut seen = Seen::default();
    for round in 1..=rounds {
        eprintln!("  round {round} of {rounds}");
        settle(&application).await;
        ours.kill_master().await;
        seen[0].push(application.noticed(SOME).await);
        ours.ready().await;
        settle(&application).await;
        ours.switchover().await;
        ours.ready().await;
        seen[1].push(application.noticed(SOME).await);
    }
    for round in 1..=rounds.div_ceil(SLOW) {
        eprintln!("  silent node {round} of {}", rounds.div_ceil(SLOW));
        settle(&application).await;
        let node = ours.cut_master().await;
        seen[2].push(application.noticed(SOME).await);
        ours.join(node).await;
        ours.ready().await;
    }
    seen
}

/// Sentinel at the same time until a silent master is given up.
async fn beside(dir: &Path, rounds: usize) -> Seen {
    let mut peer = Peer::start(&dir.join("peer"), Duration::from_secs(10)).await;
    let application = Application::start(Peer::finds());
    let mut seen = Seen::default();
    for round in 1..=rounds {
        eprintln!("  planned {round} of {rounds}");
        settle(&application).await;
        peer.failover().await;
        seen[1].push(application.noticed(SOME).await);
        peer.repair().await;
    }
    for round in 1..=rounds.div_ceil(SLOW) {
        eprintln!("  killed and silent {round} of {}", rounds.div_ceil(SLOW));
        settle(&application).await;
        peer.kill_master().await;
        seen[0].push(application.noticed(SOME).await);
        peer.repair().await;
        settle(&application).await;
        peer.freeze_master().await;
        seen[2].push(application.noticed(SOME).await);
        peer.repair().await;
    }
    seen
}

async fn settle(application: &Application) {
    application.begin();
    application.noticed(SOME).await;
    application.begin();
}

fn report(figures: &mut Vec<Figure>, what: &str, ours: &[Noticed], peer: &[Noticed]) {
    let of = |of: &[Noticed], value: fn(&Noticed) -> f64| {
        median(&of.iter().map(value).collect::<Vec<_>>())
    };
    let n = ours.len();
    figures.push(Figure::new(
        &format!("gap: {what}"),
        "ms",
        of(ours, |s| s.gap),
        of(peer, |s| s.gap),
        n,
    ));
    let worst = ours.iter().map(|s| s.gap).fold(0.0, f64::max);
    figures.push(Figure::alone(&format!("longest gap: {what}"), "ms", worst, n));
    #[allow(clippy::cast_precision_loss)]
    figures.push(Figure::new(
        &format!("errors: {what}"),
        "",
        of(ours, |s| s.errors as f64),
        of(peer, |s| s.errors as f64),
        n,
    ));
    #[allow(clippy::cast_precision_loss)]
    figures.push(Figure::new(
        &format!("lost in all: {what}"),
        "",
        ours.iter().map(|s| s.lost).sum::<usize>() as f64,
        peer.iter().map(|s| s.lost).sum::<usize>() as f64,
        n,
    ));
}
