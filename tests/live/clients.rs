//! Real clients of Sentinel, each with its own retries, on a machine that reaches the tailnet as an
//! application in another lease does: they ride through all that moves a master, and nothing that
//! was acknowledged is lost.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use akash_redis::api::status::NodeStatus;
use akash_redis::devnet::sandbox::Sandbox;
use serde::Serialize;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use crate::machine::Machine;
use crate::sandboxed::sandboxed;
use crate::sentinel::{THROUGH, addresses, beside_a_cluster};
use crate::stage::{CLUSTER, PASSWORD, Stage, until};

const LIMIT: Duration = Duration::from_mins(9);
const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// A client writes again within this, whatever happened to the master.
const FOUND: Duration = Duration::from_mins(1);
/// Acknowledged writes that show that a client writes again.
const SOME: usize = 20;
/// A machine that loses its power takes with it what it acknowledged in its last moment, and had not
/// yet handed to a replica.
const LAST_MOMENT: f64 = 1000.0;
const SOCKS5: &str = "127.0.0.1:1055";

/// What a client said.
#[derive(Default)]
struct Tally {
    /// Numbers of the acknowledged writes, and when, in milliseconds of the client's own clock.
    acked: Vec<(u64, f64)>,
    /// Errors of this phase, by kind.
    errors: BTreeMap<String, usize>,
    /// The last one in full.
    last_error: String,
    /// Longest time between two acknowledged writes of this phase, in milliseconds.
    longest_gap: f64,
}

impl Tally {
    fn hear(&mut self, line: &str) {
        let said: Value = serde_json::from_str(line).unwrap_or_default();
        let at = said["at"].as_f64().unwrap_or_default();
        if let Some(n) = said["acked"].as_u64() {
            let gap = self.acked.last().map_or(0.0, |(_, before)| at - before);
            self.longest_gap = self.longest_gap.max(gap);
            self.acked.push((n, at));
            return;
        }
        let kind = said["error"].as_str().unwrap_or("unreadable");
        *self.errors.entry(kind.to_owned()).or_default() += 1;
        line.clone_into(&mut self.last_error);
    }
}

struct Client {
    name: String,
    key: String,
    tally: Arc<Mutex<Tally>>,
    _process: Child,
}

impl Client {
    /// Starts a client that asks these nodes, the first one first.
    fn start(machine: &Machine, program: &Program, suffix: &str, nodes: &[String]) -> Self {
        let (nodes, key) = (nodes.join(" "), format!("{}{suffix}", program.name));
        let variables =
            [("NODES", &*nodes), ("PASSWORD", PASSWORD), ("KEY", &*key), ("SOCKS5", SOCKS5)];
        // One that finds nobody when it starts may end: it is started again, as a container is.
        let again = r#"echo '{"error":"ended"}'; sleep 1"#;
        let lines = format!("while true; do {}; {again}; done", program.line);
        let mut shell = machine.shell(&variables, &lines);
        let mut process = shell.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let tally = Arc::new(Mutex::new(Tally::default()));
        let told = tally.clone();
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                told.lock().unwrap().hear(&line);
            }
        });
        Self { name: program.name.clone(), key, tally, _process: process }
    }

    /// Its errors of this phase.
    fn met(&self) -> String {
        let tally = self.tally.lock().unwrap();
        format!("{:?}, last: {}", tally.errors, tally.last_error)
    }

    fn acked(&self) -> usize {
        self.tally.lock().unwrap().acked.len()
    }
}

/// How a client of `tests/clients` is started.
struct Program {
    name: String,
    line: String,
}

/// All of them: `make clients` has built them.
async fn programs() -> Vec<Program> {
    let script = Path::new(ROOT).join("tests/clients/build.sh");
    let output = Command::new(script).stdin(Stdio::null()).output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "`make clients` first; without a network: {said}");
    let lines = String::from_utf8(output.stdout).unwrap();
    let program = |line: &str| {
        let (name, line) = line.split_once(' ').unwrap();
        Program { name: name.to_owned(), line: line.to_owned() }
    };
    lines.lines().map(program).collect()
}

/// What became of one client in one phase.
#[derive(Debug, Serialize)]
struct Row {
    client: String,
    event: &'static str,
    errors: BTreeMap<String, usize>,
    longest_gap_ms: f64,
    acknowledged: usize,
}

/// Waits until each client has had some more writes acknowledged.
async fn all_write(clients: &[Client], event: &str) {
    let before: Vec<_> = clients.iter().map(Client::acked).collect();
    let begun = Instant::now();
    loop {
        let late = clients.iter().zip(&before).find(|(c, before)| c.acked() < *before + SOME);
        let Some((client, _)) = late else { return };
        assert!(
            begun.elapsed() < FOUND,
            "{event}: {} writes no more; {}",
            client.name,
            client.met()
        );
        sleep(Duration::from_millis(50)).await;
    }
}

/// From one look at the clients to the next.
struct Phases(Vec<Row>);

impl Phases {
    /// What each client met since the last call.
    async fn end(&mut self, clients: &[Client], event: &'static str) {
        all_write(clients, event).await;
        for client in clients {
            let mut tally = client.tally.lock().unwrap();
            let row = Row {
                client: client.name.clone(),
                event,
                errors: std::mem::take(&mut tally.errors),
                longest_gap_ms: std::mem::take(&mut tally.longest_gap),
                acknowledged: tally.acked.len(),
            };
            println!("{row:?}; last error of it so far: {}", tally.last_error);
            self.0.push(row);
        }
    }
}

/// Waits for a master that is not this one.
async fn moved(stage: &Stage, from: &NodeStatus) -> NodeStatus {
    let another = async || stage.master().await.incarnation != from.incarnation;
    until("another master", another).await;
    stage.master().await
}

/// What the master at this address has of a client's writes.
async fn written(machine: &Machine, master: &str, key: &str) -> HashSet<u64> {
    let asked = format!(
        "{THROUGH} redis-cli -h {master} --user app --pass {PASSWORD} --no-auth-warning SMEMBERS {key}"
    );
    machine.says(&asked).await.lines().filter_map(|line| line.parse().ok()).collect()
}

#[test]
fn real_clients_ride_through_all_that_moves_a_master() {
    sandboxed(
        "clients::real_clients_ride_through_all_that_moves_a_master",
        LIMIT,
        async |sandbox: Sandbox| {
            let (mut stage, machine) = beside_a_cluster(&sandbox).await;
            stage.until_ready().await;
            let all = addresses(&stage).await;
            let first = stage.master().await;
            let first_address =
                all.iter().find(|(n, _)| *n == first.incarnation).unwrap().1.clone();
            // All ask the node first that will be lost.
            let mut nodes = vec![first_address.clone()];
            nodes.extend(all.iter().map(|(_, a)| a.clone()).filter(|a| *a != first_address));
            let programs = programs().await;
            let start = |suffix: &str, nodes: &[String]| -> Vec<Client> {
                programs.iter().map(|p| Client::start(&machine, p, suffix, nodes)).collect()
            };
            let clients = start("", &nodes);
            let mut phases = Phases(Vec::new());
            phases.end(&clients, "start").await;

            stage.kill_redis(&first);
            let second = moved(&stage, &first).await;
            phases.end(&clients, "failover").await;
            stage.until_ready().await;

            let ordinal = second.ordinal.to_string();
            let said = stage.cli(&["migrate", CLUSTER, &ordinal]).await;
            assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
            let gone = |status: &akash_redis::api::status::Status| {
                status.nodes.iter().all(|node| node.incarnation != second.incarnation)
            };
            stage.until_status("the migration", gone).await;
            stage.until_ready().await;
            phases.end(&clients, "migration").await;

            let before = stage.master().await;
            if before.incarnation != first.incarnation {
                let said = stage.cli(&["switchover", CLUSTER, "--to", &first.incarnation]).await;
                assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
                moved(&stage, &before).await;
            }
            phases.end(&clients, "switchover").await;
            stage.until_ready().await;

            let (provider, lease) = stage.local.market.find(first.dseq).unwrap();
            let acked: Vec<_> = clients.iter().map(Client::acked).collect();
            assert!(stage.local.market.providers[provider].runner.power_off(&lease));
            let last = moved(&stage, &first).await;
            phases.end(&clients, "node lost").await;

            stage.local.kill_operator().await;
            // With a list made anew: redis-rs asks all at once, and proxychains stops it at each dial
            // to a node that is gone, for longer than it waits for the others.
            let all = addresses(&stage).await;
            let living = all.iter().map(|(_, at)| at).filter(|at| **at != first_address);
            let living: Vec<_> = living.cloned().collect();
            let later = start("-later", &living);
            phases.end(&later, "start, operator away").await;
            phases.end(&clients, "operator away").await;

            let master = all.iter().find(|(n, _)| *n == last.incarnation).unwrap().1.clone();
            for (client, acked) in
                clients.iter().zip(acked).chain(later.iter().zip(std::iter::repeat(0)))
            {
                let wrote = client.tally.lock().unwrap().acked.clone();
                let lost_at = wrote.get(acked).map_or(0.0, |(_, at)| *at);
                let doubtful = |at: f64| lost_at > 0.0 && (at - lost_at).abs() < LAST_MOMENT;
                // What a queue took is done a little later.
                let mut missing = Vec::new();
                until("all that was acknowledged", async || {
                    let has = written(&machine, &master, &client.key).await;
                    missing = wrote.iter().filter(|(n, _)| !has.contains(n)).copied().collect();
                    if !missing.is_empty() {
                        println!(
                            "{}: {missing:?} missing, the machine was lost at {lost_at}",
                            client.key
                        );
                    }
                    missing.iter().all(|(_, at)| doubtful(*at))
                })
                .await;
                assert!(wrote.len() > SOME, "{}", client.key);
            }
            let dir = Path::new(ROOT).join("target/bench");
            std::fs::create_dir_all(&dir).unwrap();
            let text = serde_json::to_string_pretty(&phases.0).unwrap();
            std::fs::write(dir.join("clients.json"), text).unwrap();
        },
    );
}
