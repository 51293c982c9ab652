//! What `--help` shows below the flags: examples, and with what a command ends.

use clap::{Command, CommandFactory as _};

use super::Cli;

/// Of each command, by the words that lead to it, lines as they are typed.
const EXAMPLES: &[(&str, &[&str])] = &[
    ("apply", &["apply -f cache.yaml", "apply -f clusters/ --dry-run", "apply -f - --yes --wait"]),
    (
        "get",
        &[
            "get",
            "get cache -o yaml",
            "get -l team=shop -o name",
            "get cache -o jsonpath={.status.master.ip}",
            "get -w",
        ],
    ),
    ("edit", &["edit cache", "edit cache --editor nano"]),
    ("top", &["top", "top cache", "top --once", "top -o json"]),
    ("describe", &["describe cache"]),
    ("plan", &["plan cache", "plan -f cache.yaml"]),
    ("events", &["events cache", "events cache -o json"]),
    ("logs", &["logs cache 1 --follow", "logs cache --process redis --since 10m --timestamps"]),
    ("status", &["status", "status -o json"]),
    ("endpoint", &["endpoint cache", "endpoint cache -o url", "endpoint cache -o env"]),
    ("migrate", &["migrate cache 1", "migrate cache 1 --wait"]),
    ("switchover", &["switchover cache", "switchover cache --to 2 --wait"]),
    ("failover", &["failover cache --accept-loss", "failover cache --to 2 --accept-loss"]),
    ("cutover", &["cutover cache --wait"]),
    ("scale", &["scale cache --nodes 5"]),
    ("pause", &["pause cache"]),
    ("resume", &["resume cache"]),
    ("rejoin", &["rejoin cache 1"]),
    ("close", &["close cache 27230465"]),
    ("delete", &["delete cache --wait", "delete cache --yes-delete-data cache"]),
    (
        "wait",
        &[
            "wait cache",
            "wait cache --for=condition=Degraded=False --timeout 5m",
            "wait cache --for=jsonpath={.status.epoch}=3",
            "wait cache --for=delete",
        ],
    ),
    ("notify", &["notify test"]),
    ("notify test", &["notify test"]),
    ("spend", &["spend", "spend cache --month 2026-11 -o csv"]),
    ("providers", &["providers", "providers -o json"]),
    ("recover", &["recover", "recover cache --confirm"]),
    ("orphans", &["orphans", "orphans --close", "orphans cache --close"]),
    ("restart", &["restart cache", "restart cache 1"]),
    ("fence", &["fence cache 1"]),
    ("unfence", &["unfence cache 1"]),
    (
        "backup",
        &[
            "backup cache --wait",
            "backup verify cache --wait",
            "backup decrypt --root-secret root.secret < backup.rdb > dump.rdb",
        ],
    ),
    (
        "backup verify",
        &["backup verify cache --wait", "backup verify cache 20261125T030000Z-x7k2 --wait"],
    ),
    ("backup decrypt", &["backup decrypt --root-secret root.secret < backup.rdb > dump.rdb"]),
    ("backups", &["backups cache", "backups cache -o json"]),
    ("dump", &["dump cache > dump.rdb"]),
    (
        "restore",
        &[
            "restore cache2 --from cache --to 2026-11-25T10:15:00Z",
            "restore cache2 --from cache --dry-run",
        ],
    ),
    ("report", &["report", "report cache --out report.yaml"]),
    ("public-key", &["public-key"]),
    ("sdl", &["sdl -f cache.yaml", "sdl -f - -o hash"]),
    ("validate", &["validate -f cache.yaml", "validate -f clusters/"]),
    ("explain", &["explain spec.redis.users", "explain spec.failover"]),
    ("schema", &["schema > rediscluster.schema.json"]),
    ("crd", &["crd | kubectl apply -f -"]),
    ("completion", &["completion bash > /etc/bash_completion.d/akash-redis"]),
    ("man", &["man /usr/local/share/man/man1"]),
    ("mesh", &["mesh policy", "mesh check"]),
    ("mesh policy", &["mesh policy", "mesh policy -f cache.yaml --no-tests"]),
    ("mesh check", &["mesh check", "mesh check --config operator.yaml -f cache.yaml"]),
    ("wallet", &["wallet", "wallet new --out mnemonic", "wallet mint 20act --max-akt 45akt"]),
    ("wallet new", &["wallet new --out mnemonic", "wallet new --out mnemonic --show-phrase"]),
    ("wallet mint", &["wallet mint 20act --max-akt 45akt", "wallet mint --follow"]),
    ("operator", &["operator --check", "operator --config /etc/akash-redis/operator.yaml"]),
    ("node", &["node"]),
    (
        "proxy",
        &[
            "proxy cache",
            "proxy cache --listen /run/cache.sock --read-listen 127.0.0.1:6380",
            "proxy cache --node 100.64.0.3 --public-key @installation.pub -- ./application",
        ],
    ),
    ("connect", &["connect cache", "connect cache -- GET greeting"]),
    (
        "exec",
        &["exec cache 1 -- redis-cli INFO replication", "exec cache cache-1-x7k2 -- redis-cli"],
    ),
    ("demo", &["demo", "demo --keep"]),
    ("devnet", &["devnet up", "devnet fault halt-chain"]),
    ("devnet up", &["devnet up", "devnet up --latency 75ms --jitter 25ms --loss 1%"]),
    (
        "devnet providers",
        &["devnet providers --grpc http://127.0.0.1:9090 --chain-id localakash --keys accounts"],
    ),
    (
        "devnet exec",
        &[
            "devnet exec akash-redis get",
            "devnet exec akash-redis proxy cache --listen 127.0.0.1:6379",
        ],
    ),
    (
        "devnet fault",
        &["devnet fault halt-chain", "devnet fault list", "devnet fault clear halt-chain"],
    ),
    ("devnet fault slow-blocks", &["devnet fault slow-blocks 6s"]),
    ("devnet fault halt-chain", &["devnet fault halt-chain"]),
    ("devnet fault reorder-transactions", &["devnet fault reorder-transactions"]),
    ("devnet fault lose-answers", &["devnet fault lose-answers 2"]),
    ("devnet fault lose-transactions", &["devnet fault lose-transactions 2"]),
    ("devnet fault rate-limit", &["devnet fault rate-limit 100"]),
    ("devnet fault silent-node", &["devnet fault silent-node"]),
    ("devnet fault node-behind", &["devnet fault node-behind 10"]),
    ("devnet fault min-deposit", &["devnet fault min-deposit 3000000"]),
    ("devnet fault no-bids", &["devnet fault no-bids provider1"]),
    ("devnet fault never-deploys", &["devnet fault never-deploys provider1"]),
    ("devnet fault lies-ready", &["devnet fault lies-ready provider1"]),
    ("devnet fault lies-gone", &["devnet fault lies-gone provider1"]),
    ("devnet fault other-manifest", &["devnet fault other-manifest provider1"]),
    ("devnet fault keeps-running", &["devnet fault keeps-running provider1"]),
    ("devnet fault offers-less", &["devnet fault offers-less provider1"]),
    ("devnet fault price", &["devnet fault price provider1 200"]),
    ("devnet fault reclaimable", &["devnet fault reclaimable provider1 1m"]),
    ("devnet fault change-certificate", &["devnet fault change-certificate provider1 --published"]),
    ("devnet fault gateway-status", &["devnet fault gateway-status provider1 503"]),
    ("devnet fault gateway-silent", &["devnet fault gateway-silent provider1"]),
    ("devnet fault close-lease", &["devnet fault close-lease 1005"]),
    ("devnet fault start-reclaim", &["devnet fault start-reclaim 1005"]),
    ("devnet fault node-off", &["devnet fault node-off 1005"]),
    ("devnet fault stall", &["devnet fault stall 1005 3s"]),
    ("devnet fault distance", &["devnet fault distance --latency 75ms --jitter 25ms --loss 1%"]),
    ("devnet fault restart-node", &["devnet fault restart-node 1005"]),
    ("devnet fault disk-full", &["devnet fault disk-full 1005"]),
    ("devnet fault disk-read-only", &["devnet fault disk-read-only 1005"]),
    ("devnet fault list", &["devnet fault list"]),
    ("devnet fault clear", &["devnet fault clear halt-chain"]),
];

/// The command line with its examples.
#[must_use]
pub fn command() -> Command {
    EXAMPLES.iter().fold(Cli::command(), |command, (path, lines)| {
        let words: Vec<&str> = path.split(' ').collect();
        with_help(command, &words, &below(words[0], lines))
    })
}

/// `command` with this below the help of the one that `path` leads to, unless it was built without.
fn with_help(command: Command, path: &[&str], help: &str) -> Command {
    match path {
        [] => command.after_help(help.to_owned()),
        [name, rest @ ..] if command.find_subcommand(name).is_some() => {
            command.mut_subcommand(name, |sub| with_help(sub, rest, help))
        }
        _ => command,
    }
}

fn below(name: &str, lines: &[&str]) -> String {
    let examples: Vec<String> = lines.iter().map(|line| format!("  akash-redis {line}")).collect();
    let examples = examples.join("\n");
    let code = match name {
        "proxy" | "connect" | "exec" => {
            "0 when it was stopped, and as the program that it started ends; 1 with one sentence when it cannot go on; 2 for a command line that is not understood"
        }
        "mesh" => {
            "0 when nothing is too open or missing, 1 with what is, 2 for a command line that is not understood"
        }
        _ => {
            "0 when it did what was asked, 1 with one sentence when not, 2 for a command line that is not understood"
        }
    };
    format!("Examples:\n{examples}\n\nExit code: {code}.")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_command_shows_its_own_flags_before_those_of_every_command() {
        for name in ["apply", "logs", "switchover"] {
            let mut command = command();
            command.build();
            let help = command.find_subcommand_mut(name).unwrap().render_help().to_string();
            let (own, every) = help.split_once(super::super::EVERYWHERE).unwrap();
            assert!(!own.contains("--socket") && !own.contains("--kubeconfig"), "{help}");
            assert!(every.contains("--socket") && every.contains("--namespace"), "{help}");
        }
    }

    /// Every command that a person sees, by the words that lead to it.
    fn all(command: &Command, path: &str) -> Vec<(String, Command)> {
        let shown = command.get_subcommands().filter(|sub| !sub.is_hide_set());
        let mut found = Vec::new();
        for sub in shown {
            let path = format!("{path} {}", sub.get_name()).trim_start().to_owned();
            found.extend(all(sub, &path));
            found.push((path, sub.clone()));
        }
        found
    }

    #[test]
    fn every_command_has_examples_that_can_be_typed() {
        let command = command();
        let all = all(&command, "");
        assert!(all.iter().any(|(path, _)| path == "backup verify"));
        for (path, sub) in &all {
            let help = sub.get_after_help().map(ToString::to_string);
            assert!(
                help.is_some_and(|help| help.contains("Exit code: 0")),
                "{path} has no example"
            );
        }
        for (path, lines) in EXAMPLES.iter().filter(|(path, _)| all.iter().any(|c| c.0 == *path)) {
            for line in *lines {
                assert!(line.starts_with(path), "{line}");
                // What the shell does with it is not ours.
                let own = line.split(['>', '<', '|']).next().unwrap_or(line).trim_end();
                let words = std::iter::once("akash-redis").chain(own.split(' '));
                let parsed = command.clone().try_get_matches_from(words);
                assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
            }
        }
    }

    #[test]
    fn a_flag_has_one_letter_and_one_placeholder_in_every_command() {
        let mut spellings = std::collections::BTreeMap::<String, BTreeSet<_>>::new();
        for (_, sub) in all(&command(), "") {
            for arg in sub.get_arguments() {
                // Nobody takes `switchover --to 2` for `restore --to 2026-11-25T10:15:00Z`, or
                // `recover --confirm` for `proxy --confirm=2`.
                let alike = |long: &&str| !["to", "confirm"].contains(long);
                let Some(long) = arg.get_long().filter(alike) else { continue };
                let placeholder = arg.get_value_names().filter(|_| arg.get_action().takes_values());
                let spelling = (arg.get_short(), placeholder.map(<[_]>::to_vec));
                spellings.entry(long.to_owned()).or_default().insert(spelling);
            }
        }
        spellings.retain(|_, different| different.len() > 1);
        assert!(spellings.is_empty(), "{spellings:?}");
    }
}
