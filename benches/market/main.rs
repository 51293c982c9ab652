//! What the market costs in time and in questions: from `apply` to Ready over the floor, deployments
//! made in one block, and what the operator asks the chain at each look, by the number of clusters.
//!
//! Times are virtual: nothing is measured but what the operator waits for. A table goes to the
//! terminal, the figures to `target/bench/market.json`.

#[allow(dead_code, unused_imports)] // what the world's clients are judged by
#[path = "../../tests/sim/linear.rs"]
mod linear;
mod queries;
mod ready;
#[allow(dead_code)] // the world of the simulations: a part of it is used here
#[path = "../../tests/sim/world/mod.rs"]
mod world;

use std::time::Duration;

use serde_json::json;

/// Clusters of three nodes each.
const CLUSTERS: [usize; 4] = [1, 10, 100, 1000];

fn main() {
    if !std::env::args().any(|argument| argument == "--bench") {
        // `cargo test --all-targets` sees that it builds.
        return;
    }
    let ready: Vec<_> = [Duration::from_millis(500), Duration::from_secs(6)]
        .into_iter()
        .map(|block| ready::apply_to_ready(block).0)
        .collect();
    println!("{:>8} {:>9} {:>9} {:>6}", "BLOCK s", "FLOOR s", "READY s", "RATIO");
    for r in &ready {
        println!("{:>8.1} {:>9.1} {:>9.1} {:>6.2}", r.block_s, r.floor_s, r.took_s, r.ratio);
    }
    let most = ready::deployments_in_a_block();
    println!("{most} deployments in one block of {} that were wanted", ready::WANTED);
    println!("{:>8} {:>12} {:>14}", "CLUSTERS", "QUERIES/tick", "of one cluster");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let queries: Vec<_> =
        CLUSTERS.into_iter().map(|n| runtime.block_on(queries::per_tick(n))).collect();
    for q in &queries {
        println!("{:>8} {:>12} {:>14}", q.clusters, q.all, q.one);
    }
    let report = json!({
        "apply_to_ready": ready,
        "deployments_per_block": most,
        "deployments_wanted": ready::WANTED,
        "chain_queries_per_tick": queries,
    });
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench");
    std::fs::create_dir_all(&dir).expect("target/bench");
    let text = serde_json::to_string_pretty(&report).expect("figures");
    std::fs::write(dir.join("market.json"), text + "\n").expect("target/bench/market.json");
}
