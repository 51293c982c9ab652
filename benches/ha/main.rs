//! What an application notices when its master moves, beside its peers: `make bench`.
//!
//! Real servers and tailscaled, an application that writes every millisecond through
//! `akash-redis proxy`, medians. Ours runs at several distances, the peers on loopback in the same
//! run. A table goes to the terminal, the figures to `target/bench/ha.json`.
//!
//! `HA_ROUNDS` is how often each is done (20), `HA_DISTANCES` where, in milliseconds one way with
//! jitter and loss if there are any (`0,30,75,125,75~25/1%`), `HA_PARTS` what of all that
//! (`sentinel,failover,valkey,ours,silent,adversity`). Valkey 9 is the one in the cache of `make
//! servers`, or at `HA_VALKEY`; where there is none, its rows are missing.
//!
//! `distances` as an argument measures planned changes and killed Redis at a distance alone, beside
//! the aims (`distances`). `connections` measures what thousands of connections at once notice of a
//! planned change (`connections`).

mod adversity;
mod application;
mod connections;
mod distances;
mod failover;
#[path = "../mesh/figure.rs"]
mod figure;
mod ours;
mod sentinel;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use akash_redis::devnet::distance::Distance;
use akash_redis::devnet::faults::Time;
use akash_redis::devnet::sandbox::{self, Sandbox};
use application::{Application, Noticed};
use figure::{Figure, median};
use ours::Ours;
use sentinel::{Peer, Servers};

/// Of the program.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_akash-redis");
/// Writes that show that all goes on.
const SOME: usize = 100;
/// What takes ten seconds is done less often.
const SLOW: usize = 4;
/// Until a silent master is given up, on both sides.
const DOWN_AFTER: Duration = Duration::from_secs(10);
const ALL_PARTS: &str = "sentinel,failover,valkey,ours,silent,adversity";

#[tokio::main]
async fn main() -> ExitCode {
    // `cargo test --all-targets` runs this program too, and not for its figures.
    if !std::env::args().any(|argument| argument == "--bench") {
        return ExitCode::SUCCESS;
    }
    if !sandbox::inside() {
        let arguments: Vec<_> = std::env::args_os().skip(1).collect();
        return sandbox::enter(&arguments).await.unwrap_or_else(|error| {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        });
    }
    rustls::crypto::ring::default_provider().install_default().expect("nobody was earlier");
    let sandbox = Sandbox::set_up().await.expect("a sandbox");
    if std::env::args().any(|argument| argument == "distances") {
        return if distances::run(&sandbox.dir).await {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        };
    }
    if std::env::args().any(|argument| argument == "connections") {
        connections::run(&sandbox.dir).await;
        return ExitCode::SUCCESS;
    }
    let rounds = setting("HA_ROUNDS", "20").parse().expect("HA_ROUNDS is a number");
    let mut figures = Vec::new();
    let peers = peers(&sandbox.dir, rounds).await;
    if part("ours") || part("silent") {
        for (number, apart) in
            setting("HA_DISTANCES", "0,30,75,125,75~25/1%").split(',').enumerate()
        {
            let far = distance(apart.trim());
            eprintln!("ours, {apart} ms one way");
            let ours = Ours::start(&sandbox.dir.join(format!("m{number}")), far).await;
            let seen = ours_at(&ours, rounds).await;
            ours.stop().await;
            report(&mut figures, apart, &seen, &peers);
            // What is measured stays, whatever becomes of the rest.
            save(&figures);
        }
    }
    if part("adversity") {
        adversity(&sandbox.dir, &mut figures).await;
    }
    println!("{}", figure::table(&figures));
    println!("written to {}", save(&figures).display());
    ExitCode::SUCCESS
}

fn save(figures: &[Figure]) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench/ha.json");
    std::fs::create_dir_all(path.parent().expect("a directory")).expect("the directory of figures");
    std::fs::write(&path, figure::json(figures)).expect("the file of figures");
    path
}

fn setting(name: &str, usual: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| usual.to_owned())
}

fn part(name: &str) -> bool {
    setting("HA_PARTS", ALL_PARTS).split(',').any(|part| part.trim() == name)
}

/// `75~25/1%`: milliseconds one way, more or less by so many, and the share that is lost.
fn distance(text: &str) -> Option<Distance> {
    let (text, loss) = text.split_once('/').map_or((text, None), |(t, l)| (t, Some(l)));
    let (latency, jitter) = text.split_once('~').map_or((text, None), |(t, j)| (t, Some(j)));
    let time = |text: &str| {
        let ms = text.parse().expect("HA_DISTANCES are milliseconds, as 0, 75 or 75~25/1%");
        Time(Duration::from_millis(ms))
    };
    let loss = loss.map(|loss| loss.parse().expect("a share is written like 1%"));
    let far = Distance { latency: time(latency), jitter: jitter.map(time), loss };
    (latency != "0").then_some(far)
}

/// Redis killed, planned, node silent; empty where it was not asked for.
type Seen = [Vec<Noticed>; 3];
const WHAT: [&str; 3] = ["redis killed", "planned", "node silent"];

/// What is beside ours, by its name.
async fn peers(dir: &Path, rounds: usize) -> Vec<(&'static str, Seen)> {
    let mut all = Vec::new();
    if part("sentinel") {
        let seen = beside(&dir.join("sentinel"), rounds, redis(7000), true).await;
        all.push(("Sentinel", seen));
    }
    if part("failover") {
        eprintln!("FAILOVER of Redis");
        let plain = failover::Plain::start(&dir.join("plain"), Path::new("redis-server")).await;
        let application = Application::start(failover::Plain::finds());
        let mut seen = Seen::default();
        for _ in 0..rounds {
            settle(&application).await;
            plain.failover().await;
            seen[1].push(application.noticed(SOME).await);
            plain.settled().await;
        }
        all.push(("FAILOVER", seen));
    }
    if let Some(program) = part("valkey").then(valkey).flatten() {
        let servers = Servers { program, coordinated: true, base: 7200 };
        let seen = beside(&dir.join("valkey"), rounds, servers, false).await;
        all.push(("Valkey 9 COORDINATED", seen));
    }
    all
}

fn redis(base: u16) -> Servers {
    Servers { program: PathBuf::from("redis-server"), coordinated: false, base }
}

fn valkey() -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
    let all = std::fs::read_dir(cache?.join("akash-redis/servers")).into_iter().flatten().flatten();
    let nine = |path: &PathBuf| path.to_string_lossy().contains("/valkey-9.");
    let found = all.map(|entry| entry.path()).find(nine).map(|dir| dir.join("server"));
    let found = std::env::var_os("HA_VALKEY").map(PathBuf::from).or(found);
    if found.is_none() {
        eprintln!("no Valkey 9: its rows are missing");
    }
    found
}

async fn ours_at(ours: &Ours, rounds: usize) -> Seen {
    let application = Application::start(Ours::finds());
    let mut seen = Seen::default();
    for round in 1..=if part("ours") { rounds } else { 0 } {
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
    for round in 1..=if part("silent") { rounds.div_ceil(SLOW) } else { 0 } {
        eprintln!("  silent node {round} of {}", rounds.div_ceil(SLOW));
        settle(&application).await;
        let node = ours.cut_master().await;
        seen[2].push(application.noticed(SOME).await);
        ours.join(node).await;
        ours.ready().await;
    }
    seen
}

/// Sentinel at the same time until a silent master is given up; planned changes alone where not
/// `all`.
async fn beside(dir: &Path, rounds: usize, servers: Servers, all: bool) -> Seen {
    eprintln!("Sentinel of {}", servers.program.display());
    let mut peer = Peer::start(dir, DOWN_AFTER, servers).await;
    let application = Application::start(peer.finds());
    let mut seen = Seen::default();
    for round in 1..=rounds {
        eprintln!("  planned {round} of {rounds}");
        settle(&application).await;
        peer.failover().await;
        seen[1].push(application.noticed(SOME).await);
        peer.repair().await;
    }
    for round in 1..=if all { rounds.div_ceil(SLOW) } else { 0 } {
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

/// Ours and Sentinel, one after the other, under the same load and the same faults.
async fn adversity(dir: &Path, figures: &mut Vec<Figure>) {
    eprintln!("adversity, Sentinel");
    let mut peer = Peer::start(&dir.join("against"), DOWN_AFTER, redis(7600)).await;
    let beside = adversity::live(adversity::Under::Sentinel(&mut peer)).await;
    drop(peer);
    eprintln!("adversity, ours");
    let ours = Ours::start(&dir.join("adversity"), None).await;
    let lived = adversity::live(adversity::Under::Ours(&ours)).await;
    ours.stop().await;
    adversity::report(figures, &lived, &beside);
}

async fn settle(application: &Application) {
    application.begin();
    application.noticed(SOME).await;
    application.begin();
}

/// The rows of one distance; whatever has nothing beside it stands alone.
fn report(figures: &mut Vec<Figure>, apart: &str, ours: &Seen, peers: &[(&'static str, Seen)]) {
    for (at, what) in WHAT.iter().enumerate() {
        let seen = &ours[at];
        if seen.is_empty() {
            continue;
        }
        let what = format!("{what}, {apart} ms one way");
        let n = seen.len();
        let mut beside = false;
        for (name, peer) in peers.iter().map(|(name, peer)| (name, &peer[at])) {
            if !peer.is_empty() {
                beside = true;
                row(figures, &format!("{what}, {name}"), seen, peer);
            }
        }
        if !beside {
            let gap = median(&values(seen, |s| s.gap));
            figures.push(Figure::alone(&format!("gap: {what}"), "ms", gap, n));
        }
        let worst = seen.iter().map(|s| s.gap).fold(0.0, f64::max);
        figures.push(Figure::alone(&format!("longest gap: {what}"), "ms", worst, n));
    }
}

fn row(figures: &mut Vec<Figure>, what: &str, ours: &[Noticed], peer: &[Noticed]) {
    let mut of = |name: &str, unit, value: fn(&Noticed) -> f64| {
        let [ours_is, peer_is] = [ours, peer].map(|seen| median(&values(seen, value)));
        figures.push(Figure::new(&format!("{name}: {what}"), unit, ours_is, peer_is, ours.len()));
    };
    of("gap", "ms", |s| s.gap);
    #[allow(clippy::cast_precision_loss)]
    of("errors", "", |s| s.errors as f64);
    #[allow(clippy::cast_precision_loss)]
    let [ours_lost, peer_lost] =
        [ours, peer].map(|seen| seen.iter().map(|s| s.lost).sum::<usize>() as f64);
    let name = format!("lost in all: {what}");
    figures.push(Figure::new(&name, "", ours_lost, peer_lost, ours.len()));
}

fn values(seen: &[Noticed], value: fn(&Noticed) -> f64) -> Vec<f64> {
    seen.iter().map(value).collect()
}
