//! A redis that ends again and again as soon as it was started, or finds no room for a full sync:
//! its data are broken, or do not fit.
//! A replica's are dropped and copied anew; when that does not help, its node is replaced.

use std::time::Duration;

use super::builder::{Blame, PlanBuilder};
use super::{derived, give_up, health, roles, update};
use crate::api::conditions::Reason;
use crate::api::events::EventReason;
use crate::model::ids::IncarnationName;
use crate::model::incarnation::{Incarnation, Membership};
use crate::model::node::{NodeState, Role, Space};
use crate::model::step::Command;

/// It was told, ended some times more, and would run by now.
const HELPED: Duration = Duration::from_mins(2);
/// What broke its data once may do so again; within this it is the node that is broken.
const AGAIN: Duration = Duration::from_hours(1);

/// It ends as soon as it was started, has several times, and does not run now.
pub fn loops(state: &NodeState) -> bool {
    state.failed_starts >= health::SEVERAL && !derived::running(&state.redis)
}

/// A replica whose full syncs find no room: what it has is of no use to anybody and in the way.
fn chokes(state: &NodeState) -> bool {
    let redis = &state.redis;
    redis.role == Role::Replica
        && !redis.is_linked()
        && redis.health.syncs_in_a_row >= health::SEVERAL
        && state.volume.is_some_and(Space::is_short)
}

/// What it has keeps it from being a replica.
pub fn broken(state: &NodeState) -> bool {
    loops(state) || chokes(state)
}

/// Says that it does, and drops what it does not start with: of a replica alone, and only while
/// another node is a healthy master and all others are whole.
pub fn repair(
    builder: &mut PlanBuilder<'_>,
    name: &IncarnationName,
    incarnation: &Incarnation,
    state: &NodeState,
) {
    let (now, logs) = (builder.now(), health::logs(builder, name));
    let times = state.failed_starts;
    let said = match state.failed_start_line.as_str() {
        "" => String::new(),
        line => format!(", at last with \"{line}\""),
    };
    let trouble = if loops(state) {
        format!("redis of {name} ended {times} times in a row as soon as it was started{said}")
    } else {
        format!("the volume of {name} has no room for a full sync")
    };
    if loops(state) {
        builder.problem(Reason::RedisCrashLooping, format!("{trouble}; `{logs}` has all of it"));
    }
    if update::is_spared(builder, name) {
        // What it was started with may be what is wrong with it, and not its data.
        return;
    }
    let is_master = builder.record.master.as_ref().is_some_and(|p| &p.incarnation == name);
    let nothing_to_drop = builder.spec().resources.data.is_none();
    if is_master || nothing_to_drop || !incarnation.is_member() || incarnation.quarantined.is_some()
    {
        // Who takes over from a master is decided elsewhere; the others are replaced in time.
        return;
    }
    let dropped = incarnation.rebuilt.filter(|at| !now.passed(*at, AGAIN));
    if dropped.is_some_and(|at| now.passed(at, HELPED)) {
        let why = format!("{trouble}, also without its data");
        give_up::ask(builder, name, &why, Blame::Attempt);
        return;
    }
    if let Some(why) = give_up::obstacle(builder, name) {
        builder.wait(
            format!("{name} to start, or to be given its data anew"),
            incarnation.redis_down.unwrap_or(now),
            None,
            format!("it keeps what it has while {why}"),
        );
        return;
    }
    let at = dropped.unwrap_or(now);
    if dropped.is_none() {
        builder.event(
            EventReason::ReplicaRebuilt,
            format!("{trouble}: what it has is dropped, and it copies the master's data anew"),
        );
    }
    builder.change(name, |i| {
        i.rebuilt = Some(at);
        i.lower(Membership::Member);
    });
    builder.wait(
        format!("redis of {name} to start without its data"),
        at,
        Some(HELPED),
        "the node is replaced by a new one",
    );
    let must_keep = beyond(builder, name, state);
    builder.command(
        name,
        Command::Discard { must_keep },
        "what it has keeps its redis from being a replica",
    );
}

/// It may have what the master lacks.
fn beyond(builder: &PlanBuilder<'_>, name: &IncarnationName, state: &NodeState) -> bool {
    let master = builder.record.master.as_ref().filter(|p| &p.incarnation != name);
    let master = master.and_then(|p| builder.connected(&p.incarnation));
    master.is_none_or(|master| roles::beyond_promotion(state, master).may_be_lost())
}
