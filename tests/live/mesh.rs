//! A real tailnet: keys, devices, dialling, and what is left after a fence.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use akash_redis::devnet::sandbox::Sandbox;
use akash_redis::devnet::tailnet::{
    CLUSTER_TAG, OAUTH_CLIENT_ID, OAUTH_SECRET, Tailnet, login_server, node_env, socks5,
};
use akash_redis::mesh::MeshControl as _;
use akash_redis::mesh::control::{ControlClient, MeshSettings};
use akash_redis::mesh::dial::{FIRST_DIAL, dial};
use akash_redis::mesh::local::LocalClient;
use akash_redis::model::ids::{IncarnationName, InstallationId};
use secrecy::ExposeSecret as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use crate::sandboxed::sandboxed;

const HOUR: Duration = Duration::from_hours(1);

#[test]
fn a_node_joins_is_dialled_and_is_fenced() {
    sandboxed("mesh::a_node_joins_is_dialled_and_is_fenced", Duration::from_mins(2), scenario);
}

/// Polls until it holds; the scenario as a whole has the deadline.
async fn until(holds: impl AsyncFn() -> bool) {
    while !holds().await {
        sleep(Duration::from_millis(20)).await;
    }
}

/// What listens on the node's port 9700: userspace tailscaled hands connections to loopback.
async fn agent() {
    let listener = TcpListener::bind("127.0.0.1:9700").await.unwrap();
    while let Ok((mut stream, _)) = listener.accept().await {
        let _ = stream.write_all(b"agent").await;
    }
}

/// A tailscaled of its own on the tailnet, under this host name.
pub async fn join(tailnet: &Tailnet, dir: &Path, hostname: &str, key: &str) -> Child {
    std::fs::create_dir_all(dir).unwrap();
    let socket = format!("--socket={}", dir.join("ts.sock").display());
    let mut tailscaled = Command::new(tailnet.peers().join("tailscaled"));
    tailscaled
        .args(["--tun=userspace-networking", "--no-logs-no-support", &socket, "--statedir"])
        .arg(dir);
    tailscaled.envs(node_env()).env("TS_LOGS_DIR", dir).stdout(Stdio::null()).stderr(Stdio::null());
    let tailscaled = tailscaled.kill_on_drop(true).spawn().unwrap();
    std::fs::write(dir.join("key"), key).unwrap();
    let mut up = Command::new(tailnet.peers().join("tailscale"));
    up.args([
        &socket,
        "up",
        &format!("--hostname={hostname}"),
        &format!("--login-server={}", login_server()),
        "--timeout=30s",
    ]);
    up.arg(format!("--auth-key=file:{}", dir.join("key").display()));
    assert!(up.status().await.unwrap().success());
    tailscaled
}

async fn scenario(sandbox: Sandbox) {
    let tailnet =
        Tailnet::start(&sandbox.dir.join("tailnet"), &["-on-delete", "expire"]).await.unwrap();
    let own = LocalClient::new(&tailnet.socket()).unwrap();
    assert!(own.status().await.unwrap().running());

    let ours = InstallationId("abc123".to_owned());
    let node = IncarnationName::new("cache", 0, "x7k2");
    let control = ControlClient::new(MeshSettings {
        ca: String::new(),
        api: login_server(),
        tailnet: "-".to_owned(),
        oauth_client_id: OAUTH_CLIENT_ID.to_owned(),
        oauth_secret: OAUTH_SECRET.to_owned().into(),
    })
    .unwrap();
    let key = control.mint(&node.key_description(&ours), CLUSTER_TAG, HOUR).await.unwrap();
    let spare = control
        .mint(&IncarnationName::new("cache", 1, "y8m3").key_description(&ours), CLUSTER_TAG, HOUR)
        .await
        .unwrap();
    assert_eq!(control.read(&ours, &BTreeSet::new()).await.unwrap().keys.len(), 2);
    let error = control.mint("x", "tag:nobodys", HOUR).await.unwrap_err();
    assert!(error.to_string().contains("tagOwners must give tag:nobodys"), "{error}");

    let dir = sandbox.dir.join("node");
    let _tailscaled = join(&tailnet, &dir, &node.hostname(&ours), key.secret.expose_secret()).await;
    let view = control.read(&ours, &BTreeSet::new()).await.unwrap();
    let [device] = &view.devices[..] else { panic!("one device: {view:?}") };
    let local = LocalClient::new(&dir.join("ts.sock")).unwrap();
    let seen = local.status().await.unwrap().own.unwrap();
    assert_eq!(
        (seen.id.as_str(), seen.fqdn(), device.tags[0].as_str()),
        (device.id.as_str(), device.name.as_str(), CLUSTER_TAG)
    );
    assert!(
        view.keys.iter().all(|left| left.id != key.id),
        "a one-off key that was used is of no use: {:?}",
        view.keys
    );
    control.revoke(&spare.id).await.unwrap();
    control.revoke(&spare.id).await.unwrap();

    let ip: IpAddr = device.ip.parse().unwrap();
    tokio::spawn(agent());
    let answers = async || {
        let Ok(mut stream) = dial(Some(socks5()), ip, 9700, FIRST_DIAL).await else { return false };
        let mut word = [0; 5];
        matches!(timeout(FIRST_DIAL, stream.read_exact(&mut word)).await, Ok(Ok(_)))
            && &word == b"agent"
    };
    until(answers).await;
    assert!(own.status().await.unwrap().peer_named(&device.name).is_some());

    control.delete_device(&device.id).await.unwrap();
    control.delete_device(&device.id).await.unwrap();
    until(async || own.status().await.unwrap().peer_named(&device.name).is_none()).await;
    assert!(dial(Some(socks5()), ip, 9700, FIRST_DIAL).await.is_err());
    until(async || local.status().await.unwrap().backend_state == "NeedsLogin").await;
    tailnet.stop().await;
}
