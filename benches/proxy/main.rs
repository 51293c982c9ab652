//! What the proxy costs beside a proxy that moves bytes alone: `HAProxy` in TCP mode, in turns with
//! ours in one run, and redis-server straight for the added latency. A table goes to the terminal,
//! the figures to `target/bench/proxy.json`: medians, and of throughput the lowest and the highest
//! ratio of a round as well.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use akash_redis::api::status::Endpoint;
use axum::Json;
use axum::extract::RawQuery;
use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use axum::routing::get;
use figure::{Figure, median};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixListener};
use tokio::time::sleep;

#[path = "../mesh/figure.rs"]
mod figure;

const PROGRAM: &str = env!("CARGO_BIN_EXE_akash-redis");
/// Rounds of each measurement, each of all three in turn. Many short ones: what else the machine does
/// meanwhile is to meet both alike.
const ROUNDS: usize = 15;
/// Connections of redis-benchmark.
const CLIENTS: &str = "50";
/// Connections whose memory is measured.
const IDLE: usize = 1000;

/// A program that ends with the run.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(command: &mut Command) -> Running {
    let command = command.stdin(Stdio::null()).stdout(Stdio::null());
    Running(command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")))
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("it has one").port()
}

/// An operator that knows one master.
fn operator(socket: &Path, port: u16) {
    let endpoint = move |RawQuery(query): RawQuery| async move {
        if query.unwrap_or_default().contains("after_epoch") {
            sleep(Duration::from_secs(30)).await;
            return StatusCode::NO_CONTENT.into_response();
        }
        let (epoch, ip) = (1, "127.0.0.1".to_owned());
        Json(Endpoint { epoch, ip, port, ..Endpoint::default() }).into_response()
    };
    let app = axum::Router::new().route("/v1alpha1/clusters/cache/endpoint", get(endpoint));
    let listener = UnixListener::bind(socket).expect("a socket");
    tokio::spawn(async move { axum::serve(listener, app).await });
}

async fn until_pong(port: u16) {
    loop {
        if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)).await
            && stream.write_all(b"PING\r\n").await.is_ok()
            && stream.read_exact(&mut [0; 7]).await.is_ok()
        {
            return;
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// Requests per second, average and p99 latency in milliseconds.
fn benchmark(port: u16, arguments: &[&str]) -> [f64; 3] {
    let port = port.to_string();
    let output = Command::new("redis-benchmark")
        .args(["-p", &port, "-r", "100000", "--csv"])
        .args(arguments)
        .output()
        .expect("redis-benchmark is installed");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().nth(1).unwrap_or_else(|| panic!("no figures: {text}"));
    let columns: Vec<f64> =
        line.split(',').filter_map(|column| column.trim_matches('"').parse().ok()).collect();
    [columns[0], columns[1], columns[5]]
}

fn resident_kb(process: &Running) -> f64 {
    let path = format!("/proc/{}/status", process.0.id());
    let status = std::fs::read_to_string(path).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a size");
    line.split_whitespace().nth(1).and_then(|kb| kb.parse().ok()).expect("a number")
}

#[tokio::main]
async fn main() -> ExitCode {
    // `cargo test --all-targets` runs this program too, and not for its figures.
    if !std::env::args().any(|argument| argument == "--bench") {
        return ExitCode::SUCCESS;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let [redis, ours, peer] = [free_port(), free_port(), free_port()];
    let _redis = start(Command::new("redis-server").current_dir(dir.path()).args([
        "--port",
        &redis.to_string(),
        "--save",
        "",
        "--maxclients",
        "4000",
    ]));
    until_pong(redis).await;
    let socket = dir.path().join("operator.sock");
    operator(&socket, redis);
    let listen = format!("127.0.0.1:{ours}");
    let proxy = start(Command::new(PROGRAM).arg("--socket").arg(&socket).args([
        "proxy",
        "--cluster",
        "cache",
        "--listen",
        &listen,
        "--max-connections",
        "3000",
    ]));
    until_pong(ours).await;
    let config = dir.path().join("haproxy.cfg");
    let text = format!(
        "global\n maxconn 4000\ndefaults\n mode tcp\n timeout connect 5s\n timeout client 1h\n timeout server 1h\nlisten redis\n bind 127.0.0.1:{peer}\n server one 127.0.0.1:{redis}\n"
    );
    std::fs::write(&config, text).expect("a file");
    let haproxy = start(
        Command::new("haproxy")
            .env("PATH", "/usr/sbin:/usr/bin:/bin")
            .args(["-db", "-f"])
            .arg(&config),
    );
    until_pong(peer).await;

    let mut figures = Vec::new();
    throughput(&mut figures, [(ours, &proxy), (peer, &haproxy)]);
    latency(&mut figures, [redis, ours, peer]);
    let memory = [(ours, &proxy), (peer, &haproxy)];
    let mut kb = Vec::new();
    for (port, process) in memory {
        kb.push(memory_of_idle(port, process).await);
    }
    figures.push(Figure::new("memory of an idle connection", "KB", kb[0], kb[1], IDLE));

    println!("{}", figure::table(&figures));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench/proxy.json");
    std::fs::create_dir_all(path.parent().expect("a directory")).expect("the directory of figures");
    std::fs::write(&path, figure::json(&figures)).expect("the file of figures");
    println!("written to {}", path.display());
    ExitCode::SUCCESS
}

/// Ours beside the peer, in turns: commands a second, and the processor time that the proxy itself
/// takes for each batch that a client sends at once.
fn throughput(figures: &mut Vec<Figure>, proxies: [(u16, &Running); 2]) {
    for (pipeline, requests, batches) in [("1", "60000", 60_000.), ("16", "400000", 25_000.)] {
        for command in ["get", "set"] {
            let arguments = ["-c", CLIENTS, "-P", pipeline, "-t", command, "-n", requests];
            let (mut rates, mut times) = ([const { Vec::new() }; 2], [const { Vec::new() }; 2]);
            for round in 0..ROUNDS {
                // Whoever is first has the warmer machine, or the colder.
                for which in if round % 2 == 0 { [0, 1] } else { [1, 0] } {
                    let (port, process) = proxies[which];
                    let before = processor_us(process);
                    rates[which].push(benchmark(port, &arguments)[0]);
                    times[which].push((processor_us(process) - before) / batches);
                }
            }
            let name = format!("{} -P {pipeline} -c {CLIENTS}", command.to_uppercase());
            figures.push(Figure::of_rounds(&name, "1/s", &rates[0], &rates[1]));
            let name = format!("{name}, processor a batch");
            figures.push(Figure::of_rounds(&name, "us", &times[0], &times[1]));
        }
    }
}

/// Processor time that all threads of a program took so far.
fn processor_us(process: &Running) -> f64 {
    let threads = std::fs::read_dir(format!("/proc/{}/task", process.0.id())).expect("it runs");
    let ns = threads.flatten().filter_map(|thread| {
        let times = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        times.split_whitespace().next()?.parse::<f64>().ok()
    });
    ns.sum::<f64>() / 1e3
}

/// What each adds to one command at a time.
fn latency(figures: &mut Vec<Figure>, ports: [u16; 3]) {
    let arguments = ["-c", "1", "-t", "get", "-n", "20000"];
    let mut all = [const { Vec::new() }; 3];
    for _ in 0..ROUNDS {
        for (times, port) in all.iter_mut().zip(ports) {
            times.push(benchmark(port, &arguments));
        }
    }
    let of = |which: usize, column: usize| {
        median(&all[which].iter().map(|times| times[column]).collect::<Vec<_>>())
    };
    for (name, column) in [("average", 1), ("p99", 2)] {
        let straight = of(0, column);
        let name = format!("GET -c 1, {name} beyond straight");
        let [ours, peer] = [of(1, column) - straight, of(2, column) - straight];
        figures.push(Figure::new(&name, "ms", ours, peer, ROUNDS));
    }
    figures.push(Figure::alone("GET -c 1, average straight", "ms", of(0, 1), ROUNDS));
}

/// Of connections that said something once.
async fn memory_of_idle(port: u16, process: &Running) -> f64 {
    let before = resident_kb(process);
    let mut open = Vec::new();
    for _ in 0..IDLE {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.expect("it listens");
        stream.write_all(b"PING\r\n").await.expect("it reads");
        stream.read_exact(&mut [0; 7]).await.expect("an answer");
        open.push(stream);
    }
    #[expect(clippy::cast_precision_loss, reason = "a thousand")]
    let each = (resident_kb(process) - before) / IDLE as f64;
    each
}
