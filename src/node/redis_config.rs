//! The files that redis-server starts from: fenced, on a unix socket, with nobody but the agent let
//! in.
//! Pure text.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::mesh::outside::dns_name;
use crate::model::memory::{MIB, default_maxmemory, replica_buffer, replication_backlog};

/// Replicas that no master has: with it as min-replicas-to-write every write is refused.
pub const FENCE: u32 = crate::model::node::REFUSES_WRITES;
/// Where a replica without a master points to: nobody listens on port 1 of loopback.
pub const BLACK_HOLE: (&str, u16) = ("127.0.0.1", 1);
/// The agent's own user.
pub const AGENT_USER: &str = "_agent";
/// min-replicas-max-lag until the operator says otherwise, seconds. Never 0: that would switch the
/// fence off.
pub const BOOT_MAX_LAG: u32 = 8;

/// A master sends its replicas a ping so often, seconds: mesh connections die silently, both ends
/// must notice by data.
pub const PING_PERIOD: u32 = 1;

/// How Redis copies a master: onto its volume first, as it goes on answering meanwhile; it gives one up
/// that says nothing for 20 s.
pub const FROM_A_MASTER: [(&str, &str); 2] =
    [("repl-timeout", "20"), ("repl-diskless-load", "disabled")];
/// How an empty Redis copies the agent when that has a backup: it loads what comes at once, and answers
/// nothing while nothing comes. The agent gives up a storage, and a volume, that stands still long
/// before Redis gives up the agent.
pub const FROM_A_BACKUP: [(&str, &str); 2] =
    [("repl-timeout", "600"), ("repl-diskless-load", "on-empty-db")];

/// What the files depend on.
#[derive(Clone, Debug)]
pub struct BootConfig {
    /// Port on 127.0.0.1, once there are users.
    pub port: u16,
    /// Directory of socket, ACL file and configuration.
    pub run_dir: PathBuf,
    /// Directory of the data.
    pub data_dir: PathBuf,
    /// The data is in an append-only file; without it the snapshot is loaded.
    pub append_only: bool,
    /// Snapshots are taken.
    pub snapshots: bool,
    /// maxmemory until the operator says otherwise, bytes.
    pub maxmemory: u64,
    /// Memory of the container, bytes.
    pub container_bytes: u64,
    /// Own mesh name, when it is known.
    pub announce: Option<String>,
    /// What Redis takes when it starts, and never after.
    pub startup: BTreeMap<String, String>,
}

impl BootConfig {
    /// Name of the unix socket of Redis.
    pub const SOCKET: &str = "redis.sock";

    fn socket(&self) -> PathBuf {
        self.run_dir.join(Self::SOCKET)
    }

    /// The ACL file.
    #[must_use]
    pub fn acl_file(&self) -> PathBuf {
        self.run_dir.join("users.acl")
    }

    /// Content of redis.conf.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        let (hole, hole_port) = BLACK_HOLE;
        let backlog = replication_backlog(self.maxmemory);
        let replica_buffer = replica_limit(replica_buffer(self.container_bytes, self.maxmemory));
        let lines = [
            // Nobody is let in before the first settings: a connection that is refused is tried
            // again, a password that is not known yet is not.
            "bind 127.0.0.1\nport 0".into(),
            format!("unixsocket {}\nunixsocketperm 700", quoted(&self.socket())),
            format!("aclfile {}", quoted(&self.acl_file())),
            "daemonize no\nlogfile \"\"\nalways-show-logo no\nset-proc-title no".into(),
            "enable-debug-command no\nenable-module-command no\nenable-protected-configs no".into(),
            // Fenced: a replica of nobody that answers no reads, and no writes even if it became
            // master.
            format!(
                "replicaof {hole} {hole_port}\nreplica-read-only yes\nreplica-serve-stale-data no"
            ),
            format!("min-replicas-to-write {FENCE}\nmin-replicas-max-lag {BOOT_MAX_LAG}"),
            format!("repl-ping-replica-period {PING_PERIOD}\ntcp-keepalive 60"),
            "repl-diskless-sync yes\nrepl-diskless-sync-delay 0".into(),
            directives(FROM_A_MASTER),
            format!("repl-backlog-size {backlog}"),
            format!("client-output-buffer-limit {replica_buffer}"),
            format!("maxmemory {}\nmaxmemory-policy noeviction", self.maxmemory),
            format!("dir {}\ndbfilename dump.rdb", quoted(&self.data_dir)),
            format!(
                "appendonly {}\nappendfsync everysec",
                if self.append_only { "yes" } else { "no" }
            ),
            if self.snapshots { "save 3600 1 300 100 60 10000".into() } else { "save \"\"".into() },
            // Half of what the agent allows for the whole stop.
            "shutdown-timeout 5".into(),
            format!("replica-announce-port {}", self.port),
        ];
        for line in lines {
            let _ = writeln!(text, "{line}");
        }
        text.push_str(&startup_lines(&self.startup));
        // What is no name would begin directives of its own.
        if let Some(name) = self.announce.as_deref().and_then(dns_name) {
            let _ = writeln!(text, "replica-announce-ip {name}");
        }
        text
    }
}

fn directives(how: [(&str, &str); 2]) -> String {
    how.map(|(name, value)| format!("{name} {value}")).join("\n")
}

/// Directives that Redis takes when it starts, and never after.
fn startup_lines(startup: &BTreeMap<String, String>) -> String {
    // A line end in one of them would begin directives of its own.
    let plain = |text: &str| {
        !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
    };
    let lines = startup.iter().filter(|(n, v)| plain(n) && plain(v));
    lines.fold(String::new(), |mut all, (name, value)| {
        let _ = writeln!(all, "{name} {value}");
        all
    })
}

/// Content of redis.conf of a redis-server that copies a master on loopback, writes nothing, and is
/// the first that the system ends when memory runs out.
#[must_use]
pub fn throw_away(
    dir: &Path,
    socket: &Path,
    master: u16,
    startup: &BTreeMap<String, String>,
) -> String {
    let (dir, socket) = (quoted(dir), quoted(socket));
    let copies = directives(FROM_A_BACKUP);
    format!(
        "bind 127.0.0.1\nport 0\nunixsocket {socket}\nunixsocketperm 700\n\
         dir {dir}\ndaemonize no\nlogfile \"\"\nalways-show-logo no\nset-proc-title no\n\
         enable-debug-command no\nenable-module-command no\nenable-protected-configs no\n\
         save \"\"\nappendonly no\nmaxmemory 0\n\
         replicaof 127.0.0.1 {master}\nreplica-read-only yes\nreplica-serve-stale-data no\n\
         {copies}\n\
         oom-score-adj absolute\noom-score-adj-values 1000 1000 1000\n{}",
        startup_lines(startup)
    )
}

/// The limit of replicas' output buffers, in Redis' words. There is none by time: under load a full
/// sync is behind for as long as it takes.
#[must_use]
pub fn replica_limit(bytes: u64) -> String {
    format!("replica {bytes} 0 0")
}

/// Content of the ACL file: the agent and nobody else. Nobody can be the default user, which is off;
/// but Redis carries out the transactions of its append-only file as that user, and leaves out those
/// that it may not.
#[must_use]
pub fn acl_text(agent_password: &str) -> String {
    let hash = hex::encode(Sha256::digest(agent_password));
    format!("user default reset off ~* &* +@all\nuser {AGENT_USER} reset on #{hash} ~* &* +@all\n")
}

/// maxmemory from the start until the operator says otherwise. Never so little that Redis cannot
/// load anything.
#[must_use]
pub fn boot_maxmemory(container_bytes: u64) -> u64 {
    default_maxmemory(container_bytes).max(16 * MIB)
}

fn quoted(path: &Path) -> String {
    let escaped = path.to_string_lossy().replace('\\', "\\\\").replace('"', "\\\"");
    format!("\"{escaped}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_files_are_fenced_and_keep_no_password() {
        let config = BootConfig {
            port: 6379,
            run_dir: "/run/x".into(),
            data_dir: "/data/redis".into(),
            append_only: false,
            snapshots: true,
            maxmemory: boot_maxmemory(1024 * MIB),
            container_bytes: 1024 * MIB,
            announce: Some("a.mesh.test".into()),
            startup: [("io-threads", "4"), ("tcp-backlog", "5\nbind 0.0.0.0")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
        };
        let text = config.text();
        assert!(!text.contains("0.0.0.0") && !text.contains("tcp-backlog"), "{text}");
        for line in [
            "bind 127.0.0.1",
            "io-threads 4",
            "port 0",
            "replicaof 127.0.0.1 1",
            "min-replicas-to-write 2147483647",
            "replica-serve-stale-data no",
            "enable-debug-command no",
            "client-output-buffer-limit replica 194405991 0 0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}");
        }
        assert!(text.lines().any(|l| l == "replica-announce-ip a.mesh.test"));
        let named =
            |name: &str| BootConfig { announce: Some(name.to_owned()), ..config.clone() }.text();
        for forged in
            ["a.mesh.test\nrename-command CONFIG x", "a.mesh.test\r\nloadmodule /x.so", "a b"]
        {
            assert_eq!(
                named(forged),
                BootConfig { announce: None, ..config.clone() }.text(),
                "{forged:?} is no name"
            );
        }
        assert!(acl_text("s3cret").starts_with("user default reset off ~* &* +@all\n"));
        assert!(!acl_text("s3cret").contains("s3cret"));
        assert_eq!(boot_maxmemory(1024 * MIB) / MIB, 576);
    }

    /// It would end the link as for a backup that is no good.
    #[test]
    fn a_rehearsal_waits_for_a_storage_as_long_as_a_restore_does() {
        let text = throw_away("/x".as_ref(), "/x/s".as_ref(), 7, &BTreeMap::new());
        for (name, value) in FROM_A_BACKUP {
            assert!(text.lines().any(|line| line == format!("{name} {value}")), "{text}");
        }
    }
}
