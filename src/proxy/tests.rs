use std::collections::HashMap;
use std::path::Path;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::*;
use crate::api::status::Endpoint;

/// Nothing here takes this long unless it is broken.
const LIMIT: Duration = Duration::from_secs(20);

type StatusCache = watch::Sender<Option<Endpoint>>;

/// The operator's API, as far as a proxy uses it.
async fn endpoint(
    State(status_cache): State<StatusCache>,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    let after: Option<u64> = query.get("after_epoch").map(|text| text.parse().unwrap());
    assert_eq!(query["wait_s"], "30");
    let mut word = status_cache.subscribe();
    let news = word.wait_for(|now| {
        now.as_ref().is_some_and(|endpoint| after.is_none_or(|after| endpoint.epoch > after))
    });
    match timeout(Duration::from_secs(30), news).await {
        Ok(Ok(endpoint)) => Json(endpoint.clone()).into_response(),
        _ => StatusCode::NO_CONTENT.into_response(),
    }
}

struct Operator {
    status_cache: StatusCache,
    server: tokio::task::JoinHandle<std::io::Result<()>>,
}

fn operator(socket: &Path) -> Operator {
    let (status_cache, _) = watch::channel(None);
    let app = axum::Router::new()
        .route("/v1alpha1/clusters/cache/endpoint", get(endpoint))
        .with_state(status_cache.clone());
    let listener = UnixListener::bind(socket).unwrap();
    Operator { status_cache, server: tokio::spawn(async move { axum::serve(listener, app).await }) }
}

impl Operator {
    fn says(&self, epoch: u64, at: SocketAddr) {
        self.status_cache.send_replace(Some(Endpoint {
            epoch,
            ip: at.ip().to_string(),
            port: at.port(),
            ..Endpoint::default()
        }));
    }
}

/// A server that answers each request with its name.
async fn backend(name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut scanner, mut bytes) = (resp::Scanner::default(), [0; 1024]);
                loop {
                    let read = stream.read(&mut bytes).await?;
                    let mut left = &bytes[..read];
                    while !left.is_empty() {
                        let (taken, ends) = scanner.take(left).expect("a request");
                        left = &left[taken..];
                        if ends {
                            stream.write_all(format!("+{name}\r\n").as_bytes()).await?;
                        }
                    }
                    if read == 0 {
                        return std::io::Result::Ok(());
                    }
                }
            });
        }
    });
    address
}

struct Running {
    at: Listen,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<Result<(), ProxyError>>,
    dir: tempfile::TempDir,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// A proxy, and the operator that it follows.
async fn proxy(change: impl FnOnce(&mut ProxySettings)) -> (Running, Operator) {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("operator.sock");
    let operator = operator(&socket);
    let mut settings = ProxySettings {
        cluster: "cache".to_owned(),
        operator: socket,
        listen: "127.0.0.1:0".parse().unwrap(),
        nodes: None,
        read_listen: None,
        max_lag: None,
        socks5: None,
        master_wait: LIMIT,
        max_connections: 10,
        confirm: None,
    };
    change(&mut settings);
    if let Listen::Unix(path) = &mut settings.listen {
        *path = dir.path().join(&*path);
    }
    let proxy = Proxy::bind(settings).await.unwrap();
    let (at, stop) = (proxy.listen(), CancellationToken::new());
    let task = tokio::spawn(proxy.run(stop.clone()));
    (Running { at, stop, task, dir }, operator)
}

impl Running {
    async fn connect(&self) -> TcpStream {
        let Listen::Tcp(address) = self.at else { panic!("a unix socket") };
        TcpStream::connect(address).await.unwrap()
    }
}

async fn reads(stream: &mut (impl AsyncRead + Unpin), text: &str) {
    let mut seen = vec![0; text.len()];
    timeout(LIMIT, stream.read_exact(&mut seen))
        .await
        .expect("nothing came")
        .expect("the connection ended");
    assert_eq!(String::from_utf8(seen).unwrap(), text);
}

/// Asks whoever is master now for its name.
async fn asks(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), name: &str) {
    stream.write_all(b"PING\r\n").await.unwrap();
    reads(stream, &format!("+{name}\r\n")).await;
}

async fn ends(stream: &mut (impl AsyncRead + Unpin)) {
    let read =
        timeout(LIMIT, stream.read(&mut [0; 1])).await.expect("the connection is still open");
    assert!(matches!(read, Ok(0) | Err(_)), "bytes came instead of the end");
}

#[tokio::test]
async fn connections_go_to_the_master_and_go_on_at_the_next() {
    let (proxy, operator) = proxy(|_| {}).await;
    operator.says(1, backend("one").await);
    let mut old = proxy.connect().await;
    asks(&mut old, "one").await;

    operator.says(2, backend("two").await);
    // The word takes a moment; what is asked before is asked of the old one.
    let moved = async {
        let mut seen = String::new();
        while seen != "+two\r\n" {
            let mut answer = [0; 6];
            old.write_all(b"PING\r\n").await.unwrap();
            old.read_exact(&mut answer).await.unwrap();
            seen = String::from_utf8_lossy(&answer).into_owned();
        }
    };
    timeout(LIMIT, moved).await.expect("it goes on at the next master");
    asks(&mut proxy.connect().await, "two").await;
}

#[tokio::test]
async fn a_new_connection_waits_for_a_master() {
    let (proxy, operator) = proxy(|_| {}).await;
    let mut early = proxy.connect().await;
    early.write_all(b"PING\r\n").await.unwrap();
    operator.says(1, backend("one").await);
    reads(&mut early, "+one\r\n").await;
}

#[tokio::test]
async fn a_master_that_is_down_is_waited_for_too() {
    let (proxy, operator) = proxy(|_| {}).await;
    // Bound and not listening: nobody else gets the port, and connections are refused.
    let nobody = tokio::net::TcpSocket::new_v4().unwrap();
    nobody.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    operator.says(1, nobody.local_addr().unwrap());
    let mut early = proxy.connect().await;
    operator.says(2, backend("two").await);
    asks(&mut early, "two").await;
}

#[tokio::test]
async fn without_a_master_in_time_a_client_is_told_so_and_may_ask_again() {
    let (proxy, operator) =
        proxy(|settings| settings.master_wait = Duration::from_millis(50)).await;
    let mut early = proxy.connect().await;
    early.write_all(b"SET k v\r\nGET k\r\n").await.unwrap();
    let error = String::from_utf8(flight::no_master(0)).unwrap();
    reads(&mut early, &format!("{error}{error}")).await;
    operator.says(1, backend("one").await);
    let told = async {
        let mut seen = vec![0; 6];
        loop {
            early.write_all(b"PING\r\n").await.unwrap();
            early.read_exact(&mut seen).await.unwrap();
            if seen == b"+one\r\n" {
                return;
            }
            assert_eq!(seen, error.as_bytes()[..6]);
            early.read_exact(&mut vec![0; error.len() - 6]).await.unwrap();
        }
    };
    timeout(LIMIT, told).await.expect("it gets to the master");
}

#[tokio::test]
async fn without_the_operator_the_last_master_counts() {
    let (proxy, operator) = proxy(|_| {}).await;
    operator.says(1, backend("one").await);
    let mut old = proxy.connect().await;
    asks(&mut old, "one").await;
    operator.server.abort();
    let _ = operator.server.await;
    std::fs::remove_file(proxy.dir.path().join("operator.sock")).unwrap();
    asks(&mut proxy.connect().await, "one").await;
    asks(&mut old, "one").await;
}

#[tokio::test]
async fn too_many_connections_are_refused_and_places_come_back() {
    let (proxy, operator) = proxy(|settings| settings.max_connections = 1).await;
    operator.says(1, backend("one").await);
    let mut first = proxy.connect().await;
    asks(&mut first, "one").await;
    reads(&mut proxy.connect().await, "-ERR max number of clients reached\r\n").await;
    first.shutdown().await.unwrap();
    ends(&mut first).await;
    // The place is free a moment after the client saw the end.
    let again = async {
        loop {
            let (mut stream, mut seen) = (proxy.connect().await, [0; 6]);
            if stream.write_all(b"PING\r\n").await.is_ok()
                && stream.read_exact(&mut seen).await.is_ok()
                && seen[0] == b'+'
            {
                return seen;
            }
        }
    };
    assert_eq!(&timeout(LIMIT, again).await.unwrap(), b"+one\r\n");
}

#[tokio::test]
async fn a_unix_socket_serves_as_well_and_is_removed_at_the_end() {
    let (mut proxy, operator) =
        proxy(|settings| settings.listen = "./redis.sock".parse().unwrap()).await;
    operator.says(1, backend("one").await);
    let Listen::Unix(path) = proxy.at.clone() else { panic!("not a path") };
    let mut stream = UnixStream::connect(&path).await.unwrap();
    asks(&mut stream, "one").await;
    proxy.stop.cancel();
    ends(&mut stream).await;
    timeout(LIMIT, &mut proxy.task).await.unwrap().unwrap().unwrap();
    assert!(!path.exists());
}

#[tokio::test]
async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("redis.sock");
    drop(UnixListener::bind(&path).unwrap());
    let settings = ProxySettings {
        cluster: "cache".to_owned(),
        operator: dir.path().join("none"),
        listen: Listen::Unix(path),
        nodes: None,
        read_listen: None,
        max_lag: None,
        socks5: None,
        master_wait: LIMIT,
        max_connections: 1,
        confirm: None,
    };
    let _first = Proxy::bind(settings.clone()).await.unwrap();
    let error = Proxy::bind(settings).await.unwrap_err();
    assert!(error.to_string().contains("redis.sock"), "{error}");
}

#[tokio::test]
async fn a_file_that_is_no_socket_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (file, link) = (dir.path().join("notes"), dir.path().join("link"));
    let dead = dir.path().join("dead.sock");
    std::fs::write(&file, "mine").unwrap();
    drop(UnixListener::bind(&dead).unwrap());
    std::os::unix::fs::symlink(&dead, &link).unwrap();
    for path in [&file, &link] {
        let settings = ProxySettings {
            cluster: "cache".to_owned(),
            operator: dir.path().join("none"),
            listen: Listen::Unix(path.clone()),
            nodes: None,
            read_listen: None,
            max_lag: None,
            socks5: None,
            master_wait: LIMIT,
            max_connections: 1,
            confirm: None,
        };
        let error = Proxy::bind(settings).await.unwrap_err();
        assert!(error.to_string().contains("cannot listen on"), "{error}");
    }
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
    assert!(std::fs::symlink_metadata(&link).is_ok() && dead.exists());
}

#[test]
fn a_place_to_listen_is_an_address_or_a_path() {
    assert_eq!("127.0.0.1:6379".parse(), Ok(Listen::Tcp("127.0.0.1:6379".parse().unwrap())));
    assert_eq!("/run/redis.sock".parse(), Ok(Listen::Unix("/run/redis.sock".into())));
    assert!("6379".parse::<Listen>().is_err());
}
