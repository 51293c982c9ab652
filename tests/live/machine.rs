//! A container that somebody sets up by hand: its own network, processes and system directories,
//! with the programs on its PATH.

use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use akash_redis::devnet::net::Net;
use akash_redis::devnet::provider::container;
use akash_redis::devnet::tailnet::{Tailnet, login_server, node_env};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, Command};

/// DIR ADDRESS GATEWAY: what the programs write to by default is private to this machine. The first
/// process buries the dead.
const SET_UP: &str = r#"set -eu
mkdir -p "$1/etc"
cp -a /etc/. "$1/etc" 2>/dev/null || true
mkdir -p "$1/etc/redis"
printf '127.0.0.1 localhost\n' > "$1/etc/hosts"
mount --bind "$1/etc" /etc
for dir in /var/lib /run /tmp; do mount -t tmpfs tmpfs "$dir"; done
echo ready
read -r _
ip link set lo up
ip addr add "$2/24" dev eth0
ip link set eth0 up
ip route add default via "$3"
echo plugged
exec tini -- sleep infinity"#;

/// The one thing that is not typed as written: which control server to use.
const LOGIN: &str = r#"tailscale() { if [ "$1" = up ]; then command tailscale "$@" --login-server="$LOGIN_SERVER"; else command tailscale "$@"; fi; }
"#;

pub struct Machine {
    _first: Child,
    pid: u32,
    pub address: Ipv4Addr,
    dir: PathBuf,
    path: OsString,
}

impl Machine {
    pub async fn start(net: &Net, tailnet: &Tailnet, dir: PathBuf) -> Self {
        let address = net.take().unwrap();
        std::fs::create_dir_all(&dir).unwrap();
        let mut first = Command::new("unshare");
        first.args([
            "--net",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "--",
            "sh",
            "-c",
            SET_UP,
            "sh",
        ]);
        first.arg(&dir).args([address, Net::GATEWAY].map(|ip| ip.to_string()));
        let mut first =
            first.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let pid = first.id().unwrap();
        let mut said = BufReader::new(first.stdout.take().unwrap()).lines();
        assert_eq!(said.next_line().await.unwrap().as_deref(), Some("ready"));
        net.plug(address, pid).await.unwrap();
        first.stdin.take().unwrap().write_all(b"go\n").await.unwrap();
        assert_eq!(said.next_line().await.unwrap().as_deref(), Some("plugged"));
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::iter::once(tailnet.peers().to_owned()).chain(std::env::split_paths(&path));
        Self { _first: first, pid, address, dir, path: std::env::join_paths(path).unwrap() }
    }

    /// A shell in it that will type these lines. `variables` are set beforehand.
    pub fn shell(&self, variables: &[(&str, &str)], lines: &str) -> Command {
        let mut command = Command::new("nsenter");
        let namespace = |kind: &str, name: &str| format!("--{kind}=/proc/{}/ns/{name}", self.pid);
        command.args([
            namespace("net", "net"),
            namespace("mount", "mnt"),
            namespace("pid", "pid_for_children"),
        ]);
        command
            .args(["--", "bash", "-c", &format!("{LOGIN}{lines}")])
            .env("PATH", &self.path)
            .env("HOME", "/run");
        command
            .envs(node_env())
            .env("TS_LOGS_DIR", "/run")
            .env("LOGIN_SERVER", login_server())
            .envs(variables.iter().copied());
        command.stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    /// Types lines and waits for their end. What stays in the background must not hold the output
    /// open.
    pub async fn run(&self, lines: &str) -> Output {
        self.shell(&[], lines).output().await.unwrap()
    }

    /// What a command says when it works.
    pub async fn says(&self, lines: &str) -> String {
        let output = self.run(lines).await;
        assert!(output.status.success(), "{lines}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Writes a file below its `/etc`.
    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.dir.join("etc").join(name), text).unwrap();
    }

    /// Its processes of this name.
    pub fn processes(&self, name: &str) -> Vec<u32> {
        container::processes(self.pid, name)
    }

    /// Where a file below its `/etc` is.
    pub fn etc(&self, name: &str) -> PathBuf {
        Path::new(&self.dir).join("etc").join(name)
    }
}
