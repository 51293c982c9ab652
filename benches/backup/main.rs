//! What a backup costs: how fast data are stored and come back, beside `redis-cli --rdb` and zstd of
//! the same level in the same run, whose files are brought to the disk as the agent's are; what clients of the master notice while a replica is backed up;
//! and how much memory the agent takes meanwhile.
//!
//! `AKASH_REDIS_BENCH_MIB` is how much data there is, 1024 unless set. A table goes to the terminal,
//! the figures to `target/bench/backup.json`.

mod node;

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use node::{PASSWORD, Remote, Told};
use rand::Rng as _;
use serde_json::json;

/// Bytes of a value.
const VALUE: usize = 1024;
/// Values that are written at a time.
const BATCH: usize = 256;
/// Clients' calls are measured for at least so long, without and with a backup.
const WATCH: Duration = Duration::from_secs(10);
/// Between two calls of the client that is measured.
const PAUSE: Duration = Duration::from_millis(1);
/// Between two looks at memory.
const LOOK: Duration = Duration::from_millis(20);
/// Level of both compressors.
const LEVEL: &str = "-3";
/// First of four ports.
const PORTS: u16 = 21_871;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    if arguments.first().is_some_and(|first| first == "node") {
        return runtime.block_on(node::serve(&arguments[1..]));
    }
    if !arguments.iter().any(|argument| argument == "--bench" || argument == "small") {
        // `cargo test --all-targets` sees that it builds.
        return;
    }
    let small = arguments.iter().any(|argument| argument == "small");
    let mib = std::env::var("AKASH_REDIS_BENCH_MIB").ok().and_then(|text| text.parse().ok());
    let report = runtime.block_on(measure(mib.unwrap_or(if small { 32 } else { 1024 })));
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench");
    std::fs::create_dir_all(&dir).expect("target/bench");
    let text = serde_json::to_string_pretty(&report).expect("figures");
    std::fs::write(dir.join("backup.json"), text + "\n").expect("target/bench/backup.json");
}

async fn measure(mib: u64) -> serde_json::Value {
    let dir = tempfile::tempdir().expect("a directory");
    open(dir.path());
    let at = |name: &str| dir.path().join(name);
    let maxmemory = (mib * 3) << 20;
    let mut master = Remote::start(&at("master"), PORTS, 0, maxmemory).await;
    master.tell(&Told::Promote).await;
    fill(master.port, mib).await;
    let mut replica = Remote::start(&at("replica"), PORTS + 1, master.port, maxmemory).await;
    replica.tell(&Told::Follow).await;

    let (idle, pid) = (replica.resident(), replica.pid());
    let told = Told::BackUp(at("bucket"), node::ID.to_owned());
    let began = Instant::now();
    let (peak, snapshot) = highest(pid, replica.tell(&told)).await;
    let backup = began.elapsed();
    let (quiet, busy) = noticed(&master, &mut replica, &at("other")).await;
    let (plain, plain_unsynced) = dump(replica.port, &at("plain.zst"));

    let mut fresh = Remote::start(&at("fresh"), PORTS + 2, 0, maxmemory).await;
    let fresh_idle = fresh.resident();
    let began = Instant::now();
    let told = Told::Restore(at("bucket"), snapshot.clone());
    let pid = fresh.pid();
    let (restore_peak, _) = highest(pid, fresh.tell(&told)).await;
    let restore = began.elapsed();
    fresh.end().await;
    let (plain_restore, plain_restore_unsynced) = load(&at("plain.zst"), &at("plain")).await;
    replica.end().await;
    master.end().await;

    let rate = |took: Duration| megabytes(snapshot.rdb_bytes) / took.as_secs_f64();
    let above = |peak: u64, idle: u64| peak.saturating_sub(idle) / 1024;
    println!(
        "{:>10} {:>10} {:>14} {:>7} {:>16} {:>7}",
        "", "MB/s", "redis-cli+zstd", "RATIO", "in its memory", "RATIO"
    );
    for (what, ours, theirs, unsynced) in [
        ("backup", backup, plain, plain_unsynced),
        ("restore", restore, plain_restore, plain_restore_unsynced),
    ] {
        let (ours, theirs, unsynced) = (rate(ours), rate(theirs), rate(unsynced));
        println!(
            "{what:>10} {ours:>10.1} {theirs:>14.1} {:>7.2} {unsynced:>16.1} {:>7.2}",
            ours / theirs,
            ours / unsynced
        );
    }
    println!(
        "p99 of the master's clients: {} us, {} us while a replica on another core is backed up",
        quiet.p99, busy.p99
    );
    println!(
        "the agent's memory: {} MiB idle, {} MiB above that for a backup, {} for a restore",
        idle / 1024,
        above(peak, idle),
        above(restore_peak, fresh_idle)
    );
    json!({
        "data_bytes": snapshot.rdb_bytes,
        "stored_bytes": snapshot.stored_bytes,
        "backup": { "mb_per_s": rate(backup), "redis_cli_mb_per_s": rate(plain), "ratio": rate(backup) / rate(plain), "ratio_to_unsynced": rate(backup) / rate(plain_unsynced) },
        "restore": { "mb_per_s": rate(restore), "redis_server_mb_per_s": rate(plain_restore), "ratio": rate(restore) / rate(plain_restore), "ratio_to_unsynced": rate(restore) / rate(plain_restore_unsynced) },
        "master_us": {
            "quiet": { "p50": quiet.p50, "p99": quiet.p99, "calls": quiet.calls },
            "backup": { "p50": busy.p50, "p99": busy.p99, "calls": busy.calls },
        },
        "agent_mib": {
            "idle": idle / 1024,
            "above_for_backup": above(peak, idle),
            "above_for_restore": above(restore_peak, fresh_idle),
        },
    })
}

/// What clients of the master notice while nothing happens, and while a replica is backed up. Master
/// and clients have a core of their own, as they have a machine of their own.
async fn noticed(master: &Remote, replica: &mut Remote, to: &Path) -> (Noticed, Noticed) {
    let last = std::thread::available_parallelism().map_or(0, |cores| cores.get() - 1);
    let this = std::process::id();
    node::runs_on(this, "0");
    master.runs_on("0");
    replica.runs_on(&last.to_string());
    let quiet = watched(master.port, async { tokio::time::sleep(WATCH).await }).await;
    let told = Told::BackUp(to.to_owned(), "b2".to_owned());
    let busy = watched(master.port, async { drop(replica.tell(&told).await) }).await;
    node::runs_on(this, &format!("0-{last}"));
    (quiet, busy)
}

/// Redis' own user may pass through it.
fn open(dir: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755)).expect("ours");
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

async fn client(port: u16) -> redis::aio::MultiplexedConnection {
    let url = format!("redis://app:{PASSWORD}@127.0.0.1:{port}/");
    let client = redis::Client::open(url).expect("a client");
    // By itself it waits for half a second.
    let patience = Some(Duration::from_mins(1));
    let config = redis::AsyncConnectionConfig::new()
        .set_connection_timeout(patience)
        .set_response_timeout(patience);
    let connected = client.get_multiplexed_async_connection_with_config(&config);
    connected.await.expect("a connection")
}

/// Values of hexadecimal digits: zstd makes about a half of them.
async fn fill(port: u16, mib: u64) {
    let mut connection = client(port).await;
    let count = usize::try_from((mib << 20) / VALUE as u64).expect("it fits");
    for batch in 0..count.div_ceil(BATCH) {
        let mut pipe = redis::pipe();
        for n in 0..BATCH {
            let mut half = [0u8; VALUE / 2];
            rand::thread_rng().fill(&mut half[..]);
            pipe.set(format!("key:{}", batch * BATCH + n), hex::encode(half)).ignore();
        }
        pipe.exec_async(&mut connection).await.expect("it takes writes");
    }
}

/// What a client noticed.
struct Noticed {
    p50: u64,
    p99: u64,
    calls: usize,
}

/// Writes and reads one key after the other, and how long each took, until `work` is done.
async fn watched(port: u16, work: impl Future<Output = ()>) -> Noticed {
    let over = Arc::new(AtomicBool::new(false));
    let calls = tokio::spawn({
        let over = over.clone();
        async move {
            let mut connection = client(port).await;
            let mut took = Vec::new();
            for n in 0.. {
                if over.load(Ordering::Relaxed) {
                    break;
                }
                let began = Instant::now();
                let mut pipe = redis::pipe();
                pipe.set(format!("probe:{}", n % 1000), n).ignore().get("probe:0").ignore();
                pipe.exec_async(&mut connection).await.expect("the master answers");
                took.push(u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX));
                tokio::time::sleep(PAUSE).await;
            }
            took
        }
    });
    work.await;
    over.store(true, Ordering::Relaxed);
    let mut took = calls.await.expect("it was measured");
    took.sort_unstable();
    let at = |part: usize| took.get(took.len() * part / 100).copied().unwrap_or(0);
    Noticed { p50: at(50), p99: at(99), calls: took.len() }
}

/// The most memory that a process takes meanwhile, KiB.
async fn highest<T>(pid: u32, work: impl Future<Output = T>) -> (u64, T) {
    let most = Arc::new(AtomicU64::new(0));
    let look = tokio::spawn({
        let most = most.clone();
        async move {
            loop {
                most.fetch_max(node::resident(pid), Ordering::Relaxed);
                tokio::time::sleep(LOOK).await;
            }
        }
    });
    let done = work.await;
    look.abort();
    (most.load(Ordering::Relaxed), done)
}

/// What `redis-cli --rdb` and zstd take for the same data; both as replicas are copied. The user of
/// the agent may do so. Once with the file on the disk, as a backup is at its end, and once without.
fn dump(port: u16, to: &Path) -> (Duration, Duration) {
    let began = Instant::now();
    let mut cli = Command::new("redis-cli")
        .args(["-p", &port.to_string(), "--user", "_agent", "--pass", "agent", "--rdb", "-"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("redis-cli");
    let packed = Command::new("zstd")
        .args([LEVEL, "-q", "-f", "-o"])
        .arg(to)
        .stdin(cli.stdout.take().expect("piped"))
        .status();
    assert!(packed.expect("zstd").success() && cli.wait().expect("redis-cli").success());
    let unsynced = began.elapsed();
    sync(to);
    (began.elapsed(), unsynced)
}

fn sync(file: &Path) {
    std::fs::File::open(file).and_then(|file| file.sync_all()).expect("a disk");
}

/// What zstd and a redis-server take that is started with the file. Once with that on the disk, as what
/// is restored is, and once without.
async fn load(from: &Path, dir: &Path) -> (Duration, Duration) {
    std::fs::create_dir_all(dir).expect("a directory");
    let began = Instant::now();
    let mut unpack = Command::new("zstd");
    unpack.args(["-d", "-q", "-f", "-o"]).arg(dir.join("dump.rdb")).arg(from);
    let unpacked = unpack.status();
    assert!(unpacked.expect("zstd").success());
    let port = (PORTS + 3).to_string();
    let mut server = Command::new("redis-server")
        .args(["--port", &port, "--bind", "127.0.0.1", "--save", "", "--dir"])
        .arg(dir)
        .stdout(Stdio::null())
        .spawn()
        .expect("redis-server");
    let url = format!("redis://127.0.0.1:{port}/");
    let answers = async || {
        let client = redis::Client::open(url.as_str()).ok()?;
        let mut connection = client.get_multiplexed_async_connection().await.ok()?;
        redis::cmd("GET").arg("key:0").exec_async(&mut connection).await.ok()
    };
    while answers().await.is_none() {
        tokio::time::sleep(LOOK).await;
    }
    let unsynced = began.elapsed();
    sync(&dir.join("dump.rdb"));
    let took = began.elapsed();
    let _ = server.kill();
    let _ = server.wait();
    (took, unsynced)
}
