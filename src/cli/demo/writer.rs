//! An application that writes all the time, and knows which of its writes were acknowledged.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, IntoConnectionInfo as _, RedisConnectionInfo,
};
use tokio_util::sync::{CancellationToken, DropGuard};

/// An answer that takes longer counts as none; the write may still have happened.
const ANSWER: Duration = Duration::from_secs(1);
/// Pause between two writes, so that the demo shows gaps and not the machine's speed.
const PACE: Duration = Duration::from_millis(2);
/// Keys asked about in one call.
const BATCH: usize = 1000;

/// Where the application finds Redis, and who it is there.
#[derive(Clone, Debug)]
pub struct Access {
    /// Host of the proxy.
    pub host: String,
    /// Port of the proxy.
    pub port: u16,
    /// User.
    pub user: String,
    /// Password.
    pub password: String,
}

/// What a phase showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Phase {
    /// Acknowledged writes.
    pub acknowledged: usize,
    /// The longest time between two acknowledged writes.
    pub longest_gap: Duration,
    /// Acknowledged writes that the present master does not have.
    pub lost: usize,
}

#[derive(Default)]
struct Tally {
    acknowledged: Vec<u64>,
    last: Option<Instant>,
    longest_gap: Duration,
}

/// The application.
pub struct Writer {
    access: Access,
    tally: Arc<Mutex<Tally>>,
    _stop: DropGuard,
}

impl Writer {
    /// Starts writing; it ends when this is dropped.
    #[must_use]
    pub fn start(access: Access) -> Self {
        let stop = CancellationToken::new();
        let tally = Arc::new(Mutex::new(Tally::default()));
        tokio::spawn(stop.clone().run_until_cancelled_owned(write(access.clone(), tally.clone())));
        Self { access, tally, _stop: stop.drop_guard() }
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Acknowledged writes so far.
    #[must_use]
    pub fn acknowledged(&self) -> usize {
        self.tally().acknowledged.len()
    }

    /// Forgets what was measured; the keys stay.
    pub fn begin(&self) {
        let mut tally = self.tally();
        tally.acknowledged.clear();
        tally.longest_gap = Duration::ZERO;
    }

    /// Reads back every write acknowledged since [`Self::begin`].
    ///
    /// # Errors
    /// Redis does not answer.
    pub async fn end(&self) -> redis::RedisResult<Phase> {
        let (written, longest_gap) = {
            let tally = self.tally();
            (tally.acknowledged.clone(), tally.longest_gap)
        };
        let mut connection = connect(&self.access).await?;
        let mut lost = 0;
        for batch in written.chunks(BATCH) {
            let keys: Vec<String> = batch.iter().map(|n| key(*n)).collect();
            let found: Vec<Option<u64>> =
                redis::cmd("MGET").arg(keys).query_async(&mut connection).await?;
            lost +=
                batch.iter().zip(found).filter(|(wrote, found)| *found != Some(**wrote)).count();
        }
        Ok(Phase { acknowledged: written.len(), longest_gap, lost })
    }
}

fn key(n: u64) -> String {
    format!("demo:{n}")
}

async fn connect(access: &Access) -> redis::RedisResult<MultiplexedConnection> {
    let settings = RedisConnectionInfo::default()
        .set_username(&access.user)
        .set_password(&access.password)
        .set_skip_set_lib_name();
    let info = ConnectionAddr::Tcp(access.host.clone(), access.port)
        .into_connection_info()?
        .set_redis_settings(settings);
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(ANSWER))
        .set_response_timeout(Some(ANSWER));
    Client::open(info)?.get_multiplexed_async_connection_with_config(&config).await
}

async fn write(access: Access, tally: Arc<Mutex<Tally>>) {
    let mut next = 0u64;
    loop {
        let Ok(mut connection) = connect(&access).await else {
            tokio::time::sleep(PACE).await;
            continue;
        };
        loop {
            next += 1;
            let done: redis::RedisResult<()> =
                redis::cmd("SET").arg(key(next)).arg(next).query_async(&mut connection).await;
            match done {
                Ok(()) => {
                    let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
                    let now = Instant::now();
                    let gap = tally.last.map_or(Duration::ZERO, |last| now - last);
                    tally.longest_gap = tally.longest_gap.max(gap);
                    tally.last = Some(now);
                    tally.acknowledged.push(next);
                }
                // Refused by a fence: the connection is good, the master may change at any moment.
                Err(error)
                    if !error.is_io_error()
                        && !error.is_timeout()
                        && !error.is_connection_dropped() => {}
                Err(_) => break,
            }
            tokio::time::sleep(PACE).await;
        }
    }
}
