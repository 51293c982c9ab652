//! How many nodes there shall be, which of them come and which leave.

use std::collections::BTreeSet;
use std::time::Duration;

use super::builder::{Blame, PlanBuilder};
use super::{
    control, derived, devices, fees, give_up, leases, money, moves, restore, stopping, switchover,
    unrecorded, update, versions,
};
use crate::api::annotations::MIGRATE;
use crate::api::conditions::Reason;
use crate::api::difference::{lease_terms, resources_asked};
use crate::api::events::EventReason;
use crate::model::ids::IncarnationName;
use crate::model::incarnation::Incarnation;
use crate::model::money::{PricePerBlock, Uact};
use crate::model::step::Command;
use crate::model::time::Backoff;

/// Between attempts to fill a node.
const PAUSES: Backoff =
    Backoff { first: Duration::from_secs(10), longest: Duration::from_mins(10) };

/// A lease, a join and a full sync take less, or a person should look at it; the old node stays
/// meanwhile.
const MOVE_LIMIT: Duration = Duration::from_mins(30);

/// An agent holds writes back for so long at most, then it refuses them.
const HELD: Duration = Duration::from_secs(10);

/// Gives everything up: the cluster is being deleted.
pub fn tear_down(builder: &mut PlanBuilder<'_>) {
    for (name, _) in builder.live() {
        builder.condemn(&name, "the cluster is being deleted", Blame::Wish);
    }
    (builder.record.change, builder.record.master) = (None, None);
}

/// Incarnations that a person asked to leave, as far as they are still there.
pub(super) fn asked_to_leave(builder: &PlanBuilder<'_>) -> BTreeSet<IncarnationName> {
    let asked = builder.input.cluster.metadata.annotations.get(MIGRATE).map_or("", String::as_str);
    asked
        .split(',')
        .map(|n| IncarnationName(n.trim().to_owned()))
        .filter(|n| builder.incarnation(n).is_some_and(|i| i.condemned.is_none()))
        .collect()
}

/// Incarnations that shall leave, by a person's word or of the operator's own accord.
fn leaving(builder: &PlanBuilder<'_>) -> BTreeSet<IncarnationName> {
    asked_to_leave(builder).into_iter().chain(moves::leaving(builder)).collect()
}

/// Reserves an incarnation for every node that lacks one, as far as budget and wallet allow.
pub fn fill(builder: &mut PlanBuilder<'_>) {
    tell_failures(builder);
    let missing = missing(builder);
    let missing = moves::in_turn(builder, missing);
    if missing.is_empty() {
        return;
    }
    let Some(chain) = builder.input.inventory.chain.present() else {
        leases::wait_for_chain(builder, "the missing nodes");
        return;
    };
    if unrecorded::hold(builder) {
        let name = &builder.input.cluster.metadata.name;
        builder.wait(
            format!(
                "manual action on deployments that are in no record (`akash-redis describe {name}`)"
            ),
            builder.now(),
            None,
            "the missing nodes are bought",
        );
        return;
    }
    if restore::hold(builder) || control::hold(builder) || update::hold(builder) {
        return;
    }
    let count = u32::try_from(missing.len()).unwrap_or(u32::MAX);
    let share = money::share(builder.input, &builder.record, count);
    let cap = share.as_ref().copied().unwrap_or_default();
    let uncreated = builder.live().into_iter().map(|(_, i)| i);
    let uncreated = uncreated.filter(|i| !chain.deployments.contains_key(&i.dseq));
    let orders = uncreated.map(|i| (i.ordinal, i.max_price));
    let orders: Vec<_> = orders
        .chain(missing.iter().map(|(n, old)| (*n, moves::most(builder, old.as_ref(), cap))))
        .collect();
    let needed: Uact =
        orders.iter().map(|(n, price)| money::deposit(builder.input, *n, *price)).sum();
    if chain.balance < needed {
        let lower = match builder.spec().budget.deposit {
            Some(_) => "lower budget.deposit",
            None => "lower budget.maxPerMonth, placement.maxPrice or budget.runway.low",
        };
        builder.problem(
            Reason::WalletBalanceLow,
            format!(
                "the wallet {} holds {} and the deposits of {} nodes need {needed}; nothing was created: fund the wallet or {lower}",
                builder.input.constants.owner,
                chain.balance,
                orders.len()
            ),
        );
        builder.wait(
            format!("{needed} in the wallet {}", builder.input.constants.owner),
            builder.now(),
            None,
            "the missing nodes are bought",
        );
        return;
    }
    if !fees::pays_for(builder, orders.len()) {
        // Said with everything else that fees cannot pay.
        builder.wait(
            format!("AKT for the fees of {} more nodes", orders.len()),
            builder.now(),
            None,
            "the missing nodes are bought",
        );
        return;
    }
    let share = match share {
        Ok(share) => share,
        Err(why) => {
            builder.problem(Reason::BudgetExhausted, why);
            builder.wait(
                format!("room in the budget for {count} more nodes"),
                builder.now(),
                None,
                "they are bought",
            );
            return;
        }
    };
    for (ordinal, replaces) in missing {
        let most = moves::most(builder, replaces.as_ref(), share);
        reserve(builder, ordinal, replaces, most);
    }
}

fn reserve(
    builder: &mut PlanBuilder<'_>,
    ordinal: u32,
    replaces: Option<IncarnationName>,
    max_price: PricePerBlock,
) {
    let Some((name, dseq)) = builder.take_id(ordinal) else { return };
    let mut incarnation =
        Incarnation::new(ordinal, dseq, builder.now(), builder.record.epoch, max_price);
    incarnation.replaces.clone_from(&replaces);
    incarnation.lease_terms = lease_terms(builder.spec());
    incarnation.resources = resources_asked(builder.spec());
    builder.record.incarnations.insert(name.clone(), incarnation);
    if let Some(old) = &replaces {
        builder.change(old, |i| i.moving.iter_mut().for_each(|moving| moving.tried = true));
    }
    let why = replaces.map_or_else(
        || format!("node {ordinal} is empty"),
        |old| format!("{old} is to be replaced"),
    );
    builder.event(EventReason::NodeReserved, format!("{name} is reserved with dseq {dseq}: {why}"));
}

/// What was tried in vain is told as long as nothing runs in its place, also while it is tried
/// again.
fn tell_failures(builder: &mut PlanBuilder<'_>) {
    let (nodes, leaving, live) = (builder.spec().nodes, leaving(builder), builder.live());
    let failed: Vec<_> = builder
        .record
        .failures
        .iter()
        .filter(|(o, f)| **o < nodes && f.count > 0)
        .map(|(o, f)| (*o, f.clone()))
        .collect();
    for (ordinal, failures) in failed {
        if live.iter().any(|(n, i)| i.ordinal == ordinal && i.is_member() && !leaving.contains(n)) {
            continue;
        }
        builder.problem(
            Reason::ProvisioningFailed,
            format!(
                "node {ordinal} could not be filled ({} tries): {}",
                failures.count, failures.reason
            ),
        );
    }
}

/// Ordinals without an incarnation (`None`) and incarnations to be replaced, whose pause after
/// failures has passed.
fn missing(builder: &mut PlanBuilder<'_>) -> Vec<(u32, Option<IncarnationName>)> {
    let live = builder.live();
    let leaving = leaving(builder);
    let mut wanted = Vec::new();
    for ordinal in 0..builder.places() {
        let here: Vec<_> = live.iter().filter(|(_, i)| i.ordinal == ordinal).collect();
        match here.as_slice() {
            [] => wanted.push((ordinal, None)),
            [(only, _)] if leaving.contains(only) => wanted.push((ordinal, Some(only.clone()))),
            _ => {}
        }
    }
    wanted.retain(|(ordinal, old)| {
        let Some(failures) = builder.record.failures.get(ordinal).cloned() else { return true };
        let pause = PAUSES.delay(failures.count.saturating_sub(1));
        let pause = old.as_ref().map_or(pause, |old| moves::pause(builder, old).max(pause));
        let changed = failures.generation < builder.generation();
        if changed || builder.now().passed(failures.last, pause) {
            return true;
        }
        builder.wait(
            format!("node {ordinal} to be tried again"),
            failures.last,
            Some(pause),
            "a new deployment is created",
        );
        false
    });
    wanted
}

/// Lets those leave that are replaced or too many: first the master moves away from them, then they
/// are given up.
pub fn retire(builder: &mut PlanBuilder<'_>) {
    if builder.record.change.is_some() {
        return;
    }
    cancel_migration(builder);
    moves::step_down(builder);
    if builder.record.change.is_some() {
        return;
    }
    let live = builder.live();
    let (nodes, places) = (builder.spec().nodes, builder.places());
    for (name, incarnation) in &live {
        let successor = live
            .iter()
            .find(|(_, i)| i.replaces.as_ref() == Some(name))
            .map(|(n, i)| (n.clone(), i.clone()));
        let mut blame = Blame::Wish;
        let reason = if incarnation.ordinal >= places {
            format!("the cluster has {nodes} nodes now")
        } else if let Some(why) = devices::compromised(builder, name) {
            why
        } else if let Some((new, new_incarnation)) = &successor {
            if !new_incarnation.is_candidate() || !in_sync(builder, new) {
                builder.watch(
                    format!("{new} to be in sync before {name} leaves"),
                    new_incarnation.reserved,
                    MOVE_LIMIT,
                    Reason::MigrationStalled,
                );
                continue;
            }
            format!("{new} has taken its place")
        } else if let derived::Stage::Lost(why) = derived::stage(builder, name) {
            blame = Blame::Nobody;
            why
        } else {
            continue;
        };
        let is_master = builder.record.master.as_ref().is_some_and(|p| &p.incarnation == name);
        if is_master && matches!(derived::stage(builder, name), derived::Stage::Lost(_)) {
            // Its end is a failover: nothing planned is begun from a master that goes.
            continue;
        }
        if is_master {
            let target = successor.map(|(n, _)| n).or_else(|| best_stayer(builder, &live, name));
            match target {
                Some(target) => {
                    switchover::start(builder, &target, &format!("{name} is to leave: {reason}"));
                }
                None => builder.problem(
                    Reason::RemovalBlocked,
                    format!("{name} is master and no other node is in sync to take over"),
                ),
            }
            return;
        }
        // A former master is no candidate any more, and may still hold what nobody else has twice.
        if incarnation.is_member() && !others_in_sync(builder, name) {
            builder.problem(
                Reason::RemovalBlocked,
                format!("{name} stays until another replica is in sync with the master"),
            );
            continue;
        }
        if devices::compromised(builder, name).is_some() {
            give_up::ask(builder, name, &reason, Blame::Provider);
        } else if !holds_clients(builder, name) {
            builder.condemn(name, &reason, blame);
        }
    }
}

/// A former master that has not told its clients yet: behind its fence they wait for an answer, and
/// nobody gives one once its device is gone. They are told when it follows, or lets go of everything
/// where it could not read the next one's data; its agent refuses them by itself after 10 s.
fn holds_clients(builder: &mut PlanBuilder<'_>, name: &IncarnationName) -> bool {
    let Some(next) = builder.record.master.clone().filter(|p| p.confirmed) else { return false };
    let held = builder.connected(name).is_some_and(|s| s.redis.holds_clients());
    if !held || builder.now().passed(next.since, HELD) {
        return false;
    }
    let (next, since) = (next.incarnation, next.since);
    if !versions::can_follow(builder, name, &next) {
        builder.command(name, Command::Detach { drain_ms: 0 }, format!("{next} is master"));
    }
    builder.wait(
        format!("{name} to tell its clients that {next} is master"),
        since,
        Some(HELD),
        "it leaves",
    );
    true
}

/// A person took the wish to move a node back: its successor goes, unless it is in sync already.
fn cancel_migration(builder: &mut PlanBuilder<'_>) {
    let leaving = leaving(builder);
    let stays = |old: &IncarnationName| {
        !leaving.contains(old) && builder.incarnation(old).is_some_and(|i| i.condemned.is_none())
    };
    let idle: Vec<_> = builder
        .live()
        .into_iter()
        .filter(|(_, i)| !i.is_candidate())
        .filter_map(|(name, i)| i.replaces.filter(|old| stays(old)).map(|old| (name, old)))
        .collect();
    for (name, old) in idle {
        builder.condemn(&name, &format!("the migration of {old} was cancelled"), Blame::Wish);
    }
}

/// A replica in sync that is to stay, to take over from one that leaves.
pub(super) fn best_stayer(
    builder: &PlanBuilder<'_>,
    live: &[(IncarnationName, Incarnation)],
    leaver: &IncarnationName,
) -> Option<IncarnationName> {
    let stays = |n: &IncarnationName, i: &Incarnation| {
        n != leaver
            && i.ordinal < builder.spec().nodes
            && i.is_candidate()
            && !stopping::stops(builder, n)
    };
    live.iter().find(|(n, i)| stays(n, i) && in_sync(builder, n)).map(|(n, _)| n.clone())
}

/// A replica that is attached to the present master now.
pub(super) fn in_sync(builder: &PlanBuilder<'_>, name: &IncarnationName) -> bool {
    let Some(promotion) = &builder.record.master else { return false };
    &promotion.incarnation == name
        || builder.connected(name).is_some_and(|s| {
            derived::running(&s.redis)
                && s.redis.is_linked()
                && s.redis.online_epoch == promotion.epoch
        })
}

/// With more than one node staying, at least one replica beside `leaver` holds the data.
fn others_in_sync(builder: &PlanBuilder<'_>, leaver: &IncarnationName) -> bool {
    let master = builder.record.master.as_ref().map(|p| &p.incarnation);
    let staying: Vec<_> = builder
        .live()
        .into_iter()
        .filter(|(n, i)| n != leaver && i.ordinal < builder.spec().nodes)
        .collect();
    staying.len() <= 1
        || staying.iter().any(|(n, i)| Some(n) != master && i.is_candidate() && in_sync(builder, n))
}
