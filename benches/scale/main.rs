//! What a steady fleet costs the operator: many clusters of three nodes at its ports, every agent
//! reporting once a second, every escrow another one with each reading. The world outside is in
//! memory; the store is SQLite on this disk, or a real apiserver over a real etcd.
//!
//! Each size runs in a process of its own. A table goes to the terminal, the figures to
//! `target/bench/scale.json`; with `kube` in the arguments the apiserver is measured beside SQLite,
//! and the figures go to `target/bench/kube.json`.

#[path = "../../tests/kube/apiserver.rs"]
#[allow(dead_code, reason = "the tests use all of it")]
mod apiserver;
mod fleet;
mod home;
mod measure;

use std::process::Command;
use std::time::Duration;

use home::{Home, Kind};
use measure::Figures;

/// Sizes, so that growth is seen.
const CLUSTERS: [usize; 2] = [100, 1000];
/// The same beside the apiserver.
const AT_HOME: [(Kind, usize); 5] = [
    (Kind::Sqlite, 1000),
    (Kind::Sqlite, 3000),
    (Kind::Kubernetes, 100),
    (Kind::Kubernetes, 1000),
    (Kind::Kubernetes, 3000),
];
/// Nothing is asked of the world outside and nothing is written for so long: everything was read,
/// planned and published.
const SETTLED: Duration = Duration::from_secs(15);
/// By then, or this machine is too slow for so many.
const WARM_UP: Duration = Duration::from_mins(8);
/// What is measured.
const SPAN: Duration = Duration::from_secs(30);
/// Clusters that are changed, one after the other.
const CHANGED: usize = 20;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [count, kind] = arguments.as_slice()
        && let Ok(count) = count.parse()
    {
        let kind = if kind == "kubernetes" { Kind::Kubernetes } else { Kind::Sqlite };
        return run(count, kind);
    }
    if !arguments.iter().any(|argument| argument == "--bench") {
        // `cargo test --all-targets` sees that it builds.
        return;
    }
    let (sizes, file) = if arguments.iter().any(|argument| argument == "kube") {
        (AT_HOME.to_vec(), "kube.json")
    } else {
        (CLUSTERS.map(|count| (Kind::Sqlite, count)).to_vec(), "scale.json")
    };
    let figures: Vec<Figures> = sizes.into_iter().map(in_its_own_process).collect();
    println!("{}", measure::table(&figures));
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench");
    std::fs::create_dir_all(&dir).expect("target/bench");
    let text = serde_json::to_string_pretty(&measure::report(&figures)).expect("figures");
    std::fs::write(dir.join(file), text + "\n").expect("a file in target/bench");
}

/// Memory that one size took is not counted for the next.
fn in_its_own_process((kind, clusters): (Kind, usize)) -> Figures {
    let program = std::env::current_exe().expect("this program");
    let kind = if kind == Kind::Kubernetes { "kubernetes" } else { "sqlite" };
    let output = Command::new(program).arg(clusters.to_string()).arg(kind).output().expect("a run");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let figures = serde_json::from_str(text.trim()).expect("its figures");
    println!("{}", measure::table(std::slice::from_ref(&figures)));
    figures
}

fn run(clusters: usize, kind: Kind) {
    rustls::crypto::ring::default_provider().install_default().expect("the first one");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let figures = runtime.block_on(async {
        let mut fleet = fleet::Fleet::start(clusters, Home::make(kind).await).await;
        tokio::time::timeout(WARM_UP, settled(&fleet)).await.expect("a fleet that comes to rest");
        let before = fleet.effects();
        let started = measure::Sample::take(&fleet).await;
        tokio::time::sleep(SPAN).await;
        let mut figures = started.until(&measure::Sample::take(&fleet).await, clusters, kind);
        assert_eq!(fleet.effects(), before, "a fleet that is steady is left alone");
        figures.changes_take(&changes(&fleet).await);
        figures.first_pass_s = fleet.restart().await.as_secs_f64();
        figures
    });
    println!("{}", serde_json::to_string(&figures).expect("figures"));
}

/// Waits until every cluster was planned, and nothing is asked of the world outside or written any
/// more. The first status of thousands takes an apiserver longer than their plans take the operator.
async fn settled(fleet: &fleet::Fleet) {
    loop {
        let before = done(fleet).await;
        tokio::time::sleep(SETTLED).await;
        let after = done(fleet).await;
        if after == before && fleet.is_planned() {
            return;
        }
        let (effects, writes) = (after.0 - before.0, after.1 - before.1);
        eprintln!("not at rest: {effects} effects and {writes} writes within {SETTLED:?}");
    }
}

/// Effects, and writes that the apiserver answered.
async fn done(fleet: &fleet::Fleet) -> (usize, u64) {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a count
    let writes = fleet.home().requests().await.map_or(0, |(_, writes)| writes as u64);
    (fleet.effects(), writes)
}

/// How long each change took to its plan.
async fn changes(fleet: &fleet::Fleet) -> Vec<Duration> {
    let mut took = Vec::new();
    for number in 0..CHANGED {
        took.push(fleet.change(number).await);
    }
    took
}
