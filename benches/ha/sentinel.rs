//! The peers: three servers, of Redis or Valkey, and three Sentinels on loopback.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::time::sleep;

use super::application::Finds;

const REDIS: [u16; 3] = [1, 2, 3];
const SENTINELS: [u16; 3] = [101, 102, 103];
const NAME: &str = "peer";
const POLL: Duration = Duration::from_millis(20);
/// Of a redis or Sentinel that lives.
const ANSWER: Duration = Duration::from_secs(2);

/// Which servers they are.
#[derive(Clone, Debug)]
pub struct Servers {
    pub program: PathBuf,
    /// A planned change is one without a loss (Valkey 9).
    pub coordinated: bool,
    /// Ports begin here.
    pub base: u16,
}

pub struct Peer {
    dir: PathBuf,
    servers: Servers,
    redis: Vec<(u16, Child)>,
    watchers: Vec<Child>,
}

impl Peer {
    /// All of it, in sync.
    pub async fn start(dir: &Path, down_after: Duration, servers: Servers) -> Self {
        let base = servers.base;
        let mut peer =
            Self { dir: dir.to_owned(), servers, redis: Vec::new(), watchers: Vec::new() };
        std::fs::create_dir_all(dir).expect("a directory");
        let first = base + REDIS[0];
        for port in REDIS.map(|port| base + port) {
            let child = peer.redis(port, first);
            peer.redis.push((port, child));
        }
        peer.in_sync(first).await;
        for port in peer.sentinels() {
            let file = dir.join(format!("{port}.conf"));
            let text = format!(
                "port {port}\ndir {}\nsentinel monitor {NAME} 127.0.0.1 {} 2\nsentinel down-after-milliseconds {NAME} {}\n\
                 sentinel failover-timeout {NAME} 3000\nsentinel parallel-syncs {NAME} 2\n",
                dir.display(),
                first,
                down_after.as_millis()
            );
            std::fs::write(&file, text).expect("a file");
            let mut command = Command::new(&peer.servers.program);
            peer.watchers.push(run(command.arg(&file).arg("--sentinel")));
        }
        peer.settled().await;
        peer
    }

    pub fn finds(&self) -> Finds {
        Finds::Sentinels { ports: self.sentinels().to_vec(), name: NAME }
    }

    fn sentinels(&self) -> [u16; 3] {
        SENTINELS.map(|port| self.servers.base + port)
    }

    fn redis(&self, port: u16, master: u16) -> Child {
        let mut command = Command::new(&self.servers.program);
        command.args(["--port", &port.to_string(), "--save", "", "--appendonly", "no"]);
        command.args(["--dir", &self.dir.to_string_lossy(), "--repl-diskless-sync-delay", "0"]);
        command.args(["--repl-ping-replica-period", "1"]);
        if port != master {
            command.args(["--replicaof", "127.0.0.1", &master.to_string()]);
        }
        run(&mut command)
    }

    async fn master(&self) -> u16 {
        loop {
            let said =
                cli(self.sentinels()[0], &["SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME]).await;
            if let Some(port) = said.lines().nth(1).and_then(|port| port.parse().ok()) {
                return port;
            }
            sleep(POLL).await;
        }
    }

    async fn in_sync(&self, master: u16) {
        while cli(master, &["INFO", "replication"]).await.matches("state=online").count() < 2 {
            sleep(POLL).await;
        }
    }

    /// Both replicas are online, and every Sentinel knows the others and both replicas.
    async fn settled(&self) {
        let master = self.master().await;
        self.in_sync(master).await;
        for port in self.sentinels() {
            loop {
                let said = cli(port, &["SENTINEL", "MASTER", NAME]).await;
                let lines: Vec<&str> = said.lines().collect();
                let is = |field: &str, value: &str| {
                    lines.windows(2).any(|pair| pair[0] == field && pair[1] == value)
                };
                if is("num-slaves", "2")
                    && is("num-other-sentinels", "2")
                    && is("flags", "master")
                    && is("port", &master.to_string())
                {
                    break;
                }
                sleep(POLL).await;
            }
        }
    }

    /// Redis of the master dies.
    pub async fn kill_master(&mut self) {
        let master = self.master().await;
        let child = self.redis.iter_mut().find(|(port, _)| *port == master).expect("it is ours");
        child.1.kill().await.expect("it ran");
    }

    /// Redis of a replica dies.
    pub async fn kill_replica(&mut self) {
        let master = self.master().await;
        let child = self.redis.iter_mut().find(|(port, _)| *port != master).expect("there are two");
        child.1.kill().await.expect("it ran");
    }

    /// Redis of the master stands still for so long.
    pub async fn stall_master(&self, time: Duration) {
        let master = self.master().await;
        let child = self.redis.iter().find(|(port, _)| *port == master).expect("it is ours");
        signal(&child.1, rustix::process::Signal::STOP);
        sleep(time).await;
        signal(&child.1, rustix::process::Signal::CONT);
    }

    /// Redis of the master is frozen, so that nothing says that it died.
    pub async fn freeze_master(&mut self) {
        let master = self.master().await;
        let child = self.redis.iter().find(|(port, _)| *port == master).expect("it is ours");
        signal(&child.1, rustix::process::Signal::STOP);
    }

    /// A planned change.
    pub async fn failover(&self) {
        let before = self.master().await;
        let mut command = vec!["SENTINEL", "FAILOVER", NAME];
        command.extend(self.servers.coordinated.then_some("COORDINATED"));
        cli(self.sentinels()[0], &command).await;
        while self.master().await == before {
            sleep(POLL).await;
        }
    }

    /// As before: what died is a replica of the present master.
    pub async fn repair(&mut self) {
        let master = self.master().await;
        for at in 0..self.redis.len() {
            let port = self.redis[at].0;
            signal(&self.redis[at].1, rustix::process::Signal::CONT);
            if self.redis[at].1.try_wait().expect("ours").is_some() {
                self.redis[at].1 = self.redis(port, master);
            }
        }
        self.settled().await;
    }
}

fn signal(child: &Child, signal: rustix::process::Signal) {
    let pid = child.id().and_then(|id| rustix::process::Pid::from_raw(id.try_into().ok()?));
    if let Some(pid) = pid {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

pub fn run(command: &mut Command) -> Child {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("redis-server is installed")
}

pub async fn cli(port: u16, arguments: &[&str]) -> String {
    let mut command = Command::new("redis-cli");
    command.args(["-p", &port.to_string()]).args(arguments).kill_on_drop(true);
    // What is frozen says nothing.
    match tokio::time::timeout(ANSWER, command.stdin(Stdio::null()).output()).await {
        Ok(output) => {
            let output = output.expect("redis-cli is installed");
            String::from_utf8_lossy(&output.stdout).into_owned()
        }
        Err(_) => String::new(),
    }
}
