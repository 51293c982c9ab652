//! Who takes writes: every node of a cluster that has a redis is asked all the time, by a write of a
//! client beside it. No two of them may take writes at the same time.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::future::join_all;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ConnectionAddr, IntoConnectionInfo as _};
use tokio::time::sleep;

use super::PROBE;
use crate::stage::{PASSWORD, Stage};

/// Between two questions to each node.
const EVERY: Duration = Duration::from_millis(100);
/// An answer that takes longer counts as none.
const ANSWER: Duration = Duration::from_millis(300);
/// A process that stood still does not count meanwhile how long its replicas are silent: for about a
/// second it may take writes that nobody confirms. That is documented.
const AFTER_A_FREEZE: Duration = Duration::from_millis(2500);

/// One node as master under one history.
type Reign = (u64, String);

#[derive(Clone, Copy)]
struct Taken {
    begin: Instant,
    end: Instant,
}

/// What is known of the masters of one cluster.
#[derive(Default)]
pub struct Masters {
    /// First write that was taken, and the last one, by reign.
    reigns: Mutex<BTreeMap<Reign, (Taken, Taken)>>,
    woke: Mutex<BTreeMap<u64, Instant>>,
    found: Mutex<Vec<String>>,
    counts: Mutex<(u64, u64)>,
}

impl Masters {
    /// A process of this node goes on after it stood still.
    pub fn woke(&self, dseq: u64) {
        self.woke.lock().unwrap().insert(dseq, Instant::now());
    }

    /// Times at which two took writes; must stay empty.
    pub fn found(&self) -> Vec<String> {
        self.found.lock().unwrap().clone()
    }

    /// Writes that were taken, and those of them that came just after a freeze.
    pub fn counts(&self) -> (u64, u64) {
        *self.counts.lock().unwrap()
    }

    /// How often somebody became master.
    pub fn reigns(&self) -> usize {
        self.reigns.lock().unwrap().len()
    }

    fn took(&self, reign: Reign, begin: Instant, end: Instant) {
        let mut counts = self.counts.lock().unwrap();
        counts.0 += 1;
        let woke = self.woke.lock().unwrap().get(&reign.0).copied();
        if woke.is_some_and(|woke| end >= woke && begin < woke + AFTER_A_FREEZE) {
            counts.1 += 1;
            return;
        }
        drop(counts);
        let mut reigns = self.reigns.lock().unwrap();
        let own = Taken { begin, end };
        let (first, _) = *reigns.entry(reign.clone()).or_insert((own, own));
        for (other, (_, last)) in &*reigns {
            // It took a write, then the other one did, and now it does again.
            if *other != reign && last.begin > first.end && last.end < begin {
                self.found.lock().unwrap().push(format!(
                    "{reign:?} took a write {:?} after {other:?} did, and was master before it",
                    begin - last.end
                ));
            }
        }
        reigns.insert(reign, (first, own));
    }

    /// Asks until it is aborted.
    pub async fn watch(self: Arc<Self>, stage: Arc<Stage>, cluster: String) {
        let mut nodes: BTreeMap<u64, Option<(u32, MultiplexedConnection)>> = BTreeMap::new();
        let mut number = 0u64;
        loop {
            number += 1;
            if number % 5 == 1
                && let Ok(found) = stage.client.get(&cluster).await
            {
                for node in found.status.iter().flat_map(|status| &status.nodes) {
                    nodes.entry(node.dseq).or_default();
                }
            }
            nodes.retain(|dseq, _| stage.local.market.find(*dseq).is_some());
            let asked = nodes
                .iter_mut()
                .map(|(dseq, connection)| self.ask(&stage, *dseq, connection, number));
            join_all(asked).await;
            sleep(EVERY).await;
        }
    }

    async fn ask(
        &self,
        stage: &Stage,
        dseq: u64,
        connection: &mut Option<(u32, MultiplexedConnection)>,
        number: u64,
    ) {
        let Some((provider, lease)) = stage.local.market.find(dseq) else { return };
        let Some(pid) = stage.local.market.providers[provider].runner.pid(&lease) else {
            *connection = None;
            return;
        };
        if connection.as_ref().is_none_or(|(of, _)| *of != pid) {
            let dir = stage.local.config().parent().unwrap().to_owned();
            let dir = dir.join("market").join(&stage.local.market.providers[provider].name);
            let root = dir.join(lease.label()).join("root");
            let socket = PathBuf::from(format!("/proc/{pid}/root{}", root.display()))
                .join("run/akash-redis/redis/redis.sock");
            *connection = connect(socket).await.ok().map(|open| (pid, open));
        }
        let Some((_, open)) = connection else { return };
        let begin = Instant::now();
        let mut pipe = redis::pipe();
        pipe.cmd("INFO").arg("replication").cmd("SET").arg("probe").arg(format!("{dseq} {number}"));
        let answer: redis::RedisResult<(String, String)> = pipe.query_async(open).await;
        match answer {
            Ok((info, _)) => {
                let replid = info.lines().find_map(|line| line.strip_prefix("master_replid:"));
                let replid = replid.unwrap_or_default().trim().to_owned();
                self.took((dseq, replid), begin, Instant::now());
            }
            // It answered: not now.
            Err(error) if error.code().is_some() => {}
            Err(_) => *connection = None,
        }
    }
}

async fn connect(socket: PathBuf) -> redis::RedisResult<MultiplexedConnection> {
    let login = redis::RedisConnectionInfo::default()
        .set_username(PROBE)
        .set_password(PASSWORD)
        .set_skip_set_lib_name();
    let info = ConnectionAddr::Unix(socket).into_connection_info()?.set_redis_settings(login);
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(ANSWER))
        .set_response_timeout(Some(ANSWER));
    Client::open(info)?.get_multiplexed_async_connection_with_config(&config).await
}
