//! A peer without anybody who watches: three redis-server, and `FAILOVER` of Redis itself.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::time::sleep;

use super::application::Finds;
use super::sentinel::{cli, run};

const PORTS: [u16; 3] = [7401, 7402, 7403];
const POLL: Duration = Duration::from_millis(20);

pub struct Plain(Vec<Child>);

impl Plain {
    /// All of it, in sync.
    pub async fn start(dir: &Path, program: &Path) -> Self {
        std::fs::create_dir_all(dir).expect("a directory");
        let server = |port: u16| {
            let mut command = Command::new(PathBuf::from(program));
            command.args(["--port", &port.to_string(), "--save", "", "--appendonly", "no"]);
            command.args(["--dir", &dir.to_string_lossy(), "--repl-diskless-sync-delay", "0"]);
            if port != PORTS[0] {
                command.args(["--replicaof", "127.0.0.1", &PORTS[0].to_string()]);
            }
            run(&mut command)
        };
        let plain = Self(PORTS.map(server).into());
        plain.settled().await;
        plain
    }

    pub fn finds() -> Finds {
        Finds::Roles { ports: PORTS.to_vec() }
    }

    async fn master(&self) -> u16 {
        loop {
            for port in PORTS {
                if cli(port, &["ROLE"]).await.starts_with("master") {
                    return port;
                }
            }
            sleep(POLL).await;
        }
    }

    /// Both replicas are online.
    pub async fn settled(&self) {
        assert_eq!(self.0.len(), PORTS.len());
        loop {
            let said = cli(self.master().await, &["INFO", "replication"]).await;
            if said.matches("state=online").count() == 2 {
                return;
            }
            sleep(POLL).await;
        }
    }

    /// A planned change, to whom it likes.
    pub async fn failover(&self) {
        let before = self.master().await;
        cli(before, &["FAILOVER"]).await;
        while cli(before, &["ROLE"]).await.starts_with("master") {
            sleep(POLL).await;
        }
        // Redis turns the two of them round alone: the third stays at the one before.
        let after = self.master().await.to_string();
        for port in PORTS.iter().filter(|port| port.to_string() != after) {
            cli(*port, &["REPLICAOF", "127.0.0.1", &after]).await;
        }
    }
}
