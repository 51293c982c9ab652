//! The settings of Redis 7.0, the version of the node image: which a manifest may set to what, and
//! why not the others. One table, which a test holds to a real redis-server.

use std::fmt::Write as _;

use super::defaults::{APPENDONLY, MAXMEMORY, redis_memory};

/// What the output buffers of clients may grow to; the class `replica` is the node's own unless the
/// manifest names it.
pub const BUFFER_LIMITS: &str = "client-output-buffer-limit";
/// How much of its stream a master keeps for replicas that come back.
pub const BACKLOG: &str = "repl-backlog-size";
/// How many clients may be connected.
pub const MAXCLIENTS: &str = "maxclients";

/// Fewer connections than this are used up by a pool or two, and by whoever looks after them.
const LEAST_CLIENTS: i64 = 64;
/// Replies that are larger than the limit end their connection: less than this is one large reply.
const LEAST_BUFFER: u64 = 1 << 20;
const INT: i64 = i32::MAX as i64;
const LONG: i64 = i64::MAX;
const BYTES: u64 = i64::MAX as u64;

/// What a value is.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// `yes` or `no`.
    YesNo,
    /// One of these, in letters of either size.
    Word(&'static [&'static str]),
    /// A whole number between these.
    Number(i64, i64),
    /// Bytes between these, with a unit of Redis.
    Size(u64, u64),
    /// Bytes, or per cent of maxmemory.
    Share,
    /// Pairs of seconds and changes; empty for no snapshots.
    Save,
    /// Letters of the events that are told.
    Events,
    /// Class, hard limit, soft limit and seconds, once or several times.
    BufferLimits,
    /// Per cents.
    Percentiles,
}

use Kind::{BufferLimits, Events, Number, Percentiles, Save, Share, Size, Word, YesNo};

/// A setting that a manifest may name.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Its name.
    pub name: &'static str,
    /// What it takes.
    pub kind: Kind,
}

const fn of(name: &'static str, kind: Kind) -> Setting {
    Setting { name, kind }
}

const POLICIES: &[&str] = &[
    "noeviction",
    "allkeys-lru",
    "allkeys-lfu",
    "allkeys-random",
    "volatile-lru",
    "volatile-lfu",
    "volatile-random",
    "volatile-ttl",
];

/// Settings that Redis takes while it runs and that change nothing the operator depends on.
pub const SETTINGS: &[Setting] = &[
    of("acllog-max-len", Number(0, LONG)),
    of("active-defrag-cycle-max", Number(1, 99)),
    of("active-defrag-cycle-min", Number(1, 99)),
    of("active-defrag-ignore-bytes", Size(1, BYTES)),
    of("active-defrag-max-scan-fields", Number(1, LONG)),
    of("active-defrag-threshold-lower", Number(0, 1000)),
    of("active-defrag-threshold-upper", Number(0, 1000)),
    of("active-expire-effort", Number(1, 10)),
    of("activedefrag", YesNo),
    of("activerehashing", YesNo),
    of("aof-rewrite-incremental-fsync", YesNo),
    of("appendfsync", Word(&["always", "everysec", "no"])),
    of(APPENDONLY, YesNo),
    of("auto-aof-rewrite-min-size", Size(0, BYTES)),
    of("auto-aof-rewrite-percentage", Number(0, INT)),
    of("busy-reply-threshold", Number(0, LONG)),
    of(BUFFER_LIMITS, BufferLimits),
    of("client-query-buffer-limit", Size(1 << 20, BYTES)),
    of("dynamic-hz", YesNo),
    of("hash-max-listpack-entries", Number(0, LONG)),
    of("hash-max-listpack-value", Size(0, BYTES)),
    of("hash-max-ziplist-entries", Number(0, LONG)),
    of("hash-max-ziplist-value", Size(0, BYTES)),
    of("hll-sparse-max-bytes", Size(0, BYTES)),
    of("hz", Number(1, 500)),
    of("jemalloc-bg-thread", YesNo),
    of("latency-monitor-threshold", Number(0, LONG)),
    of("latency-tracking", YesNo),
    of("latency-tracking-info-percentiles", Percentiles),
    of("lazyfree-lazy-eviction", YesNo),
    of("lazyfree-lazy-expire", YesNo),
    of("lazyfree-lazy-server-del", YesNo),
    of("lazyfree-lazy-user-del", YesNo),
    of("lazyfree-lazy-user-flush", YesNo),
    of("lfu-decay-time", Number(0, INT)),
    of("lfu-log-factor", Number(0, INT)),
    of("list-compress-depth", Number(0, INT)),
    of("list-max-listpack-size", Number(-5, INT)),
    of("list-max-ziplist-size", Number(-5, INT)),
    of("loglevel", Word(&["debug", "verbose", "notice", "warning"])),
    of("lua-time-limit", Number(0, LONG)),
    of(MAXCLIENTS, Number(LEAST_CLIENTS, 1_000_000)),
    of(MAXMEMORY, Size(1, BYTES)),
    of("maxmemory-clients", Share),
    of("maxmemory-eviction-tenacity", Number(0, 100)),
    of("maxmemory-policy", Word(POLICIES)),
    of("maxmemory-samples", Number(1, INT)),
    of("no-appendfsync-on-rewrite", YesNo),
    of("notify-keyspace-events", Events),
    of("proto-max-bulk-len", Size(1 << 20, BYTES)),
    of("rdb-save-incremental-fsync", YesNo),
    of("rdbcompression", YesNo),
    of(BACKLOG, Size(1 << 20, BYTES)),
    of("sanitize-dump-payload", Word(&["no", "yes", "clients"])),
    of("save", Save),
    of("set-max-intset-entries", Number(0, LONG)),
    of("slowlog-log-slower-than", Number(-1, LONG)),
    of("slowlog-max-len", Number(0, LONG)),
    of("stop-writes-on-bgsave-error", YesNo),
    of("stream-node-max-bytes", Size(0, BYTES)),
    of("stream-node-max-entries", Number(0, LONG)),
    of("tcp-keepalive", Number(0, INT)),
    of("timeout", Number(0, INT)),
    of("tracking-table-max-keys", Number(0, LONG)),
    of("zset-max-listpack-entries", Number(0, LONG)),
    of("zset-max-listpack-value", Size(0, BYTES)),
    of("zset-max-ziplist-entries", Number(0, LONG)),
    of("zset-max-ziplist-value", Size(0, BYTES)),
];

/// Limits that are narrower than those of Redis, and why.
pub const NARROWED: &[(&str, &str)] = &[
    ("hz", "Redis takes any number and makes it 1 to 500 without a word"),
    ("list-max-listpack-size", "below -5 it means -5"),
    ("list-max-ziplist-size", "below -5 it means -5"),
    (MAXCLIENTS, "32 more are kept for the operator and replicas, and a pool or two need 64"),
    (MAXMEMORY, "0 would be no limit, and the container has one"),
    (BACKLOG, "less does not outlast a second of writes"),
];

/// Older names of settings.
pub const OLDER_NAMES: &[(&str, &str)] = &[
    ("hash-max-ziplist-entries", "hash-max-listpack-entries"),
    ("hash-max-ziplist-value", "hash-max-listpack-value"),
    ("list-max-ziplist-size", "list-max-listpack-size"),
    ("lua-time-limit", "busy-reply-threshold"),
    ("zset-max-ziplist-entries", "zset-max-listpack-entries"),
    ("zset-max-ziplist-value", "zset-max-listpack-value"),
];

/// Settings that the nodes' Redis 7.0 does not know, with the version that does.
pub const NEWER: &[(&str, &str)] = &[
    ("set-max-listpack-entries", "7.2"),
    ("set-max-listpack-value", "7.2"),
    ("locale-collate", "7.2"),
];

/// Settings that Redis takes when it starts and never after, with the value that they have unless
/// the manifest says otherwise: another value starts nodes anew, one after the other.
pub const STARTUP: &[(Setting, &str)] = &[
    (of("io-threads", Number(1, 128)), "1"),
    // More than this is cut to what the kernel allows.
    (of("tcp-backlog", Number(1, 65_535)), "511"),
];

/// Settings that the manifest cannot change, and that it may name with the value that they have.
pub const FIXED: &[(&str, &str)] = &[
    ("acl-pubsub-default", "resetchannels"),
    ("aof-disable-auto-gc", "no"),
    ("aof-load-truncated", "yes"),
    ("aof-timestamp-enabled", "no"),
    ("aof-use-rdb-preamble", "yes"),
    ("always-show-logo", "no"),
    ("appenddirname", "appendonlydir"),
    ("appendfilename", "appendonly.aof"),
    ("bind", "127.0.0.1"),
    ("cluster-enabled", "no"),
    ("crash-log-enabled", "yes"),
    ("crash-memcheck-enabled", "yes"),
    ("daemonize", "no"),
    ("databases", "16"),
    ("dbfilename", "dump.rdb"),
    ("disable-thp", "yes"),
    ("enable-debug-command", "no"),
    ("enable-module-command", "no"),
    ("enable-protected-configs", "no"),
    ("io-threads-do-reads", "no"),
    ("logfile", ""),
    ("oom-score-adj", "no"),
    ("oom-score-adj-values", "0 200 800"),
    ("port", "6379"),
    ("propagation-error-behavior", "ignore"),
    ("protected-mode", "yes"),
    ("rdb-del-sync-files", "no"),
    ("rdbchecksum", "yes"),
    ("repl-backlog-ttl", "3600"),
    ("repl-disable-tcp-nodelay", "no"),
    ("repl-diskless-load", "disabled"),
    ("repl-diskless-sync", "yes"),
    ("replica-ignore-maxmemory", "yes"),
    ("replica-lazy-flush", "no"),
    ("replica-priority", "100"),
    ("replica-read-only", "yes"),
    ("set-proc-title", "no"),
    ("shutdown-on-sigint", "default"),
    ("shutdown-on-sigterm", "default"),
    ("slave-lazy-flush", "no"),
    ("slave-priority", "100"),
    ("slave-read-only", "yes"),
    ("supervised", "no"),
    ("syslog-enabled", "no"),
    ("tls-port", "0"),
];

/// Settings that are the operator's, by beginning of name, and why.
pub const OURS: &[(&[&str], &str)] = &[
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
        &["databases", "io-threads-do-reads", "always-show-logo", "rdbchecksum", "socket-mark-id"],
        "Redis cannot change it while it runs",
    ),
];

/// Redis' own limit of replicas' output buffers, which stands in most redis.conf: it is taken for
/// nothing said.
const STOCK_REPLICA_LIMIT: (u64, u64, u64) = (256 << 20, 64 << 20, 60);

/// The setting of this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Setting> {
    let startup = STARTUP.iter().map(|(setting, _)| setting);
    SETTINGS.iter().chain(startup).find(|setting| setting.name == name)
}

/// Redis takes it when it starts, and never after.
#[must_use]
pub fn is_startup(name: &str) -> bool {
    STARTUP.iter().any(|(setting, _)| setting.name == name)
}

/// Redis is to be started with it: it is none of those that are changed while it runs, and is not as
/// it is anyway.
#[must_use]
pub fn at_start(name: &str, value: &str) -> bool {
    STARTUP.iter().any(|(setting, usual)| setting.name == name && *usual != value)
}

/// What is wrong with a value, one sentence.
#[must_use]
pub fn wrong(setting: &Setting, value: &str) -> Option<String> {
    match setting.kind {
        YesNo => (!word(value, &["yes", "no"])).then(|| format!("`{value}` is neither yes nor no")),
        Word(words) => (!word(value, words)).then(|| not_a_word(value, words)),
        Number(least, most) => number(value, least, most),
        Size(least, most) => size(value, least, most),
        Share => share(value),
        Save => save(value),
        Events => events(value),
        BufferLimits => buffer_limits(value).err(),
        Percentiles => percentiles(value),
    }
}

fn word(value: &str, words: &[&str]) -> bool {
    words.iter().any(|word| word.eq_ignore_ascii_case(value))
}

fn not_a_word(value: &str, words: &[&str]) -> String {
    let lower = value.to_ascii_lowercase();
    // `lru` is part of two policies, of which the first is meant more often.
    let part = words.iter().find(|word| !lower.is_empty() && word.split('-').any(|p| p == lower));
    let near = part.copied().or_else(|| {
        words.iter().copied().max_by(|a, b| {
            let alike = |word: &str| strsim::normalized_damerau_levenshtein(word, &lower);
            alike(a).total_cmp(&alike(b))
        })
    });
    let near = near.filter(|word| {
        part.is_some() || strsim::normalized_damerau_levenshtein(word, &lower) > 0.5
    });
    let meant = near.map_or(String::new(), |near| format!("; did you mean `{near}`?"));
    format!("`{value}` is not one of {}{meant}", words.join(", "))
}

fn number(value: &str, least: i64, most: i64) -> Option<String> {
    let bounds =
        if most >= INT { format!("{least} or more") } else { format!("{least} to {most}") };
    let Some(number) = plain(value) else {
        return Some(format!("`{value}` is not a whole number; write {bounds}"));
    };
    (!(least..=most).contains(&number))
        .then(|| format!("`{value}` is out of bounds; write {bounds}"))
}

/// A number as Redis reads it: no sign but `-`, no blanks, no zero in front.
fn plain(text: &str) -> Option<i64> {
    text.parse::<i64>().ok().filter(|number| number.to_string() == text)
}

fn size(value: &str, least: u64, most: u64) -> Option<String> {
    let Some(bytes) = redis_memory(value) else {
        return Some(format!(
            "`{value}` is not a size as Redis writes it; write it like 512mb or 1gb"
        ));
    };
    if bytes > most {
        return Some(format!("`{value}` is more than Redis can count"));
    }
    (bytes < least).then(|| format!("`{value}` is too little; write at least {}", in_units(least)))
}

/// A size as Redis spells it.
#[must_use]
pub fn in_units(bytes: u64) -> String {
    match bytes {
        b if b >= 1 << 20 && b.is_multiple_of(1 << 20) => format!("{}mb", b >> 20),
        b if b >= 1 << 10 && b.is_multiple_of(1 << 10) => format!("{}kb", b >> 10),
        b => b.to_string(),
    }
}

fn share(value: &str) -> Option<String> {
    match value.strip_suffix('%') {
        Some(part) if plain(part).is_some_and(|n| (0..=100).contains(&n)) => None,
        Some(_) => Some(format!("`{value}` is not a share; write 0% to 100%")),
        None => size(value, 0, BYTES).map(|_| {
            format!("`{value}` is neither a size nor a share; write it like 100mb or 10%")
        }),
    }
}

fn save(value: &str) -> Option<String> {
    let numbers: Vec<Option<i64>> =
        if value.is_empty() { Vec::new() } else { value.split(' ').map(plain).collect() };
    let pair = |pair: &[Option<i64>]| {
        matches!(pair, [Some(seconds), Some(changes)]
            if (1..=INT).contains(seconds) && (0..=INT).contains(changes))
    };
    (!numbers.chunks(2).all(pair)).then(|| {
        format!("`{value}` is not pairs of seconds and changes; write it like `3600 1 300 100`, or \"\" for no snapshots")
    })
}

fn events(value: &str) -> Option<String> {
    const CLASSES: &str = "KEAg$lshzxetmdn";
    if let Some(other) = value.chars().find(|c| !CLASSES.contains(*c)) {
        return Some(format!("`{other}` is no class of events; write letters of {CLASSES}"));
    }
    let told = value.is_empty() || value.contains(['K', 'E']);
    (!told).then(|| {
        format!("`{value}` tells nothing: add K (channels by key), E (channels by event), or both")
    })
}

fn percentiles(value: &str) -> Option<String> {
    let right = |text: &str| text.parse::<f64>().is_ok_and(|n| (0.0..=100.0).contains(&n));
    let all = value.is_empty() || value.split(' ').all(right);
    (!all).then(|| format!("`{value}` is not numbers from 0 to 100; write it like `50 99 99.9`"))
}

/// The limits of one class of clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BufferLimit {
    /// `normal`, `pubsub` or `replica`.
    pub class: &'static str,
    /// Bytes that end the connection at once; 0 for none.
    pub hard: u64,
    /// Bytes that end it after a while; 0 for none.
    pub soft: u64,
    /// That while.
    pub seconds: u64,
}

/// Reads limits of output buffers; the error is a sentence.
pub fn buffer_limits(value: &str) -> Result<Vec<BufferLimit>, String> {
    let words: Vec<&str> = value.split(' ').collect();
    let groups = words.chunks(4).map(|group| {
        let [class, hard, soft, seconds] = group else {
            return Err(format!("`{value}` is not a class, two sizes and seconds each; write it like `pubsub 32mb 8mb 60`"));
        };
        let class = match class.to_ascii_lowercase().as_str() {
            "normal" => "normal",
            "pubsub" => "pubsub",
            "replica" | "slave" => "replica",
            other => return Err(format!("`{other}` is no class of clients; write normal, pubsub or replica")),
        };
        let read = |text: &str| redis_memory(text).filter(|bytes| *bytes <= BYTES);
        let (Some(hard), Some(soft)) = (read(hard), read(soft)) else {
            return Err(format!("`{hard} {soft}` are not two sizes as Redis writes them; write them like 32mb 8mb"));
        };
        let seconds = plain(seconds).and_then(|n| u64::try_from(n).ok()).filter(|n| *n <= INT as u64);
        let Some(seconds) = seconds else {
            return Err("the last of the four is not a number of seconds".to_owned());
        };
        if (1..LEAST_BUFFER).contains(&hard) || (1..LEAST_BUFFER).contains(&soft) {
            return Err(format!("limits of less than {} end connections over a single large reply; write more, or 0 for none", in_units(LEAST_BUFFER)));
        }
        Ok(BufferLimit { class, hard, soft, seconds })
    });
    groups.collect()
}

/// The limit of replicas that a value names, unless it is the one of every redis.conf.
#[must_use]
pub fn replica_limit(value: &str) -> Option<BufferLimit> {
    buffer_limits(value).ok()?.into_iter().rfind(is_replica_limit)
}

fn is_replica_limit(limit: &BufferLimit) -> bool {
    limit.class == "replica" && (limit.hard, limit.soft, limit.seconds) != STOCK_REPLICA_LIMIT
}

/// What a node is told of a setting of the manifest; nothing where the node has that value anyway.
#[must_use]
pub fn told(name: &str, value: &str) -> Option<String> {
    if FIXED.iter().any(|(fixed, _)| *fixed == name) || is_startup(name) {
        return None;
    }
    if name != BUFFER_LIMITS {
        return Some(value.to_owned());
    }
    // What cannot be read is the node's to refuse.
    let Ok(limits) = buffer_limits(value) else { return Some(value.to_owned()) };
    let left: Vec<String> = limits
        .iter()
        .filter(|limit| limit.class != "replica" || is_replica_limit(limit))
        .map(|l| format!("{} {} {} {}", l.class, l.hard, l.soft, l.seconds))
        .collect();
    (!left.is_empty()).then(|| left.join(" "))
}

/// The settings as a part of the manifest's reference.
#[must_use]
pub fn reference() -> String {
    let mut page = "\n## Settings of Redis\n\n\
        What `spec.redis.config` takes, of Redis 7.0. Limits are those of Redis unless a reason is given. What Redis refuses all the same, as \
        `activedefrag yes` in a build without jemalloc, is told in the status (`SettingsRefused`), and changes nothing else.\n\n\
        | setting | value | narrower than Redis because |\n| --- | --- | --- |\n"
        .to_owned();
    for setting in SETTINGS {
        let why =
            NARROWED.iter().find(|(name, _)| *name == setting.name).map_or("", |(_, why)| why);
        let why = match setting.name {
            BUFFER_LIMITS => {
                "a limit of less than 1mb ends connections over one reply; `replica` is bounded by the memory"
            }
            _ => why,
        };
        let _ = writeln!(page, "| `{}` | {} | {why} |", setting.name, shown(setting.kind));
    }
    page.push_str(
        "\nThese are taken when Redis starts: another value starts nodes anew, one after the other, replicas first ([updates](../guide/updates.md)).\n\n| setting | value | unless set |\n| --- | --- | --- |\n",
    );
    for (setting, usual) in STARTUP {
        let _ = writeln!(page, "| `{}` | {} | `{usual}` |", setting.name, shown(setting.kind));
    }
    page.push_str(
        "\nThese are as they are, and may be named with this value:\n\n| setting | value |\n| --- | --- |\n",
    );
    for (name, value) in FIXED {
        let value = if value.is_empty() { "\"\"" } else { value };
        let _ = writeln!(page, "| `{name}` | `{value}` |");
    }
    page.push_str("\nEverything else is refused, harmless or not:\n\n| settings that begin with | why |\n| --- | --- |\n");
    for (beginnings, why) in OURS {
        let names: Vec<String> = beginnings.iter().map(|one| format!("`{one}`")).collect();
        let _ = writeln!(page, "| {} | {why} |", names.join(", "));
    }
    let newer: Vec<String> =
        NEWER.iter().map(|(name, since)| format!("`{name}` ({since})")).collect();
    let _ = writeln!(
        page,
        "| of newer versions: {} | the nodes' Redis does not know them |",
        newer.join(", ")
    );
    page
}

fn shown(kind: Kind) -> String {
    match kind {
        YesNo => "`yes` or `no`".into(),
        Word(words) => words.iter().map(|w| format!("`{w}`")).collect::<Vec<_>>().join(", "),
        Number(least, most) if most >= INT => format!("a whole number, {least} or more"),
        Number(least, most) => format!("{least} to {most}"),
        Size(0, _) => "a size, `64mb`".into(),
        Size(least, _) => format!("a size, at least {}", in_units(least)),
        Share => "a size, or a share of `maxmemory` as `10%`".into(),
        Save => "pairs of seconds and changes, or `\"\"`".into(),
        Events => "letters, as `Ex`".into(),
        BufferLimits => "class, hard limit, soft limit, seconds; once or several times".into(),
        Percentiles => "numbers from 0 to 100".into(),
    }
}
