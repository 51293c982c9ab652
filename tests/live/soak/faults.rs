//! What goes wrong with one node, and what a person asks for: each is done and undone here; what
//! becomes of the cluster is somebody else's to look at.

use std::time::Duration;

use akash_redis::api::status::{NodeStatus, Status};
use akash_redis::devnet::faults::{CloseReason, Fault, Time};
use akash_redis::model::time::UnixMs;
use akash_redis::node::status_page::StatusPage;
use http::Method;
use rand::Rng as _;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rustix::process::{Pid, Signal, kill_process};
use strum::IntoStaticStr;
use tokio::process::Command;
use tokio::time::{sleep, timeout};

use super::masters::Masters;
use crate::stage::Stage;

/// Port of a node's status page.
const STATUS_PAGE: u16 = 8080;
/// All programs of a node.
const PROGRAMS: [&str; 4] = ["akash-redis", "node-guard", "redis-server", "tailscaled"];

/// What happens to a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum Kind {
    RedisKilled,
    AgentKilled,
    TailscaledKilled,
    RedisStopped,
    NodeStopped,
    NodeOff,
    Partition,
    Mute,
    Deaf,
    Stall,
    SlowLink,
    DeviceDeleted,
    LeaseClosed,
    DiskFull,
    MemoryFull,
    ClockJump,
    ContainerStopped,
    Switchover,
    Migrate,
    Restart,
    Scale,
}

use Kind as K;

/// So often each comes before all come again.
const DECK: &[(Kind, usize)] = &[
    (K::RedisKilled, 4),
    (K::AgentKilled, 2),
    (K::TailscaledKilled, 1),
    (K::RedisStopped, 3),
    (K::NodeStopped, 2),
    (K::NodeOff, 1),
    (K::Partition, 2),
    (K::Mute, 1),
    (K::Deaf, 1),
    (K::Stall, 3),
    (K::SlowLink, 2),
    (K::DeviceDeleted, 1),
    (K::LeaseClosed, 1),
    (K::DiskFull, 1),
    (K::MemoryFull, 1),
    (K::ClockJump, 3),
    (K::ContainerStopped, 1),
    (K::Switchover, 3),
    (K::Migrate, 1),
    (K::Restart, 1),
    (K::Scale, 1),
];
/// Those of a short run: what is over within seconds.
const SHORT: &[Kind] = &[
    K::RedisKilled,
    K::AgentKilled,
    K::RedisStopped,
    K::Stall,
    K::SlowLink,
    K::Mute,
    K::DiskFull,
    K::ClockJump,
    K::ContainerStopped,
    K::Switchover,
];

impl Kind {
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// A person asked for it, or had the time to say so: nothing that was acknowledged is lost.
    pub fn is_planned(self) -> bool {
        matches!(
            self,
            K::Switchover | K::Migrate | K::Restart | K::Scale | K::ContainerStopped | K::ClockJump
        )
    }
}

impl Kind {
    /// The program whose process does not outlive it.
    fn ends(self) -> Option<&'static str> {
        match self {
            K::RedisKilled => Some("redis-server"),
            K::AgentKilled | K::ClockJump | K::ContainerStopped | K::NodeOff | K::Restart => {
                Some("akash-redis")
            }
            K::TailscaledKilled => Some("tailscaled"),
            _ => None,
        }
    }
}

/// All kinds in another order.
pub fn shuffled(random: &mut StdRng, short: bool) -> Vec<Kind> {
    let repeated = |(kind, times): &(Kind, usize)| std::iter::repeat_n(*kind, *times);
    let mut all: Vec<Kind> =
        if short { SHORT.to_vec() } else { DECK.iter().flat_map(repeated).collect() };
    all.shuffle(random);
    all
}

/// One that happens to one node.
pub struct Blow<'a> {
    pub stage: &'a Stage,
    pub cluster: &'a str,
    pub node: &'a NodeStatus,
    pub masters: &'a Masters,
    pub kind: Kind,
    /// For those that end by themselves.
    pub lasts: Duration,
    pub random: &'a mut StdRng,
}

/// How long one lasts: mostly not long enough to lose its place, sometimes long enough.
pub fn lasting(kind: Kind, random: &mut StdRng) -> Duration {
    let (least, most) = match kind {
        K::RedisStopped => (200, 5_000),
        K::NodeStopped => (500, 14_000),
        K::NodeOff => (500, 20_000),
        K::Partition | K::Mute | K::Deaf => (500, 16_000),
        K::Stall => (500, 7_000),
        K::SlowLink | K::DiskFull => (2_000, 8_000),
        _ => (0, 1),
    };
    // Short ones are more frequent: the square of an even draw.
    let share: f64 = random.r#gen::<f64>().powi(2);
    Duration::from_millis(least) + Duration::from_millis(most - least).mul_f64(share)
}

fn processes(stage: &Stage, dseq: u64, program: &str) -> Vec<u32> {
    let found = stage.local.market.find(dseq);
    let found = found.map(|(provider, lease)| {
        stage.local.market.providers[provider].runner.processes(&lease, program)
    });
    found.unwrap_or_default()
}

fn signal(stage: &Stage, dseq: u64, programs: &[&str], signal: Signal) {
    for program in programs {
        for pid in processes(stage, dseq, program) {
            // It may have ended by itself.
            let _ = kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), signal);
        }
    }
}

/// What a cluster was before something happened to it, as far as that can be seen to have happened.
pub struct Mark {
    kind: Kind,
    epoch: u64,
    /// The node that it happened to, or all of them, with the processes that do not outlive it.
    nodes: Vec<(u64, Vec<u32>)>,
}

impl Mark {
    pub fn of(stage: &Stage, kind: Kind, before: &Status, node: &NodeStatus) -> Self {
        let all = before.nodes.iter().filter(|n| kind == K::Restart || n.dseq == node.dseq);
        let of = |dseq| kind.ends().map_or_else(Vec::new, |name| processes(stage, dseq, name));
        let nodes = all.map(|node| (node.dseq, of(node.dseq))).collect();
        Self { kind, epoch: before.epoch, nodes }
    }

    /// It was noticed, or did not have to be.
    pub fn is_past(&self, stage: &Stage, now: &Status) -> bool {
        let here = |dseq: u64| now.nodes.iter().any(|node| node.dseq == dseq);
        match self.kind {
            K::Switchover => now.epoch > self.epoch,
            K::Migrate | K::LeaseClosed | K::DeviceDeleted => !here(self.nodes[0].0),
            kind => kind.ends().is_none_or(|name| {
                let other = |dseq: u64, old: &Vec<u32>| {
                    let new = processes(stage, dseq, name);
                    !new.is_empty() && new.iter().all(|pid| !old.contains(pid))
                };
                self.nodes.iter().all(|(dseq, old)| !here(*dseq) || other(*dseq, old))
            }),
        }
    }
}

/// A program in the network of a node; it may be gone.
async fn inside(stage: &Stage, dseq: u64, command: &[&str]) {
    let Some((provider, lease)) = stage.local.market.find(dseq) else { return };
    let Some(pid) = stage.local.market.providers[provider].runner.pid(&lease) else { return };
    let mut nsenter = Command::new("nsenter");
    nsenter.arg(format!("--net=/proc/{pid}/ns/net")).args(command).kill_on_drop(true);
    let _ = nsenter.output().await;
}

/// Lets a command in when the operator is there again; whether it was taken.
pub async fn asked(stage: &Stage, words: &[&str]) -> String {
    for _ in 0..100 {
        let said = stage.cli(words).await;
        if said.status.success() {
            return String::new();
        }
        let wrong = String::from_utf8_lossy(&said.stderr).into_owned();
        let away = ["no operator answers", "does not answer", "was lost"];
        if !away.iter().any(|words| wrong.contains(words)) {
            return wrong;
        }
        sleep(Duration::from_millis(200)).await;
    }
    "the operator does not come back".to_owned()
}

impl Blow<'_> {
    /// Does it and undoes it; what was said against it, if anything.
    pub async fn strike(&mut self) -> String {
        let Self { stage, cluster, node, kind, lasts, .. } = *self;
        let dseq = node.dseq;
        let faults = stage.local.market.faults();
        let fault = async |fault: Fault| match faults.inject(&fault).await {
            Ok(_) => String::new(),
            Err(error) => error.to_string(),
        };
        match kind {
            K::RedisKilled => signal(stage, dseq, &["redis-server"], Signal::KILL),
            K::AgentKilled => signal(stage, dseq, &["akash-redis"], Signal::KILL),
            K::TailscaledKilled => signal(stage, dseq, &["tailscaled"], Signal::KILL),
            K::RedisStopped => self.stopped(&["redis-server"]).await,
            K::NodeStopped => self.stopped(&PROGRAMS).await,
            K::NodeOff => {
                let said = fault(Fault::NodeOff { dseq }).await;
                sleep(lasts).await;
                if let Some((provider, lease)) = stage.local.market.find(dseq) {
                    stage.local.market.providers[provider].runner.power_on(&lease);
                }
                return said;
            }
            K::Partition => {
                let said = stage.local.market.set_link(dseq, false).await;
                sleep(lasts).await;
                // Its container may have ended meanwhile, and its link with it.
                let _ = stage.local.market.set_link(dseq, true).await;
                return said.err().map(|error| error.to_string()).unwrap_or_default();
            }
            K::Mute => self.filtered("output", "oifname eth0 drop").await,
            K::Deaf => self.filtered("input", "iifname eth0 drop").await,
            K::SlowLink => {
                let rate = self.random.gen_range(60..300);
                let rule = format!("limit rate over {rate} kbytes/second burst 20 kbytes drop");
                self.filtered("output", &rule).await;
            }
            K::Stall => {
                let said = fault(Fault::Stall { dseq, time: Time(lasts) }).await;
                sleep(lasts).await;
                return said;
            }
            K::DeviceDeleted => return delete_device(stage, node).await,
            K::LeaseClosed => {
                let reasons = [CloseReason::Unstable, CloseReason::Unspecified];
                let reason = reasons[self.random.gen_range(0..reasons.len())];
                return fault(Fault::CloseLease { dseq, reason }).await;
            }
            K::DiskFull => {
                let said = fault(Fault::DiskFull { dseq }).await;
                sleep(lasts).await;
                if let Some((provider, lease)) = stage.local.market.find(dseq) {
                    stage.local.market.providers[provider].runner.set_full(&lease, false);
                }
                return said;
            }
            K::ClockJump => {
                let jump = [-3600, -60, -5, 5, 60, 3600][self.random.gen_range(0..6)];
                return set_clock(stage, dseq, jump).await;
            }
            K::ContainerStopped => return fault(Fault::RestartNode { dseq }).await,
            K::Switchover => return asked(stage, &["switchover", cluster]).await,
            K::Migrate => return asked(stage, &["migrate", cluster, &node.incarnation]).await,
            K::Restart => return asked(stage, &["restart", cluster]).await,
            K::MemoryFull | K::Scale => unreachable!("they happen to the whole cluster"),
        }
        String::new()
    }

    /// Processes stand still for a while.
    async fn stopped(&self, programs: &[&str]) {
        let dseq = self.node.dseq;
        signal(self.stage, dseq, programs, Signal::STOP);
        sleep(self.lasts).await;
        self.masters.woke(dseq);
        signal(self.stage, dseq, programs, Signal::CONT);
        self.masters.woke(dseq);
    }

    /// Packets of one direction are dropped for a while.
    async fn filtered(&self, hook: &str, rule: &str) {
        let (stage, dseq) = (self.stage, self.node.dseq);
        let table = format!(
            "add table inet soak; add chain inet soak {hook} {{ type filter hook {hook} priority 0; }}; add rule inet soak {hook} {rule}"
        );
        inside(stage, dseq, &["nft", &table]).await;
        sleep(self.lasts).await;
        inside(stage, dseq, &["nft", "delete table inet soak"]).await;
    }
}

async fn delete_device(stage: &Stage, node: &NodeStatus) -> String {
    let listed = stage.local.tailnet.api(Method::GET, "tailnet/-/devices", None).await;
    let name = node.mesh_name.clone().unwrap_or_default();
    let id = listed.ok().and_then(|all| {
        let device = all["devices"].as_array()?.iter().find(|d| d["name"] == *name)?;
        device["nodeId"].as_str().map(str::to_owned)
    });
    let Some(id) = id else { return format!("{name} is not in the tailnet's list") };
    let gone = stage.local.tailnet.api(Method::DELETE, &format!("device/{id}"), None).await;
    gone.err().map(|error| error.to_string()).unwrap_or_default()
}

/// From now on a node's agent takes it for so much later, and says so on its page. It is another
/// process: one that runs need not look at the file again.
async fn set_clock(stage: &Stage, dseq: u64, seconds: i64) -> String {
    let market = &stage.local.market;
    let found = market.find(dseq).and_then(|(provider, lease)| {
        let provider = &market.providers[provider];
        let dir = stage.local.config().parent()?.join("market").join(&provider.name);
        let file = dir.join(lease.label()).join("root").join(super::CLOCK.trim_start_matches('/'));
        let file = format!("/proc/{}/root{}", provider.runner.pid(&lease)?, file.display());
        Some((file, provider.runner.address(&lease)?))
    });
    let Some((file, address)) = found else { return format!("nothing of {dseq} runs") };
    if let Err(error) = std::fs::write(file, format!("{seconds:+}\n")) {
        return error.to_string();
    }
    signal(stage, dseq, &["akash-redis"], Signal::KILL);
    let url = format!("http://{address}:{STATUS_PAGE}/");
    let mut seen = None;
    for _ in 0..100 {
        let answer = async { reqwest::get(&url).await?.bytes().await };
        if let Ok(Ok(page)) = timeout(Duration::from_secs(2), answer).await
            && let Ok(page) = serde_json::from_slice::<StatusPage>(&page)
        {
            let now = i64::try_from(UnixMs::now().0).unwrap();
            let ahead = i64::try_from(page.time).unwrap() - now;
            // Reading the page takes some time as well.
            if (ahead - seconds * 1000).abs() < 3_000 {
                return String::new();
            }
            seen = Some(ahead);
        }
        sleep(Duration::from_millis(100)).await;
    }
    format!("its clock is {seen:?} ms ahead instead of {seconds} s")
}
