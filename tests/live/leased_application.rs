//! The application of `manifests/app-with-proxy.yaml` in a lease of its own: its image is made as the
//! guide says, it is leased from a provider like any deployment of Akash's tools, and writes through
//! its proxy while the master moves, dies and is replaced, and while the operator is away.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use akash_redis::api::types::Durability;
use akash_redis::cli::local::LocalOptions;
use akash_redis::devnet::provider::host::LeaseKey;
use akash_redis::devnet::provider::runner::Runner;
use akash_redis::devnet::sandbox::{Sandbox, Users, inside};
use akash_redis::devnet::tailnet::{APPLICATION_TAG, Tailnet, login_server};
use akash_redis::model::chain::LeaseState;
use http::Method;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::akash_sdl;
use crate::clients::moved;
use crate::image::redis;
use crate::sandboxed::sandboxed_with;
use crate::sentinel::addresses;
use crate::stage::{CLUSTER, PASSWORD, Stage, cluster, until};
use crate::tenant::Tenant;
use crate::unpacked;

const LIMIT: Duration = Duration::from_mins(9);
const SDL: &str = include_str!("../../manifests/app-with-proxy.yaml");
const PROGRAM: &str = include_str!("leased_application.py");
/// What the provider pulls.
const IMAGE: &str = "registry.devnet.test/app-with-proxy@sha256:1111111111111111111111111111111111111111111111111111111111111111";
/// Of the deployment; the operator chooses others.
const DSEQ: u64 = 4711;
/// The application serves its page within this after its container started.
const STARTED: Duration = Duration::from_mins(1);
const POLL: Duration = Duration::from_millis(50);
/// Acknowledged writes that show that it goes on.
const SOME: u64 = 100;

/// The page of the application, behind the provider's ingress.
struct Page {
    http: reqwest::Client,
    url: String,
}

impl Page {
    fn at(host: &str) -> Self {
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5));
        Self { http: http.build().unwrap(), url: format!("http://{host}/") }
    }

    /// What it saw; nothing while it does not answer.
    async fn ask(&self, path: &str) -> Option<Value> {
        self.try_to_ask(path).await.ok()
    }

    async fn try_to_ask(&self, path: &str) -> reqwest::Result<Value> {
        let answer = self.http.get(format!("{}{path}", self.url)).send().await?;
        answer.error_for_status()?.json().await
    }

    async fn says(&self) -> Value {
        let mut said = Err(String::new());
        let answers = async {
            while said.is_err() {
                said = self.try_to_ask("").await.map_err(|error| format!("{error:?}"));
                sleep(POLL).await;
            }
        };
        let answers = timeout(STARTED, answers).await;
        assert!(answers.is_ok(), "the application's page does not come: {said:?}");
        said.unwrap()
    }

    /// Waits until it has written on for a while, and returns what it saw in this phase.
    async fn goes_on(&self, phase: &str) -> Value {
        let before = acknowledged(&self.says().await);
        let mut last = Value::Null;
        until(&format!("writes after {phase}"), async || {
            last = self.ask("").await.unwrap_or_default();
            acknowledged(&last) >= before + SOME
        })
        .await;
        let saw = self.ask("phase").await.unwrap();
        println!(
            "{phase}: {} written, {} of them not acknowledged so far, {} unconfirmed, longest gap {} ms, errors {}",
            saw["last"],
            numbers(&saw["not_acknowledged"]).len(),
            saw["unconfirmed"],
            saw["longest_gap_ms"],
            saw["errors"]
        );
        assert_eq!(saw["not_read_back"], json!([]), "{phase}: a write that was confirmed is read");
        saw
    }

    /// The same after something that was planned, of which it sees nothing.
    async fn sees_no_error(&self, phase: &str) -> Value {
        let saw = self.goes_on(phase).await;
        assert_eq!((&saw["errors"], &saw["unconfirmed"]), (&json!([]), &json!(0)), "{phase}");
        saw
    }
}

/// What the container of the application said.
struct ShownOnFailure(Arc<Runner>, LeaseKey);

impl Drop for ShownOnFailure {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let lines = self.0.logs(&self.1, 1000);
            // tailscaled says much more, each line with its date.
            let own: Vec<_> = lines.iter().filter(|line| !line.starts_with("20")).collect();
            eprintln!("of the application: {own:#?}");
        }
    }
}

fn numbers(list: &Value) -> HashSet<u64> {
    list.as_array().into_iter().flatten().filter_map(Value::as_u64).collect()
}

fn acknowledged(saw: &Value) -> u64 {
    let failed = u64::try_from(numbers(&saw["not_acknowledged"]).len()).unwrap();
    saw["last"].as_u64().unwrap_or(0).saturating_sub(failed)
}

/// A key as the manifest asks for it: for any number of containers, which are forgotten when they
/// are gone.
async fn key(tailnet: &Tailnet) -> String {
    let create = json!({"reusable": true, "ephemeral": true, "preauthorized": true, "tags": [APPLICATION_TAG]});
    let body = json!({"capabilities": {"devices": {"create": create}}, "expirySeconds": 3600});
    let answer = tailnet.api(Method::POST, "tailnet/-/keys", Some(&body)).await.unwrap();
    answer["key"].as_str().unwrap().to_owned()
}

/// The manifest with its placeholders filled in, and nothing else changed.
async fn filled_in(stage: &Stage) -> String {
    let nodes: Vec<String> = addresses(stage).await.into_iter().map(|(_, at)| at).collect();
    let image = SDL.split('"').find(|text| text.contains("@sha256:")).unwrap();
    let values = [
        (image, IMAGE),
        ("tskey-auth-...", &key(&stage.local.tailnet).await),
        ("100.64.0.3,100.64.0.4,100.64.0.5", &nodes.join(",")),
        ("=02...", &format!("={}", stage.says(&["public-key"]).await.trim())),
        (":PASSWORD@", &format!(":{PASSWORD}@")),
    ];
    values.iter().fold(SDL.to_owned(), |text, (placeholder, value)| {
        assert_eq!(text.matches(placeholder).count(), 1, "{placeholder} stands there once");
        text.replace(placeholder, value)
    })
}

/// Everything that a run of the application was told to be written is at the master.
async fn nothing_is_lost(stage: &Stage, saw: &Value) {
    let run = saw["run"].as_str().unwrap();
    let members = redis(stage, &stage.master().await, &["smembers", run]).await;
    let members: HashSet<u64> =
        members.lines().filter_map(|line| line.trim().parse().ok()).collect();
    let failed = numbers(&saw["not_acknowledged"]);
    let tried = saw["last"].as_u64().unwrap();
    let lost: Vec<u64> =
        (1..=tried).filter(|n| !failed.contains(n) && !members.contains(n)).collect();
    println!("{run}: {} acknowledged, {} lost", acknowledged(saw), lost.len());
    assert!(lost.is_empty(), "{lost:?} were acknowledged and are lost");
}

#[test]
fn an_application_in_a_lease_of_its_own_rides_through_all_that_moves_a_master() {
    let _built = (!inside()).then(|| unpacked::build_application(PROGRAM));
    let test = "leased_application::an_application_in_a_lease_of_its_own_rides_through_all_that_moves_a_master";
    sandboxed_with(Users::Many, test, LIMIT, async |sandbox: Sandbox| {
        let options = LocalOptions {
            root: Some(unpacked::found().root()),
            roots: vec![(IMAGE.to_owned(), unpacked::found_application().root())],
            // The one thing that the manifest leaves out: this control server is not the usual one.
            node_env: vec![("TS_LOGIN_SERVER".to_owned(), login_server())],
            ..LocalOptions::default()
        };
        let mut stage = Stage::patient_on(&sandbox, &options).await;
        let mut manifest = cluster(3);
        manifest.spec.durability = Durability::Confirmed;
        stage.client.apply(&manifest).await.unwrap();
        stage.until_ready().await;

        let deployment = akash_sdl::read(&filled_in(&stage).await).unwrap();
        let tenant = Tenant::of(&stage.local.market);
        let leased = tenant.lease(DSEQ, &deployment).await;
        let page = Page::at(&tenant.address_of(&leased).await);
        let (provider, lease) = stage.local.market.find(DSEQ).unwrap();
        let container = stage.local.market.providers[provider].runner.clone();
        let _shown = ShownOnFailure(container.clone(), lease.clone());
        let begun = page.goes_on("start").await;
        assert_eq!(begun["knows_the_key"], false, "the key is the container's alone");

        let first = stage.master().await;
        stage.says(&["switchover", CLUSTER]).await;
        let second = moved(&stage, &first).await;
        stage.until_ready().await;
        page.sees_no_error("a switchover").await;

        let (provider, node) = stage.local.market.find(second.dseq).unwrap();
        let runner = stage.local.market.providers[provider].runner.clone();
        assert!(runner.power_off(&node));
        let third = moved(&stage, &second).await;
        page.goes_on("a failover").await;
        assert!(runner.power_on(&node));
        stage.until_ready().await;
        page.sees_no_error("the return of the old master").await;

        stage.says(&["migrate", CLUSTER, &third.ordinal.to_string()]).await;
        stage
            .until_status("the node to have moved", |status| {
                status.nodes.iter().all(|node| node.incarnation != third.incarnation)
            })
            .await;
        stage.until_ready().await;
        let before = page.sees_no_error("a migration of the master").await;
        nothing_is_lost(&stage, &before).await;

        stage.local.kill_operator().await;
        assert!(container.restart(&lease));
        until("the application's next run", async || {
            page.ask("").await.is_some_and(|saw| saw["run"] != before["run"])
        })
        .await;
        page.sees_no_error("its restart without an operator").await;

        // The operator finds a deployment of the same wallet that is none of its own.
        stage.local.start_operator().await.unwrap();
        stage.until_ready().await;
        let after = page.sees_no_error("the return of the operator").await;
        for saw in [&before, &after] {
            nothing_is_lost(&stage, saw).await;
        }
        stage.delete().await;
        let still = tenant.sees(DSEQ).await;
        assert!(still.active && still.leases[0].state == LeaseState::Active, "{still:?}");
        tenant.close(DSEQ).await;
        stage.assert_nothing_left().await;
    });
}
