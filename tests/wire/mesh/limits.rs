//! Tokens, missing rights, requests for a pause, and what may be sent twice.

use super::*;

const TOKEN: &str = "/api/v2/oauth/token";

/// The bearer tokens of such requests, in their order.
async fn bearers(server: &MockServer, verb: &str, at: &str) -> Vec<String> {
    let requests = server.received_requests().await.unwrap();
    let those = requests
        .iter()
        .filter(|request| request.method.as_str() == verb && request.url.path() == at);
    those.map(|request| request.headers["authorization"].to_str().unwrap().to_owned()).collect()
}

fn token(name: &str, expires_in: u64) -> ResponseTemplate {
    ResponseTemplate::new(200).set_body_json(
        json!({"access_token": name, "token_type": "Bearer", "expires_in": expires_in}),
    )
}

#[tokio::test]
async fn a_token_at_its_end_is_not_sent_again() {
    let server = MockServer::start().await;
    once(&server, "POST", TOKEN, token("t1", 0)).await;
    on(&server, "POST", TOKEN, token("t2", 3600)).await;
    on(&server, "DELETE", "/api/v2/device/7", ResponseTemplate::new(200)).await;
    let client = client(&server.uri(), "-");
    for _ in 0..3 {
        client.delete_device("7").await.unwrap();
    }
    assert_eq!(
        bearers(&server, "DELETE", "/api/v2/device/7").await,
        ["Bearer t1", "Bearer t2", "Bearer t2"]
    );
}

#[tokio::test]
async fn a_token_that_does_not_come_at_once_costs_no_mint() {
    for stumble in [
        says(500, "oops"),
        says(429, "slow down").insert_header("retry-after", "1"),
        ResponseTemplate::new(503),
    ] {
        let server = MockServer::start().await;
        once(&server, "POST", TOKEN, stumble).await;
        on(&server, "POST", TOKEN, answer("head-v2-oauth-token")).await;
        on(&server, "POST", KEYS, answer("head-v2-key-create")).await;
        client(&server.uri(), "-").mint("redis c1 node 0", "tag:redis-c1", HOUR).await.unwrap();
        assert_eq!(
            (count(&server, "POST", TOKEN).await, count(&server, "POST", KEYS).await),
            (2, 1)
        );
    }
}

#[tokio::test]
async fn a_token_that_is_refused_in_the_middle_of_a_mint_is_renewed_and_nothing_is_minted_twice() {
    let (server, client) = api().await;
    once(&server, "POST", KEYS, answer("head-v2-unauthorized")).await;
    on(&server, "POST", KEYS, answer("head-v2-key-create")).await;
    client.mint("redis c1 node 0", "tag:redis-c1", HOUR).await.unwrap();
    assert_eq!((count(&server, "POST", TOKEN).await, count(&server, "POST", KEYS).await), (2, 2));
    assert_eq!(count(&server, "GET", KEYS).await, 0, "401 says that nothing was minted");
}

#[tokio::test]
async fn a_missing_scope_is_named_with_those_that_are_needed() {
    let (server, client) = api().await;
    on(&server, "GET", DEVICES, says(403, "token is missing the required scope devices:core:read"))
        .await;
    on(&server, "GET", KEYS, says(403, "token is missing the required scope auth_keys:read")).await;
    on(
        &server,
        "POST",
        "/api/v2/device/7/tags",
        says(403, "token is missing the required scope devices:core"),
    )
    .await;
    for error in [
        client.read(&ours(), &nobody()).await.unwrap_err(),
        client.set_tags("7", &["tag:q".to_owned()]).await.unwrap_err(),
    ] {
        let MeshError::Forbidden { status: 403, message, remedy, .. } = &error else {
            panic!("{error}")
        };
        assert!(message.contains("missing the required scope"), "{message}");
        assert!(
            remedy.contains("auth_keys and devices:core") && remedy.contains("mesh.oauthClientId"),
            "{remedy}"
        );
    }
}

#[tokio::test]
async fn a_tag_that_may_not_be_given_to_a_device_is_named_with_its_remedy() {
    for refusal in [
        says(400, "requested tags [tag:q] are invalid or not permitted"),
        says(403, "token may not assign tag tag:q"),
    ] {
        let (server, client) = api().await;
        on(&server, "POST", "/api/v2/device/7/tags", refusal).await;
        let error = client.set_tags("7", &["tag:q".to_owned()]).await.unwrap_err();
        assert!(
            error.to_string().contains("tagOwners must give tag:q to a tag of that client"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn tags_are_set_again_when_the_answer_was_lost() {
    let (server, client) = api().await;
    once(&server, "POST", "/api/v2/device/7/tags", says(500, "done, and then it fell over")).await;
    Mock::given(method("POST"))
        .and(path("/api/v2/device/7/tags"))
        .and(body_json(json!({"tags": ["tag:q"]})))
        .respond_with(ResponseTemplate::new(200))
        .mount(&server)
        .await;
    client.set_tags("7", &["tag:q".to_owned()]).await.unwrap();
    assert_eq!(count(&server, "POST", "/api/v2/device/7/tags").await, 2);
    let gone = client.set_tags("8", &["tag:q".to_owned()]).await.unwrap_err();
    assert!(
        matches!(gone, MeshError::Refused { status: 404, .. }),
        "a device that is gone has no tags: {gone}"
    );
}

#[tokio::test]
async fn a_pause_may_be_asked_for_by_date() {
    let (server, client) = api().await;
    let pause = |until| {
        says(429, "slow down")
            .insert_header("date", "Sat, 05 Mar 2022 17:10:27 GMT")
            .insert_header("retry-after", until)
    };
    once(&server, "POST", KEYS, pause("Sat, 05 Mar 2022 17:10:28 GMT")).await;
    on(&server, "POST", KEYS, answer("head-v2-key-create")).await;
    client.mint("redis c1 node 0", "tag:redis-c1", HOUR).await.unwrap();
    assert_eq!(count(&server, "POST", KEYS).await, 2);

    let (server, client) = api().await;
    on(&server, "DELETE", "/api/v2/device/7", pause("Sat, 05 Mar 2022 18:10:27 GMT")).await;
    for _ in 0..2 {
        assert!(matches!(
            client.delete_device("7").await.unwrap_err(),
            MeshError::Refused { status: 429, .. }
        ));
    }
    assert_eq!(
        count(&server, "DELETE", "/api/v2/device/7").await,
        1,
        "an hour is longer than a call may wait"
    );
}
