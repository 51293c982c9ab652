//! What applications notice of each change of master, in figures: `make client-table`. Everything
//! that writes runs on a machine beside the cluster, over a userspace tailscaled of its own.
//!
//! `CLIENT_TABLE_ROUNDS` is how often a planned change and a failover are made (5). The figures go to
//! `target/bench/clients.json`, the tables to the terminal.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use akash_redis::api::status::NodeStatus;
use akash_redis::devnet::sandbox::Sandbox;
use serde_json::{Value, json};
use tokio::process::Child;
use tokio::time::sleep;

use crate::application::{Client, Program, all_write, all_write_within, programs};
use crate::clients::{moved, written};
use crate::machine::Machine;
use crate::sandboxed::sandboxed;
use crate::sentinel::{addresses, beside_a_cluster};
use crate::stage::{CLUSTER, Stage, program, until};

const LIMIT: Duration = Duration::from_mins(14);
const PROXY: &str = "127.0.0.1:6379";
const EVENTS: [&str; 5] = ["failover", "switchover", "migration", "node lost", "operator away"];
/// How long a client may be away here: it is a figure, and no fault.
const SLOWEST: Duration = Duration::from_mins(3);
/// So often it is looked whether what is missing comes, a second apart.
const QUEUE_LOOKS: usize = 15;
/// A machine that loses its power takes with it what it acknowledged in its last moment.
const LAST_MOMENT: f64 = 1000.0;

/// What one client met in all changes of one kind.
#[derive(Default)]
struct Met {
    errors: BTreeMap<String, usize>,
    /// Of each round, milliseconds.
    gaps: Vec<f64>,
    took: Vec<f64>,
    p99: Option<f64>,
    told: BTreeMap<String, usize>,
}

impl Met {
    fn longest(&self) -> f64 {
        self.gaps.iter().copied().fold(0.0, f64::max)
    }

    fn median(&self) -> f64 {
        let mut all = self.gaps.clone();
        all.sort_by(f64::total_cmp);
        all.get(all.len() / 2).copied().unwrap_or_default()
    }

    fn cell(&self) -> String {
        let errors: usize = self.errors.values().sum();
        let mut text = format!("{errors}, {:.2} s", self.longest() / 1000.0);
        if self.gaps.len() > 1 {
            let _ = write!(text, " ({:.2} s)", self.median() / 1000.0);
        }
        if let Some(p99) = self.p99 {
            let _ = write!(text, ", p99 {p99:.1} ms");
        }
        text
    }
}

/// A cluster, a machine beside it, and the applications on that.
struct Scene {
    stage: Stage,
    machine: Machine,
    programs: Vec<Program>,
    /// They are given the addresses of the nodes, which get old.
    by_address: bool,
    clients: Vec<Client>,
    met: BTreeMap<(usize, &'static str), Met>,
    rounds: usize,
    /// How many writes each had acknowledged when a machine was lost.
    lost_at: Vec<usize>,
    /// Acknowledged writes that are not there, by client.
    lost: BTreeMap<String, usize>,
}

impl Scene {
    async fn of(sandbox: &Sandbox) -> Self {
        let (stage, machine) = beside_a_cluster(sandbox).await;
        stage.until_ready().await;
        let rounds = std::env::var("CLIENT_TABLE_ROUNDS").unwrap_or_else(|_| "5".to_owned());
        let rounds = rounds.parse().expect("CLIENT_TABLE_ROUNDS is a number");
        let (programs, by_address) = (Vec::new(), false);
        let (clients, met, lost_at) = (Vec::new(), BTreeMap::new(), Vec::new());
        let lost = BTreeMap::new();
        Self { stage, machine, programs, by_address, clients, met, rounds, lost_at, lost }
    }

    async fn at(&self, ordinal: u32) -> NodeStatus {
        let status = self.stage.until_ready().await;
        status.nodes.into_iter().find(|node| node.ordinal == ordinal).unwrap()
    }

    async fn cli(&self, words: &[&str]) {
        let said = self.stage.cli(words).await;
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    }

    /// Starts them, and waits until all write. The one at place 0 is asked first.
    async fn start(&mut self, suffix: &str) {
        let (all, mut nodes) = (addresses(&self.stage).await, Vec::new());
        for ordinal in 0..3 {
            let node = self.at(ordinal).await;
            nodes.extend(all.iter().find(|(name, _)| *name == node.incarnation).cloned());
        }
        let nodes: Vec<_> = nodes.into_iter().map(|(_, address)| address).collect();
        let start = |program| Client::start(&self.machine, program, suffix, &nodes);
        self.clients = self.programs.iter().map(start).collect();
        all_write(&self.clients, "start").await;
        self.forget();
    }

    /// The addresses of nodes that moved are told to whoever goes by them, as when it is deployed.
    async fn renew(&mut self, suffix: &str) {
        if self.by_address {
            let master = self.stage.master().await;
            self.count_lost(&master).await;
            self.start(suffix).await;
        }
    }

    /// What was met until now counts for nothing.
    fn forget(&self) {
        for client in &self.clients {
            let mut tally = client.tally();
            tally.errors.clear();
            tally.took.clear();
            tally.told.clear();
            tally.longest_gap = 0.0;
        }
    }

    /// All write again: what they met since the last call belongs to this event.
    async fn end(&mut self, event: &'static str) {
        all_write_within(&self.clients, event, SLOWEST).await;
        for (which, client) in self.clients.iter().enumerate() {
            let mut tally = client.tally();
            let met = self.met.entry((which, event)).or_default();
            for (kind, count) in std::mem::take(&mut tally.errors) {
                *met.errors.entry(kind).or_default() += count;
            }
            for (what, count) in std::mem::take(&mut tally.told) {
                *met.told.entry(what).or_default() += count;
            }
            met.gaps.push(std::mem::take(&mut tally.longest_gap));
            met.took.append(&mut tally.took);
            println!(
                "{event}: {}: {:.0} ms, {:?}; last error: {}",
                client.name,
                met.gaps.last().unwrap(),
                met.errors,
                tally.last_error
            );
        }
    }

    /// The master is at this place, by a switchover that counts.
    async fn master_at(&mut self, ordinal: u32) {
        let (target, before) = (self.at(ordinal).await, self.stage.master().await);
        if before.incarnation != target.incarnation {
            self.cli(&["switchover", CLUSTER, "--to", &target.incarnation]).await;
            moved(&self.stage, &before).await;
            self.stage.until_ready().await;
            self.end("switchover").await;
        }
    }

    /// The node at place 2 moves each time, so that the addresses of two nodes stay.
    async fn change(&mut self) {
        for _ in 0..self.rounds {
            let master = self.stage.master().await;
            self.stage.kill_redis(&master);
            moved(&self.stage, &master).await;
            self.stage.until_ready().await;
            self.end("failover").await;
        }
        for round in 0..self.rounds {
            self.master_at(u32::from(round % 2 == 0)).await;
            self.master_at(u32::from(round % 2 == 1)).await;
        }
        for round in 0..self.rounds {
            self.master_at(2).await;
            self.renew(&format!("-{round}")).await;
            let master = self.stage.master().await;
            self.cli(&["migrate", CLUSTER, "2"]).await;
            let gone = |status: &akash_redis::api::status::Status| {
                status.nodes.iter().all(|node| node.incarnation != master.incarnation)
            };
            self.stage.until_status("the migration", gone).await;
            self.stage.until_ready().await;
            self.end("migration").await;
        }
        self.renew("-last").await;
        self.master_at(0).await;
        let master = self.stage.master().await;
        let (provider, lease) = self.stage.local.market.find(master.dseq).unwrap();
        self.lost_at = self.clients.iter().map(Client::acked).collect();
        assert!(self.stage.local.market.providers[provider].runner.power_off(&lease));
        let last = moved(&self.stage, &master).await;
        self.end("node lost").await;
        self.stage.local.kill_operator().await;
        for _ in 0..5 {
            all_write(&self.clients, "operator away").await;
        }
        self.end("operator away").await;
        self.count_lost(&last).await;
        for met in self.met.values_mut() {
            met.took.sort_by(f64::total_cmp);
            let last = (met.took.len() * 99).div_ceil(100).checked_sub(1);
            met.p99 = last.and_then(|last| met.took.get(last)).copied();
        }
    }

    /// Counts what was acknowledged and is not there, but for the last moment of a lost machine.
    async fn count_lost(&mut self, master: &NodeStatus) {
        let all = addresses(&self.stage).await;
        let (_, master) = all.iter().find(|(name, _)| *name == master.incarnation).unwrap();
        let lost_at = self.lost_at.iter().copied().chain(std::iter::repeat(usize::MAX));
        for (client, lost_at) in self.clients.iter().zip(lost_at) {
            let wrote = client.tally().acked.clone();
            let lost_at = wrote.get(lost_at).map_or(f64::MIN, |(_, at)| *at);
            let mut missing = Vec::new();
            // What a queue took is done a little later.
            for _ in 0..QUEUE_LOOKS {
                let has = written(&self.machine, master, &client.key).await;
                missing = wrote
                    .iter()
                    .filter(|(n, at)| !has.contains(n) && (at - lost_at).abs() >= LAST_MOMENT)
                    .copied()
                    .collect();
                if missing.is_empty() {
                    break;
                }
                sleep(Duration::from_secs(1)).await;
            }
            if !missing.is_empty() {
                let last = wrote.last();
                println!("lost of {}: {missing:?}; its last is {last:?}", client.name);
            }
            *self.lost.entry(client.name.clone()).or_default() += missing.len();
        }
    }

    /// Prints the table, and keeps the figures beside those of the other way.
    fn report(&self, way: &str) {
        let mut table = format!("| client | {} |\n", EVENTS.join(" | "));
        let _ = writeln!(table, "|{}", " --- |".repeat(EVENTS.len() + 1));
        let mut rows = Vec::new();
        for (which, client) in self.clients.iter().enumerate() {
            let of = |event: &&'static str| self.met.get(&(which, *event));
            let cells: Vec<_> =
                EVENTS.iter().map(|e| of(e).map_or_else(String::new, Met::cell)).collect();
            let _ = writeln!(table, "| {} | {} |", client.name, cells.join(" | "));
            for (event, met) in EVENTS.iter().filter_map(|event| Some((event, of(event)?))) {
                rows.push(json!({
                    "way": way, "client": client.name, "event": event, "rounds": met.gaps.len(),
                    "errors": met.errors, "longest_gap_ms": met.longest(), "median_gap_ms": met.median(),
                    "p99_ms": met.p99, "told": met.told, "lost": self.lost.get(&client.name),
                }));
            }
        }
        println!("{way}\n{table}\nacknowledged and lost: {:?}", self.lost);
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench/clients.json");
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let before = std::fs::read(&path).ok().and_then(|text| serde_json::from_slice(&text).ok());
        let before: Vec<Value> = before.unwrap_or_default();
        rows.extend(before.into_iter().filter(|row| row["way"].is_string() && row["way"] != way));
        std::fs::write(&path, serde_json::to_string_pretty(&rows).unwrap()).unwrap();
        println!("written to {}", path.display());
    }
}

/// Starts a proxy beside the applications, which asks these nodes.
pub async fn proxy(stage: &Stage, machine: &Machine, nodes: &[String]) -> Child {
    let key = stage.cli(&["public-key"]).await.stdout;
    let key = String::from_utf8(key).unwrap().trim().to_owned();
    let nodes: Vec<_> = nodes.iter().map(|node| format!("--node {node}")).collect();
    let line = format!(
        "exec {} proxy --cluster {CLUSTER} {} --public-key {key} --socks5 127.0.0.1:1055 --listen {PROXY} >/run/proxy.log 2>&1",
        program(),
        nodes.join(" ")
    );
    let proxy = machine.shell(&[], &line).stdout(Stdio::null()).spawn().unwrap();
    until("the proxy to listen", async || {
        machine.run("redis-cli -p 6379 PING").await.status.success()
    })
    .await;
    proxy
}

#[test]
#[ignore = "figures, not promises: `make client-table`"]
fn through_the_proxy() {
    sandboxed("client_table::through_the_proxy", LIMIT, async |sandbox: Sandbox| {
        let mut scene = Scene::of(&sandbox).await;
        let all = addresses(&scene.stage).await;
        let nodes: Vec<_> = all.iter().map(|(_, address)| address.clone()).collect();
        let _proxy = proxy(&scene.stage, &scene.machine, &nodes).await;
        let known = programs().await;
        let by_itself = |name: &str| known.iter().find(|p| p.name == name).unwrap().behind(PROXY);
        scene.programs = vec![Program::plain(PROXY), by_itself("redis-py"), by_itself("go-redis")];
        scene.start("").await;
        scene.change().await;
        scene.report("through the proxy");
    });
}

#[test]
#[ignore = "figures, not promises: `make client-table`"]
fn by_sentinel() {
    sandboxed("client_table::by_sentinel", LIMIT, async |sandbox: Sandbox| {
        let mut scene = Scene::of(&sandbox).await;
        (scene.programs, scene.by_address) = (programs().await, true);
        scene.start("").await;
        scene.change().await;
        scene.report("Sentinel's protocol");
    });
}
