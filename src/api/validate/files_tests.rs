//! Settings and users as in the redis.conf and ACL files that people have: what is taken of them,
//! and what is said about the rest.

use std::fmt::Write as _;

use super::parse;

/// What is said about a manifest of 1 GiB per node with these settings and one user, each by the
/// last part of its field.
fn said(config: &str, name: &str, rules: &str) -> Vec<String> {
    let mut map: Vec<(String, String)> = Vec::new();
    for line in config.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (key, value) = line.split_once(' ').expect(line);
        let value = value.trim_matches('"');
        // Several lines of one setting are one value in a manifest.
        match map.iter_mut().find(|(known, _)| known == key) {
            Some((_, values)) => _ = write!(values, " {value}"),
            None => map.push((key.to_owned(), value.to_owned())),
        }
    }
    let config: serde_json::Map<String, serde_json::Value> =
        map.into_iter().map(|(key, value)| (key, value.into())).collect();
    let user =
        serde_json::json!({ "name": name, "rules": rules, "passwordSha256": "ab".repeat(32) });
    let manifest = serde_json::json!({
        "apiVersion": "akash-redis.dev/v1alpha1",
        "kind": "RedisCluster",
        "metadata": { "name": "cache" },
        "spec": {
            "nodes": 3,
            "resources": { "memory": "1Gi", "data": { "size": "4Gi" } },
            "redis": { "config": config, "users": [user] },
        },
    });
    let problems = parse(&manifest.to_string()).err().unwrap_or_default();
    problems
        .iter()
        .map(|p| {
            let field = p.path.rsplit('.').next().unwrap_or_default();
            format!("{field}: {}", p.message)
        })
        .collect()
}

/// Exactly these are told, in this order: a field and words of its sentence.
fn tells(what: &str, said: &[String], expected: &[(&str, &str)]) {
    let alike = said.len() == expected.len()
        && said.iter().zip(expected).all(|(one, (field, words))| {
            one.starts_with(&format!("{field}: ")) && one.contains(words)
        });
    assert!(alike, "{what}: {said:#?}\nnot {expected:#?}");
}

/// What is told: a field and words of its sentence.
type Told = &'static [(&'static str, &'static str)];

const OK: Told = &[];

/// Whose it is, its lines, what is told.
const REDIS_CONF: &[(&str, &str, Told)] = &[
    (
        "an error tracker",
        "maxmemory 0
             maxmemory-policy volatile-lru",
        &[("maxmemory", "`0` is no limit")],
    ),
    (
        "a business framework's cache",
        "dbfilename cache.rdb
             dir /srv/pids
             pidfile /srv/pids/cache.pid
             bind 127.0.0.1
             port 13000
             maxmemory 500mb
             maxmemory-policy allkeys-lru
             appendonly no
             save \"\"",
        &[
            ("dbfilename", "it is `dump.rdb`"),
            ("dir", "the node decides where its data is"),
            ("pidfile", "the node runs the process"),
            ("port", "it is `6379`"),
        ],
    ),
    (
        "its queue",
        "bind 127.0.0.1
             aclfile /srv/queue.acl
             appendonly yes
             maxmemory-policy noeviction",
        &[("aclfile", "write users in spec.redis.users")],
    ),
    (
        "the file that comes with Redis 7.0",
        "bind 127.0.0.1
             protected-mode yes
             port 6379
             tcp-backlog 511
             timeout 0
             tcp-keepalive 300
             daemonize no
             loglevel notice
             logfile \"\"
             databases 16
             always-show-logo no
             stop-writes-on-bgsave-error yes
             rdbcompression yes
             rdbchecksum yes
             dbfilename dump.rdb
             rdb-del-sync-files no
             replica-read-only yes
             repl-diskless-sync yes
             repl-diskless-load disabled
             repl-disable-tcp-nodelay no
             replica-priority 100
             acllog-max-len 128
             lazyfree-lazy-eviction no
             lazyfree-lazy-expire no
             lazyfree-lazy-server-del no
             replica-lazy-flush no
             lazyfree-lazy-user-del no
             oom-score-adj no
             oom-score-adj-values 0 200 800
             disable-thp yes
             appendonly no
             appendfilename appendonly.aof
             appenddirname appendonlydir
             appendfsync everysec
             no-appendfsync-on-rewrite no
             auto-aof-rewrite-percentage 100
             auto-aof-rewrite-min-size 64mb
             aof-load-truncated yes
             aof-use-rdb-preamble yes
             aof-timestamp-enabled no
             slowlog-log-slower-than 10000
             slowlog-max-len 128
             latency-monitor-threshold 0
             notify-keyspace-events \"\"
             hash-max-listpack-entries 512
             hash-max-listpack-value 64
             list-max-listpack-size -2
             list-compress-depth 0
             set-max-intset-entries 512
             zset-max-listpack-entries 128
             zset-max-listpack-value 64
             hll-sparse-max-bytes 3000
             stream-node-max-bytes 4096
             stream-node-max-entries 100
             activerehashing yes
             client-output-buffer-limit normal 0 0 0
             client-output-buffer-limit replica 256mb 64mb 60
             client-output-buffer-limit pubsub 32mb 8mb 60
             hz 10
             dynamic-hz yes
             aof-rewrite-incremental-fsync yes
             rdb-save-incremental-fsync yes
             jemalloc-bg-thread yes",
        OK,
    ),
    (
        "what of it is not as on a node",
        "replica-serve-stale-data yes
             repl-diskless-sync-delay 5
             proc-title-template {title}",
        &[
            ("proc-title-template", "the node runs the process"),
            ("repl-diskless-sync-delay", "replication is managed by the operator"),
            ("replica-serve-stale-data", "replication is managed by the operator"),
        ],
    ),
    (
        "an edge cache",
        "maxmemory 100mb
             maxmemory-policy allkeys-lfu
             activedefrag yes
             save \"\"
             protected-mode no",
        &[("protected-mode", "it is `yes`")],
    ),
    (
        "a container with a password",
        "requirepass secret
             appendonly yes
             maxmemory 256mb",
        &[("requirepass", "write users in spec.redis.users")],
    ),
    (
        "a job queue",
        "maxmemory-policy noeviction
             appendfsync always
             notify-keyspace-events Ex
             timeout 0",
        OK,
    ),
    (
        "a replica",
        "replicaof 10.0.0.1 6379
             masterauth secret
             replica-priority 0
             min-replicas-to-write 1",
        &[
            ("masterauth", "replication is managed"),
            ("min-replicas-to-write", "replication is managed"),
            ("replica-priority", "it is `100`"),
            ("replicaof", "replication is managed"),
        ],
    ),
    (
        "threads and many clients",
        "io-threads 4
             io-threads-do-reads yes
             maxclients 10000
             hz 100",
        &[("io-threads-do-reads", "it is `no`")],
    ),
    (
        "a socket for a file server",
        "port 0
             unixsocket /run/redis/redis.sock
             unixsocketperm 770",
        &[
            ("port", "the mesh carries the rest"),
            ("unixsocket", "Redis listens on loopback alone"),
            ("unixsocketperm", "Redis listens on loopback alone"),
        ],
    ),
    (
        "a file of Redis 7.2",
        "set-max-listpack-entries 128
             set-max-listpack-value 64
             set-max-intset-entries 512",
        &[
            ("set-max-listpack-entries", "a setting of Redis 7.2"),
            ("set-max-listpack-value", "a setting of Redis 7.2"),
        ],
    ),
    (
        "a file of Redis 5",
        "hash-max-ziplist-entries 512
             hash-max-ziplist-value 64
             list-max-ziplist-size -2
             zset-max-ziplist-entries 128
             zset-max-ziplist-value 64
             lua-time-limit 5000
             slave-read-only yes
             slave-priority 100
             client-output-buffer-limit slave 256mb 64mb 60",
        OK,
    ),
    (
        "a service of the system",
        "supervised systemd
             daemonize yes
             logfile /var/log/redis.log
             syslog-enabled yes",
        &[
            ("daemonize", "it is `no`"),
            ("logfile", "the node runs the process; it is empty"),
            ("supervised", "it is `no`"),
            ("syslog-enabled", "it is `no`"),
        ],
    ),
    (
        "commands that were renamed",
        "rename-command FLUSHALL
             enable-debug-command yes",
        &[
            ("enable-debug-command", "it is `no`"),
            ("rename-command", "reach past what is checked here"),
        ],
    ),
    (
        "a module, a cluster, TLS",
        "loadmodule /opt/search.so
             cluster-enabled yes
             cluster-node-timeout 5000
             tls-port 6380",
        &[
            ("cluster-enabled", "not a Redis Cluster"),
            ("cluster-node-timeout", "not a Redis Cluster"),
            ("loadmodule", "reach past what is checked here"),
            ("tls-port", "it is `0`"),
        ],
    ),
    (
        "snapshots in several lines",
        "save 900 1
             save 300 10
             save 60 10000
             stop-writes-on-bgsave-error no",
        OK,
    ),
    (
        "large replication buffers",
        "repl-backlog-size 128mb
             client-output-buffer-limit replica 512mb 128mb 120",
        &[
            ("client-output-buffer-limit", "16mb to 247mb here"),
            ("client-output-buffer-limit", "write 0 for it"),
        ],
    ),
];

#[test]
fn redis_conf_files() {
    for (what, config, expected) in REDIS_CONF {
        tells(what, &said(config, "app", "~* +get"), expected);
    }
}

/// Whose it is, the user, its rules, what is told.
const ACL: &[(&str, &str, &str, Told)] = &[
    ("everything, by password alone", "default", "~* &* +@all", &[("rules", "or write `full`")]),
    ("the same by name", "default", "full", OK),
    ("an application", "app", "~* &* +@all -@dangerous", OK),
    ("a worker", "worker", "~jobs:* &jobs:* +@read +@write +@list", OK),
    (
        "a worker that may do what connections do",
        "worker",
        "~jobs:* +@write +@connection",
        &[("rules", "allows `client|kill` and 4 more commands")],
    ),
    ("a reader", "reader", "~* -@all +@read +@connection -@dangerous", OK),
    ("a reader, the other way round", "reader", "~* +@all -@write -@dangerous", OK),
    (
        "some of each",
        "web",
        "allkeys +@all -@dangerous +KEYS -@blocking +HELLO -@pubsub +PUBLISH +PUBSUB -WATCH",
        OK,
    ),
    ("a job queue", "bull", "~bull:* +@all -@dangerous +info +client|list", OK),
    ("an exporter", "metrics", "+ping +info +config|get +slowlog", &[("rules", "`config|get`")]),
    ("an exporter by name", "metrics", "monitoring", OK),
    (
        "a sentinel",
        "watcher",
        "allchannels +multi +slaveof +ping +exec +subscribe +config|rewrite +role +publish \
             +info +client|setname +client|kill +script|kill",
        &[("rules", "and 2 more commands that only the operator may use")],
    ),
    ("a replica", "copy", "+psync +replconf +ping", &[("rules", "`psync`")]),
    ("documents", "docs", "~doc:* +json.get +get", &[("rules", "unknown command `json.get`")]),
    ("nobody asks", "open", "nopass ~* +@read", &[("rules", "`nopass` is set by the operator")]),
    ("all but three", "app", "~* +@all -flushall -flushdb -keys", &[("rules", "or write `full`")]),
    ("the same by name", "app", "full -flushall -flushdb -keys", OK),
    (
        "a client library of today",
        "app",
        "~* +@all -@dangerous +client|setinfo",
        &[("rules", "a command of Redis 7.2")],
    ),
];

#[test]
fn acl_files() {
    for (what, name, rules, expected) in ACL {
        tells(what, &said("", name, rules), expected);
    }
}
