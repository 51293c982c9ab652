//! Clients of one cluster: each appends rising numbers to lists of its own, and knows which of them
//! it was told are done. No number is sent twice, so that each can be looked for by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use akash_redis::cli::demo::writer::Access;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, IntoConnectionInfo as _, RedisConnectionInfo};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// Clients of each cluster.
const CLIENTS: u64 = 2;
/// Writes that a client sends at once, and how many of them one list takes.
const BATCH: u64 = 50;
const LIST: u64 = 1000;
/// Between two batches.
const PACE: Duration = Duration::from_millis(40);
/// Answers that take longer count as none.
const ANSWER: Duration = Duration::from_secs(6);
/// Before the next attempt to connect.
const AGAIN: Duration = Duration::from_millis(100);
/// Lists that are asked for at once.
const AT_ONCE: usize = 100;

/// What one list is known to hold.
#[derive(Default)]
struct List {
    told: Vec<u64>,
    /// Since the last look.
    changed: bool,
}

/// Clients of a cluster, and what they were told.
pub struct Clients {
    access: Access,
    stop: AtomicBool,
    told: AtomicU64,
    lists: Mutex<BTreeMap<String, List>>,
}

/// Writes that clients were told are done and that are not there.
#[derive(Debug, Default)]
pub struct Missing {
    /// How many.
    pub writes: u64,
    /// What they take in the history of their master.
    pub bytes: u64,
    /// The first of each list, for people.
    pub first: Vec<String>,
}

/// As it is sent, and as it stands in the history.
fn command(key: &str, n: u64) -> String {
    let text = n.to_string();
    format!("*3\r\n$5\r\nRPUSH\r\n${}\r\n{key}\r\n${}\r\n{text}\r\n", key.len(), text.len())
}

impl Clients {
    pub fn of(access: Access) -> Arc<Self> {
        Arc::new(Self {
            access,
            stop: AtomicBool::new(false),
            told: AtomicU64::new(0),
            lists: Mutex::default(),
        })
    }

    pub fn start(self: &Arc<Self>) -> Vec<JoinHandle<()>> {
        (0..CLIENTS).map(|id| tokio::spawn(self.clone().work(id))).collect()
    }

    pub fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
    }

    /// Writes that are done, by what clients were told.
    pub fn told(&self) -> u64 {
        self.told.load(Ordering::SeqCst)
    }

    async fn work(self: Arc<Self>, id: u64) {
        // Every connection has lists of its own: what an older one left on its way may still arrive.
        for connection in 0.. {
            if self.stop.load(Ordering::SeqCst) {
                return;
            }
            // It ended, as every connection to a master that is none any more.
            let _ = self.connection(&format!("{id}:{connection}")).await;
            sleep(AGAIN).await;
        }
    }

    async fn connection(&self, name: &str) -> std::io::Result<()> {
        let Access { host, port, user, password } = &self.access;
        let stream = timeout(ANSWER, TcpStream::connect((host.as_str(), *port))).await??;
        stream.set_nodelay(true)?;
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        stream.write_all(format!("AUTH {user} {password}\r\n").as_bytes()).await?;
        timeout(ANSWER, stream.read_line(&mut line)).await??;
        let mut next = 0;
        while line.starts_with('+') || next > 0 {
            if self.stop.load(Ordering::SeqCst) {
                return Ok(());
            }
            let key = format!("w:{name}:{}", next / LIST);
            let sent: String = (next..next + BATCH).map(|n| command(&key, n)).collect();
            stream.write_all(sent.as_bytes()).await?;
            for n in next..next + BATCH {
                line.clear();
                if timeout(ANSWER, stream.read_line(&mut line)).await?? == 0 {
                    return Ok(());
                }
                if line.starts_with(':') {
                    let mut lists = self.lists.lock().unwrap();
                    let list = lists.entry(key.clone()).or_default();
                    list.told.push(n);
                    list.changed = true;
                    self.told.fetch_add(1, Ordering::SeqCst);
                }
            }
            next += BATCH;
            sleep(PACE).await;
        }
        Ok(())
    }

    pub async fn connect(&self) -> redis::RedisResult<MultiplexedConnection> {
        let Access { host, port, user, password } = &self.access;
        let login = RedisConnectionInfo::default()
            .set_username(user.clone())
            .set_password(password.clone())
            .set_skip_set_lib_name();
        let info = (host.as_str(), *port).into_connection_info()?.set_redis_settings(login);
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(ANSWER))
            .set_response_timeout(Some(ANSWER));
        Client::open(info)?.get_multiplexed_async_connection_with_config(&config).await
    }

    /// Looks for everything that was told since the last look, or ever. What is missing is told
    /// once.
    pub async fn look(&self, all: bool) -> redis::RedisResult<Missing> {
        let due: Vec<(String, Vec<u64>)> = {
            let mut lists = self.lists.lock().unwrap();
            let due = lists.iter_mut().filter(|(_, list)| all || list.changed);
            due.map(|(key, list)| {
                list.changed = false;
                (key.clone(), list.told.clone())
            })
            .collect()
        };
        let looked = self.missing(&due).await;
        if looked.is_err() {
            let mut lists = self.lists.lock().unwrap();
            for (key, _) in &due {
                lists.get_mut(key).unwrap().changed = true;
            }
        }
        looked
    }

    async fn missing(&self, due: &[(String, Vec<u64>)]) -> redis::RedisResult<Missing> {
        let mut connection = self.connect().await?;
        let mut missing = Missing::default();
        for chunk in due.chunks(AT_ONCE) {
            let mut pipe = redis::pipe();
            for (key, _) in chunk {
                pipe.cmd("LRANGE").arg(key).arg(0).arg(-1);
            }
            let found: Vec<Vec<u64>> = pipe.query_async(&mut connection).await?;
            for ((key, told), found) in chunk.iter().zip(found) {
                assert!(
                    found.windows(2).all(|two| two[0] < two[1]),
                    "{key} holds what was never sent in this order: {found:?}"
                );
                let found: BTreeSet<u64> = found.into_iter().collect();
                let lost: Vec<u64> = told.iter().filter(|n| !found.contains(n)).copied().collect();
                let Some(first) = lost.first() else { continue };
                missing.first.push(format!("{key} {first} and {} more", lost.len() - 1));
                missing.writes += lost.len() as u64;
                missing.bytes += lost.iter().map(|n| command(key, *n).len() as u64).sum::<u64>();
                let mut lists = self.lists.lock().unwrap();
                lists.get_mut(key).unwrap().told.retain(|n| !lost.contains(n));
            }
        }
        Ok(missing)
    }
}
