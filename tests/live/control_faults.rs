//! The control API fails in the middle of things: on real connections, in front of a real control
//! server.

use std::collections::BTreeSet;
use std::time::Duration;

use akash_redis::devnet::sandbox::Sandbox;
use akash_redis::devnet::tailnet::{
    CLUSTER_TAG, OAUTH_CLIENT_ID, OAUTH_SECRET, Tailnet, login_server,
};
use akash_redis::mesh::control::{ControlClient, MeshSettings};
use akash_redis::mesh::{MeshControl as _, MeshError};
use akash_redis::model::ids::{IncarnationName, InstallationId};
use http::Method;
use serde_json::Value;

use crate::front::{Fault, Front, Kind};
use crate::sandboxed::sandboxed;
use crate::stage::{Stage, cluster, until};

const LIMIT: Duration = Duration::from_mins(4);
const HOUR: Duration = Duration::from_hours(1);
const TOKEN: Kind = ("POST", "/oauth/token");
const DEVICES: Kind = ("GET", "/devices");
const KEYS: Kind = ("GET", "/keys");
const MINT: Kind = ("POST", "/keys");
const REVOKE: Kind = ("DELETE", "/keys/");

/// A cluster of one node comes up although the first calls fail so; nothing is left of the keys
/// that nobody has.
async fn bring_up(sandbox: Sandbox, fault: Fault, failing: &[Kind]) {
    let mut stage = Stage::without_operator(&sandbox).await;
    let front = Front::before(&login_server()).await;
    for kind in failing {
        front.fail(*kind, fault);
    }
    stage.local.operator_env.push(("AKASH_REDIS_MESH_API", front.url.clone()));
    stage.local.start_operator().await.unwrap();
    stage.client.apply(&cluster(1)).await.unwrap();
    until("every fault to be met", async || !front.waits()).await;
    stage.until_ready().await;
    until("the key that nobody has to be revoked", async || stage.keys().await == 0).await;
    assert_eq!(stage.devices().await, 1);
    assert!(front.count(MINT) >= 2, "the mint that failed was made up for");
    let cleared_up = front.count(REVOKE) > 0;
    assert_eq!(
        cleared_up,
        fault != Fault::TooMany,
        "a key is revoked where one may have been minted, and only there"
    );
    stage.delete().await;
    stage.assert_nothing_left().await;
    assert_eq!(stage.local.market.chain.view().deployments().count(), 1, "nothing is bought twice");
}

#[test]
fn a_cluster_comes_up_although_too_many_requests_were_sent() {
    sandboxed(
        "control_faults::a_cluster_comes_up_although_too_many_requests_were_sent",
        LIMIT,
        async |sandbox: Sandbox| {
            bring_up(sandbox, Fault::TooMany, &[TOKEN, DEVICES, KEYS, MINT]).await;
        },
    );
}

#[test]
fn a_cluster_comes_up_although_answers_are_lost() {
    sandboxed(
        "control_faults::a_cluster_comes_up_although_answers_are_lost",
        LIMIT,
        async |sandbox: Sandbox| {
            bring_up(sandbox, Fault::LostAnswer, &[TOKEN, DEVICES, KEYS, MINT]).await;
        },
    );
}

#[test]
fn a_cluster_comes_up_although_the_control_server_stumbles() {
    sandboxed(
        "control_faults::a_cluster_comes_up_although_the_control_server_stumbles",
        LIMIT,
        async |sandbox: Sandbox| {
            bring_up(sandbox, Fault::ServerError, &[TOKEN, DEVICES, KEYS, MINT]).await;
        },
    );
}

#[test]
fn a_cluster_comes_up_although_answers_come_too_late() {
    sandboxed(
        "control_faults::a_cluster_comes_up_although_answers_come_too_late",
        LIMIT,
        async |sandbox: Sandbox| {
            // Each takes the call's whole time, so one reading and the mint are enough.
            bring_up(sandbox, Fault::Slow, &[DEVICES, MINT]).await;
        },
    );
}

fn client(api: &str) -> ControlClient {
    let settings = MeshSettings {
        ca: String::new(),
        api: api.to_owned(),
        tailnet: "-".to_owned(),
        oauth_client_id: OAUTH_CLIENT_ID.to_owned(),
        oauth_secret: OAUTH_SECRET.to_owned().into(),
    };
    ControlClient::new(settings).unwrap()
}

/// Keys that the server would still let a node in with.
async fn usable(tailnet: &Tailnet, description: &str) -> usize {
    let list = tailnet.api(Method::GET, "tailnet/-/keys", None).await.unwrap();
    let ours = |key: &&Value| key["description"] == description && key["invalid"] != true;
    list["keys"].as_array().unwrap().iter().filter(ours).count()
}

#[test]
fn the_client_repeats_what_may_be_repeated_and_clears_up_after_the_rest() {
    sandboxed(
        "control_faults::the_client_repeats_what_may_be_repeated_and_clears_up_after_the_rest",
        LIMIT,
        async |sandbox: Sandbox| {
            let tailnet = Tailnet::start(&sandbox.dir.join("tailnet"), &[]).await.unwrap();
            let front = Front::before(&login_server()).await;
            for fault in [Fault::TooMany, Fault::LostAnswer, Fault::ServerError, Fault::Slow] {
                each_call_fails_once(&tailnet, &front, fault).await;
            }
            tailnet.stop().await;
        },
    );
}

async fn each_call_fails_once(tailnet: &Tailnet, front: &Front, fault: Fault) {
    let ours = InstallationId("abc123".to_owned());
    let name =
        IncarnationName::new("cache", 0, &format!("x{}", fault as u8)).key_description(&ours);
    let client = client(&front.url);
    let mints = front.count(MINT);
    front.fail(MINT, fault);
    let minted = client.mint(&name, CLUSTER_TAG, HOUR).await;
    if fault == Fault::TooMany {
        let key = minted.unwrap();
        assert_eq!(
            (front.count(MINT) - mints, usable(tailnet, &name).await),
            (2, 1),
            "nothing was done, so it was sent again"
        );
        front.fail(REVOKE, fault);
        client.revoke(&key.id).await.unwrap();
    } else {
        let error = minted.unwrap_err();
        assert!(matches!(error, MeshError::Away { .. }), "{fault:?}: {error}");
        assert_eq!(
            front.count(MINT) - mints,
            1,
            "{fault:?}: it may have been done, so it was not sent again"
        );
    }
    assert_eq!(usable(tailnet, &name).await, 0, "{fault:?}: nobody has the secret of that key");

    front.fail(DEVICES, fault);
    let read = client.read(&ours, &BTreeSet::new()).await;
    // A call that took all its time leaves none for another one: the operator's next tick reads
    // again.
    assert_eq!(read.is_ok(), fault != Fault::Slow, "{fault:?}: {read:?}");
    if fault != Fault::Slow {
        front.fail(("DELETE", "/device/none"), fault);
        client.delete_device("none").await.unwrap();
    }
    client.read(&ours, &BTreeSet::new()).await.unwrap();
    assert!(!front.waits(), "{fault:?}");
}
