//! What a steady fleet costs the operator: many clusters of three nodes at its ports, every agent
//! reporting once a second. The world outside is in memory; the store is SQLite on this disk.
//!
//! Each size runs in a process of its own. A table goes to the terminal, the figures to
//! `target/bench/scale.json`.

mod fleet;
mod measure;

use std::process::Command;
use std::time::Duration;

use measure::Figures;

/// Sizes, so that growth is seen.
const CLUSTERS: [usize; 2] = [100, 1000];
/// Until everything was read and planned once, with a margin.
const WARM_UP: Duration = Duration::from_secs(20);
/// What is measured.
const SPAN: Duration = Duration::from_secs(30);

fn main() {
    if let Some(count) = std::env::args().nth(1).and_then(|word| word.parse().ok()) {
        return run(count);
    }
    if !std::env::args().any(|argument| argument == "--bench") {
        // `cargo test --all-targets` sees that it builds.
        return;
    }
    let figures: Vec<Figures> = CLUSTERS.into_iter().map(in_its_own_process).collect();
    println!("{}", measure::table(&figures));
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench");
    std::fs::create_dir_all(&dir).expect("target/bench");
    let text = serde_json::to_string_pretty(&measure::report(&figures)).expect("figures");
    std::fs::write(dir.join("scale.json"), text + "\n").expect("target/bench/scale.json");
}

/// Memory that one size took is not counted for the next.
fn in_its_own_process(clusters: usize) -> Figures {
    let program = std::env::current_exe().expect("this program");
    let output = Command::new(program).arg(clusters.to_string()).output().expect("a run");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_str(text.trim()).expect("its figures")
}

fn run(clusters: usize) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let figures = runtime.block_on(async {
        let fleet = fleet::Fleet::start(clusters).await;
        tokio::time::sleep(WARM_UP).await;
        let before = fleet.effects();
        let started = measure::Sample::take(&fleet);
        tokio::time::sleep(SPAN).await;
        let figures = started.until(&measure::Sample::take(&fleet), clusters);
        assert_eq!(fleet.effects(), before, "a fleet that is steady is left alone");
        figures
    });
    println!("{}", serde_json::to_string(&figures).expect("figures"));
}
