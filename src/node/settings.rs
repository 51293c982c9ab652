//! Where things are and how long things may take. Production values by default; tests give their
//! own.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::model::identity::REVISION_VARIABLE;
use crate::model::ports::{
    AGENT_PORT, FORWARD_PORT, REDIS_PORT, SENTINEL_PORT, SOCKS5_PORT, STATUS_PORT,
};
use crate::model::time::Backoff;

/// Paths, ports and time-outs of an agent.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Mounted data volume; used only when the identity says that there is one.
    pub data_dir: PathBuf,
    /// Scratch of this container: sockets, generated files.
    pub run_dir: PathBuf,
    /// Program of Redis.
    pub redis_server: PathBuf,
    /// Program of the mesh daemon.
    pub tailscaled: PathBuf,
    /// Program that logs the mesh daemon in.
    pub tailscale: PathBuf,
    /// Program that carries Redis' connections when `egress` is `proxychains`.
    pub proxychains: PathBuf,
    /// Port of Redis on 127.0.0.1.
    pub redis_port: u16,
    /// Port that masters are reached at: the mesh carries it to the master's loopback.
    pub master_port: u16,
    /// Port of the agent service on 127.0.0.1.
    pub service_port: u16,
    /// Port of the status page on all addresses.
    pub status_port: u16,
    /// Port on 127.0.0.1 where the agent answers as Sentinel.
    pub sentinel_port: u16,
    /// Port on 127.0.0.1 that leads to the present master, for who comes in by a service of the tailnet.
    pub forward_port: u16,
    /// Port of the mesh daemon's SOCKS5 proxy on 127.0.0.1.
    pub socks_port: u16,
    /// The hosts file.
    pub hosts_file: PathBuf,
    /// Time between two looks at Redis.
    pub probe_interval: Duration,
    /// Redis that does not answer for so long is said not to answer.
    pub stuck_after: Duration,
    /// Redis may keep everybody waiting for so long, where the operator says nothing.
    pub patience: Duration,
    /// A fence holds writes back for so long, then they are refused.
    pub hold_writes: Duration,
    /// Another agent on the same volume has so long to go.
    pub volume_wait: Duration,
    /// Between the exit of a process and its next start.
    pub restarts: Backoff,
    /// A master whose container is being stopped waits so long for another one to take over.
    pub leave_within: Duration,
    /// Redis and the mesh daemon go on when the agent dies, and the next agent takes them over.
    pub outlives_agent: bool,
    /// The word for what this container was started with, for the operator.
    pub revision: String,
}

impl Settings {
    /// Redis may take so long to save and exit when asked to.
    pub const REDIS_STOP: Duration = Duration::from_secs(10);

    /// Production values, each path replaced by its `AKASH_REDIS_*` variable where that is set.
    #[must_use]
    pub fn from_env() -> Self {
        let path = |name: &str, default: &str| {
            std::env::var_os(name).map_or_else(|| PathBuf::from(default), PathBuf::from)
        };
        Self {
            data_dir: path("AKASH_REDIS_DATA_DIR", "/data"),
            run_dir: path("AKASH_REDIS_RUN_DIR", "/run/akash-redis"),
            redis_server: path("AKASH_REDIS_REDIS_SERVER", "redis-server"),
            tailscaled: path("AKASH_REDIS_TAILSCALED", "tailscaled"),
            tailscale: path("AKASH_REDIS_TAILSCALE", "tailscale"),
            proxychains: path("AKASH_REDIS_PROXYCHAINS", "proxychains4"),
            redis_port: REDIS_PORT,
            master_port: REDIS_PORT,
            service_port: AGENT_PORT,
            status_port: STATUS_PORT,
            sentinel_port: SENTINEL_PORT,
            forward_port: FORWARD_PORT,
            socks_port: SOCKS5_PORT,
            hosts_file: path("AKASH_REDIS_HOSTS_FILE", "/etc/hosts"),
            probe_interval: Duration::from_millis(250),
            stuck_after: Duration::from_secs(2),
            patience: Duration::from_secs(30),
            // As long as a switchover may take.
            hold_writes: Duration::from_secs(10),
            // Twice what Kubernetes gives a container that is being replaced.
            volume_wait: Duration::from_mins(1),
            restarts: Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(30) },
            // Kubernetes gives a container 30 s; redis and the rest need some of them to end cleanly.
            leave_within: Duration::from_secs(15),
            outlives_agent: true,
            revision: std::env::var(REVISION_VARIABLE).unwrap_or_default(),
        }
    }

    /// Root of what must outlive the container: the volume, or scratch where there is none.
    #[must_use]
    pub fn kept_dir(&self, persistent: bool) -> PathBuf {
        if persistent { self.data_dir.clone() } else { self.run_dir.join("kept") }
    }

    /// Directory of the mesh daemon's socket, its own: it may run as a user of its own.
    #[must_use]
    pub fn mesh_dir(&self) -> PathBuf {
        self.run_dir.join("tailscale")
    }

    /// The unix socket of the mesh daemon.
    #[must_use]
    pub fn mesh_socket(&self) -> PathBuf {
        self.mesh_dir().join("tailscaled.sock")
    }
}

/// Finds a program: a path as it is, a bare name in `PATH`. `None` when it is not there.
#[must_use]
pub fn find_program(program: &Path) -> Option<PathBuf> {
    if program.components().count() > 1 {
        return program.is_file().then(|| program.to_owned());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|full| full.is_file())
}
