//! The node image: three nodes run from its files, as containers that may nothing.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use akash_redis::api::conditions::Phase;
use akash_redis::api::status::NodeStatus;
use akash_redis::cli::local::LocalOptions;
use akash_redis::devnet::sandbox::{Sandbox, Users, inside};
use serde_json::json;
use tokio::process::Command;

use crate::sandboxed::sandboxed_with;
use crate::stage::{PASSWORD, Stage, cluster, until};
use crate::unpacked::{self, REVISION, Unpacked};

const LIMIT: Duration = Duration::from_mins(3);
/// Programs of a node by the names of their processes, the file of each in the image, and the user
/// each runs as.
const PROGRAMS: [(&str, &str, &str); 4] = [
    ("tini", "/usr/bin/tini", "root"),
    ("akash-redis", "/usr/local/bin/akash-redis", "root"),
    ("tailscaled", "/usr/local/bin/tailscaled", "tailscaled"),
    ("redis-server", "/usr/bin/redis-check-rdb", "redis"),
];
/// Bits of capabilities that a provider leaves nobody: networks, raw packets, kernel modules,
/// foreign processes, the system.
const TAKEN_AWAY: [(&str, u32); 5] =
    [("NET_ADMIN", 12), ("NET_RAW", 13), ("SYS_MODULE", 16), ("SYS_PTRACE", 19), ("SYS_ADMIN", 21)];

#[test]
fn three_nodes_of_the_built_image_replicate_without_privileges_each_program_as_its_own_user() {
    let _built = (!inside()).then(unpacked::build);
    let test = "image::three_nodes_of_the_built_image_replicate_without_privileges_each_program_as_its_own_user";
    sandboxed_with(Users::Many, test, LIMIT, async |sandbox: Sandbox| {
        let image = unpacked::found();
        says_what_it_is_and_opens_one_port(&image);
        let stage = Stage::on(
            &sandbox,
            &LocalOptions { root: Some(image.root()), ..LocalOptions::default() },
        )
        .await;
        stage.client.apply(&cluster(3)).await.unwrap();
        let status = stage.until_ready().await;
        assert_eq!(status.nodes.len(), 3);
        for node in &status.nodes {
            runs_nothing_but_the_image_and_may_nothing(&stage, node, &image);
        }
        a_write_arrives_at_the_replicas(&stage, &status.nodes).await;
        stage.delete().await;
    });
}

#[test]
fn the_operators_image_runs_as_nobody_and_writes_nowhere_but_to_its_own() {
    let (_built, image) = unpacked::build_operator();
    let config = &image.config;
    assert_eq!(config["User"], "65532:65532");
    assert!(config["ExposedPorts"].is_null(), "{config}");
    assert_eq!(config["Entrypoint"], json!(["/usr/local/bin/akash-redis"]));
    assert_eq!(config["Cmd"], json!(["operator"]));
    assert_eq!(config["Env"].as_array().unwrap().len(), 1, "a secret could hide in any but PATH");

    let run = |script: &str| {
        let output = std::process::Command::new("chroot")
            .args(["--userspec=65532:65532", image.dir.to_str().unwrap(), "/bin/sh", "-c", script])
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .output()
            .unwrap();
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    };
    let version = run("akash-redis --version");
    assert_eq!(version.trim(), format!("akash-redis {}", env!("CARGO_PKG_VERSION")));
    assert!(run("tailscale version").contains('.'));
    let without = run("akash-redis operator --check");
    assert!(without.contains("/etc/akash-redis/operator.yaml"), "{without}");
    let found = run("find / -xdev -type d -writable | sort");
    // What it may not look into it says in lines of its own.
    let writable: Vec<&str> = found.lines().filter(|line| line.starts_with('/')).collect();
    let expected = ["/run/akash-redis", "/run/lock", "/tmp", "/var/lib/akash-redis", "/var/tmp"];
    assert_eq!(writable, expected);
}

fn says_what_it_is_and_opens_one_port(image: &Unpacked) {
    let config = &image.config;
    assert_eq!(config["ExposedPorts"], json!({"8080/tcp": {}}));
    assert_eq!(config["User"].as_str().unwrap_or_default(), "", "the agent itself is root");
    let label =
        |name: &str| config["Labels"][format!("org.opencontainers.image.{name}")].as_str().unwrap();
    assert_eq!((label("version"), label("revision")), (env!("CARGO_PKG_VERSION"), REVISION));
    let variables: Vec<_> = config["Env"]
        .as_array()
        .unwrap()
        .iter()
        .map(|v| v.as_str().unwrap().split('=').next().unwrap())
        .collect();
    assert_eq!(variables, ["PATH"], "a secret could hide in any other");
}

fn runs_nothing_but_the_image_and_may_nothing(stage: &Stage, node: &NodeStatus, image: &Unpacked) {
    let (provider, lease) = stage.local.market.find(node.dseq).unwrap();
    for (name, file, user) in PROGRAMS {
        let [pid] = stage.local.market.providers[provider].runner.processes(&lease, name)[..]
        else {
            panic!("{name} is not one process")
        };
        let process = Path::new("/proc").join(pid.to_string());
        // Seen from here, the node's root is a directory of this name.
        let exe = fs::read_link(process.join("exe")).unwrap();
        assert!(exe.ends_with(format!("root{file}")), "{name} is {}", exe.display());
        let mounts = fs::read_to_string(process.join("mountinfo")).unwrap();
        let root = mounts.lines().rfind(|line| line.split(' ').nth(4) == Some("/")).unwrap();
        assert!(
            root.contains(&format!("lowerdir={}", image.dir.display())),
            "{name} has another root: {root}"
        );
        assert!(!process.join("root/dev/net/tun").exists(), "a provider gives no network device");

        let status = fs::read_to_string(process.join("status")).unwrap();
        let field = |key: &str| {
            status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(":\t")).unwrap()
        };
        assert_eq!(field("NoNewPrivs"), "1", "{name}");
        let bounding = u64::from_str_radix(field("CapBnd"), 16).unwrap();
        for (capability, bit) in TAKEN_AWAY {
            assert_eq!(bounding >> bit & 1, 0, "{name} could have {capability}");
        }
        let (uid, gid) = image.user(user);
        assert_eq!(
            (field("Uid"), field("Gid")),
            (four_times(uid).as_str(), four_times(gid).as_str()),
            "{name}"
        );
        assert!(
            uid == 0 || u64::from_str_radix(field("CapEff"), 16).unwrap() == 0,
            "{name} is not root and has no capabilities"
        );
    }
}

/// Real, effective, saved and of the file system.
fn four_times(id: u32) -> String {
    format!("{id}\t{id}\t{id}\t{id}")
}

async fn a_write_arrives_at_the_replicas(stage: &Stage, nodes: &[NodeStatus]) {
    let (replicas, masters): (Vec<&NodeStatus>, Vec<&NodeStatus>) =
        nodes.iter().partition(|n| n.phase == Phase::Replica);
    assert_eq!((replicas.len(), masters.len()), (2, 1));
    assert_eq!(redis(stage, masters[0], &["set", "from", "the master"]).await, "OK");
    for replica in replicas {
        until("the write at a replica", async || {
            redis(stage, replica, &["get", "from"]).await == "the master"
        })
        .await;
    }
}

/// The image's own `redis-cli` in a node.
pub async fn redis(stage: &Stage, node: &NodeStatus, words: &[&str]) -> String {
    let (provider, lease) = stage.local.market.find(node.dseq).unwrap();
    let [agent] =
        stage.local.market.providers[provider].runner.processes(&lease, "akash-redis")[..]
    else {
        panic!("one agent")
    };
    let mut command = Command::new("nsenter");
    command.args([
        format!("--net=/proc/{agent}/ns/net"),
        format!("--root=/proc/{agent}/root"),
        "--".to_owned(),
    ]);
    command
        .args(["redis-cli", "-h", "127.0.0.1", "--user", "app"])
        .args(words)
        .env("REDISCLI_AUTH", PASSWORD);
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await.unwrap();
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
