//! Who is master, and who follows.

use std::time::Duration;

use super::builder::PlanBuilder;
use super::{
    confirmed, cutover, death, derived, elect, failover, fence, handover, health, import,
    quarantine, restore, settings, stopping, switchover, versions, word,
};
use crate::api::annotations::MASTER;
use crate::api::conditions::Reason;
use crate::api::events::EventReason;
use crate::model::change::Change;
use crate::model::ids::IncarnationName;
use crate::model::incarnation::{Admitted, Incarnation, Membership};
use crate::model::node::{AttachedReplica, NodeState, Process, RedisState, ReplicaState, Role};
use crate::model::record::Promotion;
use crate::model::step::{Command, ReplicationGrant};
use crate::model::time::UnixMs;

/// A replica that has heard nothing of its master for so long does not merely load a lot of data.
const SYNC_SILENCE: Duration = Duration::from_mins(2);

/// Goes on with a change of master in progress, or keeps the present roles, or starts a change.
pub fn plan(builder: &mut PlanBuilder<'_>) {
    match builder.record.change.clone() {
        Some(Change::Failover(failover)) => failover::advance(builder, &failover),
        Some(Change::Switchover(switchover)) => switchover::advance(builder, &switchover),
        None => {}
    }
    if builder.record.change.is_some() {
        return;
    }
    let Some(promotion) = builder.record.master.clone() else {
        first_master(builder);
        return;
    };
    if cutover::undo(builder, &promotion)
        || word::keep(builder, &promotion)
        || death::watch(builder, &promotion)
    {
        return;
    }
    if promotion.epoch < builder.record.epoch {
        // A change was given up before anybody was chosen, and the master lives: it is master of
        // this epoch too.
        let name = promotion.incarnation.clone();
        choose(builder, &name);
        builder.event(
            EventReason::MasterRetained,
            format!("{name} stays master, epoch {}", builder.record.epoch),
        );
    }
    if !builder.record.master.as_ref().is_some_and(|p| p.confirmed) {
        promote(builder);
    }
    if let Some(promotion) = builder.record.master.clone().filter(|p| p.confirmed) {
        settings::note_quorum(builder, &promotion);
    }
    handover::advance(builder);
    confirmed::keep(builder);
    follow(builder);
    health::relieve(builder);
    if builder.record.change.is_none() {
        stopping::make_way(builder);
    }
    if builder.record.change.is_none() {
        asked_for(builder);
    }
}

/// A cluster without a master. Without data the first node that is ready becomes it.
fn first_master(builder: &mut PlanBuilder<'_>) {
    if builder.record.data_epoch > 0 {
        elect::cold_start(builder);
        return;
    }
    if restore::pending(builder) {
        // An empty node never wins while data are to come.
        if let Some(name) = restore::advance(builder) {
            first(builder, &name);
        }
        return;
    }
    if import::pending(builder) {
        import::advance(builder);
        return;
    }
    let ready = builder.live().into_iter().find(|(name, _)| {
        !word::is_fenced(builder, name)
            && builder.connected(name).is_some_and(|s| {
                derived::running(&s.redis)
                    && !s.stopping
                    && derived::fqdn(s).is_some()
                    && s.configured == settings::for_node(builder, name).generation
            })
    });
    let Some((name, _)) = ready else { return };
    first(builder, &name);
}

/// Chooses the first master.
fn first(builder: &mut PlanBuilder<'_>, name: &IncarnationName) {
    builder.record.epoch += 1;
    begin_with(builder, name);
}

/// Chooses the first master in the present epoch: that of an import, to which the others are attached
/// with what they were let in with.
pub fn begin_with(builder: &mut PlanBuilder<'_>, name: &IncarnationName) {
    choose(builder, name);
    // As long as it needs a replica and nobody may replicate from it, nobody was told that a write
    // is done.
    builder.record.untouched =
        builder.record.master.as_ref().and_then(|p| p.quorum).is_some_and(|q| q.min_replicas > 0)
            && !builder.record.incarnations.iter().any(|(n, i)| n != name && i.is_member());
    builder.event(
        EventReason::MasterElected,
        format!("{name} becomes the first master, epoch {}", builder.record.epoch),
    );
    promote(builder);
}

/// Writes the choice of the present epoch: the redis process that runs there now, and no other. Who
/// was in sync with the master before stays a candidate until the choice is confirmed: it may come
/// to nothing.
pub fn choose(builder: &mut PlanBuilder<'_>, name: &IncarnationName) {
    let quorum = settings::quorum_at_promotion(builder, name);
    builder.record.granted = grants_kept(builder, name);
    let state = builder.connected(name);
    builder.record.master = Some(Promotion {
        epoch: builder.record.epoch,
        incarnation: name.clone(),
        run_id: state.map(|s| s.redis.run_id.clone()).unwrap_or_default(),
        boot_id: state.map(|s| s.boot_id.clone()).unwrap_or_default(),
        confirmed: false,
        since: UnixMs::default(),
        quorum: Some(quorum),
    });
    builder.change(name, |i| i.raise(Membership::Candidate));
}

/// Epoch of the leave to replicate that stays in use when `name` is chosen: where its very process
/// is master already, what its replicas use is not replaced. 0 where each gets a new one.
pub fn grants_kept(builder: &PlanBuilder<'_>, name: &IncarnationName) -> u64 {
    let Some(before) = builder.record.master.as_ref().filter(|p| &p.incarnation == name) else {
        return 0;
    };
    let stays = builder.connected(name).is_some_and(|state| {
        let same = !before.run_id.is_empty() && state.redis.run_id == before.run_id;
        same && state.boot_id == before.boot_id && state.redis.role == Role::Master
    });
    if stays { settings::granted(&builder.record, before) } else { 0 }
}

/// Why a choice that is not confirmed comes to nothing: its process, or its node, is gone.
pub fn void(builder: &PlanBuilder<'_>, chosen: &Promotion) -> Option<String> {
    let name = &chosen.incarnation;
    if builder.view(name).is_some_and(|v| v.state.redis.process == Process::Exited) {
        return Some("its redis exited".to_owned());
    }
    if let Some(state) = builder.connected(name) {
        return death::another_process(state, chosen)
            .then(|| "its redis was started again and may lack data".to_owned());
    }
    let silent = builder
        .now()
        .passed(derived::last_heard(builder, name), builder.spec().failover.down_after.0);
    silent.then(|| "it is silent".to_owned())
}

/// Sends the promotion until the chosen agent reports that it is master of this epoch; then the
/// cluster has data.
pub fn promote(builder: &mut PlanBuilder<'_>) {
    let Some(promotion) = builder.record.master.clone() else { return };
    let Some(state) = builder.connected(&promotion.incarnation) else { return };
    if is_master_of(state, promotion.epoch) {
        builder.record.data_epoch = promotion.epoch;
        builder.record.data_master = Some(promotion.incarnation.clone());
        builder.record.master =
            Some(Promotion { confirmed: true, since: builder.now(), ..promotion.clone() });
        for (name, incarnation) in &mut builder.record.incarnations {
            if *name == promotion.incarnation {
                incarnation.raise(Membership::Candidate);
            } else {
                incarnation.lower(Membership::Member);
            }
        }
        confirmed::begin(builder);
        restore::complete(builder, &promotion.incarnation);
        cutover::complete(builder, &promotion.incarnation);
        builder.event(
            EventReason::MasterPromoted,
            format!("{} is master of epoch {}", promotion.incarnation, promotion.epoch),
        );
        return;
    }
    if promotion.epoch != builder.record.epoch || death::another_process(state, &promotion) {
        return;
    }
    let quorum = promotion
        .quorum
        .unwrap_or_else(|| settings::quorum_at_promotion(builder, &promotion.incarnation));
    // Where writes are confirmed they wait for replicas anyway.
    let import = import::ended_by(builder, &promotion.incarnation);
    let stopped = match &builder.record.change {
        Some(Change::Switchover(_)) => true,
        Some(Change::Failover(failover)) => fence::agents_word(builder, failover).is_some(),
        None => !import.is_empty(),
    };
    let planned = stopped && !builder.spec().is_confirmed();
    let replicas = settings::grants(builder);
    let command = Command::Promote { replicas, quorum, planned, import };
    builder.command(
        &promotion.incarnation,
        command,
        format!("it was chosen as master of epoch {}", promotion.epoch),
    );
}

/// The agent obeyed the promotion of this epoch, and its redis takes writes.
pub fn is_master_of(state: &NodeState, epoch: u64) -> bool {
    derived::running(&state.redis)
        && state.promoted
        && state.highest.epoch == epoch
        && state.redis.role == Role::Master
        && !state.redis.fenced
}

/// Makes everybody else replicate from the master, and records who is in sync.
fn follow(builder: &mut PlanBuilder<'_>) {
    let Some(promotion) = builder.record.master.clone().filter(|p| p.confirmed) else { return };
    let Some(master) = builder.connected(&promotion.incarnation) else { return };
    let Some(master_name) = derived::fqdn(master).map(str::to_owned) else { return };
    if !is_master_of(master, promotion.epoch) {
        return;
    }
    for (name, incarnation) in builder.live() {
        if name == promotion.incarnation {
            continue;
        }
        if incarnation.is_candidate() && goes_on_without(builder, &promotion, master, &name) {
            // Writes may only go on without it once it can no longer be taken for one that has
            // them.
            builder.change(&name, |i| i.lower(Membership::Member));
            builder.event(
                EventReason::ReplicaOutOfSync,
                format!("{name} is out of sync; the master takes writes without it"),
            );
            continue;
        }
        let attached = builder.connected(&name).is_some_and(|s| attached(master, &name, s));
        let Some(state) = builder.connected(&name) else { continue };
        if !derived::running(&state.redis)
            || derived::fqdn(state).is_none()
            || quarantine::isolated(builder, &name)
        {
            continue;
        }
        if !incarnation.is_member() {
            let (epoch, run_id) = (builder.record.data_epoch, state.redis.run_id.clone());
            builder.change(&name, |i| {
                i.raise(Membership::Member);
                i.admitted = Some(Admitted { epoch, run_id });
            });
            builder.record.untouched = false;
            builder.event(
                EventReason::ReplicaAdmitted,
                format!("{name} may replicate from {}", promotion.incarnation),
            );
        }
        // One that attached before it became master is told that it is now.
        let before = state.redis.is_linked() && state.redis.online_epoch < promotion.epoch;
        let linked = state.redis.role == Role::Replica
            && state.redis.master_host == master_name
            && state.highest.epoch >= promotion.epoch
            && !before;
        if !linked {
            // A full sync that it cannot read would empty it.
            let reads = versions::can_follow(builder, &name, &promotion.incarnation);
            let told = settings::for_node(builder, &promotion.incarnation).generation;
            if reads && master.configured == told {
                send_follow(builder, &name, state, master, &master_name, &promotion);
            }
        } else if state.redis.is_linked()
            && !state.redis.is_syncing()
            && state.redis.online_epoch == promotion.epoch
        {
            // The value first: a candidate without which the master takes writes would lack them.
            if !incarnation.is_candidate() && attached && master.redis.min_replicas >= 1 {
                builder.change(&name, |i| i.raise(Membership::Candidate));
                builder.event(
                    EventReason::ReplicaInSync,
                    format!("{name} is in sync and may be promoted"),
                );
            }
        } else {
            let progress = sync_progress(&state.redis);
            let heard = UnixMs(builder.now().0.saturating_sub(state.redis.silent_ms));
            builder.watch(
                format!("{name} to be in sync{progress}"),
                heard,
                SYNC_SILENCE,
                Reason::SyncStalled,
            );
        }
    }
}

/// How far a full sync is. A master that sends from memory does not know how much there is to come.
fn sync_progress(redis: &RedisState) -> String {
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    let (done, total) = (redis.sync_done_bytes, redis.sync_total_bytes);
    let again = match redis.health.syncs_in_a_row {
        0 | 1 => String::new(),
        times => format!(", attempt {times}"),
    };
    match (done, total) {
        _ if !redis.is_syncing() => String::new(),
        (0, _) => format!(" (full sync begins{again})"),
        (_, 0) => format!(" (full sync, {} MiB so far{again})", mib(done)),
        (_, total) => format!(" (full sync, {} of {} MiB{again})", mib(done), mib(total)),
    }
}

/// The replica is linked, and its master counts it.
pub fn attached(master: &NodeState, name: &IncarnationName, replica: &NodeState) -> bool {
    replica.redis.is_linked() && counted(master, name, Some(replica))
}

/// The master counts this replica: it is online there, and was heard within max-lag. It is known by
/// its mesh name, or by the one it had when it attached, which began with the incarnation's.
fn counted(master: &NodeState, name: &IncarnationName, replica: Option<&NodeState>) -> bool {
    attachment(master, name, replica).is_some_and(|r| {
        r.state == ReplicaState::Online && r.lag_seconds <= master.redis.max_lag_seconds
    })
}

/// What the master says of a replica: of its best link, where an old one did not end yet.
pub fn attachment<'a>(
    master: &'a NodeState,
    name: &IncarnationName,
    replica: Option<&NodeState>,
) -> Option<&'a AttachedReplica> {
    let known = |announced: &str| {
        replica.is_some_and(|s| s.mesh.dns_name == announced) || announced.starts_with(&name.0)
    };
    let links = master.redis.replicas.iter().filter(|r| known(&r.name));
    links.min_by_key(|r| (r.state != ReplicaState::Online, r.lag_seconds))
}

/// By the master's own word it does not count this replica, and others suffice it for a write, or
/// it may do without any.
fn goes_on_without(
    builder: &PlanBuilder<'_>,
    promotion: &Promotion,
    master: &NodeState,
    name: &IncarnationName,
) -> bool {
    if counted(master, name, builder.connected(name)) {
        return false;
    }
    let others = builder
        .live()
        .into_iter()
        .filter(|(n, i)| n != name && n != &promotion.incarnation && i.is_candidate());
    let counts = others.filter(|(n, _)| counted(master, n, builder.connected(n))).count() as u64;
    (builder.spec().nodes <= 2 && !builder.spec().is_confirmed())
        || counts >= u64::from(settings::bound(builder, promotion).min_replicas)
}

fn send_follow(
    builder: &mut PlanBuilder<'_>,
    name: &IncarnationName,
    state: &NodeState,
    master: &NodeState,
    master_name: &str,
    promotion: &Promotion,
) {
    let epoch = promotion.epoch;
    // History past the promotion point exists nowhere else: it is kept as a snapshot before a full
    // sync wipes it.
    let beyond = beyond_promotion(state, master);
    report_loss(builder, name, beyond);
    let granted = settings::granted(&builder.record, promotion);
    let command = Command::Follow {
        master: promotion.incarnation.clone(),
        master_name: master_name.to_owned(),
        grant: ReplicationGrant { incarnation: name.clone(), epoch: granted },
        save_first: beyond.may_be_lost() && state.redis.keys > 0,
        data_epoch: 0,
    };
    builder.command(name, command, format!("the master of epoch {epoch} is {master_name}"));
}

/// What a node has that the present master lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beyond {
    /// At least so many bytes, and what it took in the milliseconds of which its history says
    /// nothing.
    Bytes(i64, u64),
    /// Its history is none that the master's can be compared with.
    Unknown,
}

impl Beyond {
    /// Following the master now may wipe what nobody else has.
    pub fn may_be_lost(self) -> bool {
        self != Self::Bytes(0, 0)
    }
}

/// What a former master, or a replica of one, has beyond the point where the present master was
/// promoted.
pub fn beyond_promotion(state: &NodeState, master: &NodeState) -> Beyond {
    let Some(history) = state.history.as_ref().filter(|h| !h.replid.is_empty()) else {
        return Beyond::Unknown;
    };
    if history.replid == master.redis.replid {
        return Beyond::Bytes(0, 0);
    }
    if history.replid != master.redis.replid2 {
        return Beyond::Unknown;
    }
    Beyond::Bytes((history.offset + 1 - master.redis.second_offset).max(0), history.gap_ms)
}

/// Completes the report of the failover in which this node was given up.
pub fn report_loss(builder: &mut PlanBuilder<'_>, name: &IncarnationName, beyond: Beyond) {
    if let (Beyond::Bytes(bytes, gap), Some(report)) =
        (beyond, builder.record.last_failover.as_mut())
        && report.old == name.0
        && report.lost_bytes.is_none()
    {
        (report.lost_bytes, report.lost_gap_ms) = (Some(bytes), gap);
    }
}

/// A person asked for another master.
fn asked_for(builder: &mut PlanBuilder<'_>) {
    let Some(asked) = builder.input.cluster.metadata.annotations.get(MASTER) else { return };
    let (name, epoch) =
        asked.trim().split_once('@').map_or((asked.trim(), None), |(n, e)| (n, Some(e)));
    if epoch.is_some_and(|e| e.parse() != Ok(builder.record.epoch)) {
        return;
    }
    let target = IncarnationName(name.to_owned());
    let is_master = builder.record.master.as_ref().is_some_and(|p| p.incarnation == target);
    if !is_master && builder.incarnation(&target).is_some_and(Incarnation::is_candidate) {
        switchover::start(builder, &target, "it was requested");
    }
}
