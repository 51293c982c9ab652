//! The transcript of the guide, as it is printed: each line is typed into a shell with the real helm
//! and kubectl. What a kubelet would do is done here: the operator's pods are processes.

use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use akash_redis::cli::demo::writer::Writer;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::Api;
use kube::api::PostParams;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;
use tokio::time::timeout;

use crate::apiserver::{Cluster, STEP, peers, until};
use crate::chart::{NAMESPACE, VALUES, account};
use crate::life::keep_in;
use crate::operators::Operator;
use crate::sandboxed::sandboxed;
use crate::stage::{PASSWORD, PROGRAM, Stage};
use crate::writing::{nothing_lost, writes_go_on};

const LIMIT: Duration = Duration::from_mins(6);

/// The blocks of the section, each a list of commands with what they print there.
fn blocks() -> Vec<Vec<(String, Vec<String>)>> {
    let page = include_str!("../../docs/guide/kubernetes.md");
    let section = page.split("## From the first cluster to the last\n").nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let blocks = section.split("```console\n").skip(1).map(|b| b.split("```").next().unwrap());
    let commands = |block: &str| {
        let mut commands: Vec<(String, Vec<String>)> = Vec::new();
        for line in block.lines() {
            match (line.strip_prefix("$ "), commands.last_mut()) {
                (Some(command), _) => commands.push((command.to_owned(), Vec::new())),
                (None, Some((_, printed))) => printed.push(line.to_owned()),
                (None, None) => panic!("a block begins with a command: {line}"),
            }
        }
        commands
    };
    blocks.map(commands).collect()
}

/// A person's shell.
struct Shell {
    dir: PathBuf,
    kubeconfig: PathBuf,
}

impl Shell {
    /// In a directory with what the guide has there.
    fn new(stage_dir: &std::path::Path, kubeconfig: PathBuf) -> Self {
        let dir = stage_dir.join("person");
        std::fs::create_dir_all(dir.join("bin")).unwrap();
        for part in ["charts", "manifests"] {
            let there = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(part);
            symlink(there, dir.join(part)).unwrap();
        }
        std::fs::copy(VALUES, dir.join("values.yaml")).unwrap();
        symlink(PROGRAM, dir.join("bin/kubectl-akash_redis")).unwrap();
        Self { dir, kubeconfig }
    }

    fn command(&self, line: &str) -> Command {
        let path = format!("{}/bin:{}:/usr/bin:/bin", self.dir.display(), peers().display());
        let mut command = Command::new("bash");
        command.args(["-euc", &format!("exec 2>&1\n{line}")]).current_dir(&self.dir);
        command.env_clear().env("PATH", path).env("HOME", &self.dir).env("TMPDIR", &self.dir);
        command.env("KUBECONFIG", &self.kubeconfig).env("CACHE_APP_PASSWORD", PASSWORD);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        command
    }

    /// Types a line; what is printed begins each of its lines with the words that the page has there.
    async fn types(&self, (line, printed): &(String, Vec<String>)) {
        if line.contains("--watch") {
            return self.watches(line, printed).await;
        }
        let output = self.command(line).output().await.unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        println!("$ {line}\n{said}");
        assert!(output.status.success(), "{line}: {said}");
        compare(line, printed, &said);
    }

    /// Watches until the last line of the page comes.
    async fn watches(&self, line: &str, printed: &[String]) {
        println!("$ {line}");
        let mut child = self.command(&format!("exec {line}")).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let last = words(printed.last().unwrap());
        let mut said = String::new();
        timeout(2 * STEP, async {
            while let Some(line) = lines.next_line().await.unwrap() {
                println!("{line}");
                said = said.clone() + &line + "\n";
                if words(&line) == last {
                    return;
                }
            }
        })
        .await
        .unwrap_or_else(|_| panic!("{last:?} did not come: {said}"));
        compare(line, printed, &said);
        child.kill().await.unwrap();
    }
}

/// The first words of a line, up to the first that differs from run to run.
fn words(line: &str) -> Vec<String> {
    line.split_whitespace().take(3).map(str::to_owned).collect()
}

fn compare(line: &str, printed: &[String], said: &str) {
    for wanted in printed.iter().filter(|line| !line.is_empty() && !line.starts_with("...")) {
        let found = said.lines().any(|line| words(line) == words(wanted));
        assert!(found, "`{line}` does not print `{wanted}`: {said}");
    }
}

/// A pod of the operator, as its Deployment would make it: an object, and a process of that name.
async fn pod(kube: &Cluster, stage: &Stage, dir: &std::path::Path, name: &str) -> Operator {
    let api: Api<Pod> = Api::namespaced(kube.client.clone(), NAMESPACE);
    let object = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"containers": [{"name": "operator", "image": "example.org/akash-redis"}]},
    });
    let object = serde_json::from_value(object).unwrap();
    api.create(&PostParams::default(), &object).await.unwrap();
    Operator::start(stage, dir, name)
}

async fn change_under_way(kube: &Cluster) -> bool {
    let maps: Api<ConfigMap> = Api::namespaced(kube.client.clone(), NAMESPACE);
    let map = maps.get("akash-redis.cluster.cache").await.unwrap();
    let memory: Value = serde_json::from_str(&map.data.unwrap()["memory"]).unwrap();
    memory["record"]["change"].is_object() || memory["record"]["master"]["confirmed"] == false
}

#[test]
fn what_the_guide_prints_happens() {
    sandboxed("transcript::what_the_guide_prints_happens", LIMIT, async |sandbox| {
        let blocks = blocks();
        let [install, first, death, after, last] = blocks.as_slice() else {
            panic!("five blocks are expected: {blocks:#?}")
        };
        let stage = Stage::without_operator(&sandbox).await;
        let kube = Cluster::bare(&sandbox.dir).await;
        let shell = Shell::new(&sandbox.dir, kube.kubeconfig());
        for command in install {
            shell.types(command).await;
        }
        kube.served("redisclusters.akash-redis.dev").await;
        let get = ["get", "configmap", "akash-redis-settings", "-n", NAMESPACE, "-o", "json"];
        let map: Value = serde_json::from_str(&kube.says(&get).await).unwrap();
        let made: Value =
            serde_saphyr::from_str(map["data"]["operator.yaml"].as_str().unwrap()).unwrap();
        let mut store = made["store"].clone();
        store["kubernetes"]["kubeconfig"] = json!(account(&kube, &sandbox.dir).await);
        keep_in(&stage, &store);
        let one = pod(&kube, &stage, &sandbox.dir, "akash-redis-5d8f7c9b6-4k2xp").await;
        one.is_asked(&stage);
        until("the first operator", async || stage.client.list().await.ok()).await;
        let mut two = pod(&kube, &stage, &sandbox.dir, "akash-redis-5d8f7c9b6-9wq7z").await;
        for command in first {
            shell.types(command).await;
        }
        let (_proxy, access) = stage.proxy();
        let writer = Writer::start(access);
        writes_go_on(&writer).await;

        // Redis of the master dies, and in the middle of what follows the operator's pod.
        let master = stage.master().await;
        stage.kill_redis(&master);
        while !change_under_way(&kube).await {}
        one.signal(Signal::STOP);
        for command in death {
            shell.types(command).await;
        }
        drop(one);
        two.is_asked(&stage);
        until("the other operator", async || stage.client.list().await.ok()).await;
        until("another master", async || {
            let status = stage.client.get("cache").await.unwrap().status?;
            let report = status.last_failover?;
            (report.old == master.incarnation).then_some(())
        })
        .await;
        stage.until_ready().await;
        for command in after {
            shell.types(command).await;
        }
        nothing_lost(&writer, "the operator's pod was deleted in a failover").await;
        for command in last {
            shell.types(command).await;
        }
        // The operator is gone, and nothing else.
        two.process.kill().await.unwrap();
        writes_go_on(&writer).await;
        let (_, _, deployments) = stage.local.market.tenant_books();
        assert_eq!(deployments, 3);
    });
}
