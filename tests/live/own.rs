//! An operator with a tailscaled of its own: it outlives kills, freezes, lost state and a control
//! server that is away.

use std::path::PathBuf;
use std::time::Duration;

use akash_redis::api::status::Status;
use akash_redis::devnet::sandbox::Sandbox;
use akash_redis::devnet::tailnet::{self, OPERATOR_TAG};
use http::Method;
use rustix::process::{Pid, Signal, kill_process};
use tokio::net::UnixStream;
use tokio::process::Command;

use crate::sandboxed::sandboxed;
use crate::stage::{PROGRAM, Stage, cluster, condition, until};

const LIMIT: Duration = Duration::from_mins(4);

/// The operator's own device, and where its tailscaled lives.
struct Own {
    dir: PathBuf,
}

impl Own {
    /// Gives the operator a tailscaled of its own in the place of the sandbox's.
    fn set_up(stage: &Stage, sandbox: &Sandbox) -> Self {
        let own = Self { dir: sandbox.dir.join("own") };
        let program = stage.local.tailnet.peers().join("tailscaled");
        let text = std::fs::read_to_string(stage.local.config()).unwrap();
        let socket = stage.local.tailnet.socket();
        let theirs = format!("socks5: \"{}\", socket: {}", tailnet::socks5(), socket.display());
        assert!(text.contains(&theirs), "{text}");
        let ours = format!(
            "tailscaled: {{ stateDir: {}, program: {} }}",
            own.dir.display(),
            program.display()
        );
        std::fs::write(stage.local.config(), text.replace(&theirs, &ours)).unwrap();
        own
    }

    /// Who listens on its socket.
    async fn pid(&self) -> Option<Pid> {
        let stream = UnixStream::connect(self.dir.join("tailscaled.sock")).await.ok()?;
        stream.peer_cred().unwrap().pid().and_then(Pid::from_raw)
    }

    async fn signal(&self, signal: Signal) -> Pid {
        let pid = self.pid().await.unwrap();
        kill_process(pid, signal).unwrap();
        pid
    }

    /// Ids and tags of the operator's devices.
    async fn devices(stage: &Stage) -> Vec<(String, String)> {
        let answer = stage.local.tailnet.api(Method::GET, "tailnet/-/devices", None).await.unwrap();
        let ours = answer["devices"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|d| d["hostname"].as_str().unwrap().starts_with("akash-redis-operator-"));
        ours.map(|d| {
            (d["nodeId"].as_str().unwrap().to_owned(), d["tags"][0].as_str().unwrap().to_owned())
        })
        .collect()
    }

    /// Keys with which somebody could still become the operator.
    async fn keys(stage: &Stage) -> usize {
        let answer = stage.local.tailnet.api(Method::GET, "tailnet/-/keys", None).await.unwrap();
        let ours =
            answer["keys"].as_array().unwrap().iter().filter(|k| {
                k["description"].as_str().is_some_and(|d| d.starts_with("ar-operator "))
            });
        ours.filter(|k| k["invalid"] != true).count()
    }
}

/// What `--check` says, and whether all of it is good.
async fn check(stage: &Stage) -> (String, bool) {
    let mut command = Command::new(PROGRAM);
    command.args(["operator", "--check", "--config"]).arg(stage.local.config());
    let output = command.kill_on_drop(true).output().await.unwrap();
    (String::from_utf8(output.stdout).unwrap(), output.status.success())
}

/// The operator reaches every node, now.
async fn reaches_all(stage: &Stage) -> bool {
    for node in ["0", "1", "2"] {
        if !stage.cli(&["logs", "cache", node, "--tail", "1"]).await.status.success() {
            return false;
        }
    }
    true
}

/// What must not change because the operator was blind.
fn bought(status: &Status) -> (u64, Vec<u64>) {
    (status.epoch, status.nodes.iter().map(|n| n.dseq).collect())
}

#[test]
fn an_operator_with_its_own_tailscaled_finds_its_nodes_again_whatever_dies() {
    let name = "own::an_operator_with_its_own_tailscaled_finds_its_nodes_again_whatever_dies";
    sandboxed(name, LIMIT, async |sandbox: Sandbox| {
        let mut stage = Stage::without_operator(&sandbox).await;
        let own = Own::set_up(&stage, &sandbox);
        let (said, good) = check(&stage).await;
        assert!(
            good && said
                .contains("not logged in yet: a key with tag:operator is minted at the start"),
            "{said}"
        );
        assert_eq!(
            (Own::devices(&stage).await, Own::keys(&stage).await, own.dir.exists()),
            (vec![], 0, false),
            "a check makes nothing"
        );

        stage.local.start_operator().await.unwrap();
        stage.client.apply(&cluster(3)).await.unwrap();
        stage.until_ready().await;
        let first = Own::devices(&stage).await;
        assert_eq!(
            (first.len(), first[0].1.as_str(), Own::keys(&stage).await),
            (1, OPERATOR_TAG, 0)
        );
        let (said, good) = check(&stage).await;
        assert!(good && said.contains(" runs and sees 3 peers"), "{said}");

        killed_while_the_control_server_is_away(&mut stage).await;
        frozen(&stage, &own).await;
        killed(&stage, &own).await;
        assert_eq!(Own::devices(&stage).await, first, "it was the same device all the time");
        state_lost(&mut stage, &own).await;
        let second = Own::devices(&stage).await;
        assert_eq!(
            (second.len(), Own::keys(&stage).await),
            (1, 0),
            "the device of the lost state is gone: {second:?}"
        );
        assert_ne!(second, first);
    });
}

/// The network map of the tailscaled that was left behind is enough to find the nodes, and to move
/// the master.
async fn killed_while_the_control_server_is_away(stage: &mut Stage) {
    let old = stage.master().await;
    let control = stage
        .local
        .tailnet
        .control_pid()
        .and_then(|pid| Pid::from_raw(pid.try_into().ok()?))
        .unwrap();
    kill_process(control, Signal::STOP).unwrap();
    stage.local.kill_operator().await;
    stage.local.start_operator().await.unwrap();
    until("the nodes to be found", async || reaches_all(stage).await).await;
    stage.kill_redis(&old);
    stage
        .until_status("another master", |s| {
            s.last_failover.as_ref().is_some_and(|f| f.old == old.incarnation)
        })
        .await;
    kill_process(control, Signal::CONT).unwrap();
    stage.until_ready().await;
}

/// Longer than a silent node would be waited for: nothing is bought and nobody is promoted, because
/// it is the operator that is blind.
async fn frozen(stage: &Stage, own: &Own) {
    let before = bought(&stage.until_ready().await);
    let frozen = own.signal(Signal::STOP).await;
    let status = stage
        .until_status("the operator to know that it is blind", |s| {
            condition(s, "Degraded").1 == "OperatorOffMesh"
        })
        .await;
    assert!(
        condition(&status, "Degraded").2.starts_with("the operator itself is off the mesh"),
        "{status:#?}"
    );
    until("another tailscaled", async || own.pid().await.is_some_and(|pid| pid != frozen)).await;
    let status = stage
        .until_status("the operator to see again", |s| condition(s, "Degraded").1 == "AsExpected")
        .await;
    assert_eq!(bought(&status), before);
    until("the nodes to be reached", async || reaches_all(stage).await).await;
}

async fn killed(stage: &Stage, own: &Own) {
    let before = bought(&stage.until_ready().await);
    let killed = own.signal(Signal::KILL).await;
    until("another tailscaled", async || own.pid().await.is_some_and(|pid| pid != killed)).await;
    until("the nodes to be reached", async || reaches_all(stage).await).await;
    assert_eq!(bought(&stage.until_ready().await), before);
}

async fn state_lost(stage: &mut Stage, own: &Own) {
    let before = bought(&stage.until_ready().await);
    stage.local.kill_operator().await;
    own.signal(Signal::KILL).await;
    std::fs::remove_dir_all(&own.dir).unwrap();
    stage.local.start_operator().await.unwrap();
    until("the nodes to be reached", async || reaches_all(stage).await).await;
    assert_eq!(bought(&stage.until_ready().await), before);
}
