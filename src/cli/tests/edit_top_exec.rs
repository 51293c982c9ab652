//! `edit`, `top` and `exec`.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::api::preview::Bill;
use crate::api::top::NodeLoad;

impl Operator {
    /// A program that does this to the file that it is given.
    fn editor(&self, script: &str) -> String {
        let path = self.dir.path().join("editor");
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
        path.display().to_string()
    }

    async fn edit(&self, script: &str) -> Result<String, String> {
        let editor = self.editor(script);
        self.run(&format!("edit cache --editor {editor}")).await
    }
}

#[tokio::test]
async fn what_is_saved_in_the_editor_is_applied() {
    let operator = Operator::start().await;
    operator.apply(json!({ "nodes": 3 })).await.unwrap();
    operator.publish(json!({ "epoch": 1, "nodes": nodes() })).await;
    let seen = operator.dir.path().join("seen");
    let script = format!("cp \"$1\" {}; sed -i 's/nodes: 3/nodes: 5/' \"$1\"", seen.display());
    assert_eq!(operator.edit(&script).await.unwrap(), "rediscluster/cache configured\n");
    assert_eq!(operator.store.get("cache").await.unwrap().cluster.spec.nodes, 5);
    let seen = std::fs::read_to_string(seen).unwrap();
    assert!(seen.starts_with("# The manifest of a cluster.") && !seen.contains("epoch"), "{seen}");
}

#[tokio::test]
async fn an_editor_that_changes_nothing_changes_nothing() {
    let operator = Operator::start().await;
    operator.apply(json!({ "nodes": 3 })).await.unwrap();
    let before = operator.store.get("cache").await.unwrap().cluster.metadata;
    for script in [":", "printf '' > \"$1\"", "echo '# a note' > \"$1\""] {
        let said = operator.edit(script).await.unwrap();
        assert_eq!(said, "edit cancelled, no changes made\n", "{script}");
    }
    let failed = operator.edit("sed -i 's/nodes: 3/nodes: 5/' \"$1\"; exit 3").await.unwrap_err();
    assert!(failed.contains("ended with exit status: 3, so nothing was changed"), "{failed}");
    let none = operator.run("edit cache --editor /nonexistent/vi").await.unwrap_err();
    assert!(none.contains("so nothing was changed"), "{none}");
    assert_eq!(operator.store.get("cache").await.unwrap().cluster.metadata, before);
    let gone = operator.run("edit other").await.unwrap_err();
    assert!(gone.contains("no RedisCluster named other"), "{gone}");
}

#[tokio::test]
async fn what_is_refused_is_opened_again_with_the_reason_above_it() {
    let operator = Operator::start().await;
    operator.apply(json!({ "nodes": 3 })).await.unwrap();
    // The second time it does what the sentence says.
    let script = "if head -1 \"$1\" | grep -q 'spec.nodes: 12 nodes cannot be run'; then sed -i 's/nodes: 12/nodes: 4/' \"$1\"; else sed -i 's/nodes: 3/nodes: 12/' \"$1\"; fi";
    assert_eq!(operator.edit(script).await.unwrap(), "rediscluster/cache configured\n");
    assert_eq!(operator.store.get("cache").await.unwrap().cluster.spec.nodes, 4);

    let error = operator.edit("sed -i 's/nodes: 4/nodes: 12/' \"$1\"").await.unwrap_err();
    let kept = error.rsplit(' ').next().unwrap();
    assert!(error.contains("nothing was changed; what was written is kept in"), "{error}");
    assert!(std::fs::read_to_string(kept).unwrap().contains("nodes: 12"), "{error}");
    std::fs::remove_file(kept).unwrap();
    let renamed = operator.edit("sed -i 's/name: cache/name: other/' \"$1\"").await.unwrap_err();
    assert!(renamed.contains("the name of a cluster does not change"), "{renamed}");
    std::fs::remove_file(renamed.rsplit(' ').next().unwrap()).unwrap();
    assert_eq!(operator.store.get("cache").await.unwrap().cluster.spec.nodes, 4);
}

#[tokio::test]
async fn a_change_of_somebody_else_is_not_overwritten() {
    let operator = Operator::start().await;
    operator.apply(json!({ "nodes": 3 })).await.unwrap();
    let (open, go) = (operator.dir.path().join("open"), operator.dir.path().join("go"));
    let script = format!(
        "touch {}; while [ ! -e {} ]; do sleep 0.05; done; sed -i 's/nodes: 3/nodes: 5/' \"$1\"",
        open.display(),
        go.display()
    );
    let (edited, ()) = tokio::join!(operator.edit(&script), async {
        while !open.exists() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        operator.run("scale cache --nodes 4").await.unwrap();
        std::fs::write(&go, "").unwrap();
    });
    let error = edited.unwrap_err();
    assert!(error.contains("was changed by somebody else meanwhile"), "{error}");
    std::fs::remove_file(error.rsplit(' ').next().unwrap()).unwrap();
    assert_eq!(operator.store.get("cache").await.unwrap().cluster.spec.nodes, 4);
}

#[tokio::test]
async fn whoever_edits_is_asked_before_coins_are_spent() {
    let operator = Operator::start().await;
    operator.apply(json!({ "nodes": 3 })).await.unwrap();
    operator.appraiser.appraisal.lock().unwrap().bill =
        Some(Bill { new_nodes: 2, ..Bill::default() });
    let editor = operator.editor("sed -i 's/nodes: 3/nodes: 5/' \"$1\"");
    let mut nobody = somebody(false);
    let line = format!("edit cache --editor {editor}");
    let error = operator.run_before(&mut nobody, &line).await.unwrap_err();
    assert!(error.contains("nobody said `yes`") && nobody.asked == 1, "{error}");
    std::fs::remove_file(error.rsplit(' ').next().unwrap()).unwrap();
    assert_eq!(operator.store.get("cache").await.unwrap().cluster.spec.nodes, 3);
}

#[tokio::test]
async fn top_shows_what_each_node_has_to_do() {
    let operator = Operator::start().await;
    assert!(operator.run("top --once").await.unwrap().starts_with("no nodes found"));
    let none = operator.run("top other --once").await.unwrap_err();
    assert!(none.contains("no RedisCluster named other"), "{none}");
    operator.apply(json!({ "nodes": 3 })).await.unwrap();
    operator
        .publish(json!({ "epoch": 1, "nodes": nodes(), "cost": { "runway": "13 days" } }))
        .await;
    let load = NodeLoad { ops_per_second: Some(812), memory_bytes: 1536, ..NodeLoad::default() };
    operator.status_cache.publish_loads("cache", BTreeMap::from([("cache-0-a".into(), load)]));
    let table = operator.run("top cache --once").await.unwrap();
    let row = |node: &str| {
        let line = table.lines().find(|line| line.contains(node)).unwrap();
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(row("cache-0-a"), "cache 0 Master cache-0-a - 812 1.5KiB - 0 13 days");
    assert_eq!(row("cache-1-b"), "cache 1 Replica cache-1-b 7B - - - - 13 days");
    let json: serde_json::Value =
        serde_json::from_str(&operator.run("top -o json").await.unwrap()).unwrap();
    assert_eq!(json["items"][0]["load"]["opsPerSecond"], 812, "{json}");
    operator.status_cache.remove("cache");
    assert!(!operator.run("top --once").await.unwrap().contains("812"), "nobody is heard any more");
}

#[tokio::test]
async fn exec_refuses_what_a_node_cannot_do() {
    let operator = Operator::start().await;
    let user = json!({ "name": "app", "passwordSha256": "ab".repeat(32) });
    operator.apply(json!({ "nodes": 3, "redis": { "users": [user] } })).await.unwrap();
    operator.publish(json!({ "epoch": 1, "nodes": nodes() })).await;
    let socket = operator.dir.path().join("operator.sock");
    let exec = async |line: &str| {
        let words = ["akash-redis"].into_iter().chain(line.split(' '));
        let Command::Exec(args) = Cli::try_parse_from(words).unwrap().command else {
            panic!("{line} is no exec");
        };
        exec::run(args, &socket).await.unwrap_err().to_string()
    };
    for (line, says) in [
        ("exec cache 1 -- bash", "bash cannot be run in a node"),
        (
            "exec cache 7 -- redis-cli PING",
            "cache has no node 7; its nodes are cache-0-a, cache-1-b",
        ),
        ("exec cache 1 -- redis-cli SET a b", "cache-1-b is a replica and takes no writes"),
        ("exec cache 1 -- redis-cli GET a", "has no address on the mesh that is known now"),
    ] {
        let error = exec(line).await;
        assert!(error.contains(says), "{line}: {error}");
    }
    assert!(Cli::try_parse_from(["akash-redis", "exec", "cache", "1"]).is_err());
}

/// A real redis-server that ends with the test, and its port.
async fn redis(dir: &std::path::Path) -> (tokio::process::Child, u16) {
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let config = dir.join(format!("{port}.conf"));
    let dir = dir.display();
    let text = format!(
        "port {port}\nbind 127.0.0.1\nsave \"\"\ndir {dir}\nuser app on >secret ~* +@all\n"
    );
    std::fs::write(&config, text).unwrap();
    let server = tokio::process::Command::new("redis-server")
        .arg(&config)
        .stdout(std::process::Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let answers = async {
        while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), answers).await.expect("redis-server answers");
    (server, port)
}

#[tokio::test]
async fn exec_runs_redis_cli_at_the_node_that_is_named() {
    let operator = Operator::start().await;
    let (_master, of_master) = redis(operator.dir.path()).await;
    let (_replica, of_replica) = redis(operator.dir.path()).await;
    let user = json!({ "name": "app", "passwordSha256": "ab".repeat(32) });
    operator.apply(json!({ "nodes": 3, "redis": { "users": [user] } })).await.unwrap();
    operator.publish(json!({ "epoch": 1, "nodes": nodes() })).await;
    let endpoint = Endpoint {
        epoch: 1,
        incarnation: "cache-0-a".into(),
        ip: "127.0.0.1".into(),
        port: of_master,
        ..Endpoint::default()
    };
    let replica = ReplicaEndpoint {
        incarnation: "cache-1-b".into(),
        ip: "127.0.0.1".into(),
        port: of_replica,
        ..ReplicaEndpoint::default()
    };
    let known = EndpointReport { replicas: vec![replica], ..EndpointReport::from(endpoint) };
    operator.status_cache.publish("cache", PlanReport::default(), Some(known));
    let password = operator.dir.path().join("password");
    std::fs::write(&password, "secret\n").unwrap();
    let socket = operator.dir.path().join("operator.sock");
    let exec = async |node: &str, command: &str| {
        let login = format!("exec cache {node} --password-file {}", password.display());
        let words = format!("akash-redis {login} -- redis-cli {command}");
        let Command::Exec(args) = Cli::try_parse_from(words.split(' ')).unwrap().command else {
            panic!("{words} is no exec");
        };
        exec::run(args, &socket).await.unwrap()
    };
    let is = |code: std::process::ExitCode, wanted: u8| {
        assert_eq!(format!("{code:?}"), format!("{:?}", std::process::ExitCode::from(wanted)));
    };
    is(exec("0", "SET where master").await, 0);
    // What the table of commands does not judge, Redis does.
    is(exec("1", "-n 0 SET where replica").await, 0);
    for (port, value) in [(of_master, "master"), (of_replica, "replica")] {
        let said = tokio::process::Command::new("redis-cli")
            .args(["-p", &port.to_string(), "--user", "app", "-a", "secret", "GET", "where"])
            .output()
            .await
            .unwrap();
        assert_eq!(String::from_utf8(said.stdout).unwrap().trim(), value);
    }
    // It ends as redis-cli does.
    is(exec("cache-1-b", "--no-such-flag").await, 1);
}
