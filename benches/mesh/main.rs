//! What the mesh costs, and what of it is ours: `make bench`.
//!
//! Real tailscaled and redis-server in a sandbox, medians, ours and the peer in turns in one run. A
//! table goes to the terminal, the figures to `target/bench/mesh.json`.

mod client;
mod figure;
mod scene;

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use akash_redis::devnet::sandbox::{self, Sandbox};
use figure::{Figure, median};
use scene::{PROXY, Route, Scene};

/// Of the program whose memory is measured.
const PROGRAM: &str = env!("CARGO_BIN_EXE_akash-redis");
/// Rounds of each measurement.
const ROUNDS: usize = 7;
/// Rounds of what takes seconds.
const SLOW_ROUNDS: usize = 5;
/// One after the other in a round.
const PINGS: usize = 400;
/// Moved in a round.
const BULK_MIB: u32 = 64;

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
    let mut figures = Vec::new();
    let scene = Scene::start(&sandbox).await;
    join(&scene, &mut figures).await;
    connections(&scene, &mut figures).await;
    replication(&scene, &mut figures).await;
    figures.push(Figure::alone("tailscaled RSS after the load", "MB", scene.tailscaled_mb(), 1));
    scene.stop().await;
    figures.extend(scene::memory_of_a_node(&sandbox, PROGRAM).await);

    println!("{}", figure::table(&figures));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench/mesh.json");
    std::fs::create_dir_all(path.parent().expect("a directory")).expect("the directory of figures");
    std::fs::write(&path, figure::json(&figures)).expect("the file of figures");
    println!("written to {}", path.display());
    ExitCode::SUCCESS
}

/// From the start of tailscaled to `Running`: the operator's own beside a script.
async fn join(scene: &Scene, figures: &mut Vec<Figure>) {
    let (mut ours, mut peer) = (Vec::new(), Vec::new());
    for round in 0..SLOW_ROUNDS {
        ours.push(scene.join_as_operator(round).await.as_secs_f64());
        peer.push(scene.join_by_script(round).await.as_secs_f64());
    }
    figures.push(Figure::new(
        "join: operator beside a script",
        "s",
        median(&ours),
        median(&peer),
        SLOW_ROUNDS,
    ));
}

/// A client of Redis through the forwarder, and one through the proxy, beside one that speaks
/// SOCKS5 itself.
async fn connections(scene: &Scene, figures: &mut Vec<Figure>) {
    let [mut pings, mut bulks] = [[vec![], vec![], vec![]], [vec![], vec![], vec![]]];
    for _ in 0..ROUNDS {
        for (at, route) in
            [scene.forwarder(), Route::Through(PROXY), Route::Socks5].into_iter().enumerate()
        {
            let mut client = scene.connect(route).await;
            pings[at].push(client.pings(PINGS).await.as_secs_f64() * 1000.0);
            bulks[at].push(client.bulk(BULK_MIB).await);
        }
    }
    for (at, route) in ["forwarder", "proxy"].into_iter().enumerate() {
        let (ours, raw) = (median(&pings[at]), median(&pings[2]));
        figures.push(Figure::new(
            &format!("PING: {route} beside raw SOCKS5"),
            "ms",
            ours,
            raw,
            ROUNDS,
        ));
        figures.push(Figure::new(
            &format!("bulk: {route} beside raw SOCKS5"),
            "MB/s",
            median(&bulks[at]),
            median(&bulks[2]),
            ROUNDS,
        ));
    }
}

/// From `replicaof` to a link that is up: through the mesh beside loopback.
async fn replication(scene: &Scene, figures: &mut Vec<Figure>) {
    let (mut ours, mut peer) = (Vec::new(), Vec::new());
    for _ in 0..SLOW_ROUNDS {
        ours.push(link_up(scene, scene.alias()).await);
        peer.push(link_up(scene, "127.0.0.1").await);
    }
    figures.push(Figure::new(
        "link up after replicaof: mesh beside loopback",
        "s",
        median(&ours),
        median(&peer),
        SLOW_ROUNDS,
    ));
}

async fn link_up(scene: &Scene, host: &str) -> f64 {
    let mut replica = scene.replica().await;
    replica.command(&["replicaof", "no", "one"]).await;
    let begun = Instant::now();
    replica.command(&["replicaof", host, "6379"]).await;
    while !replica.command(&["info", "replication"]).await.contains("master_link_status:up") {
        assert!(begun.elapsed() < Duration::from_mins(1), "no link through {host}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    begun.elapsed().as_secs_f64()
}
