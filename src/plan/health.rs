//! How the nodes fare that answer: whether an application can write now, whether a failover would
//! find somebody, and what ends the trouble.

use std::time::Duration;

use super::builder::PlanBuilder;
use super::{derived, roles, switchover};
use crate::api::conditions::{ConditionStatus, Phase, Reason};
use crate::api::events::EventReason;
use crate::api::status::NodeStatus;
use crate::model::ids::IncarnationName;
use crate::model::incarnation::Incarnation;
use crate::model::node::{NodeState, Process, Refusal, Role, Space};
use crate::model::time::UnixMs;

/// A replica that lacks writes of so long is behind, if they are many bytes as well: an
/// acknowledgement takes a second, and a burst some more.
pub const BEHIND: Duration = Duration::from_secs(5);
/// Starts in a row that came to nothing, after which the next one will not do better.
pub const SEVERAL: u32 = 3;
/// Between two moves of the master for its volume's sake: what is wrong with all volumes is not
/// cured by moving on and on.
const MOVES: Duration = Duration::from_mins(10);
/// The master sent so many full syncs in vain.
const SYNCS: u32 = 3;

/// Whether an application can write now, and a failover would find a candidate.
pub fn ready(builder: &PlanBuilder<'_>, nodes: &[NodeStatus]) -> (ConditionStatus, Reason, String) {
    let wanted = builder.spec().nodes as usize;
    let masters = nodes.iter().filter(|n| n.phase == Phase::Master).count();
    let replicas = nodes.iter().filter(|n| n.phase == Phase::Replica).count();
    let not = |reason, message| (ConditionStatus::False, reason, message);
    if let Some(held) = &builder.record.held {
        let said = super::word::said(builder, held).unwrap_or_default();
        return not(
            Reason::FencedByPerson,
            format!("{held} is master and takes no writes: {said}"),
        );
    }
    if let Some((name, refusal)) = refusal(builder) {
        return not(Reason::WritesRefused, format!("{name} is master and {}", said(refusal)));
    }
    if masters != 1 || replicas + 1 < wanted || builder.record.change.is_some() {
        return not(
            Reason::NodesNotReady,
            format!("{masters} master and {replicas} replicas in sync, {wanted} nodes wanted"),
        );
    }
    let late: Vec<_> = builder
        .live()
        .iter()
        .filter_map(|(name, _)| lag(builder, name).map(|lag| lag.in_words(name)))
        .collect();
    if !late.is_empty() {
        return not(Reason::ReplicaLagging, late.join("; "));
    }
    (ConditionStatus::True, Reason::AllInSync, format!("1 master and {replicas} replicas in sync"))
}

/// The confirmed master takes no writes although it shall.
fn refusal<'a>(builder: &PlanBuilder<'a>) -> Option<(IncarnationName, &'a Refusal)> {
    let promotion = builder.record.master.as_ref().filter(|p| p.confirmed)?;
    let state = builder.connected(&promotion.incarnation)?;
    Some((promotion.incarnation.clone(), state.redis.health.refusal.as_ref()?))
}

fn said(refusal: &Refusal) -> String {
    let Refusal { code, words, since_ms } = refusal;
    format!("refuses writes since {} s: {code} {words}", since_ms / 1000)
}

/// A replica is linked, answers, and its master counts it.
pub fn follows(builder: &PlanBuilder<'_>, name: &IncarnationName, state: &NodeState) -> bool {
    let master = builder.record.master.as_ref().and_then(|p| builder.connected(&p.incarnation));
    derived::running(&state.redis)
        && state.redis.is_linked()
        && master.is_none_or(|m| m.redis.role != Role::Master || roles::attached(m, name, state))
}

/// How far a replica is behind.
pub struct Lag {
    bytes: u64,
    behind: Duration,
}

impl Lag {
    fn in_words(&self, name: &IncarnationName) -> String {
        let (mib, seconds) = (self.bytes.div_ceil(1 << 20), self.behind.as_secs());
        format!("{name} is {mib} MiB and {seconds} s behind the master")
    }
}

/// A replica that is behind by more than it may; `None` when it is not, or nobody can say.
pub fn lag(builder: &PlanBuilder<'_>, name: &IncarnationName) -> Option<Lag> {
    let promotion = builder.record.master.as_ref().filter(|p| &p.incarnation != name)?;
    let master = builder.connected(&promotion.incarnation)?;
    let own = roles::attachment(master, name, builder.connected(name))?;
    let bytes = u64::try_from(master.redis.offset - own.offset).unwrap_or_default();
    let behind = Duration::from_millis(own.behind_ms);
    let late = bytes > builder.spec().failover.max_lag.0 && behind >= BEHIND;
    late.then_some(Lag { bytes, behind })
}

/// Says what is wrong with the nodes that answer.
pub fn report(builder: &mut PlanBuilder<'_>) {
    for (name, incarnation) in builder.live() {
        if let Some(state) = builder.connected(&name) {
            let master = builder.record.master.as_ref().is_some_and(|p| p.incarnation == name);
            if master {
                writes(builder, &name);
            } else {
                replica(builder, &name, &incarnation, state);
            }
            disk(builder, &name, state);
        }
    }
    if builder.steps.is_empty() && builder.waits.is_empty() {
        whoever_does_not_follow(builder);
    }
}

/// Nothing is to be done and nothing else is waited for, and yet the cluster is not whole.
fn whoever_does_not_follow(builder: &mut PlanBuilder<'_>) {
    let master = builder.record.master.as_ref().map(|p| p.incarnation.clone());
    let late = builder.live().into_iter().filter(|(name, _)| Some(name) != master.as_ref()).find(
        |(name, incarnation)| {
            !incarnation.is_candidate()
                || builder.connected(name).is_none_or(|state| !follows(builder, name, state))
        },
    );
    if let Some((name, incarnation)) = late {
        let since = incarnation.redis_down.unwrap_or(builder.now());
        let limit = builder.input.timing.replace_after;
        let then = "a node that stays away is replaced by a new one";
        builder.wait(format!("{name} to be in sync with the master"), since, Some(limit), then);
    }
}

/// A master that refuses writes. For want of replicas it does so for a moment at each change.
fn writes(builder: &mut PlanBuilder<'_>, name: &IncarnationName) {
    let Some((_, refusal)) = refusal(builder) else { return };
    let down_after = builder.spec().failover.down_after.0;
    let since = UnixMs(builder.now().0.saturating_sub(refusal.since_ms));
    let told = format!("{name} is master and {}", said(refusal));
    let (reason, then) = match refusal.code.as_str() {
        // Who has room takes over: what is said and waited for stands in `relieve`.
        "MISCONF" => return,
        "OOM" => {
            let most = builder.connected(name).map_or(0, |s| s.redis.health.maxmemory_bytes);
            let problem = format!(
                "{told}; all of its {} MiB (maxmemory) are used and nothing may be evicted: delete keys, set `redis.config.maxmemory-policy`, or give the nodes more memory",
                most >> 20
            );
            builder.problem(Reason::MemoryFull, problem);
            (None, "manual action required: free memory, or let Redis evict")
        }
        "NOREPLICAS" => (Some(Reason::WritesRefused), "its replicas come back or are replaced"),
        _ => (Some(Reason::WritesRefused), "manual action required: see the runbook"),
    };
    if let Some(reason) = reason.filter(|_| builder.now().passed(since, down_after)) {
        builder.problem(reason, told);
    }
    builder.wait(format!("{name} to take writes ({})", refusal.code), since, None, then);
}

fn replica(
    builder: &mut PlanBuilder<'_>,
    name: &IncarnationName,
    incarnation: &Incarnation,
    state: &NodeState,
) {
    let redis = &state.redis;
    if redis.process == Process::Stuck {
        let how = if redis.health.busy { "computes and" } else { "is frozen or starved and" };
        builder.problem(Reason::RedisStuck, format!("redis of {name} {how} answers nobody"));
    }
    if let Some(lag) = lag(builder, name) {
        let most = builder.spec().failover.max_lag;
        builder.problem(
            Reason::ReplicaLagging,
            format!(
                "{}, more than failover.maxLag ({most}): a failover to it would lose that much; its way to the master is too slow for what is written, see `akash-redis describe`",
                lag.in_words(name)
            ),
        );
        builder.wait(
            format!("{name} to catch up"),
            UnixMs(builder.now().0.saturating_sub(u64::try_from(lag.behind.as_millis()).unwrap_or(u64::MAX))),
            None,
            "it may take over again; if it never does: fewer writes, a nearer provider (`akash-redis migrate`)",
        );
    }
    if incarnation.is_member() && redis.health.syncs_in_a_row >= SYNCS {
        let times = redis.health.syncs_in_a_row;
        builder.problem(
            Reason::SyncStalled,
            format!(
                "{name} has begun {times} full syncs in a row, and none lasted: its master writes more meanwhile than it keeps for a replica; write less for some minutes, or see `akash-redis logs`"
            ),
        );
    }
}

/// What a node cannot write to its volume, and one that is about to be full.
fn disk(builder: &mut PlanBuilder<'_>, name: &IncarnationName, state: &NodeState) {
    let health = &state.redis.health;
    let refused = health.refusal.as_ref().is_some_and(Refusal::by_disk);
    let full = state.volume.filter(|space| space.is_short());
    if let Some(space) = full {
        let stopped = if refused { ", and redis takes no writes" } else { "" };
        builder.problem(
            Reason::VolumeFull,
            format!("the volume of {name} is full ({}){stopped}: delete keys, remove snapshots that are kept, or move the node to a larger one", room(space)),
        );
    }
    let unwritten = [
        (health.unwritten.snapshot, "the snapshot"),
        (health.unwritten.log, "the append-only file"),
        (health.unwritten.rewrite, "the append-only file anew"),
    ];
    let what: Vec<_> = unwritten.iter().filter(|(failed, _)| *failed).map(|(_, w)| *w).collect();
    if !what.is_empty() || (refused && full.is_none()) {
        let what = if what.is_empty() { "its data".to_owned() } else { what.join(" and ") };
        let logs = logs(builder, name);
        builder.problem(
            Reason::PersistenceFailing,
            format!("redis of {name} could not write {what} when it last tried; `{logs}` says why"),
        );
    }
}

fn room(space: Space) -> String {
    format!("{} of {} MiB are left", space.free >> 20, space.total >> 20)
}

/// The command that shows what a node's programs printed.
pub fn logs(builder: &PlanBuilder<'_>, name: &IncarnationName) -> String {
    let ordinal = builder.incarnation(name).map_or(0, |i| i.ordinal);
    format!("akash-redis logs {} {ordinal}", builder.input.cluster.metadata.name)
}

/// A master whose volume takes nothing more gives way to a replica that has everything and has
/// room: nothing can be lost, because nothing is being written.
pub fn relieve(builder: &mut PlanBuilder<'_>) {
    let Some((name, refusal)) = refusal(builder).filter(|(_, r)| r.by_disk()) else { return };
    let (now, down_after) = (builder.now(), builder.spec().failover.down_after.0);
    let since = UnixMs(now.0.saturating_sub(refusal.since_ms));
    let what = format!("{name} to write to its volume again ({})", said(refusal));
    if !now.passed(since, down_after) {
        builder.wait(what, since, Some(down_after), "a replica that can takes over");
        return;
    }
    let Some(target) = fit(builder, &name) else {
        let then = "a replica in sync whose volume has room takes over, as soon as there is one";
        builder.wait(what, since, None, then);
        return;
    };
    if let Some(last) = builder.record.relieved.filter(|last| !now.passed(*last, MOVES)) {
        builder.wait(what, last, Some(MOVES), format!("{target} takes over"));
        return;
    }
    switchover::start(builder, &target, "its volume takes no more writes");
    if builder.record.change.is_some() {
        builder.record.relieved = Some(now);
        builder.event(
            EventReason::MasterRelieved,
            format!("{name} {}; {target}, whose volume has room, takes over", said(refusal)),
        );
    }
}

/// Who could take over from `master` and write: the furthest of them.
fn fit(builder: &PlanBuilder<'_>, master: &IncarnationName) -> Option<IncarnationName> {
    let fits = |(name, incarnation): &(IncarnationName, Incarnation)| {
        let state = builder.connected(name)?;
        let health = &state.redis.health;
        let well = name != master
            && incarnation.is_candidate()
            && follows(builder, name, state)
            && !state.redis.is_syncing()
            && lag(builder, name).is_none()
            && !state.volume.is_some_and(Space::is_short)
            && health.unwritten == crate::model::node::Unwritten::default();
        well.then(|| (state.redis.offset, std::cmp::Reverse(name.clone())))
    };
    builder.live().iter().filter_map(fits).max().map(|(_, name)| name.0)
}
