//! Replication between the nodes: links, full syncs, acknowledgements, histories.

use std::collections::BTreeSet;

use akash_redis::model::ids::IncarnationName;
use akash_redis::model::node::{History, Process, Role};

use super::node::{Node, Sync};
use super::nodes::State;
use super::writes::Cause;

/// Nothing came over a link for so long: it is closed (`repl-timeout`), milliseconds.
const REPL_TIMEOUT: u64 = 20_000;

impl State {
    /// Every replica copies from the node whose name it was given, when both sides allow it.
    pub(super) fn replicate(&mut self, now: u64) {
        if !self.mute.is_empty() {
            self.muted_at = now;
        }
        let names: Vec<_> = self.nodes.keys().cloned().collect();
        for name in names {
            let replica = &self.nodes[&name];
            if replica.role == Role::Replica
                && replica.powered
                && replica.process == Process::Running
            {
                self.replicate_to(&name, now);
            }
        }
        self.forget_closed_links();
        for node in self.nodes.values_mut().filter(|n| n.powered && n.process == Process::Running) {
            if node.role == Role::Master
                || (node.link_up && !node.is_restored() && !node.is_importing())
            {
                node.history = Some(History {
                    replid: node.replid.clone(),
                    offset: node.offset(),
                    epoch: if node.role == Role::Master {
                        node.memory.highest.epoch
                    } else {
                        node.online_epoch
                    },
                    gap_ms: 0,
                });
            }
        }
    }

    fn replicate_to(&mut self, name: &IncarnationName, now: u64) {
        if self.nodes[name].is_restored() || self.nodes[name].is_importing() {
            return;
        }
        let source = self.source(name);
        let muted = |source| self.mute.contains(&(source, name.clone()));
        let muted = source.clone().is_some_and(muted);
        let node = self.nodes.get_mut(name).unwrap();
        let timed_out = now.saturating_sub(node.heard_master) > REPL_TIMEOUT;
        // Over a link that carries one way nothing begins, and what is open ends by its time-out.
        let Some(source) = source.filter(|_| !muted || node.link_up && !timed_out) else {
            (node.link_up, node.sync) = (false, None);
            return;
        };
        if muted {
            self.acknowledge(name, &source, now);
            return;
        }
        node.heard_master = now;
        let master = self.nodes[&source].offer();
        let node = self.nodes.get_mut(name).unwrap();
        if !node.link_up && !node.goes_on_from(&master) {
            // What it has stays until the other's data are all there.
            let full = Sync { source: master.run_id, until: now + self.sync_ms };
            let sync = node.sync.get_or_insert_with(|| full.clone());
            if sync.source != full.source {
                *sync = full;
            }
            if now < sync.until {
                return;
            }
        }
        (node.link_up, node.sync) = (true, None);
        node.online_epoch = node.following;
        node.replid = master.replid;
        let mut log = std::mem::take(&mut node.log);
        catch_up(&mut log, &self.nodes[&source].log);
        let said = self.nodes[&source].says();
        let node = self.nodes.get_mut(name).unwrap();
        node.log = log;
        let takes_over = node.hears(said.as_deref(), now);
        self.acknowledge(name, &source, now);
        if takes_over {
            self.became_master(name, Cause::Planned, now);
        }
    }

    /// The master that a replica was pointed at, if both sides allow the link.
    fn source(&self, name: &IncarnationName) -> Option<IncarnationName> {
        let replica = &self.nodes[name];
        let (source, master) = self.nodes.iter().find(|(_, n)| n.fqdn == replica.master_host)?;
        let sighted =
            master.netmap.contains(&replica.fqdn) && replica.netmap.contains(&master.fqdn);
        let granted =
            master.users.iter().any(|u| u.starts_with(&format!("repl-{}-", replica.name)));
        let cut = self.cut.contains(&(name.clone(), source.clone()))
            || self.cut.contains(&(source.clone(), name.clone()));
        let reached = master.powered && master.meshed && replica.meshed && sighted && !cut;
        // A replica that is in sync itself passes on what it gets.
        let passes = master.role == Role::Master || master.link_up;
        let serves = master.process == Process::Running && passes && granted;
        (reached && serves).then(|| source.clone())
    }

    fn acknowledge(&mut self, replica: &IncarnationName, master: &IncarnationName, now: u64) {
        let fqdn = self.nodes[replica].fqdn.clone();
        let master = self.nodes.get_mut(master).unwrap();
        master.acks.retain(|(n, _)| n != &fqdn);
        master.acks.push((fqdn, now));
    }

    /// A link that is cut is noticed by its master only by its age; one that was closed is gone at
    /// once.
    fn forget_closed_links(&mut self) {
        let attached: Vec<_> = self
            .nodes
            .values()
            .filter(|n| n.powered && n.meshed)
            .map(|n| {
                (n.fqdn.clone(), n.master_host.clone(), n.process == Process::Running && n.link_up)
            })
            .collect();
        let fqdn = |name: &IncarnationName| self.nodes.get(name).map(|n| n.fqdn.clone());
        let pairs: BTreeSet<(String, String)> = self
            .cut
            .iter()
            .chain(&self.mute)
            .filter_map(|(a, b)| Some((fqdn(a)?, fqdn(b)?)))
            .flat_map(|(a, b)| [(a.clone(), b.clone()), (b, a)])
            .collect();
        for master in self.nodes.values_mut() {
            let own = master.fqdn.clone();
            let meshed = master.meshed;
            master.acks.retain(|(name, _)| {
                // What is cut tells nobody that it was closed.
                if !meshed || pairs.contains(&(own.clone(), name.clone())) {
                    return true;
                }
                attached
                    .iter()
                    .find(|(n, ..)| n == name)
                    .is_none_or(|(_, host, up)| host == &own && *up)
            });
        }
    }
}

/// What a replica is told when it attaches.
struct Offer {
    run_id: String,
    replid: String,
    replid2: String,
    second_offset: i64,
    offset: i64,
}

impl Node {
    fn offer(&self) -> Offer {
        Offer {
            run_id: self.run_id(),
            replid: self.replid.clone(),
            replid2: self.replid2.clone(),
            second_offset: self.second_offset,
            offset: self.offset(),
        }
    }

    /// A partial sync is enough: it is of the master's lineage, and not ahead of it.
    fn goes_on_from(&self, master: &Offer) -> bool {
        let own = self.replid == master.replid;
        let former = self.replid == master.replid2 && self.offset() < master.second_offset;
        (own || former) && self.offset() <= master.offset
    }
}

/// Makes `log` equal to `source`; only what is new is copied when the one goes on where the other
/// ends. Writes are numbered, so equal last entries mean equal logs.
fn catch_up(log: &mut Vec<u64>, source: &[u64]) {
    let shared = log.len();
    if shared <= source.len() && (shared == 0 || log[shared - 1] == source[shared - 1]) {
        log.extend_from_slice(&source[shared..]);
    } else {
        source.clone_into(log);
    }
}
