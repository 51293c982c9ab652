//! What thousands of connections at once notice of a planned change: `make bench-connections`.
//!
//! `HA_CONNECTIONS` says how many (`1000,5000`). Each has a log-in of its own through one proxy, over a
//! real mesh, and counts once a second; so many planned changes as `HA_ROUNDS` says (3) go by. The
//! figures are in `target/bench/connections.json`.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use akash_redis::devnet::tailnet;
use redis::IntoConnectionInfo as _;
use rustix::process::{Resource, getrlimit, setrlimit};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::application::Finds;
use super::figure::median;
use super::ours::Ours;
use super::setting;

const CONNECTIONS: &str = "1000,5000";
/// Between two commands of one connection.
const PAUSE: Duration = Duration::from_secs(1);
/// What takes longer is given up.
const LIMIT: Duration = Duration::from_mins(3);

/// What all of them noticed since the last look.
#[derive(Default)]
struct Seen {
    milliseconds: Vec<f64>,
    errors: Vec<String>,
}

#[derive(Default)]
struct All {
    seen: Mutex<Seen>,
    over: AtomicBool,
}

impl All {
    fn note(&self, note: impl FnOnce(&mut Seen)) {
        note(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn take(&self) -> Seen {
        std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn goes_on(&self) -> bool {
        !self.over.load(Ordering::Relaxed)
    }

    /// Until each has done something since now.
    async fn each_goes_on(&self, count: usize) -> Seen {
        let (began, mut all) = (Instant::now(), Seen::default());
        while all.milliseconds.len() < 2 * count && began.elapsed() < LIMIT {
            sleep(PAUSE / 10).await;
            let more = self.take();
            all.milliseconds.extend(more.milliseconds);
            all.errors.extend(more.errors);
        }
        all
    }
}

pub async fn run(dir: &Path) {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("files for all connections");
    let rounds = setting("HA_ROUNDS", "3").parse().expect("HA_ROUNDS is a number");
    let mut rows = Vec::new();
    for (number, count) in setting("HA_CONNECTIONS", CONNECTIONS).split(',').enumerate() {
        let count = count.trim().parse().expect("HA_CONNECTIONS are numbers");
        eprintln!("{count} connections");
        rows.push(measure(&dir.join(format!("c{number}")), count, rounds).await);
        // What is measured stays, whatever becomes of the rest.
        save(&rows);
    }
    println!("{}", table(&rows));
    println!("written to {}", save(&rows).display());
}

async fn measure(dir: &Path, count: usize, rounds: usize) -> Value {
    let flags = ["--max-connections", "20000"];
    let ours = Ours::start_with(dir, None, &flags).await;
    let all = Arc::new(All::default());
    let (began, mut tasks) = (Instant::now(), JoinSet::new());
    for number in 0..count {
        tasks.spawn(one(number, all.clone()));
    }
    let first = all.each_goes_on(count).await;
    let (up, mesh) = (began.elapsed().as_secs_f64(), of_the_mesh());
    let (mut longest, mut errors) = (Vec::new(), first.errors.len());
    for round in 1..=rounds {
        eprintln!("  round {round} of {rounds}");
        all.take();
        ours.switchover().await;
        let seen = all.each_goes_on(count).await;
        longest.push(seen.milliseconds.iter().copied().fold(0.0, f64::max));
        for error in seen.errors.iter().take(3) {
            eprintln!("    {error}");
        }
        errors += seen.errors.len();
        ours.ready().await;
    }
    all.over.store(true, Ordering::Relaxed);
    let _ = timeout(LIMIT, tasks.join_all()).await;
    ours.stop().await;
    json!({
        "connections": count,
        "allUpSeconds": up,
        "ofTailscaled": mesh,
        "plannedChanges": rounds,
        "longestMs": median(&longest),
        "errors": errors,
    })
}

/// Counts on one connection until the end.
async fn one(number: usize, all: Arc<All>) {
    let Finds::Address { port, user, password } = Ours::finds() else { return };
    let info = redis::RedisConnectionInfo::default().set_username(user).set_password(password);
    let address = redis::ConnectionAddr::Tcp("127.0.0.1".to_owned(), port);
    let info = address.into_connection_info().expect("an address").set_redis_settings(info);
    let client = redis::Client::open(info).expect("an address");
    let config = redis::AsyncConnectionConfig::new()
        .set_connection_timeout(Some(LIMIT))
        .set_response_timeout(Some(LIMIT));
    let key = format!("count-{number}");
    // Not all at once.
    sleep(PAUSE.mul_f64(f64::from(u32::try_from(number % 100).unwrap_or(0)) / 100.0)).await;
    while all.goes_on() {
        let mut connection =
            match client.get_multiplexed_async_connection_with_config(&config).await {
                Ok(connection) => connection,
                Err(error) => {
                    all.note(|seen| seen.errors.push(error.to_string()));
                    sleep(PAUSE).await;
                    continue;
                }
            };
        while all.goes_on() {
            let asked = Instant::now();
            let done: redis::RedisResult<u64> =
                redis::cmd("INCR").arg(&key).query_async(&mut connection).await;
            let took = asked.elapsed();
            if let Err(error) = done {
                all.note(|seen| seen.errors.push(error.to_string()));
                break;
            }
            all.note(|seen| seen.milliseconds.push(took.as_secs_f64() * 1000.0));
            sleep(PAUSE.saturating_sub(took)).await;
        }
    }
}

/// Connections that tailscaled has from programs of this machine.
fn of_the_mesh() -> usize {
    let port = format!(":{:04X}", tailnet::socks5().port());
    let is_open = |line: &&str| {
        let mut words = line.split_whitespace().skip(2);
        words.next().is_some_and(|remote| remote.ends_with(&port)) && words.next() == Some("01")
    };
    std::fs::read_to_string("/proc/net/tcp").map_or(0, |all| all.lines().filter(is_open).count())
}

fn table(rows: &[Value]) -> String {
    let mut lines = vec![format!(
        "{:>12}{:>14}{:>20}{:>22}{:>10}",
        "connections", "all up, s", "tailscaled's", "longest command, ms", "errors"
    )];
    for row in rows {
        let number = |name: &str| row[name].as_f64().unwrap_or(0.0);
        lines.push(format!(
            "{:>12}{:>14.1}{:>20}{:>22.0}{:>10}",
            number("connections"),
            number("allUpSeconds"),
            number("ofTailscaled"),
            number("longestMs"),
            number("errors")
        ));
    }
    lines.join("\n")
}

fn save(rows: &[Value]) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench/connections.json");
    std::fs::create_dir_all(path.parent().expect("a directory")).expect("the directory of figures");
    let text = serde_json::to_string_pretty(rows).expect("figures are JSON");
    std::fs::write(&path, text).expect("the file of figures");
    path
}
