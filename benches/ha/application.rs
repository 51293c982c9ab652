//! An application that writes all the time, wherever its master is, and what it noticed.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _,
    RedisConnectionInfo, RedisResult,
};
use tokio_util::sync::{CancellationToken, DropGuard};

/// An answer that takes longer counts as none.
const ANSWER: Duration = Duration::from_secs(1);
/// Between two writes.
const PACE: Duration = Duration::from_millis(1);
/// Keys asked about in one call.
const BATCH: usize = 1000;

/// How the application finds its master.
#[derive(Clone)]
pub enum Finds {
    /// One address that always leads there.
    Address { port: u16, user: String, password: String },
    /// It asks Sentinels at these ports of loopback.
    Sentinels { ports: Vec<u16>, name: &'static str },
    /// It asks the servers at these ports of loopback who of them is master.
    Roles { ports: Vec<u16> },
}

/// What a change of master was like.
#[derive(Clone, Copy, Debug, Default)]
pub struct Noticed {
    /// The longest time between two acknowledged writes, milliseconds.
    pub gap: f64,
    /// Commands that failed, connections that were refused not counted.
    pub errors: usize,
    /// Acknowledged writes that are gone.
    pub lost: usize,
}

#[derive(Default)]
struct Tally {
    acknowledged: Vec<u64>,
    last: Option<Instant>,
    gap: Duration,
    errors: usize,
}

pub struct Application {
    finds: Finds,
    tally: Arc<Mutex<Tally>>,
    _stop: DropGuard,
}

impl Application {
    pub fn start(finds: Finds) -> Self {
        let (stop, tally) = (CancellationToken::new(), Arc::<Mutex<Tally>>::default());
        let writes = write(finds.clone(), tally.clone());
        tokio::spawn(stop.clone().run_until_cancelled_owned(writes));
        Self { finds, tally, _stop: stop.drop_guard() }
    }

    fn tally<T>(&self, with: impl FnOnce(&mut Tally) -> T) -> T {
        with(&mut self.tally.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn acknowledged(&self) -> usize {
        self.tally(|tally| tally.acknowledged.len())
    }

    /// Forgets what was noticed; what was written stays.
    pub fn begin(&self) {
        self.tally(|tally| {
            *tally = Tally { last: tally.last, ..Tally::default() };
        });
    }

    /// What was noticed since, when so many writes were acknowledged after now.
    pub async fn noticed(&self, writes: usize) -> Noticed {
        let goal = self.acknowledged() + writes;
        while self.acknowledged() < goal {
            tokio::time::sleep(PACE).await;
        }
        let (written, gap, errors) = self.tally(|t| (t.acknowledged.clone(), t.gap, t.errors));
        Noticed { gap: gap.as_secs_f64() * 1000.0, errors, lost: lost(&self.finds, &written).await }
    }
}

/// How many of these numbers are not there any more.
pub async fn lost(finds: &Finds, written: &[u64]) -> usize {
    let mut lost = 0;
    for batch in written.chunks(BATCH) {
        let keys: Vec<String> = batch.iter().map(|n| key(*n)).collect();
        let found: Vec<Option<u64>> = loop {
            let Ok(mut connection) = connect(finds).await else {
                tokio::time::sleep(PACE).await;
                continue;
            };
            if let Ok(found) = redis::cmd("MGET").arg(&keys).query_async(&mut connection).await {
                break found;
            }
        };
        lost += batch.iter().zip(found).filter(|(wrote, has)| *has != Some(**wrote)).count();
    }
    lost
}

fn key(number: u64) -> String {
    format!("k{number}")
}

async fn write(finds: Finds, tally: Arc<Mutex<Tally>>) {
    let mut next = 0u64;
    loop {
        let Ok(mut connection) = connect(&finds).await else {
            tokio::time::sleep(PACE).await;
            continue;
        };
        loop {
            next += 1;
            let done: RedisResult<()> =
                redis::cmd("SET").arg(key(next)).arg(next).query_async(&mut connection).await;
            let again = {
                let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
                match done {
                    Ok(()) => {
                        let now = Instant::now();
                        tally.gap = tally.gap.max(tally.last.map_or(Duration::ZERO, |l| now - l));
                        tally.last = Some(now);
                        tally.acknowledged.push(next);
                        true
                    }
                    Err(error) => {
                        tally.errors += 1;
                        // Refused for now, by who is still the master; a replica is left.
                        !error.is_io_error()
                            && !error.is_timeout()
                            && !error.is_connection_dropped()
                            && error.code() != Some("READONLY")
                    }
                }
            };
            if !again {
                break;
            }
            tokio::time::sleep(PACE).await;
        }
    }
}

/// A connection to the master, as far as it can be found now.
pub async fn connect(finds: &Finds) -> RedisResult<MultiplexedConnection> {
    match finds {
        Finds::Address { port, user, password } => {
            let login = RedisConnectionInfo::default()
                .set_username(user.as_str())
                .set_password(password.as_str());
            open(to(*port)?.set_redis_settings(login)).await
        }
        Finds::Sentinels { ports, name } => {
            for port in ports {
                let Ok(mut sentinel) = open(to(*port)?).await else { continue };
                let asked: RedisResult<(String, u16)> = redis::cmd("SENTINEL")
                    .arg("GET-MASTER-ADDR-BY-NAME")
                    .arg(name)
                    .query_async(&mut sentinel)
                    .await;
                if let Ok((_, port)) = asked {
                    return open(to(port)?).await;
                }
            }
            Err(std::io::Error::other("no sentinel answers").into())
        }
        Finds::Roles { ports } => {
            for port in ports {
                let Ok(mut server) = open(to(*port)?).await else { continue };
                let role: Vec<redis::Value> =
                    redis::cmd("ROLE").query_async(&mut server).await.unwrap_or_default();
                if matches!(role.first(), Some(redis::Value::BulkString(word)) if word == b"master")
                {
                    return Ok(server);
                }
            }
            Err(std::io::Error::other("nobody is master").into())
        }
    }
}

fn to(port: u16) -> RedisResult<ConnectionInfo> {
    ConnectionAddr::Tcp("127.0.0.1".to_owned(), port).into_connection_info()
}

async fn open(info: ConnectionInfo) -> RedisResult<MultiplexedConnection> {
    let limits = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(ANSWER))
        .set_response_timeout(Some(ANSWER));
    Client::open(info)?.get_multiplexed_async_connection_with_config(&limits).await
}
