//! The policy is read from the control API.

use akash_redis::mesh::policy::{Kind, Tags, evaluate};

use super::*;

const POLICY: &str = "/api/v2/tailnet/-/acl";

fn tags() -> Tags {
    let nodes = ["tag:redis-c1", "tag:redis-c2"].map(str::to_owned).into();
    Tags { nodes, operator: "tag:operator".to_owned(), quarantine: "tag:quarantine".to_owned() }
}

#[tokio::test]
async fn the_policy_in_force_is_asked_for_as_json_and_evaluated() {
    let (server, client) = api().await;
    let json = header("accept", "application/json");
    Mock::given(method("GET"))
        .and(path(POLICY))
        .and(json)
        .respond_with(answer("head-v2-acl-get-admin"))
        .mount(&server)
        .await;
    let found = evaluate(&client.policy().await.unwrap(), &tags());
    assert!(
        found.iter().all(|finding| finding.kind != Kind::TooOpen),
        "nothing in it is too open: {found:?}"
    );
    for words in [
        "give tag:redis-c1 to tag:operator",
        "reach nodes with tag:redis-c2 on tcp:9700",
        "in quarantine",
    ] {
        assert!(found.iter().any(|finding| finding.text.contains(words)), "{words}: {found:?}");
    }
    assert!(
        !found.iter().any(|finding| finding.text.contains("replica")),
        "replication is granted: {found:?}"
    );
}

#[tokio::test]
async fn a_policy_with_comments_is_read_as_well() {
    let (server, client) = api().await;
    let text = "// ours\n{\"grants\": [{\"src\": [\"*\"], \"dst\": [\"*\"], \"ip\": [\"*\"],},], /* all of it */}";
    on(&server, "GET", POLICY, ResponseTemplate::new(200).set_body_raw(text, "application/hujson"))
        .await;
    let found = evaluate(&client.policy().await.unwrap(), &tags());
    assert!(
        found
            .iter()
            .any(|finding| finding.kind == Kind::TooOpen && finding.text.contains("port 1055")),
        "{found:?}"
    );
}

#[tokio::test]
async fn a_client_that_may_not_read_the_policy_is_told_which_scope_it_takes() {
    let (server, client) = api().await;
    on(&server, "GET", POLICY, answer("head-v2-acl-get")).await;
    let error = client.policy().await.unwrap_err();
    let MeshError::Forbidden { status: 403, remedy, .. } = &error else { panic!("{error}") };
    assert!(
        remedy.contains("policy_file:read")
            && remedy.contains("nothing but the check of the policy"),
        "{remedy}"
    );
}
