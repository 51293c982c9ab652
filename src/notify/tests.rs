//! Delivery over real HTTP, to a receiver that makes faults, from a real store.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use prometheus_client::registry::Registry;
use strum::IntoEnumIterator as _;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::store::sqlite::SqliteStore;
use crate::store::{Event, Events as _, Leadership as _, Notices as _, Store, StoreError};

const SECRET: &[u8] = b"0123456789abcdef";
const LIMIT: Duration = Duration::from_mins(1);

/// How a receiver answers.
#[derive(Clone, Copy, Debug)]
enum Answer {
    Ok,
    Status(u16),
    /// 429 with the pause that it asks for, seconds.
    Later(u64),
    Redirect,
    /// It never answers.
    Hangs,
    /// The connection ends before the answer.
    Cut,
    /// It answers more than anybody wants to read.
    Endless,
}

/// What arrived.
#[derive(Clone, Debug)]
struct Arrived {
    headers: HeaderMap,
    body: Vec<u8>,
    path: String,
}

impl Arrived {
    fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn message(&self) -> String {
        self.json()["message"].as_str().unwrap().to_owned()
    }

    fn header(&self, name: &str) -> String {
        self.headers[name].to_str().unwrap().to_owned()
    }
}

#[derive(Default)]
struct Shared {
    script: Mutex<VecDeque<Answer>>,
    arrived: Mutex<Vec<Arrived>>,
}

/// A receiver; after its script it takes everything.
struct Receiver {
    address: SocketAddr,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Receiver {
    async fn start(script: &[Answer]) -> Self {
        // Another test of this process may have been first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let shared = Arc::new(Shared::default());
        shared.script.lock().unwrap().extend(script);
        let router = Router::new().fallback(receive).with_state(shared.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, shared, server }
    }

    fn target(&self, path: &str, format: NotifyFormat) -> NotifyTarget {
        NotifyTarget {
            webhook: format!("http://{}/{path}", self.address).into(),
            secret: Some(SECRET.to_vec().into()),
            format,
            events: NotificationKind::iter().collect(),
        }
    }

    fn arrived(&self) -> Vec<Arrived> {
        self.shared.arrived.lock().unwrap().clone()
    }

    fn messages(&self) -> Vec<String> {
        self.arrived().iter().map(Arrived::message).collect()
    }

    async fn until_arrived(&self, count: usize) {
        until(|| self.arrived().len() >= count).await;
    }
}

async fn receive(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let path = uri.path().to_owned();
    assert_ne!(path, "/elsewhere", "a redirect was followed");
    shared.arrived.lock().unwrap().push(Arrived { headers, body: body.to_vec(), path });
    let answer = shared.script.lock().unwrap().pop_front().unwrap_or(Answer::Ok);
    match answer {
        Answer::Ok => StatusCode::NO_CONTENT.into_response(),
        Answer::Status(code) => StatusCode::from_u16(code).unwrap().into_response(),
        Answer::Later(after) => {
            let after = [(header::RETRY_AFTER, after.to_string())];
            (StatusCode::TOO_MANY_REQUESTS, after).into_response()
        }
        Answer::Redirect => (StatusCode::FOUND, [(header::LOCATION, "/elsewhere")]).into_response(),
        Answer::Hangs => std::future::pending().await,
        // The handler's end without an answer closes the connection.
        Answer::Cut => panic!("the connection is cut, as it was to be"),
        Answer::Endless => {
            let bytes = futures::stream::repeat_with(|| Ok::<_, std::io::Error>(vec![b'x'; 1024]));
            axum::body::Body::from_stream(bytes).into_response()
        }
    }
}

async fn until(mut holds: impl FnMut() -> bool) {
    let looks = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LIMIT, looks).await.expect("it comes about");
}

/// As in a running operator, in a hurry; but an answer that is only slow is waited for.
fn pace() -> Pace {
    Pace {
        time_out: Duration::from_secs(10),
        pauses: Backoff { first: Duration::from_millis(10), longest: Duration::from_millis(40) },
        ..Pace::default()
    }
}

/// An operator as far as it tells people.
struct Operator {
    store: Arc<SqliteStore>,
    registry: Registry,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Operator {
    async fn start(dir: &Path, targets: &[NotifyTarget], pace: Pace) -> Self {
        // A process before may be about to let go of it.
        let opened = async {
            loop {
                match SqliteStore::open(&dir.join("store.db")) {
                    Err(StoreError::Locked { .. }) => {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                    opened => break opened.unwrap(),
                }
            }
        };
        let store = tokio::time::timeout(LIMIT, opened).await.expect("it is let go");
        store.take_over().await.unwrap();
        let targets = Targets::new(targets, "abcdef", pace).unwrap();
        store.tell(targets.rule());
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        let shared: Arc<dyn Store> = store.clone();
        let delivery = Delivery { targets, store: shared, pace, metrics };
        let stop = CancellationToken::new();
        let task = tokio::spawn(delivery.run(stop.clone()));
        Self { store, registry, stop, task }
    }

    async fn happens(&self, messages: &[&str]) {
        let event = |message: &&str| Event::new(UnixMs::now(), "cache", "NodeLost", *message);
        self.store.add_events(&messages.iter().map(event).collect::<Vec<_>>()).await.unwrap();
    }

    fn metric(&self, name: &str) -> u64 {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        let begin = format!("akash_redis_notifications_{name}");
        let lines = text.lines().filter(|line| line.starts_with(&begin));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
    }

    /// As by a crash: nothing is finished.
    async fn die(self) {
        self.task.abort();
        let _ = self.task.await;
    }

    async fn end(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

#[tokio::test]
async fn a_message_is_signed_and_comes_once_in_its_order() {
    let (receiver, dir) = (Receiver::start(&[]).await, TempDir::new().unwrap());
    let target = receiver.target("hook", NotifyFormat::Json);
    let operator = Operator::start(dir.path(), &[target], pace()).await;
    operator.happens(&["one", "two", "three"]).await;
    operator.happens(&["one"]).await;
    let other = Event::new(UnixMs::now(), "cache", "EffectFailed", "nobody is told");
    operator.store.add_events(&[other]).await.unwrap();
    operator.happens(&["four"]).await;
    until(|| operator.metric("sent") == 4).await;
    assert_eq!(receiver.messages(), ["one", "two", "three", "four"], "alike is told once");
    for arrived in receiver.arrived() {
        let said = arrived.header("akash-redis-signature");
        let unix = said.split(',').next().unwrap().strip_prefix("t=").unwrap().parse().unwrap();
        assert_eq!(said, signature::signature(SECRET, unix, &arrived.body));
        assert!(UnixMs::now().since(UnixMs(unix * 1000)) < LIMIT, "it is fresh");
        assert_eq!(arrived.json()["id"], arrived.header("akash-redis-id"));
        assert_eq!(arrived.path, "/hook");
    }
    operator.end().await;
}

#[tokio::test]
async fn what_fails_is_tried_again_under_the_same_id() {
    let script = [
        Answer::Status(500),
        Answer::Cut,
        Answer::Hangs,
        Answer::Redirect,
        Answer::Status(404),
        Answer::Later(0),
        Answer::Endless,
    ];
    let (receiver, dir) = (Receiver::start(&script).await, TempDir::new().unwrap());
    let target = receiver.target("hook", NotifyFormat::Json);
    let operator = Operator::start(dir.path(), &[target], pace()).await;
    operator.happens(&["one", "two"]).await;
    until(|| operator.metric("sent") == 2).await;
    let arrived = receiver.arrived();
    let (first, last) = arrived.split_at(arrived.len() - 1);
    let id = arrived[0].header("akash-redis-id");
    assert!(first.iter().all(|one| one.header("akash-redis-id") == id && one.message() == "one"));
    assert_eq!(first.len(), script.len(), "an answer that does not end is an answer");
    assert_eq!(last[0].message(), "two");
    assert_ne!(last[0].header("akash-redis-id"), id);
    assert_eq!((operator.metric("failed"), operator.metric("dropped")), (6, 0));
    operator.end().await;
}

#[tokio::test]
async fn the_pause_that_is_asked_for_is_kept() {
    let asked = Duration::from_secs(1);
    let script = [Answer::Later(asked.as_secs())];
    let (receiver, dir) = (Receiver::start(&script).await, TempDir::new().unwrap());
    let target = receiver.target("hook", NotifyFormat::Json);
    let operator = Operator::start(dir.path(), &[target], pace()).await;
    let began = std::time::Instant::now();
    operator.happens(&["one"]).await;
    until(|| operator.metric("sent") == 1).await;
    assert!(began.elapsed() >= asked);
    operator.end().await;
}

#[tokio::test]
async fn a_message_that_is_refused_for_what_it_is_makes_room_for_the_next() {
    let script = [Answer::Status(400), Answer::Status(413), Answer::Status(422)];
    let (receiver, dir) = (Receiver::start(&script).await, TempDir::new().unwrap());
    let target = receiver.target("hook", NotifyFormat::Json);
    let operator = Operator::start(dir.path(), &[target], pace()).await;
    operator.happens(&["bad", "good"]).await;
    until(|| operator.metric("sent") == 1).await;
    assert_eq!(receiver.messages(), ["bad", "bad", "bad", "good"]);
    assert_eq!(operator.metric("dropped"), 1);
    until(|| operator.metric("queued") == 0).await;
    operator.end().await;
}

#[tokio::test]
async fn a_target_that_is_away_holds_up_nobody_and_its_queue_is_bounded() {
    let (dead, alive) = (Receiver::start(&[Answer::Hangs; 8]).await, Receiver::start(&[]).await);
    let dir = TempDir::new().unwrap();
    let targets = [dead.target("x", NotifyFormat::Json), alive.target("y", NotifyFormat::Json)];
    let pace = Pace { most: 3, time_out: LIMIT, ..pace() };
    let operator = Operator::start(dir.path(), &targets, pace).await;
    operator.happens(&["0"]).await;
    dead.until_arrived(1).await;
    let many: Vec<String> = (1..10).map(|n| n.to_string()).collect();
    for one in &many {
        operator.happens(&[one.as_str()]).await;
        // The living one keeps up; the other one stands still.
        until(|| alive.messages().last() == Some(one)).await;
    }
    assert_eq!(alive.arrived().len(), 10);
    assert_eq!(dead.arrived().len(), 1);
    operator.die().await;
    // The next process cuts the queue down to the newest.
    let operator = Operator::start(dir.path(), &targets, Pace { most: 3, ..self::pace() }).await;
    until(|| operator.metric("dropped") == 7).await;
    operator.die().await;
}

#[tokio::test]
async fn what_is_too_old_is_told_to_nobody() {
    let (receiver, dir) = (Receiver::start(&[]).await, TempDir::new().unwrap());
    let target = receiver.target("hook", NotifyFormat::Json);
    let operator = Operator::start(dir.path(), &[target], pace()).await;
    let old = UnixMs(UnixMs::now().0 - 25 * 3600 * 1000);
    let event = Event::new(old, "cache", "NodeLost", "long ago");
    operator.store.add_events(&[event]).await.unwrap();
    operator.happens(&["now"]).await;
    until(|| operator.metric("sent") == 1).await;
    assert_eq!((receiver.messages(), operator.metric("dropped")), (vec!["now".to_owned()], 1));
    operator.end().await;
}

#[tokio::test]
async fn a_crash_before_the_message_was_sent_loses_nothing() {
    let (receiver, dir) = (Receiver::start(&[]).await, TempDir::new().unwrap());
    let targets = [receiver.target("hook", NotifyFormat::Json)];
    // Written by an operator that dies before anything is sent.
    {
        let store = SqliteStore::open(&dir.path().join("store.db")).unwrap();
        store.take_over().await.unwrap();
        store.tell(Targets::new(&targets, "abcdef", pace()).unwrap().rule());
        let event = Event::new(UnixMs::now(), "cache", "NodeLost", "one");
        store.add_events(&[event]).await.unwrap();
    }
    let operator = Operator::start(dir.path(), &targets, pace()).await;
    until(|| operator.metric("sent") == 1).await;
    assert_eq!(receiver.messages(), ["one"]);
    operator.end().await;
}

#[tokio::test]
async fn a_crash_before_it_was_forgotten_sends_it_again_under_the_same_id() {
    // Taken by the receiver, whose answer the operator never sees.
    let (receiver, dir) = (Receiver::start(&[Answer::Hangs]).await, TempDir::new().unwrap());
    let targets = [receiver.target("hook", NotifyFormat::Json)];
    let patient = Pace { time_out: LIMIT, ..pace() };
    let operator = Operator::start(dir.path(), &targets, patient).await;
    operator.happens(&["one"]).await;
    receiver.until_arrived(1).await;
    operator.die().await;
    let operator = Operator::start(dir.path(), &targets, pace()).await;
    operator.happens(&["two"]).await;
    until(|| operator.metric("sent") == 2).await;
    let arrived = receiver.arrived();
    assert_eq!(receiver.messages(), ["one", "one", "two"]);
    assert_eq!(arrived[0].header("akash-redis-id"), arrived[1].header("akash-redis-id"));
    assert_eq!(arrived[0].body, arrived[1].body);
    operator.end().await;
    // And what was delivered is not sent again by the next one.
    let operator = Operator::start(dir.path(), &targets, pace()).await;
    operator.happens(&["three"]).await;
    until(|| operator.metric("sent") == 1).await;
    assert_eq!(receiver.messages(), ["one", "one", "two", "three"]);
    operator.end().await;
}

#[tokio::test]
async fn whoever_was_superseded_tells_nobody() {
    let (receiver, dir) = (Receiver::start(&[]).await, TempDir::new().unwrap());
    let targets = [receiver.target("hook", NotifyFormat::Json)];
    let operator = Operator::start(dir.path(), &targets, pace()).await;
    let later = operator.store.as_another_operator();
    later.take_over().await.unwrap();
    let event = Event::new(UnixMs::now(), "cache", "NodeLost", "one");
    later.add_events(&[event]).await.unwrap();
    let Operator { task, .. } = operator;
    tokio::time::timeout(LIMIT, task).await.expect("it ends by itself").unwrap();
    assert!(receiver.arrived().is_empty());
}

#[tokio::test]
async fn each_target_gets_its_kinds_in_its_format() {
    let (receiver, dir) = (Receiver::start(&[]).await, TempDir::new().unwrap());
    let only = |kind| std::collections::BTreeSet::from([kind]);
    let targets = [
        NotifyTarget {
            events: only(NotificationKind::NodeLost),
            ..receiver.target("slack", NotifyFormat::Slack)
        },
        NotifyTarget {
            events: only(NotificationKind::DataLost),
            secret: None,
            ..receiver.target("ntfy", NotifyFormat::Ntfy)
        },
    ];
    let operator = Operator::start(dir.path(), &targets, pace()).await;
    operator.happens(&["one"]).await;
    let lost = Event::new(UnixMs::now(), "cache", "DataLost", "all");
    operator.store.add_events(&[lost]).await.unwrap();
    until(|| operator.metric("sent") == 2).await;
    let arrived = receiver.arrived();
    let of = |path: &str| arrived.iter().find(|one| one.path == path).unwrap();
    assert_eq!(of("/slack").json(), serde_json::json!({ "text": "*cache: NodeLost*\none" }));
    assert_eq!(of("/ntfy").body, b"all");
    assert_eq!(
        (of("/ntfy").header("title"), of("/ntfy").header("priority")),
        ("cache: DataLost".into(), "5".into())
    );
    assert!(!of("/ntfy").headers.contains_key("akash-redis-signature"));
    operator.end().await;
}

#[tokio::test]
async fn a_test_and_a_probe_say_what_each_target_answers_and_no_token() {
    let receiver = Receiver::start(&[Answer::Status(204), Answer::Status(403)]).await;
    let gone = {
        let gone = Receiver::start(&[]).await;
        gone.address
    };
    let mut dead = receiver.target("x", NotifyFormat::Json);
    dead.webhook = format!("http://{gone}/hush-token").into();
    let settings = [receiver.target("hush-token", NotifyFormat::Json), dead];
    let targets = Targets::new(&settings, "abcdef", pace()).unwrap();
    let probed = targets.probe().await;
    assert!(probed[0].1.as_ref().unwrap().contains("204"), "{probed:?}");
    assert!(probed[1].1.as_ref().unwrap_err().contains("cannot be reached"), "{probed:?}");
    let seen = receiver.arrived();
    assert!(seen[0].body.is_empty(), "a probe tells nothing");
    let tested = targets.test().await;
    assert!(tested[0].1.as_ref().unwrap_err().contains("403"), "{tested:?}");
    assert!(tested[1].1.as_ref().unwrap_err().contains("no answer came"), "{tested:?}");
    assert_eq!(receiver.arrived()[1].json()["kind"], "Test");
    let shown = format!("{probed:?} {tested:?} {targets:?}");
    assert!(!shown.contains("hush"), "{shown}");
}
