//! The mesh control client against recorded answers, and against answers that fail to come.

mod authority;
mod limits;
mod outside;
mod policy;
mod vectors;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use akash_redis::mesh::control::{ControlClient, MeshSettings};
use akash_redis::mesh::{MeshControl as _, MeshError};
use akash_redis::model::ids::InstallationId;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use wiremock::matchers::{body_json, body_string, header, method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

const KEYS: &str = "/api/v2/tailnet/-/keys";
const DEVICES: &str = "/api/v2/tailnet/-/devices";
const SECRET: &str = "hskey-client-e45f118eeb50-MASKED";
const HOUR: Duration = Duration::from_hours(1);

fn exchange(name: &str) -> Value {
    let file = format!("{}/{name}.json", vectors::FOLDER);
    serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
}

fn recorded(name: &str) -> (u16, Value) {
    let exchange = exchange(name);
    (u16::try_from(exchange["status"].as_u64().unwrap()).unwrap(), exchange["body"].clone())
}

fn answer(name: &str) -> ResponseTemplate {
    let (status, body) = recorded(name);
    ResponseTemplate::new(status).set_body_json(body)
}

fn says(status: u16, message: &str) -> ResponseTemplate {
    ResponseTemplate::new(status).set_body_json(json!({"message": message}))
}

/// A server that hands out tokens, and a client of it.
async fn api() -> (MockServer, ControlClient) {
    let server = MockServer::start().await;
    let form =
        format!("client_id=some-client-id&client_secret={SECRET}&grant_type=client_credentials");
    Mock::given(method("POST"))
        .and(path("/api/v2/oauth/token"))
        .and(body_string(form))
        .respond_with(answer("head-v2-oauth-token"))
        .mount(&server)
        .await;
    let client = client(&server.uri(), "-");
    (server, client)
}

fn client(api: &str, tailnet: &str) -> ControlClient {
    let settings = MeshSettings {
        ca: String::new(),
        api: api.to_owned(),
        tailnet: tailnet.to_owned(),
        oauth_client_id: "some-client-id".to_owned(),
        oauth_secret: SECRET.to_owned().into(),
    };
    ControlClient::new(settings).unwrap()
}

fn ours() -> InstallationId {
    InstallationId("abc123".to_owned())
}

/// No device is known yet.
fn nobody() -> BTreeSet<String> {
    BTreeSet::new()
}

async fn on(server: &MockServer, verb: &str, at: &str, response: ResponseTemplate) {
    Mock::given(method(verb)).and(path(at)).respond_with(response).mount(server).await;
}

async fn once(server: &MockServer, verb: &str, at: &str, response: ResponseTemplate) {
    Mock::given(method(verb))
        .and(path(at))
        .respond_with(response)
        .up_to_n_times(1)
        .mount(server)
        .await;
}

/// How many such requests came.
async fn count(server: &MockServer, verb: &str, at: &str) -> usize {
    server
        .received_requests()
        .await
        .unwrap()
        .iter()
        .filter(|request| request.method.as_str() == verb && request.url.path() == at)
        .count()
}

#[tokio::test]
async fn the_token_is_fetched_once_and_sent_with_each_call() {
    let (server, client) = api().await;
    let bearer = header("authorization", "Bearer hskey-oauthtok-1bae7577865f-MASKED");
    Mock::given(method("GET"))
        .and(path(DEVICES))
        .and(bearer)
        .respond_with(answer("head-v2-devices"))
        .mount(&server)
        .await;
    on(&server, "GET", KEYS, answer("head-v2-keys-list")).await;
    for _ in 0..2 {
        let view = client.read(&ours(), &nobody()).await.unwrap();
        assert_eq!(
            (view.devices, view.keys),
            (vec![], vec![]),
            "the recorded key is somebody else's"
        );
    }
    assert_eq!(count(&server, "POST", "/api/v2/oauth/token").await, 1);
}

#[tokio::test]
async fn a_list_of_bare_ids_is_filled_in_and_strangers_are_not_asked_for_again() {
    let (server, client) = api().await;
    on(&server, "GET", DEVICES, answer("head-v2-devices")).await;
    on(
        &server,
        "GET",
        KEYS,
        ResponseTemplate::new(200)
            .set_body_json(json!({"keys": [{"id": "k1"}, {"id": "k2"}, {"id": "k3"}]})),
    )
    .await;
    let (status, mut mine) = recorded("head-v2-key-get-revoked");
    mine["description"] = json!("ar abc123 cache-0-x7k2");
    on(&server, "GET", &format!("{KEYS}/k1"), ResponseTemplate::new(status).set_body_json(mine))
        .await;
    on(&server, "GET", &format!("{KEYS}/k2"), answer("head-v2-key-get")).await;
    on(&server, "GET", &format!("{KEYS}/k3"), says(404, "not found")).await;
    for _ in 0..2 {
        let keys = client.read(&ours(), &nobody()).await.unwrap().keys;
        assert_eq!(keys.len(), 1);
        assert_eq!(
            (keys[0].id.as_str(), keys[0].description.as_str()),
            ("k1", "ar abc123 cache-0-x7k2")
        );
        assert!(keys[0].invalid, "a revoked key is of no use");
    }
    assert_eq!(count(&server, "GET", &format!("{KEYS}/k1")).await, 2);
    assert_eq!(count(&server, "GET", &format!("{KEYS}/k2")).await, 1);
}

#[tokio::test]
async fn devices_are_ours_by_the_end_of_their_host_name() {
    let (server, client) = api().await;
    on(&server, "GET", KEYS, ResponseTemplate::new(200).set_body_json(json!({"keys": []}))).await;
    let list = json!({"devices": [
        {"id": "50053", "nodeId": "n1CNTRL", "name": "cache-0-x7k2-abc123-1.tail1234.ts.net", "hostname": "cache-0-x7k2-abc123",
         "addresses": ["fd7a:115c:a1e0::1", "100.121.200.21"], "tags": ["tag:akash-redis"], "created": "2022-03-05T17:10:27Z", "lastSeen": null},
        {"id": "2", "name": "cache-1-y8m3-abc123.mesh.test", "hostname": "cache-1-y8m3-abc123", "addresses": ["100.64.0.2"], "created": ""},
        {"id": "3", "nodeId": "n3", "name": "laptop.mesh.test", "hostname": "laptop", "addresses": ["100.64.0.3"]},
        {"id": "4", "nodeId": "n4", "name": "cache-0-x7k2-zzz999.mesh.test", "hostname": "cache-0-x7k2-zzz999"}
    ]});
    on(&server, "GET", DEVICES, ResponseTemplate::new(200).set_body_json(list)).await;
    let devices = client.read(&ours(), &nobody()).await.unwrap().devices;
    let seen: Vec<_> =
        devices.iter().map(|d| (d.id.as_str(), d.name.as_str(), d.ip.as_str())).collect();
    assert_eq!(
        seen,
        [
            ("n1CNTRL", "cache-0-x7k2-abc123-1.tail1234.ts.net", "100.121.200.21"),
            ("2", "cache-1-y8m3-abc123.mesh.test", "100.64.0.2")
        ]
    );
    assert_eq!(devices[0].created.unwrap().to_string(), "2022-03-05T17:10:27Z");
    assert_eq!((devices[1].created, devices[1].tags.len()), (None, 0));
}

#[tokio::test]
async fn a_minted_key_is_one_off_preauthorized_and_tagged() {
    let (server, client) = api().await;
    Mock::given(method("POST"))
        .and(path(KEYS))
        .and(body_json(exchange("head-v2-key-create")["request"]["body"].clone()))
        .respond_with(answer("head-v2-key-create"))
        .mount(&server)
        .await;
    let key = client.mint("redis c1 node 0", "tag:redis-c1", HOUR).await.unwrap();
    assert_eq!(
        (key.id.as_str(), key.secret.expose_secret()),
        ("1", "hskey-auth-ad9a5f861b49-MASKED")
    );
    assert!(!format!("{key:?}").contains("hskey-auth"), "a key must not be printed");
}

#[tokio::test]
async fn a_tag_that_is_not_ours_to_give_is_named_with_its_remedy() {
    for refusal in [
        answer("head-v2-key-create-bad-tag"),
        says(400, "requested tags [tag:redis-c2] are invalid or not permitted"),
    ] {
        let (server, client) = api().await;
        on(&server, "POST", KEYS, refusal).await;
        let error = client.mint("x", "tag:redis-c2", HOUR).await.unwrap_err();
        let MeshError::Forbidden { remedy, .. } = &error else { panic!("{error}") };
        assert!(
            remedy.contains("tagOwners must give tag:redis-c2")
                && remedy.contains("auth_keys and devices:core"),
            "{remedy}"
        );
        assert_eq!(
            count(&server, "GET", KEYS).await,
            0,
            "a refused mint leaves nothing to look for"
        );
    }
}

#[tokio::test]
async fn a_body_that_the_api_cannot_use_is_refused_in_its_own_words() {
    for (name, missed) in
        [("head-v2-key-create-no-tag", "tags"), ("head-v2-key-create-missing-fields", "ephemeral")]
    {
        let (server, client) = api().await;
        on(&server, "POST", KEYS, answer(name)).await;
        let error = client.mint("x", "tag:a", HOUR).await.unwrap_err();
        let MeshError::Refused { status: 422, message, .. } = &error else { panic!("{error}") };
        assert!(message.contains(&format!("expected required property {missed}")), "{message}");
    }
}

#[tokio::test]
async fn an_oauth_client_is_never_taken_for_a_key_of_ours() {
    let (_, mut client_key) = recorded("head-v2-key-create-oauth-client");
    client_key["description"] = json!("ar abc123 cache-0-x7k2");
    let id = client_key["id"].as_str().unwrap().to_owned();
    for listed in [client_key.clone(), json!({"id": id})] {
        let (server, client) = api().await;
        on(&server, "GET", DEVICES, answer("head-v2-devices")).await;
        on(
            &server,
            "GET",
            KEYS,
            ResponseTemplate::new(200).set_body_json(json!({"keys": [listed]})),
        )
        .await;
        on(
            &server,
            "GET",
            &format!("{KEYS}/{id}"),
            ResponseTemplate::new(200).set_body_json(client_key.clone()),
        )
        .await;
        for _ in 0..2 {
            assert_eq!(client.read(&ours(), &nobody()).await.unwrap().keys, []);
        }
        assert!(count(&server, "GET", &format!("{KEYS}/{id}")).await <= 1, "it is asked for once");
    }
}

#[tokio::test]
async fn bad_credentials_are_told_without_the_secret() {
    let server = MockServer::start().await;
    on(&server, "POST", "/api/v2/oauth/token", answer("head-v2-oauth-token-bad")).await;
    let error = client(&server.uri(), "-").read(&ours(), &nobody()).await.unwrap_err();
    let MeshError::Forbidden { status: 401, message, remedy, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!(message, "invalid client credentials");
    assert!(
        remedy.contains("oauthSecretFile") && !format!("{error} {error:?}").contains(SECRET),
        "{error}"
    );
}

#[tokio::test]
async fn a_refused_token_is_renewed_once() {
    let (server, client) = api().await;
    on(&server, "GET", KEYS, answer("head-v2-keys-list")).await;
    once(&server, "GET", DEVICES, answer("head-v2-unauthorized")).await;
    on(&server, "GET", DEVICES, answer("head-v2-devices")).await;
    client.read(&ours(), &nobody()).await.unwrap();
    assert_eq!(count(&server, "POST", "/api/v2/oauth/token").await, 2);

    let (server, client) = api().await;
    on(&server, "DELETE", "/api/v2/device/7", answer("head-v2-unauthorized")).await;
    let error = client.delete_device("7").await.unwrap_err();
    assert!(matches!(error, MeshError::Forbidden { status: 401, .. }), "{error}");
    assert_eq!(count(&server, "DELETE", "/api/v2/device/7").await, 2);
}

#[tokio::test]
async fn what_is_gone_already_counts_as_deleted() {
    let (server, client) = api().await;
    once(&server, "DELETE", &format!("{KEYS}/1"), answer("head-v2-key-delete")).await;
    on(&server, "DELETE", &format!("{KEYS}/1"), answer("head-v2-key-delete-again")).await;
    on(&server, "DELETE", "/api/v2/device/999", answer("head-v2-device-delete-404")).await;
    on(&server, "DELETE", "/api/v2/device/nXYZ", answer("head-v2-device-delete-bad-id")).await;
    on(&server, "DELETE", "/api/v2/device/bad", says(400, "malformed device id")).await;
    on(&server, "DELETE", "/api/v2/device/n5", says(400, "the device is locked")).await;
    client.revoke("1").await.unwrap();
    client.revoke("1").await.unwrap();
    for gone in ["999", "nXYZ", "bad"] {
        client.delete_device(gone).await.unwrap();
    }
    let error = client.delete_device("n5").await.unwrap_err();
    assert!(matches!(error, MeshError::Refused { status: 400, .. }), "{error}");
}

#[tokio::test]
async fn an_id_cannot_lead_elsewhere() {
    let (server, client) = api().await;
    on(&server, "DELETE", "/api/v2/device/..%2Ftailnet", says(404, "no such device")).await;
    client.delete_device("../tailnet").await.unwrap();
    let requests = server.received_requests().await.unwrap();
    assert_eq!(requests.last().unwrap().url.path(), "/api/v2/device/..%2Ftailnet");
}

#[tokio::test]
async fn a_foreign_tailnet_is_an_error_and_not_an_empty_list() {
    let (server, _) = api().await;
    on(&server, "GET", "/api/v2/tailnet/example.com/devices", answer("head-v2-other-tailnet"))
        .await;
    on(&server, "GET", "/api/v2/tailnet/example.com/keys", answer("head-v2-other-tailnet")).await;
    let error = client(&server.uri(), "example.com").read(&ours(), &nobody()).await.unwrap_err();
    assert!(error.to_string().contains("mesh.tailnet"), "{error}");
}

#[tokio::test]
async fn too_many_requests_means_a_pause_even_for_a_mint() {
    let (server, client) = api().await;
    once(&server, "POST", KEYS, says(429, "slow down").insert_header("retry-after", "1")).await;
    on(&server, "POST", KEYS, answer("head-v2-key-create")).await;
    client.mint("redis c1 node 0", "tag:redis-c1", HOUR).await.unwrap();
    assert_eq!(count(&server, "POST", KEYS).await, 2);
}

#[tokio::test]
async fn a_long_pause_is_kept_by_later_calls_too() {
    let (server, client) = api().await;
    on(
        &server,
        "DELETE",
        "/api/v2/device/7",
        says(429, "slow down").insert_header("retry-after", "3600"),
    )
    .await;
    for _ in 0..3 {
        let error = client.delete_device("7").await.unwrap_err();
        assert!(matches!(error, MeshError::Refused { status: 429, .. }), "{error}");
    }
    assert_eq!(count(&server, "DELETE", "/api/v2/device/7").await, 1);
}

#[tokio::test]
async fn reads_and_deletions_outlast_a_stumbling_server() {
    let (server, client) = api().await;
    once(&server, "GET", DEVICES, says(500, "oops")).await;
    once(&server, "GET", DEVICES, ResponseTemplate::new(503)).await;
    on(&server, "GET", DEVICES, answer("head-v2-devices")).await;
    on(&server, "GET", KEYS, answer("head-v2-keys-list")).await;
    once(&server, "DELETE", "/api/v2/device/7", ResponseTemplate::new(502)).await;
    on(&server, "DELETE", "/api/v2/device/7", ResponseTemplate::new(200)).await;
    client.read(&ours(), &nobody()).await.unwrap();
    client.delete_device("7").await.unwrap();
}

/// The keys that exist after a mint whose answer did not come: one of ours, one of another
/// incarnation.
async fn with_orphan(server: &MockServer) {
    let keys = json!({"keys": [{"id": "k1", "description": "ar abc123 cache-0-x7k2"}, {"id": "k2", "description": "ar abc123 cache-1-y8m3"}]});
    on(server, "GET", KEYS, ResponseTemplate::new(200).set_body_json(keys)).await;
    on(server, "DELETE", &format!("{KEYS}/k1"), answer("head-v2-key-delete")).await;
}

async fn assert_orphan_revoked(server: &MockServer, client: &ControlClient) {
    let error = client.mint("ar abc123 cache-0-x7k2", "tag:akash-redis", HOUR).await.unwrap_err();
    assert!(matches!(error, MeshError::Away { .. }), "{error}");
    assert_eq!(count(server, "DELETE", &format!("{KEYS}/k1")).await, 1);
    assert_eq!(count(server, "DELETE", &format!("{KEYS}/k2")).await, 0);
}

#[tokio::test]
async fn a_mint_that_failed_at_the_server_is_not_repeated_but_cleared_up() {
    let (server, client) = api().await;
    on(&server, "POST", KEYS, says(500, "written, and then it fell over")).await;
    with_orphan(&server).await;
    assert_orphan_revoked(&server, &client).await;
    assert_eq!(count(&server, "POST", KEYS).await, 1);
}

#[tokio::test]
async fn a_mint_whose_answer_is_lost_is_cleared_up() {
    let (server, _) = api().await;
    with_orphan(&server).await;
    let front = front_that_drops_mints(*server.address()).await;
    assert_orphan_revoked(&server, &client(&format!("http://{front}"), "-")).await;
}

#[tokio::test]
async fn an_endless_answer_is_not_read_to_its_end() {
    let (server, client) = api().await;
    on(&server, "POST", KEYS, ResponseTemplate::new(200).set_body_bytes(vec![b' '; 5 << 20])).await;
    on(&server, "GET", KEYS, ResponseTemplate::new(200).set_body_json(json!({"keys": []}))).await;
    let error = client.mint("x", "tag:a", HOUR).await.unwrap_err();
    assert!(error.to_string().contains("more than"), "{error}");
}

/// Passes everything on to `server`, but closes the connection on which a mint comes.
async fn front_that_drops_mints(server: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let front = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(pass_on(client, server));
        }
    });
    front
}

async fn pass_on(client: TcpStream, server: SocketAddr) -> std::io::Result<()> {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = TcpStream::connect(server).await?.into_split();
    let back = tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
    let mut chunk = vec![0; 64 * 1024];
    loop {
        let read = from_client.read(&mut chunk).await?;
        if read == 0 || chunk.starts_with(format!("POST {KEYS} ").as_bytes()) {
            back.abort();
            return Ok(());
        }
        to_server.write_all(&chunk[..read]).await?;
    }
}
