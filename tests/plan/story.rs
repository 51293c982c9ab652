//! Plans told as a story: what is remembered, what is seen, what is done about it and why, what is
//! waited for, what is published, and what is remembered then.

use std::collections::BTreeMap;
use std::fmt::{Display, Write};
use std::time::Duration;

use akash_redis::api::status::Status;
use akash_redis::model::chain::{DeploymentView, LeaseState};
use akash_redis::model::change::Change;
use akash_redis::model::incarnation::Incarnation;
use akash_redis::model::inventory::{Inventory, LeaseStatus};
use akash_redis::model::node::{NodeState, NodeView, Process, Role};
use akash_redis::model::record::Record;
use akash_redis::model::status_page::PageView;
use akash_redis::model::step::{Command, Effect, Quorum, Wait};
use akash_redis::model::time::UnixMs;
use akash_redis::plan::Plan;

use crate::obey::obey;
use crate::scene::{BLOCK_MS, NOW, Scene};

/// Named lines in order.
type Lines = Vec<(String, String)>;

/// A scene that is planned again and again, and what was told of it so far.
pub struct Story {
    pub scene: Scene,
    now: u64,
    last: Option<Plan>,
    text: String,
    seen: Lines,
    published: Lines,
}

impl Story {
    pub fn new(scene: Scene) -> Self {
        let (text, seen, published) = (String::new(), Vec::new(), Vec::new());
        let mut story = Self { scene, now: NOW, last: None, text, seen, published };
        story.section("remembered", &record(&story.scene.record));
        story
    }

    /// So much later this is seen, and the next plan is made and its record written.
    pub fn then(&mut self, title: &str, after: Duration, edit: impl FnOnce(&mut Scene)) -> Plan {
        self.now += u64::try_from(after.as_millis()).unwrap();
        self.pass();
        edit(&mut self.scene);
        let plan = self.scene.plan(self.now);
        writeln!(self.text, "\n=== {title} ({})", at(UnixMs(self.now))).unwrap();
        let now_seen = seen(&self.scene);
        let news = difference(&self.seen, &now_seen);
        self.section("seen", &news);
        self.seen = now_seen;
        let steps: Vec<_> =
            plan.steps.iter().map(|s| (effect(&s.effect), s.reason.clone())).collect();
        self.section("steps", &steps);
        self.section("waits", &plan.waits.iter().map(wait).collect::<Vec<_>>());
        let events: Vec<_> = plan.events.iter().map(|(r, m)| (r.to_string(), m.clone())).collect();
        self.section("events", &events);
        let now_published = published(&plan.status);
        let news = difference(&self.published, &now_published);
        self.section("status", &news);
        self.published = now_published;
        let changes = difference(&record(&self.scene.record), &record(&plan.record));
        self.section("remembered", &changes);
        self.scene.record = plan.record.clone();
        self.last = Some(plan.clone());
        plan
    }

    /// The same, after every step of the last plan succeeded.
    pub fn obeyed(&mut self, title: &str, after: Duration, edit: impl FnOnce(&mut Scene)) -> Plan {
        let (last, now) = (self.last.take().expect("a plan was made"), self.now());
        self.then(title, after, |scene| {
            obey(scene, &last, now);
            edit(scene);
        })
    }

    /// When the last plan was made.
    pub fn now(&self) -> UnixMs {
        UnixMs(self.now)
    }

    /// Everything that was seen at the moment of the last plan is seen again now.
    fn pass(&mut self) {
        let now = UnixMs(self.now);
        for view in self.scene.inventory.nodes.values_mut().filter(|v| v.connected) {
            view.heard = now;
        }
        let inventory = &mut self.scene.inventory;
        if inventory.chain.present().is_some() {
            (inventory.chain.at, inventory.chain.done) = (now, now);
            inventory.chain.value.as_mut().unwrap().block_time = now;
        }
        if inventory.mesh.present().is_some() {
            (inventory.mesh.at, inventory.mesh.done) = (now, now);
        }
    }

    fn section(&mut self, title: &str, lines: &[(String, String)]) {
        if lines.is_empty() {
            return;
        }
        writeln!(self.text, "{title}:").unwrap();
        for (name, line) in lines {
            writeln!(self.text, "  {name}: {line}").unwrap();
        }
    }

    pub fn told(self) -> String {
        self.text
    }
}

/// What is new or other than before, and what is gone.
fn difference(before: &Lines, after: &Lines) -> Lines {
    let old: BTreeMap<_, _> = before.iter().map(|(n, l)| (n, l)).collect();
    let mut lines: Lines = after.iter().filter(|(n, l)| old.get(n) != Some(&l)).cloned().collect();
    let gone = before.iter().filter(|(n, _)| !after.iter().any(|(m, _)| m == n));
    lines.extend(gone.map(|(n, _)| (n.clone(), "(gone)".to_owned())));
    lines
}

/// Seconds after the story began.
fn at(time: UnixMs) -> String {
    let ms = time.0.cast_signed() - NOW.cast_signed();
    let (sign, ms) = (if ms < 0 { "-" } else { "+" }, ms.unsigned_abs());
    match ms % 1000 {
        0 => format!("{sign}{} s", ms / 1000),
        rest => format!("{sign}{}.{rest:03} s", ms / 1000),
    }
}

fn list<T: Display>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|i| i.to_string()).collect::<Vec<_>>().join(", ")
}

/// The words that hold.
fn words(all: &[(bool, &str)]) -> String {
    list(all.iter().filter(|(holds, _)| *holds).map(|(_, word)| *word))
}

fn quorum(q: Quorum) -> String {
    format!("min-replicas {}, max-lag {} s", q.min_replicas, q.max_lag_seconds)
}

fn record(record: &Record) -> Lines {
    let mut lines = vec![("epoch".to_owned(), record.epoch.to_string())];
    let mut tell = |name: &str, line: String| lines.push((name.to_owned(), line));
    match &record.master {
        None => tell("master", "none".to_owned()),
        Some(m) => tell(
            "master",
            format!(
                "{} of epoch {} ({}, {}), {}; {}",
                m.incarnation,
                m.epoch,
                m.run_id,
                m.boot_id,
                if m.confirmed { "confirmed" } else { "not confirmed" },
                m.quorum.map_or("quorum unknown".to_owned(), quorum)
            ),
        ),
    }
    match &record.data_master {
        None => tell("data", "none".to_owned()),
        Some(who) => tell(
            "data",
            format!(
                "of {who}, epoch {}{}",
                record.data_epoch,
                if record.untouched { ", no write was acknowledged" } else { "" }
            ),
        ),
    }
    for (name, incarnation) in &record.incarnations {
        tell(&name.0, recorded(incarnation));
    }
    match &record.change {
        None => {}
        Some(Change::Failover(f)) => {
            tell("failover", format!("of epoch {} from {}: {}", f.epoch, f.old, f.reason));
            tell("  witnesses", list(&f.witnesses));
            let eligible = f
                .eligible
                .iter()
                .map(|e| format!("{} ({}) at {}", e.incarnation, e.run_id, e.offset));
            tell("  candidates", list(eligible));
            tell("  may be attached", list(&f.unaccounted));
            tell("  detached", list(f.detached_at.iter().map(|(n, t)| format!("{n} {}", at(*t)))));
            let fence = f.fence.as_ref().map(|f| format!("{} ({})", f.how, at(f.at)));
            tell("  fence", fence.unwrap_or_default());
        }
        Some(Change::Switchover(s)) => tell(
            "switchover",
            format!(
                "of epoch {} from {} to {}, until {}{}",
                s.epoch,
                s.source,
                s.target,
                at(s.deadline),
                if s.undo { ", being undone" } else { "" }
            ),
        ),
    }
    for (ordinal, failures) in &record.failures {
        let tries = match failures.count {
            0 => String::new(),
            n => format!("{n} tries, the last {}: {}; ", at(failures.last), failures.reason),
        };
        let last = format!("{tries}avoided: [{}]", list(&failures.providers));
        tell(&format!("failures of node {ordinal}"), last);
    }
    lines.retain(|(_, line)| !line.is_empty());
    lines
}

fn recorded(i: &Incarnation) -> String {
    let state = words(&[
        (i.has_joined(), "joined"),
        (i.is_member(), "may be attached"),
        (i.is_candidate(), "in sync"),
        (i.quarantined.is_some(), "in quarantine"),
        (i.quarantined.as_ref().is_some_and(|q| q.in_force.is_some()), "the tag is in force"),
        (i.rejoin.is_some(), "rejoining"),
        (i.redis_down.is_some(), "redis down"),
    ]);
    let mut line = format!("node {}, dseq {}", i.ordinal, i.dseq);
    let mut tell = |more: String| {
        if !more.is_empty() {
            line.push_str("; ");
            line.push_str(&more);
        }
    };
    let lease = i.lease.as_ref();
    tell(lease.map_or_else(
        || format!("up to {} a month", i.max_price.per_month(BLOCK_MS)),
        |c| format!("{} for {} a month", c.id.provider, c.price.per_month(BLOCK_MS)),
    ));
    tell(state);
    tell(i.device.clone().unwrap_or_default());
    tell(i.replaces.as_ref().map(|old| format!("replaces {old}")).unwrap_or_default());
    tell(i.condemned.as_ref().map(|c| format!("given up: {}", c.reason)).unwrap_or_default());
    line
}

fn seen(scene: &Scene) -> Lines {
    let Inventory { chain, mesh, nodes, pages, leases, .. } = &scene.inventory;
    let mut lines = Vec::new();
    let mut tell = |name: String, line: String| lines.push((name, line));
    for (word, by) in &scene.cluster.metadata.annotations {
        tell(format!("annotation {word}"), by.clone());
    }
    if scene.cluster.metadata.deletion_timestamp.is_some() {
        tell("deletion".to_owned(), "asked for".to_owned());
    }
    match chain.present() {
        None => tell("chain".to_owned(), chain.error.clone().unwrap_or_default()),
        Some(view) => {
            tell("chain".to_owned(), format!("the wallet holds {}", view.balance));
            for deployment in view.deployments.values() {
                let group = &deployment.group_name;
                let name = group.rsplit_once("abcdef-").map_or(group.as_str(), |(_, name)| name);
                tell(format!("deployment of {name}"), on_chain(deployment));
            }
        }
    }
    match mesh.present() {
        None => tell("tailnet".to_owned(), mesh.error.clone().unwrap_or_default()),
        Some(view) => {
            for device in &view.devices {
                tell(device.id.clone(), format!("{} with {}", device.name, list(&device.tags)));
            }
            for key in &view.keys {
                tell(key.id.clone(), if key.invalid { "used up" } else { "unused" }.to_owned());
            }
        }
    }
    for (lease, status) in leases {
        tell(
            format!("provider {}", lease.provider),
            match status {
                LeaseStatus::NoManifest => "its provider has no manifest".to_owned(),
                LeaseStatus::Deployed { ready, .. } => format!("{ready} containers are ready"),
                LeaseStatus::Away(why) => format!("its gateway is away: {why}"),
            },
        );
    }
    for (name, view) in nodes {
        tell(format!("agent of {name}"), agent(view));
    }
    for (name, view) in pages {
        tell(format!("page of {name}"), page(view));
    }
    lines
}

fn on_chain(d: &DeploymentView) -> String {
    let lease = d.leases.last().map(|l| {
        let state = match l.state {
            LeaseState::Active => "leased to",
            LeaseState::Reclaiming => "soon taken back by",
            LeaseState::InsufficientFunds => "out of funds, was leased to",
            LeaseState::Closed => "closed, was leased to",
        };
        format!("{state} {} for {} a month", l.id.provider, l.price.per_month(BLOCK_MS))
    });
    let bids =
        d.bids.iter().map(|b| format!("{} bids {}", b.id.provider, b.price.per_month(BLOCK_MS)));
    match list(lease.into_iter().chain(bids)) {
        _ if !d.active => "closed".to_owned(),
        none if none.is_empty() => "no bids".to_owned(),
        some => some,
    }
}

fn agent(view: &NodeView) -> String {
    let state = &view.state;
    if !view.connected {
        return format!("silent since {}, was {}", at(view.heard), redis(state));
    }
    let obeys = format!("obeys epoch {}", state.highest.epoch);
    let promoted = if state.promoted { ", promoted" } else { "" };
    format!("{obeys}{promoted}; {}", redis(state))
}

fn redis(state: &NodeState) -> String {
    let redis = &state.redis;
    match redis.process {
        Process::Starting => return "redis starts".to_owned(),
        Process::Stuck => return "redis does not answer".to_owned(),
        Process::Exited => return "redis exited".to_owned(),
        Process::Running => {}
    }
    let role = match redis.role {
        Role::Master if redis.fenced => "a fenced master".to_owned(),
        Role::Master => format!(
            "master, {}",
            quorum(Quorum {
                min_replicas: redis.min_replicas,
                max_lag_seconds: redis.max_lag_seconds
            })
        ),
        Role::Replica if redis.master_host.is_empty() => "attached to nobody".to_owned(),
        Role::Replica if redis.is_syncing() => format!("syncs with {}", redis.master_host),
        Role::Replica if redis.is_linked() => format!("replica of {}", redis.master_host),
        Role::Replica => {
            format!("has not heard {} for {} ms", redis.master_host, redis.silent_ms)
        }
        Role::Unknown => "of unknown role".to_owned(),
    };
    let attached = redis.replicas.iter().map(|r| r.name.as_str());
    let attached = match list(attached) {
        none if none.is_empty() => String::new(),
        some => format!(", counts {some}"),
    };
    format!("{role}{attached}; {} at {} ({})", redis.replid, redis.offset, redis.run_id)
}

fn page(page: &PageView) -> String {
    let fenced = if page.fenced { "takes no writes" } else { "takes writes" };
    format!("{:?}, {fenced}, by {} at {}", page.process, page.boot_id, at(page.at))
}

fn effect(effect: &Effect) -> String {
    let name = effect.incarnation();
    match effect {
        Effect::CreateDeployment { deposit, .. } => {
            format!("create the deployment of {name} with {deposit}")
        }
        Effect::CreateLease { lease, .. } => format!("lease {name} from {}", lease.provider),
        Effect::DeliverManifest { lease, .. } => {
            format!("deliver the manifest of {name} to {}", lease.provider)
        }
        Effect::TopUp { amount, .. } => format!("pay {amount} into the escrow of {name}"),
        Effect::CloseDeployment { dseq, .. } => format!("close deployment {dseq} of {name}"),
        Effect::DeleteDevice { device, .. } => format!("delete {device} of {name}"),
        Effect::SetTags { device, tags, .. } => format!("tag {device} of {name} {}", list(tags)),
        Effect::RevokeKey { key, .. } => format!("revoke {key}"),
        Effect::CompleteBackup { manifest, .. } => format!("complete backup {}", manifest.id),
        Effect::DeleteBackup { id, .. } => format!("delete backup {id}"),
        Effect::DeleteLog { before, .. } => format!("delete the log before {}", at(*before)),
        Effect::Command { authority, command: what, .. } => {
            format!("{name}, epoch {}: {}", authority.epoch, command(what))
        }
    }
}

fn command(command: &Command) -> String {
    match command {
        Command::Configure(settings) => {
            let replicas = settings.replicas.iter().map(|g| &g.incarnation);
            format!("configure, {}, replicas [{}]", quorum(settings.quorum), list(replicas))
        }
        Command::Promote { replicas, quorum: q, planned, .. } => {
            let replicas = replicas.iter().map(|g| &g.incarnation);
            let planned = if *planned { ", planned" } else { "" };
            format!("promote{planned}, {}, replicas [{}]", quorum(*q), list(replicas))
        }
        Command::Follow { master, save_first, .. } => {
            format!("follow {master}{}", if *save_first { ", keep a snapshot before" } else { "" })
        }
        Command::Save { label } => format!("save as {label}"),
        Command::Discard { must_keep } => {
            format!("drop what redis does not start with, keep it: {must_keep}")
        }
        Command::Detach { drain_ms } => format!("detach, drain for {drain_ms} ms at most"),
        Command::Fence => "fence".to_owned(),
        Command::AwaitHandover { .. } => "await the handover".to_owned(),
        Command::HandOver { to } => format!("hand over to {to}"),
        Command::Restart => "restart".to_owned(),
        Command::Backup { id, .. } => format!("take backup {id}"),
        Command::Restore { id, .. } => format!("restore backup {id}"),
        Command::Import { source, .. } => format!("import from {}", source.spec.address()),
        Command::Archive { run, .. } => format!("archive the log in run {run}"),
        Command::StopArchive => "archive the log no more".to_owned(),
        Command::Verify { id, .. } => format!("verify backup {id}"),
        Command::Unfence { quorum: q } => format!("unfence, {}", quorum(*q)),
        Command::Admit { replicas } => {
            format!("admit [{}]", list(replicas.iter().map(|g| &g.incarnation)))
        }
    }
}

fn wait(wait: &Wait) -> (String, String) {
    let until =
        wait.deadline.map_or("without a deadline".to_owned(), |d| format!("until {}", at(d)));
    (wait.what.clone(), format!("{until}, then {}", wait.then))
}

fn published(status: &Status) -> Lines {
    let conditions = status
        .conditions
        .iter()
        .map(|c| (c.kind.to_string(), format!("{} {}: {}", c.status, c.reason, c.message)));
    let master = status
        .master
        .as_ref()
        .map(|m| ("endpoint".to_owned(), format!("{} of epoch {}", m.name, m.epoch)));
    let nodes = status.nodes.iter().map(|n| {
        let message = n.message.as_ref().map(|m| format!(": {m}")).unwrap_or_default();
        (format!("phase of {}", n.incarnation), format!("{}{message}", n.phase))
    });
    let report = status.last_failover.as_ref().map(|f| {
        let line = format!(
            "epoch {} from {} to {}: {}; fence: {}; {}; lost: {}",
            f.epoch,
            f.old,
            f.new,
            f.reason,
            f.fence,
            list(&f.steps),
            f.lost
        );
        ("last failover".to_owned(), line)
    });
    conditions.chain(master).chain(nodes).chain(report).collect()
}
