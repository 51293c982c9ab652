//! What Redis says about itself, read into a [`RedisState`]. Pure.

use std::collections::HashMap;

use super::redis_config::{BLACK_HOLE, FENCE};
use crate::model::node::{
    AttachedReplica, Health, Link, Load, Process, RedisState, Role, Unwritten,
};

/// One answer of Redis to `INFO` and `CONFIG GET min-replicas-*`.
#[derive(Clone, Debug, Default)]
pub struct Info {
    fields: HashMap<String, String>,
    /// min-replicas-to-write in force.
    pub min_replicas: u32,
    /// min-replicas-max-lag in force, seconds.
    pub max_lag: u32,
    /// repl-ping-replica-period in force, seconds.
    pub ping_period: u32,
}

impl Info {
    /// Reads the text of `INFO` and the pairs of `CONFIG GET`.
    #[must_use]
    pub fn parse(text: &str, config: &HashMap<String, String>) -> Self {
        let fields = text
            .lines()
            .filter_map(|line| line.trim_end().split_once(':'))
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .collect();
        let number = |name: &str| config.get(name).and_then(|v| v.parse().ok()).unwrap_or(0);
        Self {
            fields,
            min_replicas: number("min-replicas-to-write"),
            max_lag: number("min-replicas-max-lag"),
            ping_period: number("repl-ping-replica-period"),
        }
    }

    /// A field, empty when absent.
    #[must_use]
    pub fn text(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }

    /// A field as a number, 0 when absent.
    #[must_use]
    pub fn number(&self, name: &str) -> i64 {
        self.text(name).parse().unwrap_or(0)
    }

    /// A field that is 1.
    #[must_use]
    pub fn flag(&self, name: &str) -> bool {
        self.text(name) == "1"
    }

    /// Identity of the process.
    #[must_use]
    pub fn run_id(&self) -> &str {
        self.text("run_id")
    }

    /// Name of the history that the offset counts in.
    #[must_use]
    pub fn replid(&self) -> &str {
        self.text("master_replid")
    }

    /// Its role.
    #[must_use]
    pub fn role(&self) -> Role {
        match self.text("role") {
            "master" => Role::Master,
            "slave" => Role::Replica,
            _ => Role::Unknown,
        }
    }

    /// A replica's link to its master is up.
    #[must_use]
    pub fn link_up(&self) -> bool {
        self.text("master_link_status") == "up"
    }

    /// A replica's configured master; `None` when it follows nobody.
    #[must_use]
    pub fn master(&self) -> Option<&str> {
        let (hole, hole_port) = BLACK_HOLE;
        let host = self.text("master_host");
        let nobody =
            host.is_empty() || (host == hole && self.number("master_port") == i64::from(hole_port));
        (!nobody).then_some(host)
    }

    /// Offset written (master) or applied (replica).
    #[must_use]
    pub fn offset(&self) -> i64 {
        let applied = self.number("slave_repl_offset");
        if self.role() == Role::Replica && applied > 0 {
            applied
        } else {
            self.number("master_repl_offset")
        }
    }

    /// The state as far as one answer shows it; what takes several looks is left at its default.
    #[must_use]
    pub fn state(&self) -> RedisState {
        let unsigned = |name: &str| u64::try_from(self.number(name)).unwrap_or(0);
        let sync = self.flag("master_sync_in_progress");
        RedisState {
            process: Process::Running,
            role: self.role(),
            run_id: self.run_id().to_owned(),
            version: self.version(),
            loading: self.flag("loading") || self.flag("async_loading"),
            replid: self.text("master_replid").to_owned(),
            replid2: self.text("master_replid2").to_owned(),
            second_offset: self.number("second_repl_offset"),
            offset: self.offset(),
            used_memory_bytes: unsigned("used_memory"),
            keys: self.keys(),
            master_host: self.master().unwrap_or_default().to_owned(),
            link: Link::of(self.link_up(), sync),
            sync_done_bytes: if sync { unsigned("master_sync_read_bytes") } else { 0 },
            sync_total_bytes: if sync { unsigned("master_sync_total_bytes") } else { 0 },
            replicas: self.replicas(),
            min_replicas: self.min_replicas,
            max_lag_seconds: self.max_lag,
            fenced: self.role() != Role::Master || self.min_replicas == FENCE,
            health: Health {
                unwritten: self.unwritten(),
                maxmemory_bytes: unsigned("maxmemory"),
                ..Health::default()
            },
            load: Some(Load {
                ops_per_second: unsigned("instantaneous_ops_per_sec"),
                clients: unsigned("connected_clients"),
                evicted_keys: unsigned("evicted_keys"),
                last_save_seconds: unsigned("rdb_last_save_time"),
            }),
            ..RedisState::default()
        }
    }

    /// Valkey calls itself Redis 7.2.4, and names its own version beside.
    #[must_use]
    pub fn version(&self) -> String {
        match self.text("valkey_version") {
            "" => self.text("redis_version").to_owned(),
            own => format!("valkey {own}"),
        }
    }

    fn unwritten(&self) -> Unwritten {
        let failed = |name: &str| !matches!(self.text(name), "ok" | "");
        let logs = self.flag("aof_enabled");
        Unwritten {
            snapshot: failed("rdb_last_bgsave_status"),
            log: logs && failed("aof_last_write_status"),
            rewrite: logs && failed("aof_last_bgrewrite_status"),
        }
    }

    /// Keys of all databases.
    #[must_use]
    pub fn keys(&self) -> u64 {
        let of_db = |line: &String| {
            line.split(',')
                .find_map(|part| part.strip_prefix("keys="))
                .and_then(|n| n.parse::<u64>().ok())
        };
        let is_db = |name: &str| name.strip_prefix("db").is_some_and(|n| n.parse::<u32>().is_ok());
        self.fields.iter().filter(|(name, _)| is_db(name)).filter_map(|(_, line)| of_db(line)).sum()
    }

    /// Numbers of the databases that have keys, in order.
    #[must_use]
    pub fn databases(&self) -> Vec<u32> {
        let number = |name: &String| name.strip_prefix("db").and_then(|n| n.parse().ok());
        let mut all: Vec<u32> = self.fields.keys().filter_map(number).collect();
        all.sort_unstable();
        all
    }

    fn replicas(&self) -> Vec<AttachedReplica> {
        let count = usize::try_from(self.number("connected_slaves")).unwrap_or(0);
        (0..count)
            .filter_map(|n| self.fields.get(&format!("slave{n}")))
            .map(|line| attached(line))
            .collect()
    }
}

fn attached(line: &str) -> AttachedReplica {
    let part = |name: &str| {
        line.split(',')
            .find_map(|p| p.split_once('=').filter(|(k, _)| *k == name))
            .map_or("", |(_, v)| v)
    };
    AttachedReplica {
        name: part("ip").to_owned(),
        state: part("state").to_owned().into(),
        offset: part("offset").parse().unwrap_or(0),
        lag_seconds: part("lag").parse().unwrap_or(u32::MAX),
        behind_ms: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::node::ReplicaState;

    #[test]
    fn a_master_with_replicas_is_read() {
        let text = "run_id:r1\r\nredis_version:7.0.15\r\nrole:master\r\nloading:0\r\nmaster_replid:aa\r\nmaster_repl_offset:42\r\nconnected_slaves:1\r\n\
                    slave0:ip=b.mesh.test,port=6379,state=online,offset=40,lag=1\r\ndb0:keys=3,expires=0,avg_ttl=0\r\ndb7:keys=2,expires=0,avg_ttl=0\r\n";
        let config = HashMap::from([
            ("min-replicas-to-write".into(), "1".into()),
            ("min-replicas-max-lag".into(), "8".into()),
        ]);
        let state = Info::parse(text, &config).state();
        assert_eq!(
            (state.role, state.offset, state.keys, state.fenced),
            (Role::Master, 42, 5, false)
        );
        assert_eq!(Info::parse(text, &config).databases(), [0, 7]);
        assert_eq!(
            state.replicas,
            [AttachedReplica {
                name: "b.mesh.test".into(),
                state: ReplicaState::Online,
                offset: 40,
                lag_seconds: 1,
                behind_ms: 0
            }]
        );
    }

    #[test]
    fn valkey_is_told_from_the_redis_that_it_says_it_is() {
        let version = |text: &str| Info::parse(text, &HashMap::new()).state().version;
        assert_eq!(version("redis_version:7.2.4\r\n"), "7.2.4");
        let valkey = "redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:8.1.8\r\n";
        assert_eq!(version(valkey), "valkey 8.1.8");
    }

    #[test]
    fn the_black_hole_is_no_master() {
        let info = Info::parse(
            "role:slave\r\nmaster_host:127.0.0.1\r\nmaster_port:1\r\nslave_repl_offset:-1\r\nmaster_repl_offset:7\r\n",
            &HashMap::new(),
        );
        assert_eq!((info.master(), info.offset(), info.state().fenced), (None, 7, true));
    }
}
