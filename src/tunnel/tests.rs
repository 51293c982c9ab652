//! Tunnels between two ends that are as in an agent and in a proxy, to a server that answers in a
//! known way.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::*;
use crate::mesh::dial::{DialError, dial};

/// Nothing here takes this long unless it is broken.
const LIMIT: Duration = Duration::from_secs(30);
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A listener whose connections are each given to a task.
fn served<F>(
    listener: TcpListener,
    each: impl Fn(TcpStream) -> F + Send + 'static,
) -> AbortOnDropHandle<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    AbortOnDropHandle::new(tokio::spawn(async move {
        let mut all = tokio::task::JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            all.spawn(each(stream));
        }
    }))
}

async fn listen() -> (TcpListener, u16) {
    let listener = TcpListener::bind((LOOPBACK, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

/// A node, and who reaches it.
struct Ends {
    tunnels: Tunnels,
    node: SocketAddr,
    dials: Arc<AtomicUsize>,
    serving: AbortOnDropHandle<()>,
}

impl Ends {
    /// Its Redis is at this port.
    async fn to(redis: u16) -> Self {
        let (listener, port) = listen().await;
        let exit = Exit::new(redis, 1000);
        let serving = served(listener, move |stream| {
            let exit = exit.clone();
            async move { exit.carry(stream).await }
        });
        Self {
            tunnels: Tunnels::default(),
            node: SocketAddr::new(LOOPBACK, port),
            dials: Arc::default(),
            serving,
        }
    }

    async fn dial(&self) -> Result<TcpStream, DialError> {
        self.dials.fetch_add(1, Ordering::Relaxed);
        dial(None, self.node.ip(), self.node.port(), LIMIT).await
    }

    async fn open(&self) -> Result<Tunnel, TunnelError> {
        timeout(LIMIT, self.tunnels.open(self.node, self.dial())).await.expect("in time")
    }
}

async fn says(tunnel: &mut Tunnel, text: &str) -> String {
    tunnel.write_all(text.as_bytes()).await.unwrap();
    let mut answer = vec![0; text.len()];
    timeout(LIMIT, tunnel.read_exact(&mut answer)).await.expect("in time").unwrap();
    String::from_utf8(answer).unwrap()
}

/// Says what was said, until that is `bye`.
async fn echo(mut stream: TcpStream) {
    let mut buffer = [0; 1024];
    while let Ok(length @ 1..) = stream.read(&mut buffer).await {
        if &buffer[..length] == b"bye" || stream.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn hundreds_are_connections_of_their_own_in_four_of_the_mesh() {
    let (listener, port) = listen().await;
    let _echo = served(listener, echo);
    let ends = Ends::to(port).await;
    let opened = (0..300).map(|_| ends.open());
    let mut all: Vec<_> =
        futures::future::join_all(opened).await.into_iter().map(Result::unwrap).collect();
    for (n, tunnel) in all.iter_mut().enumerate() {
        let text = format!("it is {n}");
        assert_eq!(says(tunnel, &text).await, text);
    }
    assert_eq!(ends.dials.load(Ordering::Relaxed), 4);

    let mut first = all.remove(0);
    first.write_all(b"bye").await.unwrap();
    let end = timeout(LIMIT, first.read(&mut [0; 8])).await.expect("in time");
    assert!(matches!(end, Ok(0)), "redis closed it: {end:?}");
    for tunnel in &mut all {
        assert_eq!(says(tunnel, "on").await, "on", "the others go on");
    }
}

#[tokio::test]
async fn what_is_closed_here_is_closed_there() {
    let (listener, port) = listen().await;
    let open = Arc::new(AtomicUsize::new(0));
    let count = open.clone();
    let _server = served(listener, move |stream| {
        let count = count.clone();
        async move {
            count.fetch_add(1, Ordering::Relaxed);
            echo(stream).await;
            count.fetch_sub(1, Ordering::Relaxed);
        }
    });
    let ends = Ends::to(port).await;
    let mut all = Vec::new();
    for _ in 0..200 {
        let mut tunnel = ends.open().await.unwrap();
        says(&mut tunnel, "here").await;
        all.push(tunnel);
    }
    let mut last = all.pop().unwrap();
    drop(all);
    let closed = async {
        while open.load(Ordering::Relaxed) > 1 {
            tokio::task::yield_now().await;
        }
    };
    timeout(LIMIT, closed).await.expect("all but one end");
    assert_eq!(says(&mut last, "and go on").await, "and go on");
    assert_eq!(says(&mut ends.open().await.unwrap(), "another").await, "another");
    assert_eq!(ends.dials.load(Ordering::Relaxed), 4, "no connection ended for it");
}

#[tokio::test]
async fn one_that_takes_nothing_holds_up_no_other() {
    let (listener, port) = listen().await;
    let _server = served(listener, |mut stream| async move {
        let mut first = [0; 1];
        let _ = stream.read_exact(&mut first).await;
        if first == *b"l" {
            // More than anything on the way takes.
            let _ = stream.write_all(&vec![b'x'; 64 << 20]).await;
        }
        let _ = stream.write_all(b"o").await;
        echo(stream).await;
    });
    let ends = Ends::to(port).await;
    let mut slow = Vec::new();
    for _ in 0..8 {
        let mut tunnel = ends.open().await.unwrap();
        tunnel.write_all(b"l").await.unwrap();
        slow.push(tunnel);
    }
    for _ in 0..8 {
        assert_eq!(says(&mut ends.open().await.unwrap(), "s").await, "o");
    }
}

#[tokio::test]
async fn a_redis_that_takes_no_connection_is_not_said_to_be_an_old_node() {
    let (listener, port) = listen().await;
    drop(listener);
    let ends = Ends::to(port).await;
    let refused = ends.open().await.expect_err("nobody listens");
    assert_eq!(refused.to_string(), "the node takes no further connection (502 Bad Gateway)");
    assert!(ends.tunnels.is_offered(ends.node));
}

#[tokio::test]
async fn an_agent_has_no_more_streams_than_it_has_room_for() {
    let (listener, port) = listen().await;
    let _echo = served(listener, echo);
    let (node, at) = listen().await;
    let exit = Exit::new(port, 2);
    let _node = served(node, move |stream| {
        let exit = exit.clone();
        async move { exit.carry(stream).await }
    });
    let (tunnels, node) = (Tunnels::default(), SocketAddr::new(LOOPBACK, at));
    let open = || tunnels.open(node, dial(None, LOOPBACK, at, LIMIT));
    let (first, mut second) = (open().await.unwrap(), open().await.unwrap());
    assert_eq!(says(&mut second, "in").await, "in");
    let refused = open().await.expect_err("it is full");
    assert!(refused.to_string().contains("503"), "{refused}");
    assert!(tunnels.is_offered(node), "it is no older one for that");
    drop(first);
    let again = async {
        loop {
            if let Ok(mut tunnel) = open().await {
                break says(&mut tunnel, "again").await;
            }
        }
    };
    assert_eq!(timeout(LIMIT, again).await.expect("in time"), "again");
}

#[tokio::test]
async fn a_node_that_knows_no_tunnels_is_not_asked_again_and_again() {
    let (listener, port) = listen().await;
    let _older = served(listener, |mut stream| async move {
        let _ = stream.read(&mut [0; 64]).await;
        let _ = stream.write_all(b"-ERR unknown command 'PRI'\r\n").await;
        echo(stream).await;
    });
    let node = SocketAddr::new(LOOPBACK, port);
    let tunnels = Tunnels::default();
    assert!(tunnels.is_offered(node));
    let opened = tunnels.open(node, dial(None, LOOPBACK, port, LIMIT));
    assert!(timeout(LIMIT, opened).await.expect("in time").is_err());
    assert!(!tunnels.is_offered(node));
}

#[tokio::test]
async fn a_connection_that_ends_is_made_anew() {
    let (redis, port) = listen().await;
    let _echo = served(redis, echo);
    let mut ends = Ends::to(port).await;
    let mut before = ends.open().await.unwrap();
    says(&mut before, "before").await;
    // The agent is another one.
    drop(ends.serving);
    let end = timeout(LIMIT, before.read(&mut [0; 8])).await.expect("in time");
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    let listener = TcpListener::bind(ends.node).await.unwrap();
    let exit = Exit::new(port, 1000);
    ends.serving = served(listener, move |stream| {
        let exit = exit.clone();
        async move { exit.carry(stream).await }
    });
    let again = async {
        loop {
            if let Ok(mut tunnel) = ends.open().await {
                break says(&mut tunnel, "after").await;
            }
            assert!(ends.tunnels.is_offered(ends.node), "it took some before");
        }
    };
    assert_eq!(timeout(LIMIT, again).await.expect("in time"), "after");
}

#[tokio::test]
async fn nothing_but_redis_of_the_node_is_reached() {
    let (listener, port) = listen().await;
    let _echo = served(listener, echo);
    let ends = Ends::to(port).await;
    let stream = ends.dial().await.unwrap();
    let executor = hyper_util::rt::TokioExecutor::new();
    let io = hyper_util::rt::TokioIo::new(stream);
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake::<_, _, String>(executor, io).await.unwrap();
    let _connection = AbortOnDropHandle::new(tokio::spawn(async move { drop(connection.await) }));
    for (method, uri) in [
        ("CONNECT", format!("127.0.0.1:{port}")),
        ("CONNECT", "redis:9700".to_owned()),
        ("GET", "http://redis:6379/".to_owned()),
    ] {
        let request = http::Request::builder().method(method).uri(&uri).body(String::new());
        let answer = sender.send_request(request.unwrap()).await.unwrap();
        assert_eq!(answer.status(), 404, "{method} {uri}");
    }
}
