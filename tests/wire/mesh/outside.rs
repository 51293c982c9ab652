//! What a control server should not say, and what it leaves out.

use super::*;

async fn listing(keys: Value, devices: Value) -> (MockServer, ControlClient) {
    let (server, client) = api().await;
    on(&server, "GET", KEYS, ResponseTemplate::new(200).set_body_json(json!({"keys": keys}))).await;
    on(
        &server,
        "GET",
        DEVICES,
        ResponseTemplate::new(200).set_body_json(json!({"devices": devices})),
    )
    .await;
    (server, client)
}

#[tokio::test]
async fn a_listed_key_without_a_description_is_nobodys_of_ours_and_is_not_asked_for() {
    let entry = |id: usize| {
        let (_, mut key) = recorded("head-v2-key-get");
        key["id"] = json!(id.to_string());
        key.as_object_mut().unwrap().remove("description");
        key
    };
    let (server, client) = listing((0..5000).map(entry).collect(), json!([])).await;
    let view = client.read(&ours(), &nobody()).await.unwrap();
    assert_eq!((view.keys, view.all_keys), (vec![], true));
    let asked = server.received_requests().await.unwrap().len();
    assert_eq!(asked, 3, "a token and two lists");
}

#[tokio::test]
async fn a_long_list_of_bare_ids_is_looked_at_bit_by_bit_and_the_devices_do_not_wait() {
    let ids: Vec<Value> = (0..1000).map(|id| json!({"id": format!("k{id}")})).collect();
    let (server, client) = listing(
        json!(ids),
        json!([{"id": "2", "hostname": "cache-1-y8m3-abc123", "addresses": ["100.64.0.2"]}]),
    )
    .await;
    let of_others = json!({"description": "somebody else's"});
    Mock::given(method("GET"))
        .and(wiremock::matchers::path_regex(format!("^{KEYS}/k")))
        .respond_with(ResponseTemplate::new(200).set_body_json(of_others))
        .mount(&server)
        .await;
    let first = client.read(&ours(), &nobody()).await.unwrap();
    assert_eq!(
        (first.devices.len(), first.all_keys),
        (1, false),
        "what was not looked at is not known to be nobody's"
    );
    let mut readings = 1;
    while !client.read(&ours(), &nobody()).await.unwrap().all_keys {
        readings += 1;
        assert!(readings < 20, "it never comes to an end");
    }
    let asked = server
        .received_requests()
        .await
        .unwrap()
        .iter()
        .filter(|r| r.url.path().starts_with(&format!("{KEYS}/k")))
        .count();
    assert_eq!(asked, 1000, "each is asked for once");
}

#[tokio::test]
async fn names_addresses_and_tags_are_what_they_should_be_or_are_left_out() {
    let forged = json!([
        {"id": "1", "hostname": "cache-0-x7k2-abc123", "name": "cache-0.mesh.test\nrename-command CONFIG x",
         "addresses": ["127.0.0.1", "::1", "169.254.169.254", "100.64.0.9"], "tags": ["tag:a", "tag:b\n"]},
        {"id": "2\n3", "hostname": "cache-1-y8m3-abc123", "addresses": ["100.64.0.2"]},
        {"id": "4", "hostname": "x\ncache-2-y8m3-abc123", "addresses": ["0.0.0.0"]}
    ]);
    let (_server, client) = listing(json!([]), forged).await;
    let devices = client.read(&ours(), &nobody()).await.unwrap().devices;
    assert_eq!(
        devices.iter().map(|d| d.id.as_str()).collect::<Vec<_>>(),
        ["1", "4"],
        "one without an id cannot be acted on"
    );
    assert_eq!((devices[0].name.as_str(), devices[0].ip.as_str()), ("", "100.64.0.9"));
    assert_eq!(devices[0].tags.len(), 2, "a tag that is none is one more tag");
    assert_eq!((devices[1].hostname.as_str(), devices[1].ip.as_str()), ("", ""));
}

#[tokio::test]
async fn a_device_that_was_renamed_is_ours_by_its_id() {
    let renamed =
        json!([{"id": "7", "hostname": "anna", "name": "anna", "addresses": ["100.64.0.7"]}]);
    let (_server, client) = listing(json!([]), renamed).await;
    assert_eq!(client.read(&ours(), &nobody()).await.unwrap().devices.len(), 0);
    let known = BTreeSet::from(["7".to_owned()]);
    assert_eq!(client.read(&ours(), &known).await.unwrap().devices[0].name, "anna");
}

/// headscale answers a token without `auth_keys` by an empty list of keys, and 200.
#[tokio::test]
async fn a_token_with_too_small_a_scope_is_refused_and_not_read_as_an_empty_tailnet() {
    for scope in ["devices:core", "auth_keys:read devices:core", "auth_keys"] {
        let server = MockServer::start().await;
        let token = json!({"access_token": "t", "token_type": "Bearer", "expires_in": 3600, "scope": scope});
        on(&server, "POST", "/api/v2/oauth/token", ResponseTemplate::new(200).set_body_json(token))
            .await;
        on(&server, "GET", KEYS, ResponseTemplate::new(200).set_body_json(json!({"keys": []})))
            .await;
        on(
            &server,
            "GET",
            DEVICES,
            ResponseTemplate::new(200).set_body_json(json!({"devices": []})),
        )
        .await;
        let error = client(&server.uri(), "-").read(&ours(), &nobody()).await.unwrap_err();
        let MeshError::Forbidden { status: 403, remedy, .. } = &error else { panic!("{error}") };
        assert!(remedy.contains("auth_keys and devices:core"), "{remedy}");
    }
}

#[tokio::test]
async fn the_keys_are_listed_before_the_devices() {
    let (server, client) = listing(json!([]), json!([])).await;
    client.read(&ours(), &nobody()).await.unwrap();
    let paths: Vec<String> =
        server.received_requests().await.unwrap().iter().map(|r| r.url.path().to_owned()).collect();
    assert_eq!(paths, ["/api/v2/oauth/token", KEYS, DEVICES]);
}

/// As headscale gives them after an admin renamed a device and somebody minted a key without a
/// description.
#[tokio::test]
async fn recorded_lists_of_headscale_are_read_by_ids_and_descriptions() {
    let (server, client) = api().await;
    on(&server, "GET", KEYS, answer("head-v2-keys-no-description")).await;
    on(&server, "GET", DEVICES, answer("head-v2-devices-renamed")).await;
    let view = client.read(&ours(), &nobody()).await.unwrap();
    let keys: Vec<_> = view.keys.iter().map(|k| (k.description.as_str(), k.invalid)).collect();
    assert_eq!(
        keys,
        [("ar abc123 cache-0-x7k2", true), ("ar abc123 cache-1-y8m3", true)],
        "spent keys stay in the list"
    );
    let mut devices: Vec<_> =
        view.devices.iter().map(|d| (d.id.as_str(), d.name.as_str(), d.ip.as_str())).collect();
    devices.sort_unstable();
    assert_eq!(
        devices,
        [("1", "grandmaster", "100.64.0.1"), ("2", "cache-1-y8m3-abc123", "100.64.0.2")]
    );
    assert_eq!(server.received_requests().await.unwrap().len(), 3, "no key is asked for by itself");
}
