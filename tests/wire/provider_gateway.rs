//! The local provider's gateway answers recorded requests as the real one did.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, UNIX_EPOCH};

use akash_redis::devnet::provider::chain::Account;
use akash_redis::devnet::provider::gateway::{Clock, router};
use akash_redis::devnet::provider::host::ProviderHost;
use akash_redis::devnet::provider::manifest::{Refusal, decode, hash};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::Request;
use futures::FutureExt as _;
use serde_json::Value;
use tower::ServiceExt as _;

use crate::provider::{DSEQ, OWNER, World, group, records};

fn clock_of(record: &Value) -> Clock {
    let at = UNIX_EPOCH + Duration::from_secs(record["recorded_at"].as_u64().unwrap());
    Arc::new(move || at)
}

fn request_of(record: &Value) -> Request<Body> {
    let asked = &record["request"];
    let query = asked["query"].as_str().unwrap_or_default();
    let target = format!("{}?{query}", asked["path"].as_str().unwrap());
    let mut request = Request::builder()
        .method(asked["method"].as_str().unwrap())
        .uri(target.trim_end_matches('?'));
    for (name, value) in asked["headers"].as_object().unwrap() {
        if name != "Content-Length"
            && !name.eq_ignore_ascii_case("upgrade")
            && !name.eq_ignore_ascii_case("connection")
        {
            request = request.header(name, value.as_str().unwrap());
        }
    }
    request.body(Body::from(asked["body"].as_str().unwrap_or_default().to_owned())).unwrap()
}

async fn ask(routes: Router, record: &Value) -> (u16, String) {
    let response = routes.oneshot(request_of(record)).await.unwrap();
    let status = response.status().as_u16();
    let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

fn body(record: &Value) -> &[u8] {
    record["request"]["body"].as_str().unwrap().as_bytes()
}

/// The deployment of most recordings, with its manifest delivered.
async fn running(world: &Arc<World>) -> Arc<ProviderHost> {
    let manifest = records()["manifest-put-twice"].clone();
    world.deploy(OWNER, DSEQ, hash(&decode(body(&manifest)).unwrap()), vec![group(500)], true);
    let host = world.host();
    host.put_manifest(OWNER, DSEQ, body(&manifest)).await.unwrap();
    host
}

fn same_words(name: &str, got: &(u16, String), record: &Value) {
    let (status, words) = (
        record["response"]["status"].as_u64().unwrap(),
        record["response"]["body"].as_str().unwrap_or_default(),
    );
    assert_eq!(u64::from(got.0), status, "{name}: {}", got.1);
    if status != 200 {
        match serde_json::from_str::<Value>(words) {
            Ok(json) => assert_eq!(serde_json::from_str::<Value>(&got.1).unwrap(), json, "{name}"),
            Err(_) => assert_eq!(got.1, words, "{name}"),
        }
    }
}

#[tokio::test]
async fn every_recorded_token_is_judged_the_same() {
    let world = World::new();
    let host = running(&world).await;
    let mut judged = 0;
    for (name, record) in records() {
        let about_tokens = name.starts_with("auth-")
            || name.starts_with("status-with-")
            || name.starts_with("scope-matrix-");
        if !about_tokens
            || name.contains("account-") && name != "auth-other-account"
            || name == "auth-new-account-after-not-on-chain"
        {
            continue;
        }
        let mut record = record.clone();
        if name.starts_with("auth-known-account") {
            // Recorded for another lease of the same account.
            record["request"]["path"] = format!("/lease/{DSEQ}/1/1/status").into();
        }
        let got = ask(router(host.clone(), clock_of(&record)), &record).await;
        same_words(&name, &got, &record);
        judged += 1;
    }
    assert!(judged > 90, "only {judged} records");
}

#[tokio::test]
async fn an_account_without_key_ends_the_connection() {
    let record = records()["auth-account-without-public-key"].clone();
    let world = World::new();
    let issuer = record["request"]["token"]["claims"]["iss"].as_str().unwrap().to_owned();
    world.accounts.lock().unwrap().insert(issuer, Account::WithoutKey);
    let routes = router(world.host(), clock_of(&record));
    let end = tokio::spawn(async move { ask(routes, &record).await }).await;
    assert!(end.unwrap_err().is_panic());
}

#[tokio::test]
async fn after_an_unknown_account_only_known_ones_are_answered() {
    let records = records();
    let world = World::new();
    let host = running(&world).await;
    let known = records["auth-known-account-still-served"].clone();
    let routes = router(host, clock_of(&known));
    let first = ask(routes.clone(), &known).await;
    let unknown = &records["auth-account-not-on-chain-again"];
    let issuer = unknown["request"]["token"]["claims"]["iss"].as_str().unwrap();
    world.accounts.lock().unwrap().remove(issuer);
    assert_eq!(ask(routes.clone(), unknown).await.0, 401);
    let nobody_answers =
        ask(routes.clone(), &records["auth-new-account-after-not-on-chain"]).now_or_never();
    assert!(nobody_answers.is_none());
    assert_eq!(ask(routes, &known).await, first);
}

#[tokio::test]
async fn manifests_of_a_running_lease_are_judged_the_same() {
    let world = World::new();
    let mut judged = 0;
    for (name, record) in records() {
        let others =
            ["manifest-put-after-that", "manifest-update-before-tx", "manifest-trailing-slash"];
        let put = name.starts_with("manifest-put-")
            || name.starts_with("manifest-dseq-")
            || name == "manifest-post";
        if !put && !others.contains(&name.as_str()) || name == "manifest-put-after-that" {
            continue;
        }
        let got = ask(router(running(&world).await, clock_of(&record)), &record).await;
        if name == "manifest-put-wrong-json-type" {
            // Go names the field in its own way.
            assert_eq!(got.0, 422);
            assert!(got.1.starts_with("json: cannot unmarshal"), "{}", got.1);
        } else {
            same_words(&name, &got, &record);
        }
        judged += 1;
    }
    assert!(judged > 35, "only {judged} records");
}

#[tokio::test]
async fn a_manifest_must_fit_the_groups_on_the_chain() {
    let mut judged = 0;
    for (name, record) in records() {
        if !name.starts_with("manifest-cross-") || name == "manifest-cross-storage-extra" {
            continue;
        }
        let world = World::new();
        let manifest = decode(body(&record)).unwrap();
        let dseq =
            record["request"]["path"].as_str().unwrap().split('/').nth(2).unwrap().parse().unwrap();
        world.deploy(OWNER, dseq, hash(&manifest), vec![group(100)], false);
        same_words(&name, &ask(router(world.host(), clock_of(&record)), &record).await, &record);
        judged += 1;
    }
    assert!(judged > 10, "only {judged} records");
    let world = World::new();
    let deadly = records()["manifest-cross-storage-extra"].clone();
    world.deploy(OWNER, DSEQ, hash(&decode(body(&deadly)).unwrap()), vec![group(100)], true);
    assert_eq!(world.host().put_manifest(OWNER, DSEQ, body(&deadly)).await, Err(Refusal::Crash));
}

#[tokio::test]
async fn a_manifest_before_its_lease_is_refused_and_kept() {
    let records = records();
    let record = &records["manifest-no-lease-with-bid"];
    let dseq =
        record["request"]["path"].as_str().unwrap().split('/').nth(2).unwrap().parse().unwrap();
    let world = World::new();
    world.deploy(OWNER, dseq, hash(&decode(body(record)).unwrap()), vec![group(100)], false);
    let host = world.host();
    same_words("no lease", &ask(router(host.clone(), clock_of(record)), record).await, record);
    assert!(world.deployed.lock().unwrap().is_empty());
    host.lease_won(OWNER, dseq, 1, 1).await;
    assert_eq!(world.deployed.lock().unwrap().len(), 1);
    host.lease_closed(OWNER, dseq, 1, 1).await;
    assert!(world.deployed.lock().unwrap().is_empty());
    assert_eq!(host.counts(), (0, 0));
}

#[tokio::test]
async fn an_update_counts_once_the_chain_has_its_hash() {
    let records = records();
    let update = &records["manifest-update-right-after-tx"];
    let world = World::new();
    let host = running(&world).await;
    world.deploy(OWNER, DSEQ, hash(&decode(body(update)).unwrap()), vec![group(500)], true);
    assert_eq!(ask(router(host.clone(), clock_of(update)), update).await.0, 200);
    let renamed = &records["manifest-update-service-renamed"];
    world.deploy(OWNER, DSEQ, hash(&decode(body(renamed)).unwrap()), vec![group(500)], true);
    assert_eq!(ask(router(host.clone(), clock_of(renamed)), renamed).await.0, 200);
    let back = &records["manifest-get-after-rename"];
    let got = ask(router(host, clock_of(back)), back).await;
    let recorded: Value = serde_json::from_str(back["response"]["body"].as_str().unwrap()).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&got.1).unwrap(), recorded);
}

#[tokio::test]
async fn the_state_of_a_lease_has_the_real_shape() {
    let records = records();
    let world = World::new();
    let host = running(&world).await;
    for (name, ready) in [("lease-status-2s-after-manifest", false), ("lease-status-ready", true)] {
        world.ready.store(ready, Ordering::Relaxed);
        let mut record = records[name].clone();
        record["request"]["path"] = format!("/lease/{DSEQ}/1/1/status").into();
        let got: Value =
            serde_json::from_str(&ask(router(host.clone(), clock_of(&record)), &record).await.1)
                .unwrap();
        let mut recorded: Value =
            serde_json::from_str(record["response"]["body"].as_str().unwrap()).unwrap();
        let uri = got["services"]["redis"]["uris"][0].clone();
        assert!(uri.as_str().unwrap().ends_with(".ingress.provider.localtest"));
        recorded["services"]["redis"]["uris"][0] = uri;
        assert_eq!(got, recorded, "{name}");
    }
}

#[tokio::test]
async fn paths_and_unknown_leases_are_refused_in_the_same_words() {
    let names = [
        "lease-status-other-oseq",
        "lease-status-other-gseq",
        "lease-status-unknown-dseq",
        "service-status-no-lease",
        "lease-path-gseq-text",
        "lease-path-dseq-overflow",
        "lease-path-gseq-overflow",
        "lease-path-too-short",
        "lease-path-bad-dseq-wrong-scope",
        "manifest-get-unknown-dseq",
        "unknown-route-no-auth",
        "unknown-route-bad-auth",
    ];
    let world = World::new();
    let records = records();
    for name in names {
        let record = &records[name];
        same_words(
            name,
            &ask(router(running(&world).await, clock_of(record)), record).await,
            record,
        );
    }
}

#[tokio::test]
async fn a_host_name_belongs_to_one_owner() {
    let records = records();
    let world = World::new();
    let host = running(&world).await;
    let first = &records["manifest-update-with-host"];
    world.deploy(OWNER, DSEQ, hash(&decode(body(first)).unwrap()), vec![group(500)], true);
    assert_eq!(ask(router(host.clone(), clock_of(first)), first).await.0, 200);
    let second = &records["manifest-host-in-use-by-other-owner"];
    let other = second["request"]["token"]["claims"]["iss"].as_str().unwrap();
    world.deploy(
        other,
        1_795_520_028,
        hash(&decode(body(second)).unwrap()),
        vec![group(100)],
        true,
    );
    same_words("host in use", &ask(router(host, clock_of(second)), second).await, second);
}

#[tokio::test]
async fn status_and_address_name_the_provider() {
    let records = records();
    let record = &records["status-with-leases"];
    let world = World::new();
    let got: Value =
        serde_json::from_str(&ask(router(running(&world).await, clock_of(record)), record).await.1)
            .unwrap();
    let recorded: Value =
        serde_json::from_str(record["response"]["body"].as_str().unwrap()).unwrap();
    assert_eq!(got["address"], recorded["address"]);
    assert_eq!(
        (&got["cluster"]["leases"], &got["manifest"]["deployments"]),
        (&1.into(), &1.into())
    );
}
