//! An application with hundreds of connections, over a real mesh: few of them are tailscaled's, and a
//! planned change is not seen on any.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use akash_redis::cli::demo::writer::Access;
use akash_redis::devnet::sandbox::Sandbox;
use akash_redis::devnet::tailnet;
use redis::IntoConnectionInfo as _;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::sandboxed::sandboxed;
use crate::stage::{CLUSTER, Stage, cluster, is_ready, until};

const LIMIT: Duration = Duration::from_mins(6);
/// Connections of the application.
const CONNECTIONS: u64 = 300;
/// Of the mesh, at most: 64 that are Redis' own, four to each node for the others, what is kept for a
/// change, and the proxy's own.
const OF_THE_MESH: usize = 120;
/// Between two commands of a connection.
const PAUSE: Duration = Duration::from_millis(50);
const CHANGES: usize = 3;

/// What all connections did.
#[derive(Default)]
struct Done {
    commands: Vec<AtomicU64>,
    errors: std::sync::Mutex<Vec<String>>,
    over: AtomicBool,
}

impl Done {
    async fn goes_on(&self) {
        let before: Vec<_> = self.commands.iter().map(|one| one.load(Ordering::Relaxed)).collect();
        until("each connection to go on", async || {
            let now = self.commands.iter().map(|one| one.load(Ordering::Relaxed));
            now.zip(&before).all(|(now, before)| now > before + 3)
        })
        .await;
    }

    fn error(&self, what: String) {
        self.errors.lock().unwrap().push(what);
    }

    /// Until now.
    fn errors(&self) -> Vec<String> {
        std::mem::take(&mut *self.errors.lock().unwrap())
    }
}

/// Counts on a connection of its own, and makes another one where that ends.
async fn count(n: usize, info: redis::ConnectionInfo, done: Arc<Done>) {
    let client = redis::Client::open(info).unwrap();
    let config = redis::AsyncConnectionConfig::new()
        .set_connection_timeout(Some(LIMIT))
        .set_response_timeout(Some(LIMIT));
    let key = format!("count-{n}");
    let mut last: Option<u64> = None;
    while !done.over.load(Ordering::Relaxed) {
        let connected = client.get_multiplexed_async_connection_with_config(&config).await;
        let mut connection = match connected {
            Ok(connection) => connection,
            Err(error) => {
                done.error(format!("{n}: {error}"));
                sleep(PAUSE).await;
                continue;
            }
        };
        while !done.over.load(Ordering::Relaxed) {
            let counted = redis::cmd("INCR").arg(&key).query_async(&mut connection).await;
            match (counted, last) {
                (Ok(now), Some(before)) if now != before + 1 => {
                    done.error(format!("{n}: {now} after {before}"));
                    last = Some(now);
                }
                (Ok(now), _) => last = Some(now),
                (Err(error), _) => {
                    done.error(format!("{n}: {error}"));
                    last = None;
                    break;
                }
            }
            done.commands[n].fetch_add(1, Ordering::Relaxed);
            sleep(PAUSE).await;
        }
    }
}

/// Connections that tailscaled has from the programs of this machine.
fn of_the_mesh() -> usize {
    let port = format!(":{:04X}", tailnet::socks5().port());
    let all = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let is_open = |line: &&str| {
        let mut words = line.split_whitespace().skip(2);
        words.next().is_some_and(|remote| remote.ends_with(&port)) && words.next() == Some("01")
    };
    all.lines().filter(is_open).count()
}

fn access(access: &Access) -> redis::ConnectionInfo {
    let info = redis::RedisConnectionInfo::default()
        .set_username(access.user.as_str())
        .set_password(access.password.as_str());
    let address = redis::ConnectionAddr::Tcp(access.host.clone(), access.port);
    address.into_connection_info().unwrap().set_redis_settings(info)
}

#[test]
fn hundreds_of_connections_see_no_planned_change_and_are_few_for_tailscaled() {
    let name = "many::hundreds_of_connections_see_no_planned_change_and_are_few_for_tailscaled";
    sandboxed(name, LIMIT, async |sandbox: Sandbox| {
        let stage = Stage::start(&sandbox).await;
        stage.client.apply(&cluster(3)).await.unwrap();
        stage.until_ready().await;
        let (_proxy, to) = stage.proxy();
        until("the proxy to listen", async || {
            tokio::net::TcpStream::connect((to.host.as_str(), to.port)).await.is_ok()
        })
        .await;
        let commands = (0..CONNECTIONS).map(|_| AtomicU64::new(0)).collect();
        let done = Arc::new(Done { commands, ..Done::default() });
        let mut all = JoinSet::new();
        for n in 0..CONNECTIONS {
            all.spawn(count(usize::try_from(n).unwrap(), access(&to), done.clone()));
        }
        done.goes_on().await;
        assert_eq!(done.errors(), Vec::<String>::new(), "while they came");
        for _ in 0..CHANGES {
            let open = of_the_mesh();
            assert!(open < OF_THE_MESH, "{open} connections for {CONNECTIONS}");
            let before = stage.master().await;
            stage.says(&["switchover", CLUSTER, "--wait"]).await;
            let moved = stage.until("another master", |c| {
                let nodes = c.status.iter().flat_map(|s| &s.nodes);
                let mut masters =
                    nodes.filter(|n| n.phase == akash_redis::api::conditions::Phase::Master);
                is_ready(c) && masters.any(|n| n.incarnation != before.incarnation)
            });
            moved.await;
            done.goes_on().await;
            assert_eq!(done.errors(), Vec::<String>::new(), "in a planned change");
        }

        // In a failover nobody knows what became of what was under way: those connections end.
        let old = stage.master().await;
        stage.kill_redis(&old);
        stage.until_status("another master", |s| s.epoch > 4).await;
        done.goes_on().await;
        println!("{} connections of {CONNECTIONS} saw the failover", done.errors().len());
        stage.until_ready().await;
        done.goes_on().await;
        assert_eq!(done.errors(), Vec::<String>::new(), "after it");
        let open = of_the_mesh();
        assert!(open < OF_THE_MESH, "{open} connections for {CONNECTIONS}");
        done.over.store(true, Ordering::Relaxed);
        while all.join_next().await.is_some() {}
        stage.delete().await;
    });
}
