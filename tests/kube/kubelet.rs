//! The operator's pod, as far as `kubectl exec` sees it: a node whose kubelet runs the command on this
//! machine, as an operator's container would.

use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::Path;

use serde_json::json;
use tokio::process::{Child, Command};

use crate::apiserver::{Cluster, peers, until};
use crate::stage::PROGRAM;

/// Answers until it is dropped.
pub struct Kubelet {
    _process: Child,
}

impl Kubelet {
    /// Makes the node and its pod known. Commands find the program in their path, and the operator's
    /// socket as they do in its container.
    pub async fn start(kube: &Cluster, dir: &Path, pod: &str, socket: &Path) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let programs = dir.join("in-the-container");
        std::fs::create_dir_all(&programs).unwrap();
        symlink(PROGRAM, programs.join("akash-redis")).unwrap();
        let mut command = Command::new(peers().join("exec-kubelet"));
        command.arg(format!("127.0.0.1:{port}")).env_clear();
        command.env("PATH", &programs).env("AKASH_REDIS_SOCKET", socket).kill_on_drop(true);
        let process = command.spawn().unwrap();

        let container = json!({"name": "operator", "image": "akash-redis.test/operator"});
        let list = json!({"apiVersion": "v1", "kind": "List", "items": [
            {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "one"}},
            {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": pod},
                "spec": {"nodeName": "one", "containers": [container]}},
        ]});
        let file = dir.join("pod.json");
        std::fs::write(&file, list.to_string()).unwrap();
        kube.says(&["apply", "-f", &file.display().to_string()]).await;
        let status = json!({"status": {
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
        }});
        kube.says(&["patch", "node", "one", "--subresource=status", "-p", &status.to_string()])
            .await;
        until("the kubelet to listen", async || {
            tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok()
        })
        .await;
        Self { _process: process }
    }
}
