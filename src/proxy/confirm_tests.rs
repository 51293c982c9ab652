//! Against real redis-servers: a master and a replica.

use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use super::*;

/// Nothing here takes this long unless it is broken.
const LIMIT: Duration = Duration::from_secs(30);

struct Redis {
    port: u16,
    process: Child,
    _dir: tempfile::TempDir,
}

impl Redis {
    async fn start(args: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let process = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--save", "", "--repl-diskless-sync-delay", "0"])
            .args(args)
            .current_dir(dir.path())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("redis-server is installed");
        let redis = Self { port, process, _dir: dir };
        redis.says("PING\r\n", "+PONG\r\n").await;
        redis
    }

    async fn dial(&self) -> Option<TcpStream> {
        TcpStream::connect(("127.0.0.1", self.port)).await.ok()
    }

    /// Asks until this is the answer.
    async fn says(&self, question: &str, answer: &str) {
        let asked = async {
            loop {
                if let Some(mut stream) = self.dial().await
                    && exchange(&mut stream, question, answer.len()).await == answer
                {
                    return;
                }
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(LIMIT, asked).await.unwrap_or_else(|_| panic!("{question:?}: {answer:?}"));
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.process.id().expect("it runs")).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
    }
}

/// So many bytes of the answer; less when the connection ends.
async fn exchange(stream: &mut TcpStream, question: &str, length: usize) -> String {
    let _ = stream.write_all(question.as_bytes()).await;
    let mut answer = vec![0; length];
    let mut at = 0;
    while at < length {
        match timeout(LIMIT, stream.read(&mut answer[at..])).await.expect("an answer") {
            Ok(0) | Err(_) => break,
            Ok(some) => at += some,
        }
    }
    String::from_utf8_lossy(&answer[..at]).into_owned()
}

struct Pair {
    master: Redis,
    replica: Redis,
}

async fn pair() -> Pair {
    let master = Redis::start(&[]).await;
    let replica = Redis::start(&["--replicaof", "127.0.0.1", &master.port.to_string()]).await;
    master.says("WAIT 1 1000\r\n", ":1\r\n").await;
    Pair { master, replica }
}

impl Pair {
    /// A connection whose writes the replica must have within this.
    async fn connect(&self, ms: u64) -> TcpStream {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        let server = self.master.dial().await.unwrap();
        let confirm = Confirm { replicas: 1, timeout: Duration::from_millis(ms) };
        tokio::spawn(carry(accepted, server, confirm));
        client
    }

    fn without_replica(&self) {
        self.replica.signal(Signal::STOP);
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
    let mut straight = pair.master.dial().await.unwrap();
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

    pair.replica.signal(Signal::CONT);
    pair.master.says("SET x 1\r\nWAIT 1 1000\r\n", "+OK\r\n:1\r\n").await;
    let mut client = pair.connect(5_000).await;
    assert_eq!(exchange(&mut client, &request(&["SET", "k", "w"]), 5).await, "+OK\r\n");
}

/// A user who may not begin a transaction does not write unconfirmed because of it.
#[tokio::test]
async fn a_transaction_that_does_not_begin_hides_no_write() {
    let pair = pair().await;
    pair.master.says("ACL SETUSER app on nopass ~* +@all -multi\r\n", "+OK\r\n").await;
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
    pair.master.says("ACL SETUSER app on nopass ~* +@all -wait\r\n", "+OK\r\n").await;
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
    pair.master.says("PUBLISH news hi\r\n", ":1\r\n").await;
    let message = "*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$2\r\nhi\r\n";
    assert_eq!(exchange(&mut client, "", message.len()).await, message);
    assert_eq!(exchange(&mut client, &request(&["SET", "k", "v"]), 5).await, "", "it ends");
    pair.master.says("EXISTS k\r\n", ":0\r\n").await;
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
