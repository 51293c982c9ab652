//! A cluster has one name and one address on the tailnet, without anything beside the application:
//! a Tailscale Service that every node hosts, and that leads to the present master.

use std::path::Path;
use std::time::Duration;

use akash_redis::api::status::NodeStatus;
use akash_redis::devnet::sandbox::Sandbox;
use akash_redis::devnet::tailnet::{APPLICATION_TAG, CLUSTER_TAG, OPERATOR_TAG};
use akash_redis::mesh::local::LocalClient;
use http::Method;
use serde_json::json;

use crate::clients::moved;
use crate::machine::Machine;
use crate::sandboxed::sandboxed;
use crate::sentinel::{THROUGH, join};
use crate::stage::{CLUSTER, PASSWORD, Stage, cluster, until};

const LIMIT: Duration = Duration::from_mins(6);

/// The tailscaled of a node.
fn local(stage: &Stage, dseq: u64) -> LocalClient {
    let (provider, lease) = stage.local.market.find(dseq).unwrap();
    let runner = &stage.local.market.providers[provider].runner;
    let redis = runner.processes(&lease, "redis-server");
    let socket = format!("/proc/{}/root/run/akash-redis/tailscale/tailscaled.sock", redis[0]);
    LocalClient::new(Path::new(&socket)).unwrap()
}

fn says(node: &NodeStatus, what: &str) -> bool {
    node.message.as_deref().is_some_and(|message| message.contains(what))
}

/// The service is defined, and the cluster's nodes are approved as its hosts.
async fn define(stage: &Stage) -> String {
    let grant = |src: &str, ip: &[&str]| json!({"src": [src], "dst": [CLUSTER_TAG], "ip": ip});
    let policy = json!({
        "tagOwners": {CLUSTER_TAG: [OPERATOR_TAG], OPERATOR_TAG: [], APPLICATION_TAG: [OPERATOR_TAG]},
        "grants": [
            grant(CLUSTER_TAG, &["tcp:6379", "tcp:26379"]),
            grant(APPLICATION_TAG, &["tcp:6379"]),
            grant(OPERATOR_TAG, &["tcp:9700", "tcp:6379"]),
        ],
        "autoApprovers": {"services": {format!("svc:{CLUSTER}"): [CLUSTER_TAG]}},
    });
    stage.local.tailnet.set_policy(&policy.to_string()).await.unwrap();
    let path = format!("tailnet/-/vip-services/svc:{CLUSTER}");
    let body = json!({"name": format!("svc:{CLUSTER}"), "ports": ["tcp:6379"]});
    let made = stage.local.tailnet.api(Method::PUT, &path, Some(&body)).await.unwrap();
    made["addrs"][0].as_str().unwrap().to_owned()
}

async fn writes(machine: &Machine, address: &str, key: &str) {
    let write = format!(
        "REDISCLI_AUTH={PASSWORD} {THROUGH} timeout 5 redis-cli -h {address} --user app SET {key} 1"
    );
    until("a write at the service's address", async || machine.run(&write).await.stdout == b"OK\n")
        .await;
}

#[test]
fn a_service_of_the_tailnet_leads_to_whoever_is_master() {
    let test = "service::a_service_of_the_tailnet_leads_to_whoever_is_master";
    sandboxed(test, LIMIT, async |sandbox: Sandbox| {
        let stage = Stage::patient(&sandbox).await;
        let dir = sandbox.dir.join("app");
        let machine = Machine::start(&stage.local.market.net, &stage.local.tailnet, dir).await;
        let mut wanted = cluster(2);
        wanted.spec.mesh.service = true;
        stage.client.apply(&wanted).await.unwrap();
        join(&stage, &machine).await;
        stage.until_ready().await;
        // The control server does not know it, which is said, and nothing else comes of that.
        let said = "the tailnet gives svc:cache no address here";
        stage
            .until_status("the sentence about the service", |s| {
                s.nodes.iter().all(|n| says(n, said))
            })
            .await;
        let master = stage.master().await;
        let tailscaled = local(&stage, master.dseq);
        let (config, _) = tailscaled.serve_config().await.unwrap();
        let carried = json!({"TCP": {"6379": {"TCPForward": "127.0.0.1:16379"}}});
        assert_eq!(config["Services"]["svc:cache"], carried, "{config}");
        assert_eq!(tailscaled.advertised_services().await.unwrap(), ["svc:cache"]);

        let address = define(&stage).await;
        writes(&machine, &address, "first").await;
        stage
            .until_status("nothing to be said any more", |s| s.nodes.iter().all(|n| !says(n, said)))
            .await;
        let moves = stage.cli(&["switchover", CLUSTER]).await;
        assert!(moves.status.success(), "{}", String::from_utf8_lossy(&moves.stderr));
        moved(&stage, &master).await;
        writes(&machine, &address, "second").await;
        // The host that is asked goes, with the master: the other one carries on.
        let master = stage.master().await;
        stage.until_ready().await;
        let (provider, lease) = stage.local.market.find(master.dseq).unwrap();
        assert!(stage.local.market.providers[provider].runner.power_off(&lease));
        moved(&stage, &master).await;
        writes(&machine, &address, "third").await;
    });
}
