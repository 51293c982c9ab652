//! Promise 3 under `durability: confirmed`, with real redis-servers: what `proxy --confirm` answered
//! is there after every failover, and what clients saw of each key could have come about one
//! operation after the other.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use akash_redis::api::types::Durability;
use akash_redis::cli::demo::writer::Access;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, IntoConnectionInfo as _, RedisConnectionInfo};
use tokio::time::sleep;

use crate::linear::{Act, Op, is_linearizable};
use crate::sandboxed::sandboxed;
use crate::stage::{CLUSTER, Stage, cluster, until};

const LIMIT: Duration = Duration::from_mins(4);
/// Clients that work at the same time.
const CLIENTS: u64 = 4;
/// Operations on one set of keys, and how many keys that are.
const BLOCK: u64 = 200;
const KEYS: u64 = 4;
/// An answer that takes longer counts as none.
const ANSWER: Duration = Duration::from_secs(3);
/// Between two operations of a client: nothing here measures speed.
const PACE: Duration = Duration::from_millis(4);

/// Clients, and what they were told.
struct Clients {
    access: Access,
    begun: Instant,
    next: AtomicU64,
    stop: AtomicBool,
    confirmed: AtomicU64,
    histories: Mutex<BTreeMap<u64, Vec<Op>>>,
}

fn is_list(key: u64) -> bool {
    key % 2 == 1
}

impl Clients {
    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_micros()).unwrap()
    }

    async fn connect(&self) -> redis::RedisResult<MultiplexedConnection> {
        let Access { host, port, user, password } = &self.access;
        let login = RedisConnectionInfo::default()
            .set_username(user.clone())
            .set_password(password.clone());
        let info = (host.as_str(), *port).into_connection_info()?.set_redis_settings(login);
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(ANSWER))
            .set_response_timeout(Some(ANSWER));
        Client::open(info)?.get_multiplexed_async_connection_with_config(&config).await
    }

    async fn work(self: Arc<Self>) {
        let mut connection = None;
        while !self.stop.load(Ordering::SeqCst) {
            sleep(PACE).await;
            let Some(open) = &mut connection else {
                connection = self.connect().await.ok();
                continue;
            };
            let n = self.next.fetch_add(1, Ordering::SeqCst);
            let key = n / BLOCK * KEYS + n % KEYS;
            let begin = self.now();
            let writes = (n / KEYS).is_multiple_of(2);
            let (act, told) =
                if writes { write(open, key, n).await } else { read(open, key).await };
            let end = told.then(|| self.now());
            if !told {
                connection = None;
            }
            // A read without an answer says nothing.
            if writes || told {
                let op = Op { act, begin, end };
                self.histories.lock().unwrap().entry(key).or_default().push(op);
            }
            self.confirmed.fetch_add(u64::from(writes && told), Ordering::SeqCst);
        }
    }

    async fn goes_on(&self) {
        let before = self.confirmed.load(Ordering::SeqCst);
        until("confirmed writes", async || self.confirmed.load(Ordering::SeqCst) > before + 100)
            .await;
    }
}

/// Whether the proxy said that it is done, which it says when the replica has it.
async fn write(connection: &mut MultiplexedConnection, key: u64, value: u64) -> (Act, bool) {
    let (command, act) =
        if is_list(key) { ("RPUSH", Act::Push(value)) } else { ("SET", Act::Set(value)) };
    let mut command = redis::cmd(command);
    let answer = command.arg(key).arg(value).query_async::<redis::Value>(connection).await;
    (act, answer.is_ok())
}

/// A read with a write beside it that changes nothing: the proxy answers when a replica has all that
/// came before.
async fn read(connection: &mut MultiplexedConnection, key: u64) -> (Act, bool) {
    let mut pipe = redis::pipe();
    pipe.atomic();
    if is_list(key) {
        pipe.cmd("LRANGE").arg(key).arg(0).arg(-1).cmd("PUBLISH").arg("confirm").arg("");
        let answer = pipe.query_async::<(Vec<u64>, i64)>(connection).await;
        (Act::List(answer.as_ref().map(|a| a.0.clone()).unwrap_or_default()), answer.is_ok())
    } else {
        pipe.cmd("GET").arg(key).cmd("PUBLISH").arg("confirm").arg("");
        let answer = pipe.query_async::<(Option<u64>, i64)>(connection).await;
        (Act::Get(answer.as_ref().ok().and_then(|a| a.0)), answer.is_ok())
    }
}

#[test]
fn no_confirmed_write_is_lost_by_a_failover() {
    sandboxed("confirmed::no_confirmed_write_is_lost_by_a_failover", LIMIT, async |sandbox| {
        let stage = Stage::start(&sandbox).await;
        let mut manifest = cluster(3);
        manifest.spec.durability = Durability::Confirmed;
        stage.client.apply(&manifest).await.unwrap();
        stage.until_ready().await;
        let (_proxy, access) = stage.proxy_that(&["--confirm"]);
        let clients = Arc::new(Clients {
            access,
            begun: Instant::now(),
            next: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            confirmed: AtomicU64::new(0),
            histories: Mutex::default(),
        });
        let tasks: Vec<_> = (0..CLIENTS).map(|_| tokio::spawn(clients.clone().work())).collect();
        clients.goes_on().await;
        for _ in 0..3 {
            stage.kill_redis(&stage.master().await);
            clients.goes_on().await;
            stage.until_ready().await;
        }
        let moved = stage.cli(&["switchover", CLUSTER]).await;
        assert!(moved.status.success(), "{}", String::from_utf8_lossy(&moved.stderr));
        clients.goes_on().await;
        stage.until_ready().await;
        clients.stop.store(true, Ordering::SeqCst);
        for task in tasks {
            task.await.unwrap();
        }

        let histories = std::mem::take(&mut *clients.histories.lock().unwrap());
        let mut connection = clients.connect().await.unwrap();
        let (mut operations, mut unanswered) = (0, 0);
        for (key, mut ops) in histories {
            let begin = clients.now();
            let (act, told) = read(&mut connection, key).await;
            assert!(told, "the cluster is Ready and answers");
            ops.push(Op { act, begin, end: Some(clients.now()) });
            operations += ops.len();
            unanswered += ops.iter().filter(|op| op.end.is_none()).count();
            assert!(is_linearizable(&ops), "key {key}: no order explains {ops:#?}");
        }
        let confirmed = clients.confirmed.load(Ordering::SeqCst);
        println!(
            "{operations} operations, {confirmed} confirmed writes, {unanswered} writes without an answer"
        );
        let report =
            stage.client.get(CLUSTER).await.unwrap().status.unwrap().last_failover.unwrap();
        assert!(report.accepted_by.is_empty(), "nobody had to accept a loss: {report:?}");
    });
}
