//! Several endpoints: which one is asked, which one is let alone, and which one is not believed.

use std::collections::BTreeSet;

use akash_redis::chain::{Chain, ChainError};
use akash_redis::model::chain::{SignedTx, TxOutcome};
use akash_redis::model::time::UnixMs;
use akash_redis::wire::akash::discovery::v1::{Akash, GetInfoResponse, ModuleVersion, VersionInfo};
use akash_redis::wire::cosmos::base::abci::v1beta1::TxResponse;
use akash_redis::wire::cosmos::tx::v1beta1::{BroadcastTxResponse, GetTxResponse};
use prost::Message;
use tonic::Status;

use super::node::*;
use super::reading::quiet;

/// Too many requests, by the gRPC server itself.
fn exhausted(pushback: &str) -> Status {
    let mut status = Status::resource_exhausted("too many requests");
    status.metadata_mut().insert("grpc-retry-pushback-ms", pushback.parse().expect("digits"));
    status
}

#[tokio::test]
async fn an_endpoint_that_is_busy_is_let_alone_for_as_long_as_it_asks_for() {
    for status in [429, 502, 503, 504] {
        let (busy, other) = (quiet(), quiet());
        busy.lock().http = vec![(status, "60")];
        let client = client(vec![busy.serve().await, other.serve().await]);
        for _ in 0..3 {
            client.read(&BTreeSet::new()).await.expect("the other one answers");
        }
        assert!(busy.lock().http.is_empty(), "{status}: it was asked once");
        assert!(busy.lock().asked.is_empty(), "{status}: and not again: {:?}", busy.lock().asked);
    }
}

#[tokio::test]
async fn a_server_that_has_too_much_to_do_is_let_alone() {
    let (busy, other) = (quiet(), quiet());
    busy.say(LATEST, Err(exhausted("60000")));
    let client = client(vec![busy.serve().await, other.serve().await]);
    for _ in 0..3 {
        client.read(&BTreeSet::new()).await.expect("the other one answers");
    }
    assert_eq!(busy.lock().asked.len(), 1);
}

#[tokio::test]
async fn the_only_endpoint_is_asked_again_when_it_said() {
    let script = quiet();
    script.say(LATEST, Err(exhausted("50")));
    for n in 1..4 {
        script.say(LATEST, Ok(block(n, 6000)));
    }
    script.client().await.read(&BTreeSet::new()).await.expect("it answers in the end");
    // For longer than anybody waits here: the sentence says so.
    let script = quiet();
    script.say(LATEST, Err(exhausted("60000")));
    let client = script.client().await;
    client.read(&BTreeSet::new()).await.expect_err("it does not answer");
    let error = client.read(&BTreeSet::new()).await.expect_err("it is let alone");
    assert!(error.to_string().contains("let alone for"), "{error}");
    assert_eq!(script.lock().asked.len(), 1);
}

/// The height of the recorded newest block.
fn recorded_height() -> i64 {
    use akash_redis::wire::cosmos::base::tendermint::v1beta1::GetLatestBlockResponse;
    let answer: GetLatestBlockResponse = read("GetLatestBlock");
    answer.sdk_block.and_then(|b| b.header).expect("a header").height
}

#[tokio::test]
async fn nothing_is_read_from_before_our_own_last_transaction() {
    let landed = recorded_height() + 50;
    let stands_still = || {
        let script = quiet();
        script.say(LATEST, Ok(block(1, 6000)));
        let taken = TxResponse::default();
        let taken = BroadcastTxResponse { tx_response: Some(taken) }.encode_to_vec();
        script.say(BROADCAST, Ok(taken));
        let found = TxResponse { height: landed, ..TxResponse::default() };
        let found = GetTxResponse { tx_response: Some(found), ..GetTxResponse::default() };
        script.say(GET_TX, Ok(found.encode_to_vec()));
        script
    };
    let tx = SignedTx {
        dseq: 1,
        purpose: "create".into(),
        bytes: vec![1],
        hash: "AB".into(),
        timeout: UnixMs(u64::MAX),
    };
    let (behind, ahead) = (stands_still(), quiet());
    ahead.lock().blocks = 500;
    let both = client(vec![behind.serve().await, ahead.serve().await]);
    let outcome = both.broadcast_and_confirm(&tx).await.expect("an outcome");
    assert!(matches!(outcome, TxOutcome::Landed { height, .. } if height == landed), "{outcome:?}");
    let view = both.read(&BTreeSet::new()).await.expect("a view of the other one");
    assert!(view.height >= landed, "{} is before {landed}", view.height);
    assert!(behind.asked(DEPLOYMENTS).is_empty(), "what it shows is no more");

    let alone = stands_still();
    let client = alone.client().await;
    client.broadcast_and_confirm(&tx).await.expect("an outcome");
    let error = client.read(&BTreeSet::new()).await.expect_err("it is behind");
    assert!(matches!(error, ChainError::Away { .. }), "{error}");
    assert!(error.to_string().contains("49 blocks behind our own last transaction"), "{error}");
}

fn info(module: &str, version: &str) -> Vec<u8> {
    let module = ModuleVersion { module: module.into(), version: version.into() };
    let version = VersionInfo { modules: vec![module], ..VersionInfo::default() };
    let info = Akash { supported_versions: vec![version], ..Akash::default() };
    GetInfoResponse { info: Some(info) }.encode_to_vec()
}

#[tokio::test]
async fn a_node_that_speaks_another_version_is_refused_with_a_sentence() {
    let (newer, ours) = (quiet(), quiet());
    newer.say(GET_INFO, Ok(info("deployment", "v1beta5")));
    ours.say(GET_INFO, recorded("discovery GetInfo").answer());
    let uris = [newer.serve().await, ours.serve().await];
    let error = client(vec![uris[0].clone()]).read(&BTreeSet::new()).await.expect_err("unknown");
    assert!(matches!(error, ChainError::InvalidResponse { .. }), "{error}");
    let says = "module deployment is v1beta5, and this operator speaks v1beta4";
    assert!(error.to_string().contains(says), "{error}");
    assert!(newer.lock().asked.iter().all(|(method, ..)| [LATEST, GET_INFO].contains(&&**method)));
    client(uris.to_vec()).read(&BTreeSet::new()).await.expect("the second one is asked");
    assert_eq!(ours.asked(GET_INFO).len(), 1);
}

/// Proxies pass only some services on; requests will tell.
#[tokio::test]
async fn a_node_that_does_not_say_its_version_is_used() {
    let script = quiet();
    script.client().await.read(&BTreeSet::new()).await.expect("a view");
    assert_eq!(script.asked(GET_INFO).len(), 1);
}
