//! For tests: real redis-servers, and connections through the proxy to them.

use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::carry::carry;
use super::resp::{self, Scanner};
use super::way::Way;
use super::{Confirm, Target, Word};

/// Nothing here takes this long unless it is broken.
pub(super) const LIMIT: Duration = Duration::from_secs(30);

pub(super) struct Redis {
    pub port: u16,
    process: Child,
    _dir: tempfile::TempDir,
}

impl Redis {
    pub async fn start(args: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        Self::at(port, args).await
    }

    /// The same at a port that is known to be free.
    pub async fn at(port: u16, args: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
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

    pub async fn dial(&self) -> Option<TcpStream> {
        TcpStream::connect(("127.0.0.1", self.port)).await.ok()
    }

    /// Asks until this is the answer.
    pub async fn says(&self, question: &str, answer: &str) {
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

    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.process.id().expect("it runs")).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
    }
}

/// So many bytes of the answer; less when the connection ends.
pub(super) async fn exchange(stream: &mut TcpStream, question: &str, length: usize) -> String {
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

/// Asks once; the answer as redis wrote it.
pub(super) async fn ask(redis: &Redis, words: &[&str]) -> String {
    let mut client = Client::new(redis.dial().await.expect("redis is there"));
    client.ask(words).await
}

/// Two servers, of which one is master, and what proxies are told of that.
pub(super) struct Servers {
    pub nodes: [Redis; 2],
    pub master: usize,
    pub epoch: u64,
    pub word: watch::Sender<Word>,
}

impl Servers {
    pub async fn start() -> Self {
        let first = Redis::start(&["--replica-serve-stale-data", "no"]).await;
        let port = first.port.to_string();
        let second = ["--replica-serve-stale-data", "no", "--replicaof", "127.0.0.1", &port];
        let nodes = [first, Redis::start(&second).await];
        nodes[0].says("WAIT 1 1000\r\n", ":1\r\n").await;
        let servers = Self { nodes, master: 0, epoch: 1, word: watch::Sender::default() };
        servers.tell(None);
        servers
    }

    pub fn tell(&self, changing: Option<u64>) {
        self.word.send_replace(Word {
            target: Some(self.target(self.master, self.epoch)),
            changing,
            successor: changing.map(|epoch| self.target(1 - self.master, epoch)),
        });
    }

    fn target(&self, node: usize, epoch: u64) -> Target {
        Target {
            epoch,
            incarnation: format!("node-{node}"),
            ip: "127.0.0.1".parse().unwrap(),
            port: self.nodes[node].port,
        }
    }

    /// The other one was chosen after a failure of the master.
    pub fn elect(&self) {
        let target = self.target(1 - self.master, self.epoch + 1);
        self.word.send_modify(|word| word.successor = Some(target));
    }

    pub fn master(&self) -> &Redis {
        &self.nodes[self.master]
    }

    pub async fn connect(&self, confirm: Option<Confirm>) -> Client {
        self.patient(confirm, LIMIT).await
    }

    /// Of a proxy that waits so long for a master.
    pub async fn patient(&self, confirm: Option<Confirm>, wait: Duration) -> Client {
        self.by(Way::new(super::Socks5::new(None)), confirm, wait).await
    }

    /// One of several that are dialled in the same way.
    pub async fn by(&self, way: Way, confirm: Option<Confirm>, wait: Duration) -> Client {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        let _ = accepted.set_nodelay(true);
        tokio::spawn(carry(accepted, self.word.subscribe(), way, wait, confirm));
        Client::new(client)
    }

    /// Moves the master as the agents do. `told` where proxies hear of it before writes stand still.
    pub async fn switch(&mut self, told: bool) {
        let (old, new) = (&self.nodes[self.master], &self.nodes[1 - self.master]);
        if told {
            self.tell(Some(self.epoch + 1));
        }
        assert_eq!(ask(old, &["CLIENT", "PAUSE", "1000000", "WRITE"]).await, "+OK\r\n");
        let place = async |redis: &Redis, at: usize| -> String {
            ask(redis, &["ROLE"]).await.split("\r\n").nth(at).unwrap_or_default().to_owned()
        };
        // Of a master `:offset` is the fourth line, of a replica the last.
        let offset = place(old, 3).await;
        let caught_up = async {
            while place(new, 8).await != offset {
                sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(LIMIT, caught_up).await.expect("the target has all");
        ask(new, &["REPLICAOF", "NO", "ONE"]).await;
        (self.master, self.epoch) = (1 - self.master, self.epoch + 1);
        self.tell(None);
        let (old, new) = (&self.nodes[1 - self.master], &self.nodes[self.master]);
        stand_aside(old, new.port).await;
        new.says("WAIT 1 1000\r\n", ":1\r\n").await;
    }
}

/// A master lets go, in the order in which an agent does it.
pub(super) async fn stand_aside(old: &Redis, port: u16) {
    let mut admin = Client::new(old.dial().await.expect("it is there"));
    let port = port.to_string();
    for words in [
        &["CONFIG", "SET", "min-replicas-to-write", "1000000"][..],
        &["REPLICAOF", "127.0.0.1", &port],
        &["CLIENT", "UNPAUSE"],
        &["ROLE"],
        &["CLIENT", "KILL", "TYPE", "normal"],
        &["CLIENT", "KILL", "TYPE", "pubsub"],
        &["CONFIG", "SET", "min-replicas-to-write", "0"],
    ] {
        let answer = admin.ask(words).await;
        assert!(!answer.starts_with('-'), "{words:?}: {answer}");
    }
}

/// A client that reads one reply after the other.
pub(super) struct Client {
    pub stream: TcpStream,
    bytes: Vec<u8>,
}

impl Client {
    pub fn new(stream: TcpStream) -> Self {
        Self { stream, bytes: Vec::new() }
    }

    pub async fn send(&mut self, words: &[&str]) {
        let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        // An end is seen where the reply is missing.
        let _ = self.stream.write_all(&resp::request(&words)).await;
    }

    /// The next message; `None` when the connection ended.
    pub async fn next(&mut self) -> Option<String> {
        loop {
            if !self.bytes.is_empty() {
                let (taken, ends) = Scanner::default().take(&self.bytes).unwrap();
                if ends {
                    let message: Vec<u8> = self.bytes.drain(..taken).collect();
                    return Some(String::from_utf8_lossy(&message).into_owned());
                }
            }
            let read = self.stream.read_buf(&mut self.bytes);
            match timeout(LIMIT, read).await.expect("an answer") {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    pub async fn ask(&mut self, words: &[&str]) -> String {
        self.send(words).await;
        self.next().await.unwrap_or_else(|| panic!("the connection ended at {words:?}"))
    }
}
