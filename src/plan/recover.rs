//! The record of a cluster that no record knows, built anew from what the chain, the tailnet and the
//! nodes say. Nothing is changed by it: a person decides whether it is written.
//!
//! The master stays the master. Where it is not certain who that is, nothing is written; where
//! everybody answers and nobody takes writes, the newest history is promoted by the rules of a cold
//! start.

mod master;

use std::collections::{BTreeMap, BTreeSet};

use master::{Master, leads, master, takes_writes};

use super::{derived, roles};
use crate::api::kept_copy::{KeptCopy, KeptNode};
use crate::api::recover::{FoundCluster, FoundNode};
use crate::api::types::RedisCluster;
use crate::model::chain::{ChainView, DeploymentView};
use crate::model::ids::IncarnationName;
use crate::model::incarnation::{Choice, Condemned, Incarnation, Membership, Quarantine};
use crate::model::inventory::Constants;
use crate::model::mesh::{Device, MeshView};
use crate::model::node::{NodeState, NodeView, Process, Role};
use crate::model::record::{Promotion, Record};
use crate::model::step::Quorum;
use crate::model::time::UnixMs;

/// A recovered cluster goes on with the next multiple of this. Each change of master takes one or
/// two epochs: what a node that does not answer may hold is below it, though the master had changed
/// each second for days unseen.
pub const EPOCH_STEP: u64 = 1_000_000;
/// A node that claims more is not believed: no number could be above it.
const MOST_EPOCH: u64 = 1 << 52;

/// What a node that answers keeps.
#[derive(Clone, Debug, PartialEq)]
pub enum Copy {
    /// Nothing.
    None,
    /// What the operator gave it once.
    Valid(Box<KeptCopy>),
    /// Something that counts for nothing; why, one phrase.
    Ignored(String),
}

/// What was found of one cluster.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    /// Its name.
    pub cluster: &'a str,
    /// The manifest that was applied to the new store.
    pub applied: Option<&'a RedisCluster>,
    /// With the deployments that carry its name.
    pub chain: &'a ChainView,
    /// With the devices that carry its name.
    pub mesh: &'a MeshView,
    /// Nodes that were heard.
    pub nodes: &'a BTreeMap<IncarnationName, NodeView>,
    /// What each of them keeps.
    pub copies: &'a BTreeMap<IncarnationName, Copy>,
    /// Who we are.
    pub constants: &'a Constants,
    /// Tag under which a node is reached by the operator alone.
    pub quarantine_tag: &'a str,
    /// The present moment.
    pub now: UnixMs,
}

/// What is written when a person says so.
#[derive(Clone, Debug, PartialEq)]
pub struct Recovered {
    /// The object.
    pub cluster: RedisCluster,
    /// Its record.
    pub record: Record,
}

/// One deployment of the cluster.
struct Part<'a> {
    deployment: &'a DeploymentView,
    /// It speaks to us now.
    state: Option<&'a NodeState>,
    device: Option<&'a Device>,
    /// What the newest copy says of it.
    kept: Option<&'a KeptNode>,
    /// Why it was given up, by the word of any copy.
    given_up: Option<String>,
}

/// What was found, and what would be written; nothing where the report says why not.
#[must_use]
pub fn recover(found: &Found<'_>) -> (FoundCluster, Option<Recovered>) {
    let mut problems = Vec::new();
    let newest = newest_copy(found, &mut problems);
    let parts = parts(found, newest, &mut problems);
    let epoch = highest_epoch(found, &parts, &mut problems);
    let next_epoch = (epoch / EPOCH_STEP + 1) * EPOCH_STEP;
    let mut report = FoundCluster {
        name: found.cluster.to_owned(),
        epoch,
        next_epoch,
        nodes: parts.iter().map(|(name, part)| node(found, name, part)).collect(),
        ..FoundCluster::default()
    };
    report.nodes.sort_by_key(|n| (n.ordinal, n.incarnation.clone()));
    let manifest = manifest(found, newest);
    if let Some((from, cluster)) = &manifest {
        report.manifest.clone_from(from);
        missing(cluster, &parts, newest, &mut problems);
        if let Some(applied) = found.applied.filter(|a| a.spec != cluster.spec) {
            problems.push(format!(
                "the manifest of {} that was applied to this store differs from the one that the nodes keep, which goes on: apply it again afterwards",
                applied.metadata.name
            ));
        }
    }
    let master = master(found, &parts);
    if let Ok(Master::Known(name, _)) = &master {
        report.master = Some(name.0.clone());
    }
    report.problems = problems;
    let refused = |why: String| Some(why);
    report.refused = match (&manifest, &master) {
        _ if parts.is_empty() => refused("no deployment of it is active".to_owned()),
        (None, _) => refused(format!(
            "no node keeps a manifest of {0} that counts, and none was applied: apply the one that it was made from (`akash-redis apply -f FILE`; nothing is bought beside what runs), then recover again",
            found.cluster
        )),
        (_, Err(why)) => refused(why.clone()),
        _ => term_is_low(found, &parts),
    };
    let (Some((_, cluster)), Ok(master), None) = (manifest, master, &report.refused) else {
        return (report, None);
    };
    let record = record(found, &parts, newest, &master, next_epoch);
    (report, Some(Recovered { cluster, record }))
}

fn newest_copy<'a>(found: &Found<'a>, problems: &mut Vec<String>) -> Option<&'a KeptCopy> {
    for (name, copy) in found.copies {
        if let Copy::Ignored(why) = copy {
            problems.push(format!("what {name} keeps {why}: it counts for nothing"));
        }
    }
    valid(found)
        .max_by_key(|(name, copy)| {
            // Of two alike the master's: it is told of each change.
            let leads = copy.data_master.as_ref() == Some(name);
            (copy.age(), leads, std::cmp::Reverse((*name).clone()))
        })
        .map(|(_, copy)| copy)
}

fn valid<'a>(
    found: &Found<'a>,
) -> impl Iterator<Item = (&'a IncarnationName, &'a KeptCopy)> + use<'a> {
    found.copies.iter().filter_map(|(name, copy)| match copy {
        Copy::Valid(copy) => Some((name, &**copy)),
        Copy::None | Copy::Ignored(_) => None,
    })
}

fn parts<'a>(
    found: &Found<'a>,
    newest: Option<&'a KeptCopy>,
    problems: &mut Vec<String>,
) -> BTreeMap<IncarnationName, Part<'a>> {
    let installation = &found.constants.installation;
    let mut parts = BTreeMap::new();
    for deployment in found.chain.deployments.values().filter(|d| d.active) {
        let name = IncarnationName::from_group_name(&deployment.group_name, installation);
        let Some(name) = name.filter(|n| n.cluster() == found.cluster) else { continue };
        if name.ordinal().is_none() || name.dseq(installation) != deployment.dseq {
            problems.push(format!(
                "deployment {} carries the name {name} and is not the one that was made for it: it is left alone",
                deployment.dseq
            ));
            continue;
        }
        let view = found.nodes.get(&name).filter(|view| view.connected);
        let hostname = name.hostname(installation);
        let named: Vec<_> = found.mesh.devices.iter().filter(|d| d.hostname == hostname).collect();
        let reported = view.map(|v| v.state.mesh.device_id.as_str());
        let device = named.iter().find(|d| Some(d.id.as_str()) == reported);
        if named.len() > 1 && device.is_none() {
            problems.push(format!(
                "{} devices are called {hostname}, and none of them is known to be {name}'s",
                named.len()
            ));
        }
        let given_up = valid(found).find_map(|(_, copy)| copy.nodes.get(&name)?.given_up.clone());
        let part = Part {
            deployment,
            state: view.map(|v| &v.state),
            device: device.or(named.first().filter(|_| named.len() == 1)).copied(),
            kept: newest.and_then(|copy| copy.nodes.get(&name)),
            given_up,
        };
        if derived::active_lease(deployment).is_none() {
            problems.push(format!(
                "{name} has no lease: its deployment is closed after --confirm, and its deposit comes back"
            ));
        } else if part.state.is_none() {
            problems.push(format!("{name} does not answer"));
        }
        parts.insert(name, part);
    }
    parts
}

/// What is wanted or was there, and is not.
fn missing(
    cluster: &RedisCluster,
    parts: &BTreeMap<IncarnationName, Part<'_>>,
    newest: Option<&KeptCopy>,
    problems: &mut Vec<String>,
) {
    for ordinal in 0..cluster.spec.nodes {
        let here: Vec<_> = parts
            .iter()
            .filter(|(n, p)| n.ordinal() == Some(ordinal) && p.is_live())
            .map(|(n, _)| n.0.clone())
            .collect();
        match here.as_slice() {
            [] => problems.push(format!(
                "node {ordinal} has no deployment with a lease: it is bought after --confirm, as the budget allows"
            )),
            [_] => {}
            several => problems.push(format!(
                "node {ordinal} is filled by {}: one of them goes once the other one is in sync",
                several.join(" and ")
            )),
        }
    }
    for (name, kept) in newest.into_iter().flat_map(|copy| &copy.nodes) {
        if !parts.contains_key(name) && kept.given_up.is_none() {
            problems.push(format!(
                "{name}, which the nodes' copy knows, has no active deployment {} any more: its data went with it",
                kept.dseq
            ));
        }
    }
}

fn manifest(found: &Found<'_>, newest: Option<&KeptCopy>) -> Option<(String, RedisCluster)> {
    let Some(newest) = newest else {
        let applied = found.applied?.clone();
        return Some(("as it was applied".to_owned(), applied));
    };
    let keepers: Vec<_> = valid(found)
        .filter(|(_, copy)| copy.manifest == newest.manifest)
        .map(|(name, _)| name.0.clone())
        .collect();
    let generation = newest.manifest.metadata.generation.unwrap_or(0);
    let from = format!("generation {generation}, as {} keeps it", keepers.join(", "));
    Some((from, newest.manifest.clone()))
}

fn highest_epoch(
    found: &Found<'_>,
    parts: &BTreeMap<IncarnationName, Part<'_>>,
    problems: &mut Vec<String>,
) -> u64 {
    let mut highest = 0;
    for (name, state) in parts.iter().filter_map(|(n, p)| Some((n, p.state?))) {
        let claims = [
            state.highest.epoch,
            state.redis.online_epoch,
            state.history.as_ref().map_or(0, |h| h.epoch),
        ];
        let claimed = claims.into_iter().max().unwrap_or(0);
        if claimed > MOST_EPOCH {
            problems.push(format!("{name} claims epoch {claimed}, which is not believed"));
        } else {
            highest = highest.max(claimed);
        }
    }
    valid(found).map(|(_, copy)| copy.epoch).chain([highest]).max().unwrap_or(0)
}

/// Agents obey the higher term first, whatever the epoch.
fn term_is_low(found: &Found<'_>, parts: &BTreeMap<IncarnationName, Part<'_>>) -> Option<String> {
    let ours = found.constants.term;
    let (name, theirs) = parts
        .iter()
        .filter_map(|(n, p)| Some((n, p.state?.highest.term)))
        .max_by_key(|(_, term)| *term)
        .filter(|(_, term)| *term > ours)?;
    Some(format!(
        "{name} obeyed an operator of term {theirs}, which is above {ours}, this one's: the clock of this machine is behind; set it right and start the operator again"
    ))
}

impl Part<'_> {
    fn is_live(&self) -> bool {
        self.given_up.is_none() && derived::active_lease(self.deployment).is_some()
    }

    /// It was never on the mesh, and never heard.
    fn is_new(&self) -> bool {
        let known = self.kept.map(|kept| kept.membership);
        self.state.is_none()
            && known.map_or(self.device.is_none(), |known| known == Membership::Expected)
    }
}

fn record(
    found: &Found<'_>,
    parts: &BTreeMap<IncarnationName, Part<'_>>,
    newest: Option<&KeptCopy>,
    master: &Master,
    epoch: u64,
) -> Record {
    let mut record = Record { term: found.constants.term, epoch, ..Record::default() };
    let known = match master {
        Master::Known(name, of) => Some((name, *of)),
        Master::Nobody => None,
    };
    for (name, part) in parts {
        let membership = membership(found, name, part, known, parts, newest);
        record.incarnations.insert(name.clone(), incarnation(found, name, part, membership, epoch));
    }
    relate(&mut record, newest, known.map(|(name, _)| name));
    if let Some((name, of)) = known {
        let state = parts.get(name).and_then(|p| p.state);
        record.master = Some(Promotion {
            epoch: of,
            incarnation: name.clone(),
            run_id: state.map(|s| s.redis.run_id.clone()).unwrap_or_default(),
            boot_id: state.map(|s| s.boot_id.clone()).unwrap_or_default(),
            confirmed: true,
            since: UnixMs::default(),
            quorum: state.map(|s| Quorum {
                min_replicas: s.redis.min_replicas,
                max_lag_seconds: s.redis.max_lag_seconds,
            }),
        });
        (record.data_epoch, record.data_master) = (of, Some(name.clone()));
        return record;
    }
    // Where anything may have been written, no empty node is promoted.
    let of = |state: &NodeState| {
        state.history.as_ref().map_or(0, |h| h.epoch).max(state.redis.online_epoch)
    };
    let seen = parts.values().filter_map(|p| p.state).map(of).filter(|e| *e <= MOST_EPOCH);
    let kept = newest.map_or(0, |copy| copy.data_epoch);
    record.data_epoch = seen.chain([kept]).max().unwrap_or(0);
    record.data_master = newest.and_then(|copy| copy.data_master.clone());
    record
}

/// What an incarnation is to the master: by the master's own word where it answers, by what it sees
/// itself and by the newest copy of the same epoch where not.
fn membership(
    found: &Found<'_>,
    name: &IncarnationName,
    part: &Part<'_>,
    master: Option<(&IncarnationName, u64)>,
    parts: &BTreeMap<IncarnationName, Part<'_>>,
    newest: Option<&KeptCopy>,
) -> Membership {
    if part.is_new() {
        return Membership::Expected;
    }
    let Some((leader, epoch)) = master.filter(|_| part.given_up.is_none()) else {
        return Membership::Member;
    };
    if name == leader {
        return Membership::Candidate;
    }
    let linked = part.state.is_some_and(|s| s.redis.is_linked() && s.redis.online_epoch == epoch);
    let in_sync = if let Some(leader) = parts.get(leader).and_then(|p| p.state) {
        linked
            && leader.redis.min_replicas >= 1
            && part.state.is_some_and(|s| roles::attached(leader, name, s))
    } else {
        let kept = part.kept.map(|kept| kept.membership);
        linked
            || (kept == Some(Membership::Candidate)
                && newest.is_some_and(|copy| copy.data_epoch == epoch))
    };
    debug_assert_eq!(name.cluster(), found.cluster);
    if in_sync { Membership::Candidate } else { Membership::Member }
}

fn incarnation(
    found: &Found<'_>,
    name: &IncarnationName,
    part: &Part<'_>,
    membership: Membership,
    epoch: u64,
) -> Incarnation {
    let now = found.now;
    let lease = derived::active_lease(part.deployment);
    let max_price = part.kept.map(|kept| kept.max_price).or(lease.map(|l| l.price));
    let mut incarnation = Incarnation::new(
        name.ordinal().unwrap_or_default(),
        part.deployment.dseq,
        now,
        part.kept.map_or(0, |kept| kept.epoch_floor),
        max_price.unwrap_or_default(),
    );
    incarnation.lease = lease.map(|l| Choice { id: l.id.clone(), price: l.price, at: now });
    incarnation.membership = membership;
    incarnation.device = part.device.map(|d| d.id.clone());
    incarnation.lease_terms = part.kept.map(|kept| kept.lease_terms.clone()).unwrap_or_default();
    incarnation.resources = part.kept.map(|kept| kept.resources.clone()).unwrap_or_default();
    incarnation.deployed = part.kept.and_then(|kept| kept.deployed.clone());
    let shut_off = |d: &Device| d.tags.len() == 1 && d.tags[0] == found.quarantine_tag;
    if part.device.is_some_and(shut_off) && !part.state.is_some_and(takes_writes) {
        incarnation.quarantined = Some(Quarantine { epoch, at: now, in_force: Some(now) });
    }
    let why = part.given_up.clone().or_else(|| {
        lease.is_none().then(|| "it had no lease when the store was recovered".to_owned())
    });
    if let Some(reason) = why {
        incarnation.condemned = Some(Condemned { at: now, reason, closed: None });
        incarnation.lower(Membership::Member);
    }
    incarnation
}

/// Of two that fill one node the one that is not in sync takes the place of the other, where no
/// copy says which is which.
fn relate(record: &mut Record, newest: Option<&KeptCopy>, master: Option<&IncarnationName>) {
    let known = |name: &IncarnationName| newest.and_then(|copy| copy.nodes.get(name));
    let mut by_ordinal: BTreeMap<u32, BTreeSet<IncarnationName>> = BTreeMap::new();
    for (name, i) in record.incarnations.iter().filter(|(_, i)| i.condemned.is_none()) {
        by_ordinal.entry(i.ordinal).or_default().insert(name.clone());
    }
    for names in by_ordinal.values().filter(|names| names.len() > 1) {
        let told: Vec<_> = names
            .iter()
            .filter_map(|n| {
                Some((n, known(n)?.replaces.clone().filter(|old| names.contains(old))?))
            })
            .collect();
        let rank = |n: &IncarnationName| {
            let candidate = record.incarnations[n].is_candidate();
            (Some(n) != master, !candidate, known(n).is_none(), n.clone())
        };
        let pairs = if told.is_empty() {
            let mut ranked: Vec<_> = names.iter().collect();
            ranked.sort_by_key(|n| rank(n));
            vec![(ranked[1].clone(), ranked[0].clone())]
        } else {
            told.into_iter().map(|(n, old)| (n.clone(), old)).collect()
        };
        for (new, old) in pairs {
            if let Some(incarnation) = record.incarnations.get_mut(&new) {
                incarnation.replaces = Some(old);
            }
        }
    }
}

fn node(found: &Found<'_>, name: &IncarnationName, part: &Part<'_>) -> FoundNode {
    let generation = match found.copies.get(name) {
        Some(Copy::Valid(copy)) => copy.manifest.metadata.generation,
        _ => None,
    };
    FoundNode {
        ordinal: name.ordinal().unwrap_or_default(),
        incarnation: name.0.clone(),
        dseq: part.deployment.dseq,
        provider: derived::active_lease(part.deployment).map(|l| l.id.provider.clone()),
        device: part.device.map(|d| d.id.clone()),
        epoch: part.state.map(|s| s.highest.epoch),
        role: role(part),
        generation,
    }
}

fn role(part: &Part<'_>) -> String {
    let role = match part.state {
        None if derived::active_lease(part.deployment).is_none() => "no lease".to_owned(),
        None => "does not answer".to_owned(),
        Some(state) if takes_writes(state) => "master".to_owned(),
        Some(state) if leads(state) => "master, takes no writes".to_owned(),
        Some(state) => match (state.redis.process, state.redis.role) {
            (Process::Exited | Process::Starting, _) => "redis does not run".to_owned(),
            (Process::Stuck, _) => "redis does not answer".to_owned(),
            (Process::Running, Role::Master) => "master, fenced".to_owned(),
            (Process::Running, _) if state.redis.master_host.is_empty() => {
                "follows nobody".to_owned()
            }
            (Process::Running, _) => {
                let host = &state.redis.master_host;
                let link = if state.redis.is_linked() { "" } else { ", link down" };
                format!("replica of {}{link}", host.split('.').next().unwrap_or(host))
            }
        },
    };
    if part.given_up.is_some() { format!("given up ({role})") } else { role }
}
