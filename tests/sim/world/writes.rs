//! One application for each cluster that writes all the time, and what became of what it was told
//! is done.
//!
//! What may be lost (safety.md): what no living node holds any more, and, when a master was given
//! up, what it acknowledged in its last moments: the replica that it counted may have been silent
//! for max-lag already. A switchover and a migration lose nothing, and the operator itself never
//! destroys the last copy.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use akash_redis::api::annotations::ACCEPT_LOSS;
use akash_redis::model::change::Change;
use akash_redis::model::ids::IncarnationName;
use akash_redis::store::Stored;

use super::clients::Clients;
use super::node::Node;
use super::nodes::State;

/// What passes between the last news of a replica and a write beyond max-lag, milliseconds.
const MARGIN: u64 = 2_000;
/// As long as that, a link that carries one way counts its replica besides.
const ONE_WAY: u64 = 20_000;

/// A write that was acknowledged. Its number is its place among all of them.
#[derive(Clone, Debug)]
pub struct Write {
    cluster: Arc<str>,
    /// Virtual milliseconds.
    at: u64,
}

/// What the applications know of their writes.
#[derive(Clone, Debug, Default)]
pub struct Application {
    /// Acknowledged writes, in order.
    pub acknowledged: Vec<Write>,
    /// Virtual milliseconds of the last acknowledged write of each cluster.
    last_at: BTreeMap<Arc<str>, u64>,
    /// The longest time between two acknowledged writes since the last reset.
    pub longest_gap: u64,
    /// More than one master of a cluster took writes at one moment.
    pub split: Vec<String>,
    /// Writes whose loss is allowed.
    excused: BTreeSet<u64>,
    /// Losses that are not, one sentence each.
    pub lost: Vec<String>,
    /// Of the clusters under `durability: confirmed`: so many replicas have to have a write.
    pub confirmations: BTreeMap<String, usize>,
    /// Writes whose clients were told that so many have them.
    pub confirmed: BTreeSet<u64>,
    /// Those of which a person accepted the loss.
    forgiven: BTreeSet<u64>,
    /// What clients did with single keys, where somebody asks for that.
    pub clients: Option<Clients>,
}

/// Why a node becomes master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The one before it stopped for it.
    Planned,
    /// The one before it is lost.
    Lost,
    /// A person accepted the loss of what it lacks.
    LossAccepted,
}

impl Cause {
    /// Why a promotion is sent under what is stored.
    pub fn of(stored: Option<&Stored>) -> Self {
        let Some(stored) = stored else { return Self::Lost };
        let accepted = stored.cluster.metadata.annotations.get(ACCEPT_LOSS);
        let epoch = accepted.and_then(|said| said.split_whitespace().next());
        let accepted = epoch.and_then(|epoch| epoch.parse::<u64>().ok());
        // It names the epoch before the choice, or the one of a failover that was under way.
        if accepted.is_some_and(|epoch| epoch + 1 >= stored.record.epoch) {
            Self::LossAccepted
        } else if matches!(stored.record.change, Some(Change::Switchover(_))) {
            Self::Planned
        } else {
            Self::Lost
        }
    }
}

impl State {
    /// One write to every master that takes it and is reached by applications, which hear the
    /// control server: two of a cluster at one moment is the split brain that must not be.
    pub(super) fn write(&mut self, now: u64) {
        let mut takers: BTreeMap<&str, Vec<&IncarnationName>> = BTreeMap::new();
        for (name, _) in self.nodes.iter().filter(|(_, n)| n.takes_writes(now) && n.open) {
            takers.entry(name.cluster()).or_default().push(name);
        }
        let app = &mut self.application;
        let mut written = Vec::new();
        for (cluster, takers) in takers {
            if takers.len() > 1 {
                app.split.push(format!("at {now}: {takers:?}"));
            }
            let cluster: Arc<str> = cluster.into();
            written.push((takers[0].clone(), app.acknowledged.len() as u64));
            if let Some(clients) = &mut app.clients {
                clients.write(app.acknowledged.len() as u64, now);
            }
            app.acknowledged.push(Write { cluster: cluster.clone(), at: now });
            if let Some(last) = app.last_at.insert(cluster, now) {
                app.longest_gap = app.longest_gap.max(now - last);
            }
        }
        for (name, write) in written {
            self.nodes.get_mut(&name).unwrap().log.push(write);
        }
    }

    /// A node is promoted: what it lacks is lost, or about to be.
    pub(super) fn became_master(&mut self, name: &IncarnationName, cause: Cause, now: u64) {
        let held: BTreeSet<u64> = self.nodes[name].log.iter().copied().collect();
        self.application.confirmed_held(name, &held, cause, now);
        let lacks: Vec<u64> =
            self.application.open(name.cluster()).filter(|write| !held.contains(write)).collect();
        if lacks.is_empty() {
            return;
        }
        let elsewhere = self.held_beside(name);
        let last = self.application.last_at.get(name.cluster()).copied().unwrap_or(now);
        let max_lag = self.of(name.cluster()).map(|(_, n)| n.max_lag_s).max().unwrap_or_default();
        let mut window = u64::from(max_lag) * 1000 + MARGIN;
        if now.saturating_sub(self.muted_at) <= window + ONE_WAY {
            window += ONE_WAY;
        }
        // A master that was frozen takes what it is sent at first when it goes on, and what it took
        // just before is of its last moments too.
        if let Some((at, frozen)) = self.thawed.get(name.cluster())
            && now.saturating_sub(*at) <= window
        {
            window += frozen;
        }
        let app = &mut self.application;
        let (mut missing, mut oldest) = (0, last);
        for write in lacks {
            let at = app.acknowledged[usize::try_from(write).unwrap()].at;
            let gone = !elsewhere.contains(&write);
            let late = cause == Cause::Lost && at + window >= last;
            if !(gone || late || cause == Cause::LossAccepted) {
                missing += 1;
                oldest = oldest.min(at);
            }
            app.excused.insert(write);
        }
        if missing > 0 {
            app.lost.push(format!(
                "at {now}: {name} became master ({cause:?}) without {missing} writes that others hold, the oldest {} ms before the last",
                last - oldest
            ));
        }
    }

    /// A node goes with its data because the operator closed its lease, or because somebody else
    /// did.
    pub(super) fn destroyed(&mut self, name: &IncarnationName, by_operator: bool, now: u64) {
        let elsewhere = self.held_beside(name);
        let Some(node) = self.nodes.remove(name) else { return };
        let own: BTreeSet<u64> = node.log.iter().copied().collect();
        let app = &mut self.application;
        let only: Vec<u64> = app
            .open(name.cluster())
            .filter(|write| own.contains(write) && !elsewhere.contains(write))
            .collect();
        if by_operator && !only.is_empty() {
            let count = only.len();
            app.lost.push(format!(
                "at {now}: the operator closed the lease of {name}, the only one with {count} writes"
            ));
        }
        app.excused.extend(only);
    }

    /// Who asked for confirmation is told, when enough replicas have said in this moment that they
    /// have what its master had.
    pub(super) fn confirm(&mut self, now: u64) {
        let mut told = Vec::new();
        for (name, master) in self.nodes.iter().filter(|(_, n)| n.answers_clients()) {
            let Some(needed) = self.application.confirmations.get(name.cluster()) else { continue };
            let mut have: Vec<usize> = self
                .of(name.cluster())
                .filter(|(_, r)| master.acks.iter().any(|(n, at)| n == &r.fqdn && *at == now))
                .map(|(_, r)| shared(&r.log, &master.log))
                .collect();
            have.sort_unstable();
            if let Some(safe) = have.len().checked_sub(*needed).map(|n| have[n]) {
                told.push((name.clone(), safe));
            }
        }
        for (name, safe) in told {
            let log = &self.nodes[&name].log;
            let app = &mut self.application;
            for write in log[..safe].iter().rev() {
                if !app.confirmed.insert(*write) {
                    break;
                }
                if let Some(clients) = &mut app.clients {
                    clients.written(*write, now);
                }
            }
            if let Some(clients) = &mut app.clients {
                clients.read(&name, safe, now);
            }
        }
        if let Some(clients) = &mut self.application.clients {
            for (name, node) in self.nodes.iter().filter(|(_, n)| n.answers_clients()) {
                clients.ask(name, &node.log, now);
            }
        }
    }

    /// Writes of `cluster` that somebody was told are done, that nobody had leave to lose, and that
    /// `master` does not hold.
    pub fn lost_for_good(&self, master: &IncarnationName) -> usize {
        let held: BTreeSet<u64> = self.nodes[master].log.iter().copied().collect();
        let app = &self.application;
        let confirmed = app.promised(master.cluster()).filter(|write| !held.contains(write));
        app.open(master.cluster()).filter(|write| !held.contains(write)).count() + confirmed.count()
    }

    fn held_beside(&self, name: &IncarnationName) -> BTreeSet<u64> {
        let others = self.of(name.cluster()).filter(|(other, _)| *other != name);
        others.flat_map(|(_, node)| node.log.iter().copied()).collect()
    }

    fn of(&self, cluster: &str) -> impl Iterator<Item = (&IncarnationName, &Node)> {
        self.nodes.iter().filter(move |(name, _)| name.cluster() == cluster)
    }
}

impl Application {
    /// Numbers of a cluster's acknowledged writes.
    pub fn of(&self, cluster: &str) -> impl Iterator<Item = u64> {
        let numbered = self.acknowledged.iter().enumerate();
        numbered.filter(move |(_, w)| &*w.cluster == cluster).map(|(n, _)| n as u64)
    }

    /// Those that were confirmed, but for what a person gave up.
    fn promised(&self, cluster: &str) -> impl Iterator<Item = u64> {
        let confirmed = self.confirmed.iter().copied().filter(|w| !self.forgiven.contains(w));
        confirmed
            .filter(move |w| *self.acknowledged[usize::try_from(*w).unwrap()].cluster == *cluster)
    }

    /// A node becomes master: it has what was confirmed, or a person gave it up.
    fn confirmed_held(
        &mut self,
        name: &IncarnationName,
        held: &BTreeSet<u64>,
        cause: Cause,
        now: u64,
    ) {
        let lacks: Vec<u64> = self.promised(name.cluster()).filter(|w| !held.contains(w)).collect();
        if cause != Cause::LossAccepted && !lacks.is_empty() {
            self.lost.push(format!(
                "at {now}: {name} became master ({cause:?}) without {} confirmed writes, the first is {}",
                lacks.len(),
                lacks[0]
            ));
        }
        self.forgiven.extend(lacks);
    }

    /// Those whose loss is not allowed.
    fn open(&self, cluster: &str) -> impl Iterator<Item = u64> {
        self.of(cluster).filter(|write| !self.excused.contains(write))
    }
}

/// So many writes both begin with.
fn shared(a: &[u64], b: &[u64]) -> usize {
    let most = a.len().min(b.len());
    // Writes are numbered, so equal last entries mean equal logs.
    if most == 0 || a[most - 1] == b[most - 1] {
        return most;
    }
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}
