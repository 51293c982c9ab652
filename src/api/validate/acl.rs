//! Redis ACL rules of application users: which commands they end up with, and whether any of those
//! are the operator's.
//!
//! The rules are followed from left to right as Redis follows them. The node reads them back from
//! Redis once more: what stands here is so that a person hears of it before anything is paid.

use std::collections::BTreeMap;

use crate::api::commands::{commands, is_container, newer};
use crate::api::rules;

/// Longest rules that are read.
const LIMIT: usize = 4096;

/// Commands that are the operator's, with the categories of Redis that hold them. All but the
/// containers themselves are in `@admin`, `@dangerous` and `@slow`; those of `client` are in
/// `@connection` too.
const OURS: [&str; 30] = [
    "replicaof",
    "slaveof",
    "psync",
    "sync",
    "replconf",
    "failover",
    "shutdown",
    "debug",
    "config|get",
    "config|set",
    "config|rewrite",
    "config|resetstat",
    "acl|setuser",
    "acl|getuser",
    "acl|deluser",
    "acl|list",
    "acl|users",
    "acl|load",
    "acl|save",
    "acl|log",
    "acl|dryrun",
    "module|load",
    "module|loadex",
    "module|unload",
    "module|list",
    "client|kill",
    "client|pause",
    "client|unpause",
    "client|no-evict",
    "client|unblock",
];

/// Commands whose every subcommand is the operator's, but for these.
const CONTAINERS: [(&str, &[&str]); 3] =
    [("config", &["help"]), ("acl", &["whoami", "cat", "genpass", "help"]), ("module", &["help"])];

/// Categories of Redis.
const CATEGORIES: [&str; 21] = [
    "keyspace",
    "read",
    "write",
    "set",
    "sortedset",
    "list",
    "hash",
    "string",
    "bitmap",
    "hyperloglog",
    "geo",
    "stream",
    "pubsub",
    "admin",
    "fast",
    "slow",
    "blocking",
    "dangerous",
    "connection",
    "transaction",
    "scripting",
];

/// What is wrong with the rules, one sentence each. Names for rules are written out already.
pub(super) fn check(rules: &str) -> Vec<String> {
    if rules.len() > LIMIT || rules.chars().any(char::is_control) {
        return vec![format!(
            "must be one line of at most {LIMIT} characters, without control characters"
        )];
    }
    let mut wrong = Vec::new();
    let mut root = Allowed::default();
    let mut selector: Option<Allowed> = None;
    for word in rules.split_whitespace() {
        let mut word = word;
        if let Some(rest) = word.strip_prefix('(') {
            if selector.is_some() {
                wrong.push("has a ( inside of ( )".into());
            }
            selector = Some(Allowed::default());
            word = rest;
        }
        let (inner, closes) = word.strip_suffix(')').map_or((word, false), |inner| (inner, true));
        if !inner.is_empty() {
            wrong.extend(selector.as_mut().unwrap_or(&mut root).apply(inner));
        }
        if closes {
            match selector.take() {
                Some(done) => wrong.extend(done.verdict()),
                None => wrong.push("has a ) without a (".into()),
            }
        }
    }
    if selector.is_some() {
        wrong.push("has a ( without a )".into());
    }
    wrong.extend(root.verdict());
    wrong
}

/// Which of the operator's commands are allowed so far; a new set of permissions allows none.
#[derive(Default)]
struct Allowed {
    commands: BTreeMap<String, bool>,
    every_key: bool,
    every_channel: bool,
}

impl Allowed {
    /// Follows one rule; a sentence when it is not one that may stand here.
    fn apply(&mut self, rule: &str) -> Option<String> {
        let lower = rule.to_ascii_lowercase();
        match lower.as_str() {
            "allcommands" => self.category("all", true),
            "nocommands" => self.category("all", false),
            "allkeys" | "~*" => self.every_key = true,
            "resetkeys" => self.every_key = false,
            "allchannels" | "&*" => self.every_channel = true,
            "resetchannels" => self.every_channel = false,
            "sanitize-payload" | "clearselectors" => {}
            "on" | "off" | "reset" | "nopass" | "resetpass" => {
                return Some(format!(
                    "`{rule}` is set by the operator; write only what the user may do"
                ));
            }
            "skip-sanitize-payload" => {
                return Some(format!("`{rule}` would let a forged value crash Redis"));
            }
            _ => return self.pattern(&lower),
        }
        None
    }

    fn pattern(&mut self, lower: &str) -> Option<String> {
        let keys = lower
            .strip_prefix("%rw~")
            .or_else(|| lower.strip_prefix("%r~"))
            .or_else(|| lower.strip_prefix("%w~"));
        let (key, channel) = (keys.is_some() || lower.starts_with('~'), lower.starts_with('&'));
        if (key && self.every_key) || (channel && self.every_channel) {
            let (all, reset) = if key { ("~*", "resetkeys") } else { ("&*", "resetchannels") };
            return Some(format!(
                "`{lower}` adds nothing to `{all}`, and Redis refuses it; write `{reset}` between them, or leave one out"
            ));
        }
        if key || channel {
            return None;
        }
        if lower.starts_with(['>', '<', '#', '!']) {
            // The rule may hold a password: it is not repeated.
            return Some(
                "holds a password; passwords belong in passwordFrom or passwordSha256".into(),
            );
        }
        let (grant, name) = match lower.strip_prefix('+') {
            Some(name) => (true, name),
            None => (false, lower.strip_prefix('-').unwrap_or("")),
        };
        if name.is_empty() {
            return Some(not_a_rule(lower));
        }
        match name.strip_prefix('@') {
            Some(category) if category == "all" || CATEGORIES.contains(&category) => {
                self.category(category, grant);
            }
            Some(category) => {
                return Some(super::shape::unknown("category", category, &CATEGORIES));
            }
            None => {
                if let Some(problem) = no_command(name, grant) {
                    return Some(problem);
                }
                self.command(name, grant);
            }
        }
        None
    }

    fn category(&mut self, category: &str, grant: bool) {
        let everything = matches!(category, "all" | "admin" | "dangerous" | "slow");
        // Commands named one by one go with the rest: no category holds more of ours than these.
        let names = OURS.iter().map(|name| (*name).to_owned()).chain(self.commands.keys().cloned());
        let hit: Vec<String> = names
            .filter(|name| everything || (category == "connection" && name.starts_with("client|")))
            .collect();
        for name in hit {
            self.commands.insert(name, grant);
        }
    }

    fn command(&mut self, name: &str, grant: bool) {
        let inside = format!("{name}|");
        let hit: Vec<&str> = OURS
            .iter()
            .copied()
            .filter(|ours| *ours == name || ours.starts_with(&inside))
            .collect();
        for ours in hit {
            self.commands.insert(ours.to_owned(), grant);
        }
        let ours = |(container, free): &(&str, &[&str])| {
            name.strip_prefix(container)
                .and_then(|rest| rest.strip_prefix('|'))
                .is_some_and(|sub| !free.contains(&sub))
        };
        if CONTAINERS.iter().any(ours) {
            self.commands.insert(name.to_owned(), grant);
        }
        // An argument of one of ours, as in `+shutdown|nosave`, is still that command.
        if let Some((command, _)) = name.split_once('|')
            && OURS.contains(&command)
        {
            self.commands.insert(name.to_owned(), grant);
        }
    }

    fn verdict(&self) -> Option<String> {
        let names: Vec<&str> = self
            .commands
            .iter()
            .filter(|(_, allowed)| **allowed)
            .map(|(name, _)| name.as_str())
            .collect();
        let (first, rest) = names.split_first()?;
        let more = match rest.len() {
            0 => String::new(),
            1 => " and one more command".to_owned(),
            n => format!(" and {n} more commands"),
        };
        Some(format!(
            "allows `{first}`{more} that only the operator may use; take them away with `-@admin -@dangerous` at the end, or write `full`, which is everything else"
        ))
    }
}

fn not_a_rule(word: &str) -> String {
    let known = commands().any(|one| one == word);
    if known {
        return format!("`{word}` is not an ACL rule of Redis; write `+{word}` to allow it");
    }
    if rules::names().any(|one| one == word) {
        return format!("`{word}` stands for rules only at their beginning");
    }
    format!("`{word}` is not an ACL rule of Redis")
}

/// Why Redis would not take a command in a rule.
fn no_command(name: &str, grant: bool) -> Option<String> {
    if commands().any(|one| one == name) {
        return None;
    }
    if let Some((_, version)) = newer().find(|(one, _)| *one == name) {
        return Some(format!(
            "`{name}` is a command of Redis {version}, and the nodes run 7.0; leave it out"
        ));
    }
    if let Some((command, argument)) = name.split_once('|') {
        let known = commands().any(|one| one == command) && !is_container(command);
        // One of the commands that take any word there.
        if known && !argument.is_empty() && !argument.contains('|') {
            return (!grant).then(|| {
                format!("`-{name}`: Redis takes a first argument with + only; write `-{command}`")
            });
        }
    }
    let all: Vec<&str> = commands().collect();
    Some(super::shape::unknown("command", name, &all))
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn rules_of_applications_pass() {
        for rules in [
            "~* &* +@all -@admin -@dangerous",
            "~* &* +@all -@dangerous",
            "allkeys allchannels allcommands -@admin",
            "~cache:* %R~shared:* +get +set +del",
            "+@read +@write ~app:* &events:* -keys",
            "+@all -@admin -@dangerous +keys +info +flushdb",
            "+acl|whoami +acl|cat +config|help +client|setname +client|id",
            "+@all -@slow +client|list",
            "+@connection -client|kill -client|pause -client|unpause -client|no-evict -client|unblock",
            "+get (~tmp:* +@all -@dangerous)",
            "nocommands resetkeys sanitize-payload",
            "",
        ] {
            assert_eq!(check(rules), Vec::<String>::new(), "{rules}");
        }
    }

    #[test]
    fn rules_that_reach_the_operators_commands_are_refused() {
        for rules in [
            "+@all",
            "allcommands",
            "AllCommands",
            "+@ALL ~*",
            "-@admin -@dangerous +@all",
            "+@all -@admin -@dangerous +@slow",
            "+@admin",
            "+@dangerous",
            "+@slow",
            "+@connection",
            "+config",
            "+config|get",
            "+CONFIG|SET",
            "+replicaof",
            "+slaveof",
            "+psync",
            "+sync",
            "+replconf",
            "+failover",
            "+client",
            "+client|kill",
            "+client|pause",
            "+shutdown",
            "+shutdown|nosave",
            "+debug",
            "+debug|sleep",
            "+module",
            "+module|load",
            "+acl",
            "+acl|setuser",
            "+acl|getuser",
            "+@all -@admin -@dangerous +config|get",
            "+get (+@all ~*)",
            "+@all -@dangerous (~* +psync)",
            "+get ( +config )",
        ] {
            let all = check(rules);
            assert!(
                all.iter().any(|one| one.contains("only the operator may use")),
                "{rules}: {all:?}"
            );
        }
    }

    #[test]
    fn words_that_are_no_rules_of_an_application_are_refused() {
        for rules in [
            "on",
            "off",
            "reset",
            "nopass",
            "resetpass",
            "skip-sanitize-payload",
            "get",
            "+",
            "-",
            "+@",
            "+@reed",
            "(+get",
            "+get)",
            "((+get))",
            "+get\n-set",
            "%X~a",
        ] {
            assert!(!check(rules).is_empty(), "{rules}");
        }
        assert!(check("+@reed")[0].contains("did you mean `read`"), "{:?}", check("+@reed"));
    }

    #[test]
    fn a_password_is_refused_and_not_repeated() {
        for rules in [">hunter2", "<hunter2", "#hunter2"] {
            assert!(!check(rules)[0].contains("hunter2"));
        }
    }

    #[test]
    fn commands_that_the_nodes_do_not_have_are_told() {
        for (rules, words) in [
            ("+gett", "unknown command `gett`, did you mean `get"),
            ("-lpopp", "unknown command `lpopp`, did you mean `lpop`?"),
            ("+client|setinfo", "is a command of Redis 7.2, and the nodes run 7.0"),
            ("+HEXPIRE", "`hexpire` is a command of Redis 7.4"),
            ("+memory|foo", "unknown command `memory|foo`"),
            ("+json.get", "unknown command `json.get`"),
            ("-select|0", "write `-select`"),
            ("get", "write `+get` to allow it"),
            ("+get full", "only at their beginning"),
            ("~* ~app:*", "write `resetkeys` between them"),
            ("allchannels &a", "write `resetchannels` between them"),
        ] {
            let all = check(rules);
            assert!(all.iter().any(|one| one.contains(words)), "{rules}: {all:?}");
        }
        assert_eq!(check("+select|0 +memory|usage +@read"), Vec::<String>::new());
    }

    #[test]
    fn names_of_rules_allow_nothing_of_the_operators() {
        for name in crate::api::rules::names() {
            assert_eq!(check(&crate::api::rules::expand(name)), Vec::<String>::new(), "{name}");
        }
        assert_eq!(crate::api::rules::expand("+get full"), "+get full");
        assert!(crate::api::rules::expand(" full  -keys").ends_with(" -keys"));
    }
}
