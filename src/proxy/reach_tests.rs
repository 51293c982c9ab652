//! Whom a proxy follows: nodes with their signed word, an operator and whatever becomes of its
//! clusters; and where it sends those who only read.

use std::collections::HashMap;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinHandle;

use super::*;
use crate::announce::{PublicKey, Signed, Word as Proved};
use crate::api::endpoint::{EndpointReport, ReplicaEndpoint};
use crate::model::announcement::{Announcement, Place, Replica};
use crate::model::ports::SENTINEL_PORT;
use crate::model::time::UnixMs;
use crate::secrets::RootSecret;
use crate::sentinel::{Desk, Subscribers};

/// Nothing here takes this long unless it is broken.
const LIMIT: Duration = Duration::from_secs(20);

fn root(byte: u8) -> RootSecret {
    RootSecret::new(vec![byte; 32].into()).unwrap()
}

fn key(byte: u8) -> PublicKey {
    PublicKey::of_ca(&root(byte).ca_pem()).unwrap()
}

fn place(incarnation: &str, at: SocketAddr) -> Place {
    Place {
        incarnation: incarnation.into(),
        name: format!("{incarnation}.mesh"),
        ip: at.ip().to_string(),
        port: at.port(),
        region: None,
    }
}

fn said(epoch: u64, master: SocketAddr, replicas: &[SocketAddr]) -> Announcement {
    let replica = |(n, at): (usize, &SocketAddr)| Replica {
        place: place(&format!("cache-{n}-r"), *at),
        in_sync: true,
        lag_bytes: Some(0),
    };
    Announcement {
        installation: "i".into(),
        cluster: "cache".into(),
        uid: "u".into(),
        epoch,
        version: epoch,
        at: UnixMs(epoch),
        master: place(&format!("cache-{epoch}-m"), master),
        replicas: replicas.iter().enumerate().map(replica).collect(),
        names: false,
        changing: None,
        successor: None,
    }
}

/// A node of `cluster`, as far as it answers as Sentinel.
struct Node {
    at: SocketAddr,
    word: watch::Sender<Option<Arc<Proved>>>,
    server: JoinHandle<()>,
}

impl Node {
    async fn of(cluster: &str, at: SocketAddr) -> Self {
        let listener = TcpListener::bind(at).await.unwrap();
        let at = listener.local_addr().unwrap();
        let word = watch::Sender::new(None);
        let desk = Desk {
            word: word.subscribe(),
            users: watch::channel(Arc::default()).1,
            cluster: cluster.to_owned(),
            own: "cache-0-x".into(),
            subscribers: Subscribers::default(),
        };
        let server = tokio::spawn(crate::sentinel::serve(
            listener,
            desk,
            crate::tunnel::Exit::new(0, 0),
            CancellationToken::new(),
        ));
        Self { at, word, server }
    }

    async fn start() -> Self {
        Self::of("cache", "127.0.0.1:0".parse().unwrap()).await
    }

    /// It was told this by the operator of an installation.
    fn hears(&self, said: &Announcement, of: u8) {
        let content = serde_json::to_vec(said).unwrap();
        let signed = Signed { signature: root(of).sign_announcement(&content), content };
        self.word.send_replace(Some(Arc::new(Proved { said: said.clone(), signed })));
    }

    fn seed(&self) -> Seed {
        self.at.to_string().parse().unwrap()
    }

    async fn dies(self) {
        self.server.abort();
        let _ = self.server.await;
    }
}

/// A server that answers each `PING` with its name.
async fn backend(name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut stream = tokio::io::BufReader::new(stream);
                let mut line = String::new();
                while stream.read_line(&mut line).await? > 0 {
                    if line.contains("PING") {
                        stream.write_all(format!("+{name}\r\n").as_bytes()).await?;
                    }
                    line.clear();
                }
                std::io::Result::Ok(())
            });
        }
    });
    address
}

fn settings(dir: &Path) -> ProxySettings {
    ProxySettings {
        cluster: "cache".into(),
        operator: dir.join("operator.sock"),
        nodes: None,
        listen: "127.0.0.1:0".parse().unwrap(),
        read_listen: None,
        max_lag: None,
        socks5: None,
        master_wait: LIMIT,
        max_connections: 10,
        confirm: None,
    }
}

fn following(dir: &Path, seeds: Vec<Seed>) -> ProxySettings {
    ProxySettings { nodes: Some(Nodes { seeds, key: key(1), state: None }), ..settings(dir) }
}

struct Running {
    at: Listen,
    reads: Option<Listen>,
    task: JoinHandle<Result<(), ProxyError>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn start(settings: ProxySettings) -> Running {
    let proxy = Proxy::bind(settings).await.unwrap();
    let (at, reads) = (proxy.listen(), proxy.read_listen());
    Running { at, reads, task: tokio::spawn(proxy.run(CancellationToken::new())) }
}

impl Running {
    /// Connects until this one answers.
    async fn leads_to(&self, name: &str) {
        let mut last = String::new();
        let found = timeout(LIMIT, async {
            while last != name {
                last = greeting(&mut connect(&self.at).await).await;
            }
        });
        assert!(found.await.is_ok(), "it leads to {last} and not to {name}");
    }

    async fn fails(mut self) -> String {
        let ended = timeout(LIMIT, &mut self.task).await.expect("it goes on");
        ended.unwrap().unwrap_err().to_string()
    }
}

async fn connect(at: &Listen) -> TcpStream {
    let Listen::Tcp(address) = at else { panic!("a path") };
    TcpStream::connect(address).await.unwrap()
}

/// Who answers; empty where the connection ends.
async fn greeting(stream: &mut TcpStream) -> String {
    let _ = stream.write_all(b"PING\r\n").await;
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        match timeout(LIMIT, stream.read_u8()).await.expect("nothing came") {
            Ok(byte) => line.push(byte),
            Err(_) => return String::new(),
        }
    }
    String::from_utf8(line).unwrap().trim_start_matches('+').trim_end().to_owned()
}

async fn ends(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    let _ = timeout(LIMIT, stream.read_to_end(&mut rest)).await.expect("it is still open");
}

#[tokio::test]
async fn the_newest_word_of_any_node_counts_and_an_older_one_never() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (backend("one").await, backend("two").await);
    let (a, b) = (Node::start().await, Node::start().await);
    a.hears(&said(1, one, &[]), 1);
    let proxy = start(following(dir.path(), vec![a.seed(), b.seed()])).await;
    proxy.leads_to("one").await;
    b.hears(&said(2, two, &[]), 1);
    proxy.leads_to("two").await;
    // A node that was away comes back with what it last heard, and says it as news.
    a.hears(&Announcement { version: 900, ..said(1, one, &[]) }, 1);
    b.dies().await;
    for _ in 0..5 {
        proxy.leads_to("two").await;
    }
    // Deleted and made anew: the epoch begins again.
    let anew = Announcement { uid: "v".into(), version: 1000, ..said(1, one, &[]) };
    a.hears(&anew, 1);
    proxy.leads_to("one").await;
}

#[tokio::test]
async fn nodes_that_the_word_names_are_listened_to_as_well() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (backend("one").await, backend("two").await);
    let own = [127, 77, rand::random(), 77];
    let b = Node::of("cache", SocketAddr::from((own, SENTINEL_PORT))).await;
    let a = Node::start().await;
    let member = SocketAddr::from((own, 6379));
    a.hears(&said(1, one, &[member]), 1);
    let proxy = start(following(dir.path(), vec![a.seed()])).await;
    proxy.leads_to("one").await;
    a.dies().await;
    b.hears(&said(2, two, &[]), 1);
    proxy.leads_to("two").await;
}

#[tokio::test]
async fn what_another_installation_signed_leads_nowhere() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (Node::start().await, Node::of("queue", "127.0.0.1:0".parse().unwrap()).await);
    a.hears(&said(1, backend("false").await, &[]), 2);
    let only = start(following(dir.path(), vec![a.seed()])).await;
    let error = only.fails().await;
    assert!(error.contains("is it the right --public-key?"), "{error}");
    let both = start(following(dir.path(), vec![a.seed(), b.seed()])).await;
    let error = both.fails().await;
    assert!(error.contains("this is a node of queue"), "{error}");
}

#[tokio::test]
async fn one_good_node_among_wrong_ones_is_enough() {
    let dir = tempfile::tempdir().unwrap();
    let queue = Node::of("queue", "127.0.0.1:0".parse().unwrap()).await;
    let good = Node::start().await;
    let proxy = start(following(dir.path(), vec![queue.seed(), good.seed()])).await;
    let mut early = connect(&proxy.at).await;
    good.hears(&said(1, backend("one").await, &[]), 1);
    assert_eq!(greeting(&mut early).await, "one");
}

#[tokio::test]
async fn the_last_word_is_kept_over_a_restart_while_every_node_is_away() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start().await;
    node.hears(&said(3, backend("one").await, &[]), 1);
    let mut settings = following(dir.path(), vec![node.seed()]);
    let state = dir.path().join("word.json");
    settings.nodes.as_mut().unwrap().state = Some(state.clone());
    let first = start(settings.clone()).await;
    first.leads_to("one").await;
    drop(first);
    node.dies().await;
    start(settings.clone()).await.leads_to("one").await;
    // It is proved again: a file that somebody changed is none.
    let text = std::fs::read_to_string(&state).unwrap();
    std::fs::write(&state, text.replace("127.0.0.1", "127.0.0.2")).unwrap();
    settings.master_wait = Duration::from_millis(50);
    let proxy = start(settings).await;
    assert!(greeting(&mut connect(&proxy.at).await).await.starts_with("-LOADING no master"));
}

type Answer = watch::Sender<Option<EndpointReport>>;

/// The operator's API as far as it is asked here; `None`: there is no such cluster.
async fn endpoint(
    State(answer): State<Answer>,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    let mut word = answer.subscribe();
    let known = query.get("known");
    let news = word.wait_for(|now| now.as_ref().is_none_or(|now| Some(&now.tag) != known));
    match timeout(Duration::from_secs(2), news).await {
        Err(_) => StatusCode::NO_CONTENT.into_response(),
        Ok(now) => now.unwrap().clone().map_or_else(
            || {
                let none = serde_json::json!({ "message": "there is no RedisCluster named cache" });
                (StatusCode::NOT_FOUND, Json(none)).into_response()
            },
            |now| Json(now).into_response(),
        ),
    }
}

fn operator(dir: &Path) -> Answer {
    let answer = Answer::new(None);
    let app = axum::Router::new()
        .route("/v1alpha1/clusters/cache/endpoint", get(endpoint))
        .with_state(answer.clone());
    let listener = UnixListener::bind(dir.join("operator.sock")).unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    answer
}

fn report(uid: &str, epoch: u64, master: SocketAddr, replicas: &[SocketAddr]) -> EndpointReport {
    let replica = |(n, at): (usize, &SocketAddr)| ReplicaEndpoint {
        incarnation: format!("cache-{n}-r"),
        ip: at.ip().to_string(),
        port: at.port(),
        in_sync: true,
        ..ReplicaEndpoint::default()
    };
    let master = crate::api::status::Endpoint {
        epoch,
        incarnation: format!("cache-{epoch}-m"),
        ip: master.ip().to_string(),
        port: master.port(),
        ..crate::api::status::Endpoint::default()
    };
    let replicas = replicas.iter().enumerate().map(replica).collect();
    EndpointReport { uid: uid.into(), replicas, ..master.into() }.tagged()
}

#[tokio::test]
async fn a_cluster_that_was_deleted_and_made_anew_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (backend("one").await, backend("two").await);
    let answer = operator(dir.path());
    answer.send_replace(Some(report("a", 5, one, &[])));
    let proxy = start(settings(dir.path())).await;
    proxy.leads_to("one").await;
    answer.send_replace(None);
    answer.send_replace(Some(report("b", 1, two, &[])));
    proxy.leads_to("two").await;
    // Of one cluster an earlier epoch is not believed.
    answer.send_replace(Some(report("b", 0, one, &[])));
    proxy.leads_to("two").await;
}

#[tokio::test]
async fn a_cluster_that_does_not_exist_is_an_error_at_the_start_and_not_later() {
    let dir = tempfile::tempdir().unwrap();
    let answer = operator(dir.path());
    let error = start(settings(dir.path())).await.fails().await;
    assert_eq!(error, "there is no RedisCluster named cache");
    answer.send_replace(Some(report("a", 1, backend("one").await, &[])));
    let proxy = start(settings(dir.path())).await;
    proxy.leads_to("one").await;
    // An operator that lost its store says so too: what is known stays.
    answer.send_replace(None);
    proxy.leads_to("one").await;
}

#[tokio::test]
async fn who_cannot_be_served_is_told_so_in_redis_words() {
    let dir = tempfile::tempdir().unwrap();
    let answer = operator(dir.path());
    let nobody = tokio::net::TcpSocket::new_v4().unwrap();
    nobody.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    answer.send_replace(Some(report("a", 1, nobody.local_addr().unwrap(), &[])));
    let mut settings = settings(dir.path());
    (settings.max_connections, settings.master_wait) = (1, Duration::from_millis(300));
    let proxy = start(settings).await;
    let mut first = connect(&proxy.at).await;
    let mut second = connect(&proxy.at).await;
    assert_eq!(greeting(&mut second).await, "-ERR max number of clients reached");
    let told = greeting(&mut first).await;
    assert!(told.starts_with('-') && told.contains("no master"), "{told}");
}

#[tokio::test]
async fn reads_are_spread_over_replicas_and_follow_who_is_one() {
    let dir = tempfile::tempdir().unwrap();
    let (master, one, two) = (backend("master").await, backend("one").await, backend("two").await);
    let answer = operator(dir.path());
    answer.send_replace(Some(report("a", 1, master, &[one, two])));
    let mut settings = settings(dir.path());
    settings.read_listen = Some("127.0.0.1:0".parse().unwrap());
    let proxy = start(settings).await;
    let reads = proxy.reads.clone().unwrap();
    let mut streams = HashMap::new();
    // The first may have come before anything was known of replicas.
    for _ in 0..5 {
        let mut stream = connect(&reads).await;
        streams.insert(greeting(&mut stream).await, stream);
    }
    assert!(streams.contains_key("one") && streams.contains_key("two"), "{:?}", streams.keys());
    proxy.leads_to("master").await;
    // The second is in sync no more.
    let mut behind = report("a", 1, master, &[one, two]);
    behind.replicas[1].in_sync = false;
    answer.send_replace(Some(behind.tagged()));
    ends(streams.get_mut("two").unwrap()).await;
    let stays = streams.get_mut("one").unwrap();
    assert_eq!(greeting(stays).await, "one");
    assert_eq!(greeting(&mut connect(&reads).await).await, "one");
    // None is left: the master serves.
    answer.send_replace(Some(report("a", 1, master, &[])));
    ends(stays).await;
    assert_eq!(greeting(&mut connect(&reads).await).await, "master");
}

#[tokio::test]
async fn the_socks5_proxy_is_the_operators_unless_a_person_names_one() {
    let (named, other) = ("127.0.0.1:9".parse().unwrap(), "127.0.0.1:1055".parse().unwrap());
    let unnamed = Socks5::new(None);
    assert_eq!(unnamed.get(), None);
    unnamed.clone().found(Some("127.0.0.1:1055"));
    assert_eq!(unnamed.get(), Some(other));
    unnamed.found(None);
    assert_eq!(unnamed.get(), None);
    let person = Socks5::new(Some(named));
    person.found(Some("127.0.0.1:1055"));
    assert_eq!(person.get(), Some(named));
}

#[tokio::test]
async fn a_socket_that_another_process_put_there_meanwhile_stays() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("redis.sock");
    let settings = ProxySettings { listen: Listen::Unix(path.clone()), ..settings(dir.path()) };
    let proxy = Proxy::bind(settings).await.unwrap();
    std::fs::remove_file(&path).unwrap();
    let _theirs = UnixListener::bind(&path).unwrap();
    let stop = CancellationToken::new();
    stop.cancel();
    proxy.run(stop).await.unwrap();
    assert!(UnixStream::connect(&path).await.is_ok());
}

#[test]
fn a_node_is_an_address_or_a_name() {
    let seed = |text: &str| text.parse::<Seed>().map(|seed| seed.to_string());
    for (text, said) in [
        ("100.64.0.3", "100.64.0.3 port 26379"),
        ("100.64.0.3:26380", "100.64.0.3 port 26380"),
        (" cache-0-x7k2.Mesh.test ", "cache-0-x7k2.mesh.test port 26379"),
        ("cache-0-x7k2:7000", "cache-0-x7k2 port 7000"),
        ("fd7a:115c:a1e0::1", "fd7a:115c:a1e0::1 port 26379"),
        ("[fd7a::1]:1", "fd7a::1 port 1"),
    ] {
        assert_eq!(seed(text).as_deref(), Ok(said));
    }
    for bad in ["", "a b", "cache:0", "cache:x", "redis://cache"] {
        assert!(seed(bad).unwrap_err().contains("neither an address nor a mesh name"), "{bad}");
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("nodes");
    std::fs::write(&file, "# ours\n100.64.0.3\n\n  cache-1  \n").unwrap();
    assert_eq!(read_seeds(&file).unwrap().len(), 2);
    std::fs::write(&file, "100.64.0.3, cache-1\n").unwrap();
    assert!(read_seeds(&file).unwrap_err().contains("nodes: "));
}
