//! Against real redis-servers: a master and a replica.

use rustix::process::Signal;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::*;
use crate::proxy::servers::{Servers, exchange};

struct Pair(Servers);

async fn pair() -> Pair {
    Pair(Servers::start().await)
}

impl Pair {
    /// A connection whose writes the replica must have within this.
    async fn connect(&self, ms: u64) -> TcpStream {
        let confirm = Confirm { replicas: 1, timeout: Duration::from_millis(ms) };
        self.0.connect(Some(confirm)).await.stream
    }

    fn without_replica(&self) {
        self.0.nodes[1].signal(Signal::STOP);
    }
}

fn request(words: &[&str]) -> String {
    let head = format!("*{}\r\n", words.len());
    words.iter().fold(head, |all, w| all + &format!("${}\r\n{w}\r\n", w.len()))
}

/// What an application may send, in one piece or byte by byte, is answered as redis answers it.
#[tokio::test]
async fn confirmed_commands_are_answered_as_by_redis_itself() {
    let pair = pair().await;
    let long = "x".repeat(200_000);
    let requests = [
        request(&["HELLO", "3"]),
        request(&["FLUSHALL"]),
        request(&["SET", "k", &long]),
        request(&["APPEND", "k", "y"]),
        request(&["GET", "k"]),
        "set typed by-hand\r\n".into(),
        "\r\n".into(),
        request(&["MULTI"]),
        request(&["INCR", "n"]),
        request(&["LPUSH", "n", "x"]),
        request(&["EXEC"]),
        request(&["MULTI"]),
        request(&["SET", "k", "never"]),
        request(&["DISCARD"]),
        request(&["HSET", "h", "a", "1", "b", "2"]),
        request(&["HGETALL", "h"]),
        request(&["LPUSH", "list", "a"]),
        request(&["BLPOP", "list", "1"]),
        request(&["INCR", "h"]),
        request(&["NOSUCH"]),
        request(&["WAIT", "0"]),
        request(&["EVAL", "return redis.call('set', 'e', '1')", "0"]),
        request(&["PING"]),
    ]
    .concat();
    let end = request(&["ECHO", "the end"]);
    let all = format!("{requests}{end}");
    let mut straight = pair.0.nodes[0].dial().await.unwrap();
    let mut wanted = String::new();
    straight.write_all(all.as_bytes()).await.unwrap();
    while !wanted.ends_with("the end\r\n") {
        wanted += &exchange(&mut straight, "", 1).await;
    }
    // The greeting names the connection.
    let body = |text: &str| text.split_once("+OK\r\n").map(|(_, rest)| rest.to_owned());
    let mut one = pair.connect(5_000).await;
    let mut got = exchange(&mut one, &all, 100).await;
    while !got.ends_with("the end\r\n") {
        got += &exchange(&mut one, "", 1).await;
    }
    assert_eq!(body(&got), body(&wanted));
    let mut pieces = pair.connect(5_000).await;
    let short = all.replace(&long, "x").replace("$200000", "$1");
    let mut got = String::new();
    for byte in short.bytes() {
        pieces.write_all(&[byte]).await.unwrap();
    }
    while !got.ends_with("the end\r\n") {
        got += &exchange(&mut pieces, "", 1).await;
    }
    let wanted = wanted.replace(&long, "x").replace("$200001", "$2").replace(":200001", ":2");
    assert_eq!(body(&got), body(&wanted));
}

/// Reads go on, and what redis refused is told as it told it.
#[tokio::test]
async fn a_write_that_no_replica_has_is_told_to_be_unconfirmed() {
    let pair = pair().await;
    pair.without_replica();
    let mut client = pair.connect(50).await;
    let unconfirmed = |answer: &str| {
        assert!(
            answer.starts_with("-UNCONFIRMED 0 of 1 replicas had this write after 50 ms"),
            "{answer}"
        );
        answer.matches("-UNCONFIRMED").count()
    };
    let tail = "+PONG\r\n";
    let mut ask = async |requests: String| {
        let question = format!("{requests}{}", request(&["PING"]));
        let mut got = exchange(&mut client, &question, tail.len()).await;
        while !got.ends_with(tail) {
            got += &exchange(&mut client, "", 1).await;
        }
        got.trim_end_matches(tail).to_owned()
    };
    assert_eq!(unconfirmed(&ask(request(&["SET", "k", "v"])).await), 1);
    assert_eq!(ask(request(&["GET", "k"])).await, "$1\r\nv\r\n");
    let run = [request(&["SET", "a", "1"]), request(&["LPUSH", "a", "1"]), request(&["DEL", "a"])];
    let answer = ask(run.concat()).await;
    assert_eq!(unconfirmed(&answer), 2);
    assert!(answer.contains("-WRONGTYPE"), "{answer}");
    let transaction = [request(&["MULTI"]), request(&["SET", "t", "1"]), request(&["EXEC"])];
    let answer = ask(transaction.concat()).await;
    assert_eq!(unconfirmed(answer.trim_start_matches("+OK\r\n+QUEUED\r\n")), 1);

    pair.0.nodes[1].signal(Signal::CONT);
    pair.0.nodes[0].says("SET x 1\r\nWAIT 1 1000\r\n", "+OK\r\n:1\r\n").await;
    let mut client = pair.connect(5_000).await;
    assert_eq!(exchange(&mut client, &request(&["SET", "k", "w"]), 5).await, "+OK\r\n");
}

/// A user who may not begin a transaction does not write unconfirmed because of it.
#[tokio::test]
async fn a_transaction_that_does_not_begin_hides_no_write() {
    let pair = pair().await;
    pair.0.nodes[0].says("ACL SETUSER app on nopass ~* +@all -multi\r\n", "+OK\r\n").await;
    pair.without_replica();
    let mut client = pair.connect(50).await;
    let requests = [
        request(&["AUTH", "app", "x"]),
        request(&["MULTI"]),
        request(&["SET", "k", "v"]),
        request(&["EXEC"]),
        request(&["PING"]),
    ];
    let mut got = exchange(&mut client, &requests.concat(), 5).await;
    while !got.ends_with("+PONG\r\n") {
        got += &exchange(&mut client, "", 1).await;
    }
    assert!(got.contains("-NOPERM") && got.contains("-UNCONFIRMED"), "{got}");
}

#[tokio::test]
async fn who_may_not_wait_is_told_so() {
    let pair = pair().await;
    pair.0.nodes[0].says("ACL SETUSER app on nopass ~* +@all -wait\r\n", "+OK\r\n").await;
    let mut client = pair.connect(1_000).await;
    let requests =
        [request(&["AUTH", "app", "x"]), request(&["SET", "k", "v"]), request(&["PING"])];
    let mut got = exchange(&mut client, &requests.concat(), 5).await;
    while !got.ends_with("+PONG\r\n") {
        got += &exchange(&mut client, "", 1).await;
    }
    assert!(
        got.contains("-UNCONFIRMED redis did not say which replicas have this write (NOPERM"),
        "{got}"
    );
}

/// Messages are passed on as they come, and nothing is written beside them.
#[tokio::test]
async fn a_connection_that_subscribed_writes_nothing() {
    let pair = pair().await;
    let mut client = pair.connect(5_000).await;
    let subscribed = "*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n";
    let got = exchange(&mut client, &request(&["SUBSCRIBE", "news"]), subscribed.len()).await;
    assert_eq!(got, subscribed);
    pair.0.nodes[0].says("PUBLISH news hi\r\n", ":1\r\n").await;
    let message = "*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$2\r\nhi\r\n";
    assert_eq!(exchange(&mut client, "", message.len()).await, message);
    let refused = exchange(&mut client, &request(&["SET", "k", "v"]), 10).await;
    assert_eq!(refused, "-ERR Can't", "as redis says it");
    pair.0.nodes[0].says("EXISTS k\r\n", ":0\r\n").await;
}

#[tokio::test]
async fn replies_are_not_switched_off() {
    let pair = pair().await;
    let mut client = pair.connect(5_000).await;
    let requests =
        [request(&["SET", "k", "v"]), request(&["CLIENT", "REPLY", "OFF"]), request(&["PING"])];
    let mut got = exchange(&mut client, &requests.concat(), 5).await;
    while !got.ends_with("+PONG\r\n") {
        got += &exchange(&mut client, "", 1).await;
    }
    assert!(got.starts_with("+OK\r\n-ERR not through a proxy that confirms"), "{got}");
}
