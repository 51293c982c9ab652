//! What `--help` shows below the flags: examples, and with what a command ends.

use clap::{Command, CommandFactory as _};

use super::Cli;

/// Of each command, lines as they are typed.
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
    ("spend", &["spend", "spend cache --month 2026-11 -o csv"]),
    ("providers", &["providers", "providers -o json"]),
    ("recover", &["recover", "recover --cluster cache --confirm"]),
    ("orphans", &["orphans", "orphans --close"]),
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
    ("backups", &["backups cache"]),
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
    ("sdl", &["sdl -f cache.yaml", "sdl -f cache.yaml -o hash"]),
    ("validate", &["validate -f cache.yaml", "validate -f clusters/"]),
    ("explain", &["explain spec.redis.users", "explain spec.failover"]),
    ("schema", &["schema > rediscluster.schema.json"]),
    ("crd", &["crd | kubectl apply -f -"]),
    ("completion", &["completion bash > /etc/bash_completion.d/akash-redis"]),
    ("man", &["man /usr/local/share/man/man1"]),
    ("mesh", &["mesh policy", "mesh check"]),
    ("wallet", &["wallet", "wallet new --out mnemonic", "wallet mint 20act --max-akt 45akt"]),
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
];

/// The command line with its examples.
#[must_use]
pub fn command() -> Command {
    EXAMPLES.iter().fold(Cli::command(), |command, (name, lines)| {
        if command.find_subcommand(name).is_none() {
            // Built without it.
            return command;
        }
        command.mut_subcommand(name, |sub| sub.after_help(below(name, lines)))
    })
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

    #[test]
    fn every_command_has_examples_that_can_be_typed() {
        let command = command();
        for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
            let name = sub.get_name();
            let help = sub.get_after_help().map(ToString::to_string);
            assert!(
                help.is_some_and(|help| help.contains("Exit code: 0")),
                "{name} has no example"
            );
        }
        for (name, lines) in
            EXAMPLES.iter().filter(|(name, _)| command.find_subcommand(name).is_some())
        {
            for line in *lines {
                assert!(line.starts_with(name), "{line}");
                // What the shell does with it is not ours.
                let own = line.split(['>', '<', '|']).next().unwrap_or(line).trim_end();
                let words = std::iter::once("akash-redis").chain(own.split(' '));
                let parsed = command.clone().try_get_matches_from(words);
                assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
            }
        }
    }
}
