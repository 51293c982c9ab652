//! The tailnet's policy: the printed one carries a cluster, and the check says what is wrong with
//! the one in force.

use std::process::Output;
use std::time::Duration;

use akash_redis::devnet::sandbox::Sandbox;

use crate::sandboxed::sandboxed;
use crate::stage::{Stage, cluster};

const ALLOW_ALL: &str = "{\"grants\": [{\"src\": [\"*\"], \"dst\": [\"*\"], \"ip\": [\"*\"]}]}";

async fn mesh(stage: &Stage, what: &str) -> Output {
    stage.cli(&["mesh", what, "--config", stage.local.config().to_str().unwrap()]).await
}

/// What it said, and how it ended.
fn ended(output: Output) -> (String, Option<i32>) {
    (
        String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap(),
        output.status.code(),
    )
}

async fn check(stage: &Stage) -> (String, Option<i32>) {
    ended(mesh(stage, "check").await)
}

async fn operator_check(stage: &Stage) -> (String, Option<i32>) {
    ended(
        stage
            .cli(&["operator", "--check", "--config", stage.local.config().to_str().unwrap()])
            .await,
    )
}

#[test]
fn the_check_is_content_with_the_local_market_and_names_what_a_policy_opens() {
    sandboxed(
        "policy::the_check_is_content_with_the_local_market_and_names_what_a_policy_opens",
        Duration::from_mins(1),
        async |sandbox: Sandbox| {
            let stage = Stage::without_operator(&sandbox).await;
            let (said, code) = check(&stage).await;
            assert_eq!(code, Some(0), "{said}");
            assert!(said.contains("nothing is too open and nothing is missing"), "{said}");

            let (said, code) = operator_check(&stage).await;
            assert!(
                code == Some(0) && said.contains("ok      policy: nothing is too open"),
                "{said}"
            );

            stage.local.tailnet.set_policy(ALLOW_ALL).await.unwrap();
            let (said, code) = check(&stage).await;
            assert_eq!(code, Some(1), "{said}");
            for words in [
                "reach port 1055 of nodes with tag:akash-redis",
                "SOCKS5",
                "nodes in quarantine",
                "is not declared in tagOwners",
            ] {
                assert!(said.contains(words), "{words:?} is not in: {said}");
            }
            let (said, code) = operator_check(&stage).await;
            assert!(code == Some(1) && said.contains("FAILED  policy: too open: "), "{said}");
        },
    );
}

/// For a control server that refuses tests of tags which nobody has.
#[test]
fn without_its_tests_the_printed_policy_allows_the_same() {
    sandboxed(
        "policy::without_its_tests_the_printed_policy_allows_the_same",
        Duration::from_mins(1),
        async |sandbox: Sandbox| {
            let stage = Stage::without_operator(&sandbox).await;
            let config = stage.local.config();
            let print = async |more: &[&str]| {
                let flags = ["mesh", "policy", "--config", config.to_str().unwrap()];
                let printed = stage.cli(&[&flags[..], more].concat()).await;
                assert!(printed.status.success(), "{printed:?}");
                String::from_utf8(printed.stdout).unwrap()
            };
            let (whole, less) = (print(&[]).await, print(&["--no-tests"]).await);
            assert!(whole.contains("\"tests\"") && !less.contains("\"tests\""), "{less}");
            let rules: Vec<_> = less.lines().filter(|line| line.contains("\"src\"")).collect();
            assert!(!rules.is_empty() && rules.iter().all(|rule| whole.contains(rule)), "{less}");
            stage.local.tailnet.set_policy("{\"grants\": []}").await.unwrap();
            stage.local.tailnet.set_policy(&less).await.unwrap();
            let (said, code) = check(&stage).await;
            assert_eq!(code, Some(0), "{said}");
        },
    );
}

#[test]
fn a_cluster_lives_under_the_printed_policy() {
    sandboxed(
        "policy::a_cluster_lives_under_the_printed_policy",
        Duration::from_mins(3),
        async |sandbox: Sandbox| {
            let mut stage = Stage::without_operator(&sandbox).await;
            stage.local.tailnet.set_policy("{\"grants\": []}").await.unwrap();
            assert_eq!(check(&stage).await.1, Some(1), "nobody reaches anybody now");
            let printed = mesh(&stage, "policy").await;
            let text = String::from_utf8(printed.stdout).unwrap();
            assert!(printed.status.success() && text.contains("// "), "{text}");
            stage.local.tailnet.set_policy(&text).await.unwrap();
            let (said, code) = check(&stage).await;
            assert_eq!(code, Some(0), "{said}");

            stage.local.start_operator().await.unwrap();
            stage.client.apply(&cluster(3)).await.unwrap();
            stage.until_ready().await;
            stage.delete().await;
            stage.assert_nothing_left().await;
        },
    );
}
