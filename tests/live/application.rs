//! Applications that write all the time with real clients, and what became of their writes.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use crate::machine::Machine;
use crate::stage::PASSWORD;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// A client writes again within this, whatever happened to the master.
const FOUND: Duration = Duration::from_mins(1);
/// Acknowledged writes that show that a client writes again.
pub const SOME: usize = 20;
const SOCKS5: &str = "127.0.0.1:1055";

/// What a client said.
#[derive(Default)]
pub struct Tally {
    /// Numbers of the acknowledged writes, and when, in milliseconds of the client's own clock.
    pub acked: Vec<(u64, f64)>,
    /// Errors of this phase, by kind.
    pub errors: BTreeMap<String, usize>,
    /// The last one in full.
    pub last_error: String,
    /// Longest time between two acknowledged writes of this phase, in milliseconds.
    pub longest_gap: f64,
    /// How long each command of this phase took, milliseconds, where the client says so.
    pub took: Vec<f64>,
    /// What the client was told of planned changes in this phase.
    pub told: BTreeMap<String, usize>,
    /// From the start to the first acknowledged write.
    pub first: Option<Duration>,
}

impl Tally {
    fn hear(&mut self, line: &str, since: Instant) {
        let said: Value = serde_json::from_str(line).unwrap_or_default();
        let at = said["at"].as_f64().unwrap_or_default();
        if let Some(n) = said["acked"].as_u64() {
            let gap = self.acked.last().map_or(0.0, |(_, before)| at - before);
            self.longest_gap = self.longest_gap.max(gap);
            self.acked.push((n, at));
            self.took.extend(said["took"].as_f64());
            self.first.get_or_insert(since.elapsed());
            return;
        }
        if let Some(what) = said["told"].as_str() {
            *self.told.entry(what.to_owned()).or_default() += 1;
            return;
        }
        let kind = said["error"].as_str().unwrap_or("unreadable");
        *self.errors.entry(kind.to_owned()).or_default() += 1;
        line.clone_into(&mut self.last_error);
    }
}

/// How an application is started.
#[derive(Clone)]
pub struct Program {
    pub name: String,
    /// What a shell is told, and what it finds in its environment beside the usual.
    pub line: String,
    pub variables: Vec<(&'static str, String)>,
}

impl Program {
    /// The same behind a proxy of its machine, in the library's own settings.
    pub fn behind(&self, proxy: &str) -> Self {
        // It has nothing to do with the tailnet any more.
        let line = self.line.rsplit_once("proxychains.conf ").map_or(&*self.line, |(_, own)| own);
        let name = format!("{}, through the proxy", self.name);
        Self { name, line: line.to_owned(), variables: vec![("PROXY", proxy.to_owned())] }
    }

    /// One connection and nothing else, behind a proxy.
    pub fn plain(proxy: &str) -> Self {
        let variables =
            vec![("PROXY", proxy.to_owned()), ("PLAIN", include_str!("plain.py").to_owned())];
        let line = "/usr/bin/python3 -c \"$PLAIN\"".to_owned();
        Self { name: "one connection, no retry, through the proxy".to_owned(), line, variables }
    }
}

/// Those of `tests/clients`: `make clients` has built them.
pub async fn programs() -> Vec<Program> {
    let script = Path::new(ROOT).join("tests/clients/build.sh");
    let output = Command::new(script).stdin(Stdio::null()).output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "`make clients` first; without a network: {said}");
    let lines = String::from_utf8(output.stdout).unwrap();
    let program = |line: &str| {
        let (name, line) = line.split_once(' ').unwrap();
        Program { name: name.to_owned(), line: line.to_owned(), variables: Vec::new() }
    };
    lines.lines().map(program).collect()
}

/// One that runs.
pub struct Client {
    pub name: String,
    /// The set that its numbers are in.
    pub key: String,
    tally: Arc<Mutex<Tally>>,
    _process: Child,
}

impl Client {
    /// Starts a client that asks these nodes, the first one first.
    pub fn start(machine: &Machine, program: &Program, suffix: &str, nodes: &[String]) -> Self {
        let (nodes, name) = (nodes.join(" "), &program.name);
        let key = format!("{}{suffix}", name.replace([' ', ','], "-"));
        let mut variables =
            vec![("NODES", &*nodes), ("PASSWORD", PASSWORD), ("KEY", &*key), ("SOCKS5", SOCKS5)];
        variables.extend(program.variables.iter().map(|(name, value)| (*name, &**value)));
        // One that finds nobody when it starts may end: it is started again, as a container is.
        let again = r#"echo '{"error":"ended"}'; sleep 1"#;
        let lines = format!("while true; do {}; {again}; done", program.line);
        let mut shell = machine.shell(&variables, &lines);
        let mut process = shell.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let tally = Arc::new(Mutex::new(Tally::default()));
        let (told, since) = (tally.clone(), Instant::now());
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                told.lock().unwrap().hear(&line, since);
            }
        });
        Self { name: name.clone(), key, tally, _process: process }
    }

    pub fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap()
    }

    /// Its errors of this phase.
    fn met(&self) -> String {
        let tally = self.tally();
        format!("{:?}, last: {}", tally.errors, tally.last_error)
    }

    pub fn acked(&self) -> usize {
        self.tally().acked.len()
    }
}

/// Waits until each client has had some more writes acknowledged.
pub async fn all_write(clients: &[Client], event: &str) {
    all_write_within(clients, event, FOUND).await;
}

pub async fn all_write_within(clients: &[Client], event: &str, limit: Duration) {
    let before: Vec<_> = clients.iter().map(Client::acked).collect();
    let begun = Instant::now();
    loop {
        let late = clients.iter().zip(&before).find(|(c, before)| c.acked() < *before + SOME);
        let Some((client, _)) = late else { return };
        assert!(
            begun.elapsed() < limit,
            "{event}: {} writes no more; {}",
            client.name,
            client.met()
        );
        sleep(Duration::from_millis(50)).await;
    }
}
