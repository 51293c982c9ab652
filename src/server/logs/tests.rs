//! The logs of nodes over the socket.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry;
use serde_json::json;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::fake::FakeLogs;
use super::*;
use crate::server::Answerers;
use crate::server::appraiser::fake::FakeAppraiser;
use crate::server::dump::fake::FakeDumps;
use crate::store::Objects as _;
use crate::store::sqlite::SqliteStore;

const SOON: Duration = Duration::from_secs(20);

struct Api {
    _dir: TempDir,
    http: reqwest::Client,
    logs: Arc<FakeLogs>,
    shutdown: CancellationToken,
    _end: DropGuard,
}

impl Api {
    async fn start() -> Self {
        // Another test of this process may have been first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let dir = TempDir::new().unwrap();
        let socket = dir.path().join("operator.sock");
        let store = SqliteStore::open_in_memory().unwrap();
        let manifest = json!({ "apiVersion": "akash-redis.dev/v1alpha1", "kind": "RedisCluster", "metadata": { "name": "cache" }, "spec": { "nodes": 3 } });
        store.apply(serde_json::from_value(manifest).unwrap()).await.unwrap();
        let nodes = json!({ "nodes": [
            { "ordinal": 0, "incarnation": fake::CONNECTED, "phase": "Master" },
            { "ordinal": 1, "incarnation": "cache-1-b", "phase": "Silent" },
        ] });
        store.set_status("cache", &serde_json::from_value(nodes).unwrap()).await.unwrap();
        let (logs, shutdown) = (Arc::new(FakeLogs::default()), CancellationToken::new());
        tokio::spawn({
            let (socket, logs, shutdown) = (socket.clone(), logs.clone(), shutdown.clone());
            async move {
                crate::server::serve(
                    &socket,
                    store,
                    Arc::default(),
                    Arc::new(Registry::default()),
                    |_| Vec::new(),
                    Answerers {
                        logs,
                        dumps: Arc::new(FakeDumps),
                        appraiser: Arc::new(FakeAppraiser::default()),
                    },
                    shutdown,
                )
                .await
            }
        });
        let http = reqwest::Client::builder()
            .unix_socket(socket)
            .no_proxy()
            .timeout(SOON)
            .build()
            .unwrap();
        let ready = async {
            while http.get("http://operator/healthz").send().await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(SOON, ready).await.expect("the API answers");
        Self { _dir: dir, http, logs, _end: shutdown.clone().drop_guard(), shutdown }
    }

    async fn ask(&self, query: &str) -> reqwest::Response {
        self.http.get(format!("http://operator/v1alpha1/clusters/{query}")).send().await.unwrap()
    }

    async fn text(&self, query: &str) -> (u16, String) {
        let answer = self.ask(query).await;
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    /// The lines that a reader who follows will get.
    fn to_come(&self) -> mpsc::Sender<String> {
        let (lines, to_come) = mpsc::channel(8);
        *self.logs.to_come.lock().unwrap() = Some(to_come);
        lines
    }
}

#[tokio::test]
async fn a_line_is_a_line_and_the_master_is_meant() {
    let api = Api::start().await;
    let all = "agent | started\ntailscaled | two lines\nredis | colour\u{1b}[2J\n".to_owned();
    let usual = "agent | started\nredis | colour\u{1b}[2J\n".to_owned();
    assert_eq!(api.text("cache/logs").await, (200, usual), "tailscaled is asked for by its name");
    assert_eq!(api.text("cache/logs?node=0&tail=4000000000&process=all").await, (200, all));
    assert_eq!(
        api.text("cache/logs?node=cache-0-a&tail=1").await,
        (200, "redis | colour\u{1b}[2J\n".to_owned())
    );
    let tails: Vec<u32> = api.logs.asked.lock().unwrap().iter().map(|q| q.tail).collect();
    assert_eq!(tails, [DEFAULT_TAIL, MOST_TAIL, 1]);
}

#[tokio::test]
async fn a_process_an_age_and_times_may_be_asked_for() {
    use crate::model::logs::Process;
    let api = Api::start().await;
    let one = api.text("cache/logs?process=tailscaled&since=10m&timestamps=true").await;
    assert_eq!(one, (200, "tailscaled | two lines\n".to_owned()));
    let expected = LogQuery {
        tail: DEFAULT_TAIL,
        follow: false,
        processes: vec![Process::Tailscaled],
        since: Some(Duration::from_mins(10)),
        timestamps: true,
    };
    assert_eq!(*api.logs.asked.lock().unwrap(), [expected]);
    for query in ["process=nginx", "since=yesterday"] {
        assert_eq!(api.text(&format!("cache/logs?{query}")).await.0, 400, "{query}");
    }
}

#[tokio::test]
async fn a_log_that_cannot_be_read_is_one_sentence() {
    let api = Api::start().await;
    let sentence = |text: &str| {
        serde_json::from_str::<crate::server::messages::Message>(text).unwrap().message
    };
    for (query, status, says) in [
        ("cache/logs?node=1", 503, "the log of cache-1-b cannot be read (?[2J)"),
        ("cache/logs?node=7", 404, "cache has no node 7; its nodes are 0 to 2"),
        (
            "cache/logs?node=cache-9-z",
            404,
            "cache has no incarnation cache-9-z; `akash-redis describe cache` lists those there are",
        ),
    ] {
        let (code, text) = api.text(query).await;
        assert_eq!((code, sentence(&text).as_str()), (status, says));
    }
    assert_eq!(api.text("nobody/logs").await.0, 404);
}

#[tokio::test]
async fn followed_lines_come_one_by_one_and_a_reader_who_leaves_lets_go() {
    let api = Api::start().await;
    let lines = api.to_come();
    let mut answer = api.ask("cache/logs?tail=0&follow=true").await;
    for line in ["redis | first", "redis | second"] {
        lines.send(line.to_owned()).await.unwrap();
        assert_eq!(
            answer.chunk().await.unwrap().unwrap(),
            format!("{line}\n"),
            "it came before there was another"
        );
    }
    drop(answer);
    tokio::time::timeout(SOON, lines.closed()).await.expect("nobody holds the node's log any more");
}

#[tokio::test]
async fn a_followed_log_ends_with_the_node_or_the_operator() {
    let api = Api::start().await;
    let lines = api.to_come();
    let answer = api.ask("cache/logs?tail=1&follow=true").await;
    drop(lines);
    assert_eq!(answer.text().await.unwrap(), "redis | colour\u{1b}[2J\n");

    let _lines = api.to_come();
    let answer = api.ask("cache/logs?tail=1&follow=true").await;
    api.shutdown.cancel();
    assert_eq!(answer.text().await.unwrap(), "redis | colour\u{1b}[2J\n", "the answer is whole");
}
