//! Redis' own settings and its users.

use std::collections::BTreeSet;

use super::{Problems, acl};
use crate::api::defaults::{APPENDONLY, MAXMEMORY, redis_memory};
use crate::api::types::{Redis, User};

/// Settings that are the operator's, by beginning of name, and why.
const OURS: [(&[&str], &str); 10] = [
    (
        &["bind", "port", "unixsocket", "tls-", "protected-mode"],
        "Redis listens on loopback alone, and the mesh carries the rest",
    ),
    (
        &["replica", "slave", "repl-", "master", "min-replicas", "min-slaves"],
        "replication is managed by the operator",
    ),
    (&["aclfile", "acl-", "user", "requirepass"], "write users in spec.redis.users"),
    (
        &["dir", "dbfilename", "appendfilename", "appenddirname", "rdb-del-sync-files"],
        "the node decides where its data is",
    ),
    (
        &["include", "loadmodule", "enable-", "rename-command"],
        "it would let a setting reach past what is checked here",
    ),
    (
        &[
            "daemonize",
            "supervised",
            "pidfile",
            "logfile",
            "syslog",
            "shutdown-",
            "set-proc-title",
            "proc-title",
        ],
        "the node runs the process",
    ),
    (&["cluster-"], "this is one master with replicas, not a Redis Cluster"),
    (
        &[
            "propagation-error-behavior",
            "ignore-warnings",
            "crash-",
            "disable-thp",
            "oom-score-adj",
        ],
        "the node depends on it",
    ),
    (
        &[
            "aof-load-truncated",
            "aof-disable-auto-gc",
            "aof-timestamp-enabled",
            "aof-use-rdb-preamble",
        ],
        "recovery depends on it",
    ),
    (
        &[
            "databases",
            "io-threads",
            "tcp-backlog",
            "always-show-logo",
            "rdbchecksum",
            "socket-mark-id",
        ],
        "Redis cannot change it while it runs",
    ),
];

/// Settings that Redis takes while it runs and that change nothing the operator depends on.
const KNOWN: [&str; 68] = [
    "acllog-max-len",
    "active-defrag-cycle-max",
    "active-defrag-cycle-min",
    "active-defrag-ignore-bytes",
    "active-defrag-max-scan-fields",
    "active-defrag-threshold-lower",
    "active-defrag-threshold-upper",
    "active-expire-effort",
    "activedefrag",
    "activerehashing",
    "aof-rewrite-incremental-fsync",
    "appendfsync",
    APPENDONLY,
    "auto-aof-rewrite-min-size",
    "auto-aof-rewrite-percentage",
    "busy-reply-threshold",
    "client-output-buffer-limit",
    "client-query-buffer-limit",
    "dynamic-hz",
    "hash-max-listpack-entries",
    "hash-max-listpack-value",
    "hash-max-ziplist-entries",
    "hash-max-ziplist-value",
    "hll-sparse-max-bytes",
    "hz",
    "jemalloc-bg-thread",
    "latency-monitor-threshold",
    "latency-tracking",
    "latency-tracking-info-percentiles",
    "lazyfree-lazy-eviction",
    "lazyfree-lazy-expire",
    "lazyfree-lazy-server-del",
    "lazyfree-lazy-user-del",
    "lazyfree-lazy-user-flush",
    "lfu-decay-time",
    "lfu-log-factor",
    "list-compress-depth",
    "list-max-listpack-size",
    "list-max-ziplist-size",
    "loglevel",
    "lua-time-limit",
    "maxclients",
    MAXMEMORY,
    "maxmemory-clients",
    "maxmemory-eviction-tenacity",
    "maxmemory-policy",
    "maxmemory-samples",
    "no-appendfsync-on-rewrite",
    "notify-keyspace-events",
    "proto-max-bulk-len",
    "rdb-save-incremental-fsync",
    "rdbcompression",
    "sanitize-dump-payload",
    "save",
    "set-max-intset-entries",
    "slowlog-log-slower-than",
    "slowlog-max-len",
    "stop-writes-on-bgsave-error",
    "stream-node-max-bytes",
    "stream-node-max-entries",
    "tcp-keepalive",
    "timeout",
    "tracking-table-max-keys",
    "zset-max-listpack-entries",
    "zset-max-listpack-value",
    "zset-max-ziplist-entries",
    "zset-max-ziplist-value",
    "set-max-listpack-entries",
];

pub(super) fn check(redis: &Redis, problems: &mut Problems) {
    for (key, value) in &redis.config {
        setting(key, value, problems);
    }
    let mut names = BTreeSet::new();
    for (i, user) in redis.users.iter().enumerate() {
        let path = format!("spec.redis.users[{i}]");
        problems.add_if(!names.insert(&user.name), &format!("{path}.name"), || {
            format!("`{}` is given twice", user.name)
        });
        self::user(&path, user, problems);
    }
}

fn setting(key: &str, value: &str, problems: &mut Problems) {
    let path = format!("spec.redis.config.{key}");
    let lower = key.to_ascii_lowercase();
    let ours = |beginning: &&str| lower.starts_with(*beginning);
    if !KNOWN.contains(&key) {
        if KNOWN.contains(&lower.as_str()) {
            problems.add(path, format!("settings are written in small letters: `{lower}`"));
        } else if let Some((_, why)) =
            OURS.iter().find(|(beginnings, _)| beginnings.iter().any(ours))
        {
            problems.add(path, format!("`{key}` cannot be set: {why}"));
        } else {
            problems.add(path, super::shape::unknown("setting", key, &KNOWN));
        }
        return;
    }
    // The value goes into redis.conf: a line end in it would be a second setting, unchecked.
    problems.add_if(value.chars().any(char::is_control) || value.len() > 512, &path, || {
        "must be one line of at most 512 characters, without control characters".into()
    });
    match key {
        MAXMEMORY => problems.add_if(redis_memory(value).is_none(), &path, || {
            format!("`{value}` is not a size as Redis writes it; write it like 512mb or 1gb")
        }),
        APPENDONLY => problems.add_if(!matches!(value, "yes" | "no"), &path, || {
            format!("`{value}` is neither yes nor no")
        }),
        "client-output-buffer-limit" => problems.add_if(
            value
                .to_ascii_lowercase()
                .split_whitespace()
                .any(|word| matches!(word, "replica" | "slave" | "master")),
            &path,
            || "the limits of replicas are the operator's; write `normal` and `pubsub` only".into(),
        ),
        _ => {}
    }
}

fn user(path: &str, user: &User, problems: &mut Problems) {
    let at = |field: &str| format!("{path}.{field}");
    let name = &user.name;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '@' | ':');
    if name == "default" {
        problems.add(at("name"), "the user `default` stays off, so that nobody comes in without a name; choose another name");
    } else if name.starts_with("repl-") || name.starts_with('_') {
        problems.add(
            at("name"),
            format!(
                "`{name}`: names that begin with repl- or _ are the operator's; choose another name"
            ),
        );
    } else if name.is_empty() || name.len() > 64 || !name.chars().all(plain) {
        problems.add(
            at("name"),
            format!("`{name}` cannot be a user; write 1 to 64 letters, digits or . _ - @ :"),
        );
    }
    match (&user.password_from, &user.password_sha256) {
        (Some(_), Some(_)) => problems.add(at("passwordSha256"), "is given beside passwordFrom; keep one of them"),
        (None, None) => problems.add(path, "has no password; write passwordFrom or passwordSha256"),
        (None, Some(hash)) => problems.add_if(!is_sha256(hash), &at("passwordSha256"), || {
            "is not the SHA-256 of a password in 64 digits of lower-case hex; `printf %s PASSWORD | sha256sum` makes it".into()
        }),
        (Some(from), None) => {
            let (super::super::types::PasswordFrom::Env(place) | super::super::types::PasswordFrom::File(place)) = from;
            problems.add_if(place.is_empty(), &at("passwordFrom"), || "names nothing".into());
        }
    }
    for message in acl::check(&user.rules) {
        problems.add(at("rules"), message);
    }
}

fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}
