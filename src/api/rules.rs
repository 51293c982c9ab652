//! Names for sets of ACL rules that many users have.

use std::fmt::Write as _;

/// A name, the rules that it stands for, and what they are.
const NAMED: &[(&str, &str, &str)] = &[
    (
        "full",
        "~* &* +@all -replicaof -slaveof -psync -sync -replconf -failover -shutdown -debug -module \
         -config +config|help -acl +acl|whoami +acl|cat +acl|genpass +acl|help -client|kill \
         -client|pause -client|unpause -client|no-evict -client|unblock",
        "everything but what is the operator's: replication, configuration, users, modules, the end \
         of the process and of other connections",
    ),
    (
        "readonly",
        "%R~* &* -@all +@read +@connection +@transaction +@pubsub -publish -spublish +eval_ro \
         +evalsha_ro +fcall_ro -@admin -@dangerous +info +sort_ro",
        "reads all keys and listens to all channels; writes and publishes nothing",
    ),
    (
        "monitoring",
        "resetkeys resetchannels -@all +ping +echo +select +info +dbsize +lastsave +role +time \
         +command +slowlog|get +slowlog|len +latency|latest +latency|history +latency|histogram \
         +latency|doctor +memory|stats +memory|doctor +client|list +client|info +client|id \
         +client|getname +client|setname +pubsub",
        "sees no key: INFO, SLOWLOG, LATENCY, MEMORY STATS and the list of clients. `CONFIG GET` is \
         not in it, because it shows the password of replication",
    ),
];

/// The rules in full: a name at their beginning is replaced by what it stands for.
#[must_use]
pub fn expand(rules: &str) -> String {
    let (first, rest) = rules.trim_start().split_once(' ').unwrap_or((rules.trim(), ""));
    match NAMED.iter().find(|(name, _, _)| *name == first) {
        Some((_, named, _)) if rest.is_empty() => (*named).to_owned(),
        Some((_, named, _)) => format!("{named} {rest}"),
        None => rules.to_owned(),
    }
}

/// The names, for sentences.
pub fn names() -> impl Iterator<Item = &'static str> {
    NAMED.iter().map(|(name, _, _)| *name)
}

/// The names as a part of the manifest's reference.
#[must_use]
pub fn reference() -> String {
    let mut page = "\n## Names for rules of users\n\n\
        `rules: full -flushall` is what `full` stands for, and then `-flushall`; `rules: full resetkeys ~app:*` leaves it the keys of one \
         application.\n\n\
        | name | what the user may do | rules |\n| --- | --- | --- |\n"
        .to_owned();
    for (name, rules, meaning) in NAMED {
        let _ = writeln!(page, "| `{name}` | {meaning} | `{}` |", rules.replace('|', "\\|"));
    }
    page
}
