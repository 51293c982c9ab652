//! The pages as a browser gets them.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;
use tokio_util::sync::DropGuard;

use super::*;
use crate::api::report::{OperatorReport, PlanReport, Source, SourceState};
use crate::api::status::Status;
use crate::api::top::NodeLoad;
use crate::api::validate;
use crate::api::wallet::WalletReport;
use crate::store::sqlite::SqliteStore;
use crate::store::{Event, Events as _, Objects as _};

const NOW: UnixMs = UnixMs(1_800_000_000_000);

/// Two clusters, one of which has everything that a page can show, and text that would do harm.
async fn shown(dir: &TempDir) -> Shown {
    let store = SqliteStore::open(&dir.path().join("store.db")).unwrap();
    let text = |name: &str| {
        format!(
            "apiVersion: akash-redis.dev/v1alpha1\nkind: RedisCluster\nmetadata: {{ name: {name} }}\nspec: {{ nodes: 3 }}\n"
        )
    };
    for name in ["cache", "young"] {
        store.apply(validate::parse(&text(name)).unwrap().remove(0)).await.unwrap();
    }
    store.set_status("cache", &status()).await.unwrap();
    let event = |ago: u64, reason: &str, message: &str| {
        Event::new(UnixMs(NOW.0 - ago * 1000), "cache", reason, message)
    };
    let events = [
        event(900, "ClusterCreated", "cache is to have 3 nodes"),
        event(700, "LeaseCreated", "cache-1-b9ww runs at provider.two.example"),
        event(60, "MasterPromoted", "cache-0-x7k2 is master of epoch 4"),
        event(30, "EffectFailed", "the provider says <script>alert(1)</script>"),
    ];
    store.add_events(&events).await.unwrap();
    let status_cache = Arc::new(StatusCache::default());
    let load = |ops| NodeLoad {
        ops_per_second: Some(ops),
        clients: Some(12),
        memory_bytes: 3_250_000,
        maxmemory_bytes: 591_396_864,
        keys: 4711,
        ..NodeLoad::default()
    };
    let loads = [("cache-0-x7k2".to_owned(), load(812)), ("cache-1-b9ww".to_owned(), load(9))];
    status_cache.publish_loads("cache", BTreeMap::from(loads));
    status_cache.publish("cache", PlanReport::default(), None);
    let source = |state, message: &str| Source {
        state,
        since: "2027-01-15T07:00:00Z".into(),
        message: message.into(),
    };
    status_cache.publish_operator(OperatorReport {
        version: "0.1.0".into(),
        installation: "tzgtac".into(),
        chain: source(SourceState::Ok, "akashnet-2 at height 21000000"),
        tailnet: source(SourceState::Away, "no answer within 10 s"),
        mesh: source(SourceState::Ok, "on the mesh as 100.64.0.9"),
        ..OperatorReport::default()
    });
    status_cache.publish_wallet(WalletReport {
        address: "akash1me".into(),
        read: "2027-01-15T07:59:58Z".into(),
        act: Some("12.5act".parse().unwrap()),
        akt: "1.25akt".into(),
        in_escrow: Some("6act".parse().unwrap()),
        leases: 3,
        per_month: Some("9act".parse().unwrap()),
        last_refill: Some("2027-02-03T10:00:00Z".into()),
        ..WalletReport::default()
    });
    Shown { store, status_cache, now: || NOW }
}

fn status() -> Status {
    let node = |ordinal: u32, name: &str, phase: &str, host: &str, region: &str| {
        json!({ "ordinal": ordinal, "incarnation": name, "phase": phase, "dseq": 11 + ordinal,
            "provider": format!("akash1{ordinal}"), "providerHost": host, "region": region,
            "pricePerMonth": "2.7act", "version": "7.0.15" })
    };
    let mut nodes = vec![
        node(0, "cache-0-x7k2", "Master", "provider.one.example", "us-west"),
        node(1, "cache-1-b9ww", "Replica", "provider.two.example", "eu-central"),
        node(
            2,
            "cache-2-m4pq",
            "Unreachable",
            "a-provider-with-a-long-name.example.org",
            "as-east",
        ),
    ];
    nodes[1]["lagBytes"] = json!(1_700_000);
    nodes[1]["lagSeconds"] = json!(3);
    nodes[1]["path"] = json!("DERP(fra), 38.0 ms");
    nodes[2]["message"] = json!("it is not heard since 2027-01-15T07:58:00Z");
    let condition = |kind: &str, status: &str, reason: &str, message: &str| {
        json!({ "type": kind, "status": status, "reason": reason, "message": message,
            "lastTransitionTime": "2027-01-15T07:59:00Z" })
    };
    serde_json::from_value(json!({
        "observedGeneration": 1, "epoch": 4, "nodes": nodes,
        "master": { "epoch": 4, "incarnation": "cache-0-x7k2", "name": "cache-0-x7k2.ts.net", "ip": "100.64.0.1", "port": 6379 },
        "conditions": [
            condition("Ready", "False", "NodesNotReady", "2 of 3 nodes are up"),
            condition("Progressing", "True", "Waiting", "waits for cache-2-m4pq"),
            condition("Funded", "True", "EscrowFunded", "every escrow pays for at least 13 days more"),
        ],
        "cost": { "perMonth": "8.1act", "maxPerMonth": "12act", "inEscrow": "3.91act", "spent": "0.09act", "runway": "13 days" },
        "waiting": [{ "what": "cache-2-m4pq to be heard", "deadline": "2027-01-15T08:03:00Z", "then": "it is replaced" }],
        "lastFailover": { "epoch": 4, "reason": "redis exited", "witnesses": ["cache-1-b9ww"], "old": "cache-2-aaaa",
            "new": "cache-0-x7k2", "candidates": ["cache-0-x7k2: 1200"], "fence": "its agent confirmed",
            "steps": ["promoted after 210 ms"], "lost": "nothing" },
    }))
    .unwrap()
}

/// The page, served.
struct Served {
    address: SocketAddr,
    http: reqwest::Client,
    _dir: TempDir,
    _stop: DropGuard,
}

impl Served {
    async fn start() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (dir, stop) = (TempDir::new().unwrap(), CancellationToken::new());
        let shown = shown(&dir).await;
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        tokio::spawn(serve(free, shown, stop.clone()));
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let served = Self { address: free, http, _dir: dir, _stop: stop.drop_guard() };
        let answered = async {
            while served.http.get(served.url("/")).send().await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), answered).await.expect("the page answers");
        served
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    async fn get(&self, path: &str) -> (StatusCode, String) {
        let answer = self.http.get(self.url(path)).send().await.unwrap();
        (answer.status(), answer.text().await.unwrap())
    }
}

/// How often a part is there.
fn count(text: &str, part: &str) -> usize {
    text.matches(part).count()
}

#[tokio::test]
async fn each_page_is_whole_and_its_links_lead_somewhere() {
    let served = Served::start().await;
    for path in ["/", "/clusters/cache", "/clusters/young"] {
        let (status, html) = served.get(path).await;
        assert_eq!(status, 200, "{path}");
        assert!(html.starts_with("<!DOCTYPE html><html lang=\"en\">"), "{path}: {html}");
        for once in ["<h1>", "<main>", "<title>", "<meta charset=\"utf-8\">", "name=\"viewport\""] {
            assert_eq!(count(&html, once), 1, "{once} in {path}");
        }
        assert!(html.contains("<noscript><meta http-equiv=\"refresh\" content=\"10\"></noscript>"));
        for (at, _) in html.match_indices("href=\"").chain(html.match_indices("src=\"")) {
            let link = html[at..].split('"').nth(1).unwrap();
            assert!(link.starts_with('/'), "{link} in {path} is somebody else's");
            assert_eq!(served.get(link).await.0, 200, "{link} in {path}");
        }
    }
    let (status, html) = served.get("/clusters/none").await;
    assert!(status == 404 && html.contains("There is no such cluster."), "{html}");
    assert_eq!(served.get("/v1alpha1/clusters").await.0, 404, "the API is on its socket alone");
}

#[tokio::test]
async fn all_that_is_known_of_a_cluster_is_on_its_page() {
    let served = Served::start().await;
    let (_, html) = served.get("/clusters/cache").await;
    for part in [
        "<svg class=\"topology\" role=\"img\" aria-label=\"Topology of cache: master cache-0-x7k2; 2 other nodes\"",
        "1.6 MiB behind, for 3 s, DERP(fra), 38…",
        "eu-central: provider.two.example",
        "812</td>",
        "3.0 MiB of 564.0 MiB",
        "cache-2-m4pq to be heard",
        "2027-01-28</time> (13 days)",
        "8.1act, at most 12act",
        "promoted after 210 ms",
        "MasterPromoted",
        "it is not heard since",
    ] {
        assert!(html.contains(part), "{part} in\n{html}");
    }
    let order = |a: &str, b: &str| html.find(a).unwrap() < html.find(b).unwrap();
    assert!(order("EffectFailed", "ClusterCreated"), "the newest event is the first");
    let (_, front) = served.get("/").await;
    for part in
        ["href=\"/clusters/young\"", "2 of 3", "2027-02-03T10:00:00Z", "no answer within 10 s"]
    {
        assert!(front.contains(part), "{part} in\n{front}");
    }
}

#[tokio::test]
async fn what_others_write_is_text_and_nothing_in_a_page_is_run() {
    let served = Served::start().await;
    let (_, html) = served.get("/clusters/cache").await;
    assert!(html.contains("&lt;script&gt;alert(1)&lt;/script&gt;"), "{html}");
    for path in ["/", "/clusters/cache"] {
        let (_, html) = served.get(path).await;
        assert_eq!(count(&html, "<script"), 1, "live.js alone, in {path}");
        for no in [" style=", "<style", " onclick=", " onload=", "javascript:", "<form", "<iframe"]
        {
            assert!(!html.contains(no), "{no} in {path}");
        }
    }
}

#[tokio::test]
async fn every_answer_forbids_a_browser_what_it_need_not_do() {
    let served = Served::start().await;
    let get = |path: &str| served.http.get(served.url(path));
    for (what, request, status) in [
        ("a page", get("/"), 200),
        ("a file", get("/live.js"), 200),
        ("no page", get("/none"), 404),
        ("another name", get("/").header("host", "evil.example:8790"), 421),
        ("a change", served.http.post(served.url("/clusters/cache")), 405),
        ("a deletion", served.http.delete(served.url("/clusters/cache")), 405),
    ] {
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), status, "{what}");
        let header = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
        let policy = header("content-security-policy");
        assert!(
            policy.starts_with("default-src 'none';") && !policy.contains("unsafe"),
            "{policy}"
        );
        assert!(policy.contains("frame-ancestors 'none'"), "{policy}");
        for (name, value) in [
            ("x-frame-options", "DENY"),
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("cross-origin-resource-policy", "same-origin"),
            ("cache-control", "no-store"),
        ] {
            assert_eq!(header(name), value, "{what}");
        }
        assert!(answer.headers().get("access-control-allow-origin").is_none());
        let text = answer.text().await.unwrap();
        assert!(status == 200 || !text.contains("akash1me"), "{what} tells: {text}");
    }
}

#[tokio::test]
async fn an_address_that_is_taken_is_said() {
    let served = Served::start().await;
    assert!(check(served.address).await.unwrap().contains("in use"));
    let dir = TempDir::new().unwrap();
    let shown = shown(&dir).await;
    let taken = serve(served.address, shown, CancellationToken::new()).await.unwrap_err();
    assert!(taken.to_string().contains("api.listen"), "{taken}");
}

/// `make web-check`: the pages in Chromium, at two widths, with pictures, and what axe-core finds.
#[tokio::test]
#[ignore = "needs Chromium and node; `make web-check` brings them"]
async fn the_pages_in_a_browser() {
    let served = Served::start().await;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/web/check.mjs");
    let ended = tokio::process::Command::new("node")
        .arg(script)
        .arg(served.url(""))
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/target/web"))
        .status();
    let ended = tokio::time::timeout(Duration::from_mins(5), ended).await;
    assert!(ended.expect("within 5 min").expect("node starts").success());
}
