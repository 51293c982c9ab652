//! A person with a kubeconfig and no socket: the program asks the apiserver under that person's
//! rights, also as a plugin of `kubectl`, and the operator in its pod for what only that one knows.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use akash_redis::devnet::tailnet;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::apiserver::{Cluster, peers, until};
use crate::kubelet::Kubelet;
use crate::life::{at_home, status};
use crate::operators::Operator;
use crate::sandboxed::sandboxed;
use crate::stage::{PASSWORD, PROGRAM, Stage};

const LIMIT: Duration = Duration::from_mins(5);

/// What a person may do who may nothing but change clusters and read events.
const ROLE: &str = r#"{"apiVersion": "v1", "kind": "List", "items": [
  {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "person"}},
  {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "person"}, "rules": [
    {"apiGroups": ["akash-redis.dev"], "resources": ["redisclusters"], "verbs": ["get", "list", "watch", "create", "update", "delete"]},
    {"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["list"]},
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]},
    {"apiGroups": [""], "resources": ["pods/exec"], "verbs": ["create", "get"]},
    {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get"]}]},
  {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "person"},
    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "person"},
    "subjects": [{"kind": "ServiceAccount", "name": "person", "namespace": "default"}]}]}"#;

/// A kubeconfig with two contexts, of which the second one works and is not the present one.
pub async fn kubeconfig(kube: &Cluster, dir: &Path) -> PathBuf {
    let role = dir.join("role.json");
    std::fs::write(&role, ROLE).unwrap();
    kube.says(&["apply", "-f", &role.display().to_string()]).await;
    let token = kube.says(&["create", "token", "person"]).await;
    let text = std::fs::read_to_string(kube.kubeconfig()).unwrap();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    config["users"][0]["user"] = json!({"token": token.trim()});
    let here = config["contexts"][0].clone();
    let nowhere = json!({"name": "elsewhere", "context": {"cluster": "none", "user": "none"}});
    config["contexts"] = json!([nowhere, here]);
    config["current-context"] = json!("elsewhere");
    let file = dir.join("person.kubeconfig");
    std::fs::write(&file, config.to_string()).unwrap();
    file
}

/// A person at a shell, with the plugin and `kubectl` in the path.
pub struct Person {
    path: String,
    kubeconfig: PathBuf,
    home: PathBuf,
}

impl Person {
    pub fn new(dir: &Path, kubeconfig: PathBuf) -> Self {
        let plugins = dir.join("plugins");
        std::fs::create_dir_all(&plugins).unwrap();
        symlink(PROGRAM, plugins.join("kubectl-akash_redis")).unwrap();
        let path = format!("{}:{}:/usr/bin:/bin", plugins.display(), peers().display());
        Self { path, kubeconfig, home: dir.to_owned() }
    }

    async fn types(&self, program: &str, arguments: &[&str]) -> Result<String, String> {
        let mut command = Command::new(program);
        command.args(arguments).env_clear().env("PATH", &self.path).env("HOME", &self.home);
        command.env("CACHE_APP_PASSWORD", PASSWORD).env("TMPDIR", &self.home);
        if program == "kubectl" {
            command.env("KUBECONFIG", &self.kubeconfig);
        }
        let output = command.stdin(std::process::Stdio::null()).output().await.unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
    }

    /// The program with the flags of Kubernetes.
    pub async fn asks(&self, arguments: &[&str]) -> Result<String, String> {
        let file = self.kubeconfig.display().to_string();
        let flags = ["--kubeconfig", &file, "--context", "test", "--namespace", "default"];
        self.types(PROGRAM, &[&flags[..], arguments].concat()).await
    }

    /// The same for what goes on until it is dropped.
    fn begins(&self, arguments: &[&str]) -> tokio::process::Child {
        let file = self.kubeconfig.display().to_string();
        let flags = ["--kubeconfig", &file, "--context", "test", "--namespace", "default"];
        let mut command = Command::new(PROGRAM);
        command.args(flags).args(arguments).env_clear().env("PATH", &self.path);
        command.env("TMPDIR", &self.home).kill_on_drop(true).spawn().unwrap()
    }

    /// As a plugin.
    pub async fn plugs(&self, arguments: &[&str]) -> Result<String, String> {
        self.types("kubectl", &[&["akash-redis", "--context", "test"], arguments].concat()).await
    }
}

#[test]
fn the_program_and_kubectls_plugin_ask_the_apiserver() {
    const TEST: &str = "person::the_program_and_kubectls_plugin_ask_the_apiserver";
    sandboxed(TEST, LIMIT, async |sandbox| {
        let stage = Stage::without_operator(&sandbox).await;
        let kube = Cluster::start(&sandbox.dir).await;
        at_home(&stage, &kube);
        let person = Person::new(&sandbox.dir, kubeconfig(&kube, &sandbox.dir).await);

        // Nobody works yet: what is an object's is done all the same.
        let quickstart = concat!(env!("CARGO_MANIFEST_DIR"), "/manifests/quickstart.yaml");
        let said = person.asks(&["apply", "-f", quickstart]).await.unwrap();
        assert_eq!(said, "rediscluster/cache created\n");
        assert_eq!(
            person.plugs(&["apply", "-f", quickstart]).await.unwrap(),
            "rediscluster/cache unchanged\n"
        );
        let error = person.asks(&["spend"]).await.unwrap_err();
        assert!(error.contains("no operator works in namespace default"), "{error}");
        let operator = Operator::start(&stage, &sandbox.dir, "redis-operator-7d4");
        person.plugs(&["wait", "cache", "--timeout", "100s"]).await.unwrap();
        let shown = person.plugs(&["get", "cache"]).await.unwrap();
        assert!(shown.contains("cache") && shown.contains("3/3"), "{shown}");
        println!("{shown}");

        // On a machine of the tailnet, the master is found by the object alone.
        let before = status(&kube).await;
        let master = before.master.as_ref().unwrap();
        let said = person.asks(&["endpoint", "cache", "-o", "url"]).await.unwrap();
        let first = said.lines().next().unwrap();
        assert_eq!(first, format!("redis://app@{}:6379", master.ip));
        assert_eq!(said.lines().count(), 3, "{said}");
        let password = sandbox.dir.join("password");
        std::fs::write(&password, PASSWORD).unwrap();
        let (password, socks5) = (password.display().to_string(), tailnet::socks5().to_string());
        let connect = ["connect", "cache", "--socks5", &socks5, "--password-file", &password];
        let said = person.asks(&[&connect[..], &["--", "set", "a", "1"]].concat()).await.unwrap();
        assert_eq!(said, "OK\n");
        let listen = sandbox.dir.join("redis.sock").display().to_string();
        let error = person.asks(&["proxy", "other", "--listen", &listen]).await.unwrap_err();
        assert!(error.contains("there is no RedisCluster named other"), "{error}");
        let proxy = person.begins(&["proxy", "cache", "--listen", &listen, "--socks5", &socks5]);
        let through = async |words: &[&str]| {
            let flags = ["-s", &listen, "--user", "app", "-a", PASSWORD, "--no-auth-warning"];
            person.types("redis-cli", &[&flags[..], words].concat()).await.ok()
        };
        let said = until("the proxy", async || through(&["get", "a"]).await).await;
        assert_eq!(said, "1\n");

        // The operator obeys what was asked of the object.
        let to =
            before.nodes.iter().find(|n| n.phase == akash_redis::api::conditions::Phase::Replica);
        let to = to.unwrap().ordinal.to_string();
        let said = person.asks(&["switchover", "cache", "--to", &to]).await.unwrap();
        assert!(said.contains("becomes master"), "{said}");
        until("another master", async || {
            let now = status(&kube).await;
            (now.epoch > before.epoch && now.master.is_some()).then_some(())
        })
        .await;
        person.plugs(&["wait", "cache"]).await.unwrap();
        assert_eq!(through(&["set", "a", "2"]).await.as_deref(), Some("OK\n"));
        drop(proxy);
        let shown = person.plugs(&["describe", "cache"]).await.unwrap();
        assert!(
            shown.contains("SwitchoverFinished") || shown.contains("MasterPromoted"),
            "{shown}"
        );
        let error = person.asks(&["switchover", "cache", "--to", &to]).await.unwrap_err();
        assert!(error.contains("is the master already"), "refused as by an operator: {error}");
        let error = person.asks(&["get", "other"]).await.unwrap_err();
        assert!(error.contains("there is no RedisCluster named other"), "{error}");
        let error = person.asks(&["get", "cache", "--context", "none"]).await.unwrap_err();
        assert!(error.contains("the kubeconfig cannot be used"), "{error}");
        let error = person.asks(&["get", "-n", "kube-system"]).await.unwrap_err();
        assert!(error.contains("the apiserver refuses") && error.contains("forbidden"), "{error}");
        let error = person.asks(&["schema"]).await.unwrap_err();
        assert!(error.contains("this command asks no operator"), "{error}");

        // What only the operator knows is asked in the pod that the Lease names.
        let asked = until("the operator's pod to be asked for", async || {
            person.asks(&["spend"]).await.err()
        })
        .await;
        assert!(asked.contains("redis-operator-7d4"), "{asked}");
        let pod = "redis-operator-7d4";
        let _kubelet = Kubelet::start(&kube, &sandbox.dir, pod, operator.socket()).await;
        let said = person.asks(&["spend"]).await.unwrap();
        assert!(said.contains("cache"), "{said}");
        operator.is_asked(&stage);
        let key = person.plugs(&["public-key"]).await.unwrap();
        assert_eq!(key, stage.client.operator().await.unwrap().public_key + "\n");
        let error = person.asks(&["plan", "other"]).await.unwrap_err();
        assert!(error.contains("there is no RedisCluster named other"), "{error}");
        let said = person.asks(&["plan", "-f", quickstart]).await.unwrap();
        assert!(said.contains("cache"), "{said}");

        let refused = person.asks(&["delete", "cache"]).await.unwrap_err();
        assert!(refused.contains("may hold data") && refused.contains("nothing was deleted"));
        person.plugs(&["delete", "cache", "--yes-delete-data", "cache"]).await.unwrap();
        until("it to be gone", async || person.asks(&["get", "cache"]).await.err()).await;
        stage.assert_nothing_left().await;
        drop(operator);
    });
}
