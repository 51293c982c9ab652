//! Applications that know one address alone, wherever they are on the tailnet: a proxy that follows
//! the nodes' signed word, in another lease and without an operator; redis-cli into the master; and
//! how nodes learn the newest word from each other.

use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::time::Duration;

use akash_redis::api::conditions::Phase;
use akash_redis::api::status::NodeStatus;
use akash_redis::api::types::Announce;
use akash_redis::devnet::provider::host::LeaseKey;
use akash_redis::devnet::provider::runner::Runner;
use akash_redis::devnet::sandbox::Sandbox;
use akash_redis::devnet::tailnet::APPLICATION_TAG;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

use crate::machine::Machine;
use crate::sandboxed::sandboxed;
use crate::sentinel::{addresses, beside_a_cluster};
use crate::stage::{CLUSTER, PASSWORD, PROGRAM, Stage, cluster, until};

const LIMIT: Duration = Duration::from_mins(6);
/// An application writes again within this, whatever happened.
const FOUND: Duration = Duration::from_mins(1);
/// A node that came back knows the newest word within this.
const LEARNT: Duration = Duration::from_secs(30);

/// Knows one address, and tells what became of each write.
const APPLICATION: &str = r#"
import sys, time, redis
master = redis.Redis(host="127.0.0.1", port=6379, username="app", password=sys.argv[1], socket_timeout=2)
n = 0
while True:
    n += 1
    try:
        master.set("k%d" % n, n)
        print("ok", n, flush=True)
    except redis.RedisError as error:
        print("error", type(error).__name__, error, flush=True)
    time.sleep(0.02)
"#;

/// Names are for tailscaled to look up.
const NAMES: &str = "strict_chain
proxy_dns
tcp_read_time_out 2000
tcp_connect_time_out 2000
[ProxyList]
socks5 127.0.0.1 1055
";

/// Something that tells line by line.
struct Teller {
    _process: Child,
    told: Lines<BufReader<ChildStdout>>,
}

impl Teller {
    fn start(mut command: Command) -> Self {
        let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
        let told = BufReader::new(process.stdout.take().unwrap()).lines();
        Self { _process: process, told }
    }

    fn application(machine: &Machine) -> Self {
        let line = format!("exec /usr/bin/python3 -c \"$APPLICATION\" {PASSWORD}");
        Self::start(machine.shell(&[("APPLICATION", APPLICATION)], &line))
    }

    async fn line(&mut self, beginning: &str) -> String {
        let mut last = String::new();
        let found = timeout(FOUND, async {
            while !last.starts_with(beginning) {
                last = self.told.next_line().await.unwrap().expect("it goes on");
            }
        });
        assert!(found.await.is_ok(), "no line {beginning:?}; last: {last}");
        last
    }

    /// Reads on until there was a line of each of these beginnings, in whatever order.
    async fn both(&mut self, beginnings: [&str; 2]) -> [String; 2] {
        let mut found = [const { String::new() }; 2];
        let read = timeout(FOUND, async {
            while found.iter().any(String::is_empty) {
                let line = self.told.next_line().await.unwrap().expect("it goes on");
                if let Some(at) = beginnings.iter().position(|b| line.starts_with(b)) {
                    found[at] = line;
                }
            }
        });
        assert!(read.await.is_ok(), "not both of {beginnings:?}: {found:?}");
        found
    }

    /// Reads on until it has written this many times in a row, from now on.
    async fn writes(&mut self) {
        // What it told before now is not looked at.
        while let Ok(line) = timeout(Duration::from_millis(1), self.told.next_line()).await {
            line.unwrap().expect("it goes on");
        }
        let mut last = String::new();
        let found = timeout(FOUND, async {
            let mut row = 0;
            while row < 10 {
                last = self.told.next_line().await.unwrap().expect("it goes on");
                row = if last.starts_with("ok ") { row + 1 } else { 0 };
            }
        });
        assert!(found.await.is_ok(), "it does not write; last: {last}");
    }
}

fn said(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

async fn until_another_master(stage: &Stage, than: &NodeStatus) -> NodeStatus {
    until("another master", async || stage.master().await.incarnation != than.incarnation).await;
    stage.master().await
}

/// Those who ask as they ask Sentinel are given names that tailscaled can look up.
async fn names_are_told_and_lead_there(
    stage: &Stage,
    machine: &Machine,
    node: &str,
    master: &NodeStatus,
) {
    let mut named = cluster(3);
    named.spec.mesh.announce = Announce::Names;
    stage.client.apply(&named).await.unwrap();
    machine.write("names.conf", NAMES);
    let through = "proxychains4 -q -f /etc/names.conf redis-cli -h";
    let name = master.mesh_name.clone().unwrap();
    let asked = format!("{through} {node} -p 26379 SENTINEL get-master-addr-by-name {CLUSTER}");
    until("the master's name", async || {
        machine.run(&asked).await.stdout == format!("{name}\n6379\n").as_bytes()
    })
    .await;
    let read = format!("REDISCLI_AUTH={PASSWORD} {through} {name} --user app get k1");
    assert_eq!(machine.says(&read).await, "1\n");
}

#[test]
fn a_proxy_in_another_lease_needs_the_nodes_alone() {
    sandboxed(
        "reach::a_proxy_in_another_lease_needs_the_nodes_alone",
        LIMIT,
        async |sandbox: Sandbox| {
            let (mut stage, machine) = beside_a_cluster(&sandbox).await;
            stage.until_ready().await;
            let all = addresses(&stage).await;
            let master = stage.master().await;
            let of = |name: &str| all.iter().find(|(n, _)| n == name).unwrap().1.clone();
            // One node is enough, and it need not be the master's; a name is as good as an address.
            let replica = stage.until_ready().await.nodes;
            let replica = replica.iter().find(|n| n.phase == Phase::Replica).unwrap();
            let seed = replica.mesh_name.clone().unwrap();
            let key = said(&stage.cli(&["public-key"]).await);
            let from = |seed: &str, cluster: &str| {
                format!(
                    "{PROGRAM} proxy --cluster {cluster} --node {seed} --public-key {key} --state /run/word.json --socks5 127.0.0.1:1055 --read-listen 127.0.0.1:6380"
                )
            };
            let wrong = machine.run(&from(&seed, "queue")).await;
            let error = String::from_utf8_lossy(&wrong.stderr);
            assert!(
                !wrong.status.success() && error.contains("this is a node of cache"),
                "{error}"
            );

            let mut proxy =
                Teller::start(machine.shell(&[], &format!("exec {}", from(&seed, CLUSTER))));
            let line = proxy.line("listening on 127.0.0.1:6379").await;
            assert!(line.contains(&format!("the master is {} ", master.incarnation)), "{line}");
            let mut application = Teller::application(&machine);
            application.writes().await;
            let cli = |port: u16, words: &str| {
                format!("REDISCLI_AUTH={PASSWORD} redis-cli -p {port} --user app {words}")
            };
            let refused = machine.says(&cli(6380, "set k1 x")).await;
            assert!(refused.contains("READONLY"), "reads go to a replica: {refused}");
            assert_eq!(machine.says(&cli(6380, "get k1")).await, "1\n");

            names_are_told_and_lead_there(&stage, &machine, &seed, &master).await;

            stage.kill_redis(&master);
            let second = until_another_master(&stage, &master).await;
            application.writes().await;
            stage.until_ready().await;

            // Nobody decides any more, and the proxy begins anew: by what it kept, or by what the
            // node says.
            stage.local.kill_operator().await;
            for pid in machine.processes("akash-redis") {
                kill_process(Pid::from_raw(pid.try_into().unwrap()).unwrap(), Signal::KILL)
                    .unwrap();
            }
            drop(proxy);
            let other = of(&all.iter().find(|(n, _)| *n != second.incarnation).unwrap().0);
            let mut proxy =
                Teller::start(machine.shell(&[], &format!("exec {}", from(&other, CLUSTER))));
            let line = proxy.line("listening on 127.0.0.1:6379").await;
            assert!(line.contains(&format!("the master is {} ", second.incarnation)), "{line}");
            application.writes().await;

            // redis-cli, from here as well.
            let connect = format!(
                "REDISCLI_AUTH={PASSWORD} {PROGRAM} connect {CLUSTER} --node {other} --public-key {key} --socks5 127.0.0.1:1055 --user app -- get k1"
            );
            assert_eq!(machine.says(&connect).await, "1\n");
        },
    );
}

/// A node's container.
struct Container<'a> {
    runner: &'a Runner,
    lease: LeaseKey,
}

impl<'a> Container<'a> {
    fn of(stage: &'a Stage, node: &NodeStatus) -> Self {
        let (provider, lease) = stage.local.market.find(node.dseq).unwrap();
        Self { runner: &stage.local.market.providers[provider].runner, lease }
    }

    fn redis(&self) -> Option<u32> {
        self.runner.processes(&self.lease, "redis-server").first().copied()
    }

    /// Its word about the master on disk, and the twin of that.
    fn words(&self) -> [PathBuf; 2] {
        let root = format!("/proc/{}/root/data/agent", self.redis().unwrap());
        ["word.json", "word.twin.json"].map(|name| PathBuf::from(&root).join(name))
    }
}

#[test]
fn a_node_that_missed_a_change_learns_it_from_the_others_without_an_operator() {
    sandboxed(
        "reach::a_node_that_missed_a_change_learns_it_from_the_others_without_an_operator",
        LIMIT,
        async |sandbox: Sandbox| {
            let (mut stage, machine) = beside_a_cluster(&sandbox).await;
            let status = stage.until_ready().await;
            let all = addresses(&stage).await;
            let of = |name: &str| all.iter().find(|(n, _)| n == name).unwrap().1.clone();
            let first = stage.master().await;
            let replicas: Vec<_> =
                status.nodes.iter().filter(|n| n.phase == Phase::Replica).cloned().collect();
            let [outdated, forgetful] = &replicas[..] else { panic!("{status:#?}") };
            let asked = |node: &NodeStatus| {
                let ip = of(&node.incarnation);
                format!(
                    "proxychains4 -q -f /etc/proxychains.conf redis-cli -h {ip} -p 26379 SENTINEL get-master-addr-by-name cache"
                )
            };
            let knows = async |node: &NodeStatus, master: &NodeStatus| {
                let wanted = format!("{}\n6379\n", of(&master.incarnation));
                let output = machine.run(&asked(node)).await;
                output.stdout == wanted.as_bytes()
            };
            until("the word at every node", async || {
                knows(outdated, &first).await && knows(forgetful, &first).await
            })
            .await;
            let kept =
                Container::of(&stage, outdated).words().map(|path| std::fs::read(path).unwrap());

            // The master moves to the node that will forget; then nobody is there who could tell.
            let moved = stage.cli(&["switchover", CLUSTER, "--to", &forgetful.incarnation]).await;
            said(&moved);
            let second = until_another_master(&stage, &first).await;
            assert_eq!(second.incarnation, forgetful.incarnation);
            stage.until_ready().await;
            until("the new word at every node", async || {
                let mut count = 0;
                for node in [&first, outdated, forgetful] {
                    count += usize::from(knows(node, &second).await);
                }
                count == 3
            })
            .await;
            stage.local.kill_operator().await;

            let away = |node: &NodeStatus| {
                let container = Container::of(&stage, node);
                let old = container.redis();
                assert!(container.runner.restart(&container.lease));
                async move {
                    until("the node to be back", async || {
                        container.redis().is_some_and(|pid| Some(pid) != old)
                    })
                    .await;
                }
            };
            let container = Container::of(&stage, outdated);
            for (path, text) in container.words().into_iter().zip(&kept) {
                std::fs::write(path, text).unwrap();
            }
            away(outdated).await;
            let learnt = async |node: &NodeStatus| {
                let learnt = timeout(LEARNT, async { while !knows(node, &second).await {} });
                assert!(learnt.await.is_ok(), "{} does not know who is master", node.incarnation);
            };
            learnt(outdated).await;
            for path in Container::of(&stage, &first).words() {
                std::fs::remove_file(path).unwrap();
            }
            away(&first).await;
            learnt(&first).await;
        },
    );
}

#[test]
fn a_running_proxy_finds_a_cluster_that_was_made_anew_and_redis_cli_needs_no_flags() {
    sandboxed(
        "reach::a_running_proxy_finds_a_cluster_that_was_made_anew_and_redis_cli_needs_no_flags",
        LIMIT,
        async |sandbox: Sandbox| {
            let stage = Stage::start(&sandbox).await;
            let none =
                stage.cli(&["proxy", "--cluster", CLUSTER, "--listen", "127.0.0.1:6379"]).await;
            let error = String::from_utf8_lossy(&none.stderr);
            assert!(!none.status.success() && error.contains("no RedisCluster named"), "{error}");

            stage.client.apply(&cluster(1)).await.unwrap();
            stage.until_ready().await;
            let password = sandbox.dir.join("password");
            std::fs::write(&password, format!("{PASSWORD}\n")).unwrap();
            let connect = async |words: &[&str]| {
                let password = password.to_str().unwrap();
                let flags = ["connect", CLUSTER, "--password-file", password, "--"];
                stage.cli(&[&flags[..], words].concat()).await
            };
            // It finds tailscaled's proxy, the user and the master.
            assert_eq!(said(&connect(&["set", "made", "first"]).await), "OK");
            assert_eq!(
                connect(&["-p", "1", "-h", "127.0.0.2", "--no-such-flag"]).await.status.code(),
                Some(1)
            );

            let mut command = Command::new(PROGRAM);
            command.arg("--socket").arg(stage.local.socket());
            command.args(["proxy", "--cluster", CLUSTER, "--listen", "127.0.0.1:6379"]);
            command.stdin(Stdio::null()).kill_on_drop(true);
            let mut proxy = Teller::start(command);
            proxy.line("listening on 127.0.0.1:6379, the master is ").await;
            let through = async |words: &[&str]| {
                let mut cli = Command::new("redis-cli");
                cli.args(["--user", "app"]).args(words).env("REDISCLI_AUTH", PASSWORD);
                let output = cli.stdin(Stdio::null()).kill_on_drop(true).output().await.unwrap();
                String::from_utf8_lossy(&output.stdout).trim().to_owned()
            };
            assert_eq!(through(&["get", "made"]).await, "first");

            stage.delete().await;
            stage.client.apply(&cluster(1)).await.unwrap();
            stage.until_ready().await;
            until("the new cluster behind the old proxy", async || {
                through(&["set", "made", "anew"]).await == "OK"
            })
            .await;
        },
    );
}

#[test]
fn an_application_in_its_own_container_writes_on_through_a_switchover() {
    sandboxed(
        "reach::an_application_in_its_own_container_writes_on_through_a_switchover",
        LIMIT,
        async |sandbox: Sandbox| {
            let stage = Stage::start(&sandbox).await;
            let dir = sandbox.dir.join("app");
            let machine = Machine::start(&stage.local.market.net, &stage.local.tailnet, dir).await;
            stage.client.apply(&cluster(2)).await.unwrap();
            let status = stage.until_ready().await;
            let master = stage.master().await;
            let replica = status.nodes.iter().find(|n| n.phase == Phase::Replica).unwrap();
            let nodes = addresses(&stage).await.into_iter().map(|(_, address)| address);
            let variables = [
                ("TS_AUTHKEY", stage.local.tailnet.mint(APPLICATION_TAG).await.unwrap()),
                ("TS_LOGIN_SERVER", akash_redis::devnet::tailnet::login_server()),
                ("TMPDIR", "/run".to_owned()),
                ("AKASH_REDIS_CLUSTER", CLUSTER.to_owned()),
                ("AKASH_REDIS_NODES", nodes.collect::<Vec<_>>().join(",")),
                ("AKASH_REDIS_PUBLIC_KEY", said(&stage.cli(&["public-key"]).await)),
                ("APPLICATION", APPLICATION.to_owned()),
            ];
            let variables = variables.each_ref().map(|(name, value)| (*name, value.as_str()));
            let script = concat!(env!("CARGO_MANIFEST_DIR"), "/image/with-redis-proxy.sh");
            let program = PathBuf::from(PROGRAM);
            let line = format!(
                "PATH={}:$PATH exec sh {script} -- sh -c 'echo \"key ${{TS_AUTHKEY:-none}}\"; exec /usr/bin/python3 -c \"$APPLICATION\" {PASSWORD}'",
                program.parent().unwrap().display()
            );
            let mut application = Teller::start(machine.shell(&variables, &line));
            // The application may be quicker to speak than the proxy, which listens before.
            let [line, key] = application.both(["listening on 127.0.0.1:6379", "key "]).await;
            assert!(line.contains("the master is ") || line.contains("not known yet"), "{line}");
            assert_eq!(key, "key none");
            application.writes().await;
            said(&stage.cli(&["switchover", CLUSTER, "--to", &replica.incarnation]).await);
            until_another_master(&stage, &master).await;
            application.writes().await;
        },
    );
}
