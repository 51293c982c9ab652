//! `akash-redis demo`: a cluster on a local market, and what happens to it.

pub mod patience;
pub mod writer;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::Method;
use rand::RngCore as _;
use rustix::process::{Pid, Signal, kill_process};
use sha2::{Digest as _, Sha256};
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

use super::local::{Local, LocalError, LocalOptions};
use super::show;
use crate::api::conditions::{ConditionType, Phase};
use crate::api::status::NodeStatus;
use crate::api::types::{PasswordFrom, RedisCluster, User};
use crate::api::validate;
use crate::api_client::{Client, ClientError};
use crate::devnet::distance::Distance;
use crate::devnet::sandbox::{self, Sandbox, SandboxError};
use crate::devnet::tailnet::{self, TailnetError};
use crate::server::messages::Migrate;
use patience::{Patience, steps};
use writer::{Access, Writer};

/// The manifest that the demo applies.
const QUICKSTART: &str = include_str!("../../manifests/quickstart.yaml");
/// Where the demo's application finds its proxy, inside the sandbox.
const PROXY: (&str, u16) = ("127.0.0.1", 6380);
/// Between two looks.
const POLL: Duration = Duration::from_millis(50);
/// Acknowledged writes that show that the application works.
const SOME_WRITES: usize = 100;

/// Flags of `demo`.
#[derive(Debug, clap::Args)]
pub struct Demo {
    /// Leave the cluster running once it is ready, and print the commands to talk to it; Ctrl-C
    /// ends it.
    #[arg(long)]
    pub keep: bool,
    /// How far apart nodes are.
    #[command(flatten)]
    pub distance: Option<Distance>,
}

/// Why the demo failed.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The sandbox.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// The market, the tailnet or the operator.
    #[error(transparent)]
    Local(#[from] LocalError),
    /// A call of the operator.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The control API.
    #[error(transparent)]
    Tailnet(#[from] TailnetError),
    /// The application cannot read back.
    #[error("the application cannot read back what it wrote")]
    Redis(#[from] redis::RedisError),
    /// The shipped manifest.
    #[error("the demo's manifest is refused: {0}")]
    Manifest(String),
    /// A process cannot be started, or a directory not made.
    #[error("{what} failed")]
    Io {
        /// What.
        what: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// A step does not end.
    #[error(
        "{what} did not happen in {} s, and nothing moves towards it any more; the operator's log says why: {log}",
        waited.as_secs()
    )]
    Stuck {
        /// What was waited for.
        what: String,
        /// For how long.
        waited: Duration,
        /// The end of the operator's log.
        log: String,
    },
    /// Somebody pressed Ctrl-C.
    #[error("interrupted; everything was removed")]
    Interrupted,
    /// Something is left after the end.
    #[error("after the deletion there is still {0}")]
    Left(String),
}

/// Runs the demo: outside it makes the sandbox, inside it plays.
pub async fn run(args: Demo) -> Result<ExitCode, DemoError> {
    if !sandbox::inside() {
        tailnet::peers_dir()?;
        let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
        return Ok(sandbox::enter(&arguments).await?);
    }
    let sandbox = Sandbox::set_up().await?;
    let stop = sandbox.stop.clone();
    let dir = if args.keep { visible_dir()? } else { sandbox.dir.clone() };
    let played = tokio::select! {
        played = play(&args, &dir, &stop) => played,
        () = stop.cancelled() => Err(DemoError::Interrupted),
    };
    if args.keep {
        // Sockets and logs only; processes end with the sandbox.
        let _ = std::fs::remove_dir_all(&dir);
    }
    match played {
        Err(DemoError::Interrupted) if args.keep => Ok(ExitCode::SUCCESS),
        other => other.map(|()| ExitCode::SUCCESS),
    }
}

/// A directory that the machine outside of the sandbox sees too.
fn visible_dir() -> Result<PathBuf, DemoError> {
    let dir =
        std::env::temp_dir().join(format!("akash-redis-{:08x}", rand::thread_rng().next_u32()));
    std::fs::create_dir(&dir)
        .map_err(|source| DemoError::Io { what: "making a directory", source })?;
    Ok(dir)
}

async fn play(args: &Demo, dir: &Path, stop: &CancellationToken) -> Result<(), DemoError> {
    let program = std::env::current_exe()
        .map_err(|source| DemoError::Io { what: "finding this program", source })?;
    let begin = Instant::now();
    say(
        begin,
        "starting a local market (a chain, four providers) and a tailnet of real tailscaled",
    );
    let options = LocalOptions { distance: args.distance, ..LocalOptions::default() };
    let mut local = Local::start_with(&program, dir, stop, &options).await?;
    local.start_operator().await?;
    let scenario =
        Scenario { begin, printed: Mutex::default(), client: local.client()?, local, program };
    let (cluster, access) = manifest()?;
    let wealth = scenario.local.market.tenant_books().0;

    say(begin, "applying manifests/quickstart.yaml");
    scenario.client.apply(&cluster).await?;
    let ready = scenario.until("the cluster to be Ready", is_ready).await?;
    say(begin, "the cluster is ready");
    show_all(&ready);
    if args.keep {
        let _proxy = scenario.proxy(&format!("{}/redis.sock", dir.display()))?;
        scenario.keep(dir, &access);
        stop.cancelled().await;
        return Err(DemoError::Interrupted);
    }

    let _proxy = scenario.proxy(&format!("{}:{}", PROXY.0, PROXY.1))?;
    let writer = Writer::start(access);
    scenario.writes(&writer, "the application's first writes").await?;
    say(begin, "an application writes through `akash-redis proxy`");
    scenario.kill_redis(&writer).await?;
    scenario.kill_node(&writer).await?;
    scenario.migrate(&writer).await?;
    drop(writer);
    scenario.delete(wealth).await
}

/// The quickstart's manifest, with a fresh password for its application user.
fn manifest() -> Result<(RedisCluster, Access), DemoError> {
    let problems = |list: Vec<validate::Problem>| {
        DemoError::Manifest(list.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
    };
    let mut cluster = validate::parse(QUICKSTART).map_err(problems)?.remove(0);
    let password =
        format!("{:016x}{:016x}", rand::thread_rng().next_u64(), rand::thread_rng().next_u64());
    let hash = hex::encode(Sha256::digest(&password));
    let Some(user) = cluster.spec.redis.users.first_mut() else {
        return Err(DemoError::Manifest("it has no application user".to_owned()));
    };
    *user =
        User { password_from: None::<PasswordFrom>, password_sha256: Some(hash), ..user.clone() };
    let access =
        Access { host: PROXY.0.to_owned(), port: PROXY.1, user: user.name.clone(), password };
    Ok((cluster, access))
}

struct Scenario {
    begin: Instant,
    /// The phase that was last printed of each incarnation.
    printed: Mutex<BTreeMap<String, Phase>>,
    local: Local,
    client: Client,
    program: PathBuf,
}

impl Scenario {
    /// Polls the cluster until it is as wanted; prints each change of a node on the way.
    async fn until(
        &self,
        what: &str,
        wanted: impl Fn(&RedisCluster) -> bool,
    ) -> Result<RedisCluster, DemoError> {
        let (mut patience, mut seen) = (Patience::begin(Instant::now()), Vec::new());
        loop {
            // The operator may be busy for a moment; the wait's end decides.
            if let Ok(cluster) = self.client.get("cache").await {
                self.print_phases(&cluster);
                if wanted(&cluster) {
                    return Ok(cluster);
                }
                seen = steps(&cluster);
            }
            self.goes_on(&mut patience, seen.clone(), what)?;
            tokio::time::sleep(POLL).await;
        }
    }

    fn print_phases(&self, cluster: &RedisCluster) {
        let Some(status) = &cluster.status else { return };
        let mut printed = self.printed.lock().unwrap_or_else(PoisonError::into_inner);
        for node in &status.nodes {
            if printed.insert(node.incarnation.clone(), node.phase) == Some(node.phase) {
                continue;
            }
            let why = status
                .waiting
                .iter()
                .find(|w| w.what.contains(&node.incarnation))
                .map(|w| format!(" (waits for {})", w.what));
            say(
                self.begin,
                &format!("  {} is {}{}", node.incarnation, node.phase, why.unwrap_or_default()),
            );
        }
    }

    /// An error when nothing moves towards it any more.
    fn goes_on<T: PartialEq>(
        &self,
        patience: &mut Patience<T>,
        seen: T,
        what: &str,
    ) -> Result<(), DemoError> {
        let now = Instant::now();
        if patience.goes_on(seen, now) {
            Ok(())
        } else {
            Err(self.stuck(what, patience.waited(now)))
        }
    }

    fn stuck(&self, what: &str, waited: Duration) -> DemoError {
        let log = std::fs::read_to_string(self.local.log()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(30)..].join("\n");
        DemoError::Stuck { what: what.to_owned(), waited, log: format!("\n{tail}") }
    }

    fn proxy(&self, listen: &str) -> Result<Child, DemoError> {
        let mut command = Command::new(&self.program);
        command.arg("--socket").arg(self.local.socket()).args(["proxy", "--cluster", "cache"]);
        command.args(["--listen", listen, "--socks5", &tailnet::socks5().to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        command.spawn().map_err(|source| DemoError::Io { what: "starting the proxy", source })
    }

    /// Waits until the application has some more writes acknowledged.
    async fn writes(&self, writer: &Writer, what: &str) -> Result<(), DemoError> {
        let (mut patience, before) = (Patience::begin(Instant::now()), writer.acknowledged());
        while writer.acknowledged() < before + SOME_WRITES {
            self.goes_on(&mut patience, writer.acknowledged(), what)?;
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    async fn master(&self) -> Result<(NodeStatus, u64), DemoError> {
        let cluster = self
            .until("a master", |c| {
                c.status.as_ref().is_some_and(|s| s.nodes.iter().any(|n| n.phase == Phase::Master))
            })
            .await?;
        let status = cluster.status.unwrap_or_default();
        let node = status.nodes.into_iter().find(|n| n.phase == Phase::Master).unwrap_or_default();
        Ok((node, status.epoch))
    }

    async fn failed_over(&self, epoch: u64) -> Result<RedisCluster, DemoError> {
        self.until("another master", |c| {
            c.status
                .as_ref()
                .and_then(|s| s.last_failover.as_ref())
                .is_some_and(|f| f.epoch > epoch)
        })
        .await
    }

    async fn kill_redis(&self, writer: &Writer) -> Result<(), DemoError> {
        let (master, epoch) = self.master().await?;
        writer.begin();
        self.writes(writer, "writes before the kill").await?;
        say(self.begin, &format!("killing redis-server of the master, {}", master.incarnation));
        if let Some((provider, lease)) = self.local.market.find(master.dseq) {
            for pid in
                self.local.market.providers[provider].runner.processes(&lease, "redis-server")
            {
                if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
                    // It may be gone between the look and the signal.
                    let _ = kill_process(pid, Signal::KILL);
                }
            }
        }
        let cluster = self.failed_over(epoch).await?;
        self.writes(writer, "writes after the failover").await?;
        report(&cluster);
        measure(writer, "redis-server of the master killed").await?;
        self.until("the cluster to be whole again", is_ready).await?;
        Ok(())
    }

    async fn kill_node(&self, writer: &Writer) -> Result<(), DemoError> {
        let (master, epoch) = self.master().await?;
        writer.begin();
        self.writes(writer, "writes before the kill").await?;
        say(self.begin, &format!("killing the whole node of the master, {}", master.incarnation));
        if let Some((provider, lease)) = self.local.market.find(master.dseq) {
            self.local.market.providers[provider].runner.power_off(&lease);
        }
        let cluster = self.failed_over(epoch).await?;
        self.writes(writer, "writes after the failover").await?;
        report(&cluster);
        measure(writer, "whole node of the master killed").await?;
        let lost = master.incarnation;
        let whole =
            self.until("a new node in its place", |c| is_ready(c) && !has(c, &lost)).await?;
        say(self.begin, "the lost node was replaced by a new one");
        show_all(&whole);
        Ok(())
    }

    async fn migrate(&self, writer: &Writer) -> Result<(), DemoError> {
        let cluster = self.client.get("cache").await?;
        let nodes = cluster.status.unwrap_or_default().nodes;
        let leaver = nodes.into_iter().find(|n| n.ordinal == 1).unwrap_or_default().incarnation;
        writer.begin();
        say(
            self.begin,
            &format!("moving node 1 ({leaver}) to another provider while the application writes"),
        );
        self.client.migrate("cache", &Migrate { ordinal: Some(1), incarnation: None }).await?;
        let moved = self.until("the node to be moved", |c| is_ready(c) && !has(c, &leaver)).await?;
        self.writes(writer, "writes after the move").await?;
        measure(writer, "node 1 moved").await?;
        show_all(&moved);
        Ok(())
    }

    async fn delete(&self, wealth: u128) -> Result<(), DemoError> {
        say(self.begin, "deleting the cluster");
        self.client.delete("cache", true).await?;
        let (mut patience, mut seen) = (Patience::begin(Instant::now()), Vec::new());
        loop {
            match self.client.get("cache").await {
                Err(ClientError::NotFound(_)) => break,
                Ok(cluster) => seen = steps(&cluster),
                Err(_) => {}
            }
            self.goes_on(&mut patience, seen.clone(), "the deletion")?;
            tokio::time::sleep(POLL).await;
        }
        let (balance, escrow, active) = self.local.market.tenant_books();
        let devices = self.devices().await?;
        let keys = self.usable_keys().await?;
        println!(
            "  the wallet paid {} uact to providers; {escrow} uact are in escrow, {active} deployments, {devices} devices and {keys} keys are left",
            wealth.saturating_sub(balance)
        );
        if escrow != 0 || active != 0 || devices != 0 || keys != 0 {
            return Err(DemoError::Left(format!(
                "{escrow} uact in escrow, {active} deployments, {devices} devices, {keys} keys"
            )));
        }
        say(self.begin, "every deposit is refunded, every device and key is gone");
        Ok(())
    }

    /// Devices of the cluster on the tailnet.
    async fn devices(&self) -> Result<usize, DemoError> {
        let answer = self.local.tailnet.api(Method::GET, "tailnet/-/devices", None).await?;
        let list = answer["devices"].as_array().cloned().unwrap_or_default();
        Ok(list
            .iter()
            .filter(|item| item["hostname"].as_str().is_some_and(|n| n.starts_with("cache-")))
            .count())
    }

    /// Keys that could still be used to join as a node.
    async fn usable_keys(&self) -> Result<usize, DemoError> {
        let answer = self.local.tailnet.api(Method::GET, "tailnet/-/keys", None).await?;
        let list = answer["keys"].as_array().cloned().unwrap_or_default();
        let ours =
            list.iter().filter(|k| k["description"].as_str().is_some_and(|d| d.starts_with("ar ")));
        Ok(ours.filter(|k| k["invalid"] != true).count())
    }

    fn keep(&self, dir: &Path, access: &Access) {
        let socket = self.local.socket();
        println!("It goes on until Ctrl-C. In another terminal:");
        println!("  export AKASH_REDIS_SOCKET={}", socket.display());
        for command in
            ["get", "describe cache", "plan cache", "events cache", "migrate cache 1", "logs cache"]
        {
            println!("  {} {command}", self.program.display());
        }
        println!(
            "Redis, through a proxy on a unix socket (user {}, password {}):",
            access.user, access.password
        );
        println!(
            "  redis-cli -s {}/redis.sock --user {} -a {} set hello world",
            dir.display(),
            access.user,
            access.password
        );
        println!("The operator's log: {}", self.local.log().display());
    }
}

fn is_ready(cluster: &RedisCluster) -> bool {
    let generation = cluster.metadata.generation.unwrap_or(0);
    cluster
        .status
        .as_ref()
        .is_some_and(|s| s.observed_generation == generation && s.is_true(ConditionType::Ready))
}

fn has(cluster: &RedisCluster, incarnation: &str) -> bool {
    cluster.status.as_ref().is_some_and(|s| s.nodes.iter().any(|n| n.incarnation == incarnation))
}

/// What the operator says of the failover.
fn report(cluster: &RedisCluster) {
    let Some(failover) = cluster.status.as_ref().and_then(|s| s.last_failover.as_ref()) else {
        return;
    };
    println!(
        "  epoch {}: {} -> {}: {}",
        failover.epoch, failover.old, failover.new, failover.reason
    );
    println!("  seen by {}", failover.witnesses.join(", "));
    println!("  fence: {}", failover.fence);
    println!("  {}", failover.steps.join(", "));
}

fn say(begin: Instant, text: &str) {
    println!("{:6.1}s  {text}", begin.elapsed().as_secs_f64());
}

/// Ends a phase: what was acknowledged, what is lost.
async fn measure(writer: &Writer, what: &str) -> Result<(), DemoError> {
    let phase = writer.end().await?;
    println!(
        "  {what}: longest gap {} ms, {} acknowledged writes, {} of them lost\n",
        phase.longest_gap.as_millis(),
        phase.acknowledged,
        phase.lost
    );
    Ok(())
}

fn show_all(cluster: &RedisCluster) {
    println!("\n{}", show::topology(cluster));
    if let Some(status) = &cluster.status {
        println!("{}\n", show::cost(&status.cost));
    }
}
