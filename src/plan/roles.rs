//! Who is master, and who follows.

use std::time::Duration;

use super::draft::Draft;
use super::{cold_start, facts, failover, quarantine, settings, switchover};
use crate::api::types::MASTER;
use crate::model::ids::IncarnationName;
use crate::model::node::{NodeState, Role};
use crate::model::record::{Change, Promotion};
use crate::model::step::{Command, ReplicationGrant};
use crate::model::time::UnixMs;

/// A replica that has heard nothing of its master for so long does not merely load a lot of data.
const SYNC_SILENCE: Duration = Duration::from_mins(2);

/// Goes on with a change of master in progress, or keeps the present roles, or starts a change.
pub fn plan(draft: &mut Draft<'_>) {
    match draft.record.change.clone() {
        Some(Change::Failover(failover)) => failover::advance(draft, &failover),
        Some(Change::Switchover(switchover)) => switchover::advance(draft, &switchover),
        None => {}
    }
    if draft.record.change.is_some() {
        return;
    }
    let Some(promotion) = draft.record.master.clone() else {
        first_master(draft);
        return;
    };
    if failover::watch(draft, &promotion) {
        return;
    }
    if !promotion.confirmed {
        promote(draft);
    }
    follow(draft);
    asked_for(draft);
}

/// A cluster without a master. Without data the first node that is ready becomes it.
fn first_master(draft: &mut Draft<'_>) {
    if draft.record.data_epoch > 0 {
        cold_start::cold_start(draft);
        return;
    }
    let ready = draft.live().into_iter().find(|(name, _)| {
        draft.connected(name).is_some_and(|s| {
            facts::running(&s.redis) && facts::fqdn(s).is_some() && s.configured == settings::for_node(draft, name).generation
        })
    });
    let Some((name, _)) = ready else { return };
    draft.record.epoch += 1;
    choose(draft, &name);
    draft.event("MasterChosen", format!("{name} becomes the first master, epoch {}", draft.record.epoch));
    promote(draft);
}

/// Writes the choice of the present epoch. Only the chosen one is in sync with itself for certain.
pub fn choose(draft: &mut Draft<'_>, name: &IncarnationName) {
    draft.record.master = Some(Promotion { epoch: draft.record.epoch, incarnation: name.clone(), confirmed: false });
    for incarnation in draft.record.incarnations.values_mut() {
        incarnation.candidate = false;
    }
    draft.change(name, |i| {
        i.member = true;
        i.candidate = true;
    });
}

/// Sends the promotion until the chosen agent reports that it is master of this epoch; then the cluster has data.
pub fn promote(draft: &mut Draft<'_>) {
    let Some(promotion) = draft.record.master.clone() else { return };
    let Some(state) = draft.connected(&promotion.incarnation) else { return };
    if is_master_of(state, promotion.epoch) {
        draft.record.data_epoch = promotion.epoch;
        draft.record.data_master = Some(promotion.incarnation.clone());
        draft.record.master = Some(Promotion { confirmed: true, ..promotion.clone() });
        draft.event("MasterPromoted", format!("{} is master of epoch {}", promotion.incarnation, promotion.epoch));
        return;
    }
    let command = Command::Promote { replicas: settings::grants(draft), quorum: settings::quorum(draft) };
    draft.command(&promotion.incarnation, command, format!("it was chosen as master of epoch {}", promotion.epoch));
}

/// The agent obeyed the promotion of this epoch, and its redis takes writes.
pub fn is_master_of(state: &NodeState, epoch: u64) -> bool {
    facts::running(&state.redis)
        && state.promoted
        && state.highest.epoch == epoch
        && state.redis.role == Role::Master
        && !state.redis.fenced
}

/// Makes everybody else replicate from the master, and records who is in sync.
fn follow(draft: &mut Draft<'_>) {
    let Some(promotion) = draft.record.master.clone().filter(|p| p.confirmed) else { return };
    let Some(master) = draft.connected(&promotion.incarnation) else { return };
    let Some(master_name) = facts::fqdn(master).map(str::to_owned) else { return };
    for (name, incarnation) in draft.live() {
        if name == promotion.incarnation {
            continue;
        }
        let attached = draft.connected(&name).is_some_and(|s| attached(master, s));
        if draft.spec().nodes == 2 && incarnation.candidate && !attached {
            // Writes may only go on alone once the replica can no longer be taken for one that has them.
            draft.change(&name, |i| i.candidate = false);
            draft.event("ReplicaAway", format!("{name} is away; the master takes writes without it"));
            continue;
        }
        let Some(state) = draft.connected(&name) else { continue };
        if !facts::running(&state.redis) || facts::fqdn(state).is_none() || quarantine::apart(draft, &name) {
            continue;
        }
        if !incarnation.member {
            draft.change(&name, |i| i.member = true);
            draft.event("Member", format!("{name} may replicate from {}", promotion.incarnation));
        }
        let linked = state.redis.role == Role::Replica && state.redis.master_host == master_name && state.highest.epoch >= promotion.epoch;
        if !linked {
            if master.configured == settings::for_node(draft, &promotion.incarnation).generation {
                send_follow(draft, &name, state, master, &master_name, &promotion);
            }
        } else if state.redis.link_up && !state.redis.sync_in_progress && state.redis.online_epoch == promotion.epoch {
            let quorum_up = draft.spec().nodes != 2 || master.redis.min_replicas >= 1;
            if !incarnation.candidate && attached && quorum_up {
                draft.change(&name, |i| i.candidate = true);
                draft.event("InSync", format!("{name} is in sync and may be promoted"));
            }
        } else {
            let progress = match (state.redis.sync_done_bytes, state.redis.sync_total_bytes) {
                (_, 0) => String::new(),
                (done, total) => format!(" ({done} of {total} bytes)"),
            };
            let heard = UnixMs(draft.now().0.saturating_sub(state.redis.silent_ms));
            draft.watch(format!("{name} to be in sync{progress}"), heard, SYNC_SILENCE, "SyncStuck");
        }
    }
}

/// The master lists this replica as online.
pub fn attached(master: &NodeState, replica: &NodeState) -> bool {
    let name = &replica.mesh.dns_name;
    replica.redis.link_up && master.redis.replicas.iter().any(|r| &r.name == name && r.state == "online")
}

fn send_follow(
    draft: &mut Draft<'_>,
    name: &IncarnationName,
    state: &NodeState,
    master: &NodeState,
    master_name: &str,
    promotion: &Promotion,
) {
    let epoch = promotion.epoch;
    // History past the promotion point exists nowhere else: it is kept as a snapshot before a full sync wipes it.
    let lost = beyond_promotion(state, master);
    report_loss(draft, name, lost);
    let command = Command::Follow {
        master: promotion.incarnation.clone(),
        master_name: master_name.to_owned(),
        grant: ReplicationGrant { incarnation: name.clone(), epoch },
        save_first: lost.is_some_and(|bytes| bytes > 0),
    };
    draft.command(name, command, format!("the master of epoch {epoch} is {master_name}"));
}

/// Completes the report of the failover in which this node was given up.
pub fn report_loss(draft: &mut Draft<'_>, name: &IncarnationName, lost: Option<i64>) {
    if let (Some(bytes), Some(report)) = (lost, draft.record.last_failover.as_mut())
        && report.old == name.0
        && report.lost_bytes.is_none()
    {
        report.lost_bytes = Some(bytes);
    }
}

/// Bytes that a former master wrote beyond the point where the present one was promoted; `None` when that cannot be compared.
pub fn beyond_promotion(state: &NodeState, master: &NodeState) -> Option<i64> {
    let history = state.history.as_ref()?;
    (!history.replid.is_empty() && history.replid == master.redis.replid2).then(|| (history.offset + 1 - master.redis.second_offset).max(0))
}

/// A person asked for another master.
fn asked_for(draft: &mut Draft<'_>) {
    let Some(asked) = draft.input.cluster.metadata.annotations.get(MASTER) else { return };
    let (name, epoch) = asked.trim().split_once('@').map_or((asked.trim(), None), |(n, e)| (n, Some(e)));
    if epoch.is_some_and(|e| e.parse() != Ok(draft.record.epoch)) {
        return;
    }
    let target = IncarnationName(name.to_owned());
    let is_master = draft.record.master.as_ref().is_some_and(|p| p.incarnation == target);
    if !is_master && draft.incarnation(&target).is_some_and(|i| i.candidate) {
        switchover::start(draft, &target, "a person asked for it");
    }
}
