//! Nodes that move without having been asked to: away from a provider that takes its lease back, to
//! a lease with other resources, away from a provider that had several troubles of late, and to one
//! that is cheaper.
//!
//! A move is a migration: the new node first, a switchover where the old one is the master, then
//! the old one leaves. What is decided here is only who leaves, why, and when; `rollout` does the
//! rest. The first kind has a deadline and is held up by nothing. The others go one node of the
//! cluster at a time, only while all of it is well, and within the budget. Other resources are what a
//! person asked for: they wait for no window, replicas come first, and an attempt that fails is made
//! again. The rest is optional: in its window, and given up when the first attempt fails.

use std::collections::BTreeSet;
use std::time::Duration;

use super::builder::{Blame, PlanBuilder};
use super::{derived, fees, health, money, roles, rollout, switchover};
use crate::api::conditions::Reason;
use crate::api::difference::resources_asked;
use crate::api::events::EventReason;
use crate::api::window::Window;
use crate::model::chain::{LeaseState, LeaseView};
use crate::model::experience::{Experience, Note};
use crate::model::ids::IncarnationName;
use crate::model::incarnation::{Incarnation, MoveReason, Moving};
use crate::model::money::{PricePerBlock, Uact};
use crate::model::time::UnixMs;

/// The master leaves a lease that is taken back at the latest so long before its provider may close
/// it: a switchover takes seconds, and may have to be tried again.
const STEP_DOWN: Duration = Duration::from_mins(15);
/// One node of a cluster leaves a provider for its troubles so often at most.
const LEAVE_EVERY: Duration = Duration::from_hours(24);
/// A price that was asked longer ago says nothing. A wrong one costs a create and a close, because
/// the order itself says what the new lease may cost.
const PRICE_AGE: Duration = Duration::from_hours(30 * 24);

/// A node that is to be replaced, or a place that is empty.
pub type Missing = (u32, Option<IncarnationName>);

/// A move that could be made now.
struct Found {
    name: IncarnationName,
    why: MoveReason,
    /// A price at which somebody is known to bid.
    known: PricePerBlock,
    sentence: String,
}

/// Who leaves of the operator's own accord: written into the record, so that what began is ended
/// or called back whatever is seen later.
pub fn decide(builder: &mut PlanBuilder<'_>) {
    settle(builder);
    for (name, incarnation) in builder.live() {
        reclaimed(builder, &name, &incarnation);
    }
    optional(builder);
}

/// Moves that are over without an end: the reason is gone, or the attempt failed.
fn settle(builder: &mut PlanBuilder<'_>) {
    let live = builder.live();
    for (name, incarnation) in &live {
        let Some(moving) = &incarnation.moving else { continue };
        let begun = live.iter().any(|(_, i)| i.replaces.as_ref() == Some(name));
        let wanted = builder.spec().placement.rebalance.is_some();
        let why = match moving.why {
            MoveReason::Reclaimed => {
                let active = lease(builder, incarnation).map(|l| l.state);
                (active == Some(LeaseState::Active))
                    .then_some("its provider goes on with its lease")
            }
            MoveReason::Resources if !has_other_resources(builder, incarnation) => {
                Some("the manifest wants the resources that it has again")
            }
            MoveReason::Cheaper(_) if !wanted => Some("placement.rebalance was taken away"),
            MoveReason::Cheaper(at_most) if moving.tried && !begun => {
                nobody_bids(builder, at_most);
                Some("nobody took its place for that price")
            }
            MoveReason::Provider if moving.tried && !begun => Some("nobody else took its place"),
            _ => None,
        };
        if let Some(why) = why {
            builder.change(name, |i| i.moving = None);
            builder.event(EventReason::MoveEnded, format!("{name} stays where it is: {why}"));
        }
    }
}

/// Prices that are not asked any more are known no more.
fn nobody_bids(builder: &mut PlanBuilder<'_>, at_most: PricePerBlock) {
    let asked = resources_asked(builder.spec());
    let known = builder.input.inventory.experience.iter();
    let gone = known.filter(|(_, e)| e.prices.get(&asked).is_some_and(|p| p.price <= at_most));
    let notes = gone.map(|(who, _)| (who.clone(), Note::NoBid { asked: asked.clone(), at_most }));
    builder.noted.extend(notes.collect::<Vec<_>>());
}

/// Its active lease by the last reading, present or not.
fn lease<'a>(builder: &PlanBuilder<'a>, incarnation: &Incarnation) -> Option<&'a LeaseView> {
    let chain = builder.input.inventory.chain.value.as_ref()?;
    derived::active_lease(chain.deployments.get(&incarnation.dseq)?)
}

fn is_reclaimed(incarnation: &Incarnation) -> bool {
    incarnation.moving.as_ref().is_some_and(|moving| moving.why == MoveReason::Reclaimed)
}

/// The provider announced that it will close the lease of a node. Its data are still there, so that
/// its successor can copy them.
fn reclaimed(builder: &mut PlanBuilder<'_>, name: &IncarnationName, incarnation: &Incarnation) {
    let taken_back = lease(builder, incarnation).filter(|l| l.state == LeaseState::Reclaiming);
    let Some(lease) = taken_back else { return };
    let until = lease.reclaim_by.map_or("an unknown time".to_owned(), |by| by.to_string());
    let said = format!(
        "the provider of {name} takes its lease back ({}) and may close it from {until} on",
        derived::close_reason(lease.reason)
    );
    if !incarnation.has_joined() {
        // It takes no manifest any more, and there are no data to be saved.
        builder.condemn(name, &said, Blame::Attempt);
        return;
    }
    if !is_reclaimed(incarnation) {
        let at = builder.now();
        let moving = Moving { why: MoveReason::Reclaimed, at, tried: false };
        builder.change(name, |i| i.moving = Some(moving));
        builder.event(EventReason::MoveStarted, format!("{said}: it is left before"));
    }
    let successor = builder.live().into_iter().find(|(_, i)| i.replaces.as_ref() == Some(name));
    let block_ms = money::block_ms(builder.input.inventory);
    let price = lease.price.per_month(block_ms);
    let then = if let Some((successor, _)) = successor {
        format!("{successor} takes its place before")
    } else {
        match room(builder) {
            room if room >= lease.price => "a new node is made in its place before".to_owned(),
            room => format!(
                "the budget leaves {} per month for a second lease meanwhile and it costs {price}, so it stays until then, the master leaves it before, and its place is filled afterwards: raise budget.maxPerMonth to have it replaced before",
                room.per_month(block_ms)
            ),
        }
    };
    builder.problem(Reason::LeaseReclaimed, format!("{said}: {then}"));
}

/// What one more lease may cost.
fn room(builder: &PlanBuilder<'_>) -> PricePerBlock {
    money::share(builder.input, &builder.record, 1).unwrap_or_default()
}

/// One move that could be left undone begins, or what it waits for is said.
fn optional(builder: &mut PlanBuilder<'_>) {
    let inventory = builder.input.inventory;
    if inventory.chain.present().is_none() || inventory.mesh.present().is_none() {
        return;
    }
    if builder.live().iter().any(|(_, i)| i.moving.is_some()) {
        return;
    }
    let other_resources = other_resources(builder);
    if !is_whole(builder) {
        if let Some(Found { name, sentence, .. }) = other_resources {
            builder.wait(
                "all nodes to be in sync",
                builder.now(),
                None,
                format!("{name} moves: {sentence}"),
            );
        }
        return;
    }
    let found = other_resources.or_else(|| worn_out(builder)).or_else(|| cheaper(builder));
    let Some(Found { name, why, known, sentence }) = found else { return };
    let now = builder.now();
    let (every, windows) = when(builder, why);
    let earliest = builder.record.moved.map_or(now, |last| (last + every).max(now));
    let begin = opening(&windows, earliest);
    if begin > now {
        let then = format!("{sentence}; one node at a time");
        builder.wait(
            format!("the window in which {name} may move"),
            now,
            Some(begin.since(now)),
            then,
        );
        return;
    }
    if let Err(missing) = affordable(builder, why, known) {
        builder.wait(
            format!("{missing}, for a second lease while {name} moves"),
            now,
            None,
            sentence,
        );
        return;
    }
    builder.change(&name, |i| i.moving = Some(Moving { why, at: now, tried: false }));
    builder.record.moved = Some(now);
    builder.event(EventReason::MoveStarted, format!("{name} moves: {sentence}"));
}

/// How often such a move may begin, and in which windows.
fn when(builder: &PlanBuilder<'_>, why: MoveReason) -> (Duration, Vec<Window>) {
    if why == MoveReason::Resources {
        return (Duration::ZERO, Vec::new());
    }
    let spec = builder.spec();
    let rebalance = spec.placement.rebalance.filter(|_| why != MoveReason::Provider);
    let every = rebalance.map_or(LEAVE_EVERY, |r| r.at_most_every.0);
    let windows = [spec.maintenance.map(|m| m.window), rebalance.and_then(|r| r.window)];
    (every, windows.into_iter().flatten().collect())
}

/// The first moment from `earliest` on at which all of them are open. The manifest is refused when
/// there is none.
fn opening(windows: &[Window], earliest: UnixMs) -> UnixMs {
    let mut at = earliest;
    // Each round goes on to an opening: two windows of a week meet within a week, or never.
    for _ in 0..32 {
        let next = windows.iter().map(|window| window.next(at)).max().unwrap_or(at);
        if next == at {
            break;
        }
        at = next;
    }
    at
}

/// Whether a second lease of this price fits while a node moves for this reason; else what is
/// missing.
fn affordable(
    builder: &PlanBuilder<'_>,
    why: MoveReason,
    price: PricePerBlock,
) -> Result<(), String> {
    let room = room(builder);
    if room < price {
        let month = price.per_month(money::block_ms(builder.input.inventory));
        return Err(format!("room for {month} per month in the budget"));
    }
    let cap = match why {
        MoveReason::Cheaper(most) => room.min(most),
        MoveReason::Reclaimed | MoveReason::Provider | MoveReason::Resources => room,
    };
    let deposit = money::deposit(builder.input, builder.spec().nodes, cap);
    let wallet = builder.input.inventory.chain.present().map_or(Uact(0), |c| c.balance);
    if wallet < deposit {
        return Err(format!("{deposit} in the wallet {}", builder.input.constants.owner));
    }
    if !fees::pays_for(builder, 1) {
        return Err("AKT for the fees".to_owned());
    }
    Ok(())
}

/// Every place is filled once, by a node that is in sync, and nothing else goes on.
pub(super) fn is_whole(builder: &PlanBuilder<'_>) -> bool {
    is_whole_but(builder, None)
}

/// The same, whatever is the matter with one of them.
pub(super) fn is_whole_but(builder: &PlanBuilder<'_>, but: Option<&IncarnationName>) -> bool {
    let live = builder.live();
    let places: BTreeSet<_> = live.iter().map(|(_, i)| i.ordinal).collect();
    let filled = live.len() == places.len() && places.iter().copied().eq(0..builder.places());
    let Some(master) = builder.record.master.as_ref().filter(|p| p.confirmed) else { return false };
    let well = |(name, incarnation): &(IncarnationName, Incarnation)| {
        if Some(name) == but {
            return true;
        }
        let Some(state) = builder.connected(name).filter(|_| incarnation.update.is_none()) else {
            return false;
        };
        let serves = if name == &master.incarnation {
            roles::is_master_of(state, master.epoch)
        } else {
            health::follows(builder, name, state) && health::lag(builder, name).is_none()
        };
        serves && incarnation.is_candidate() && incarnation.quarantined.is_none()
    };
    let asked = rollout::asked_to_leave(builder);
    filled && builder.record.change.is_none() && asked.is_empty() && live.iter().all(well)
}

/// Others who bid for these resources of late, had no trouble, and run no node of the cluster.
fn offers<'a>(builder: &PlanBuilder<'a>) -> Vec<(&'a String, PricePerBlock)> {
    let (asked, now) = (resources_asked(builder.spec()), builder.now());
    let lists = &builder.spec().placement.providers;
    let live = builder.live();
    let taken = |who: &String| {
        live.iter().any(|(_, i)| i.lease.as_ref().is_some_and(|c| &c.id.provider == who))
    };
    let fit = |who: &String, known: &Experience| {
        known.is_good(now)
            && !taken(who)
            && !lists.deny.contains(who)
            && (lists.allow.is_empty() || lists.allow.contains(who))
    };
    let experience = builder.input.inventory.experience.iter();
    experience
        .filter(|(who, known)| fit(who, known))
        .filter_map(|(who, known)| {
            let seen = known.prices.get(&asked)?;
            (!now.passed(seen.at, PRICE_AGE)).then_some((who, seen.price))
        })
        .collect()
}

fn provider_of(incarnation: &Incarnation) -> Option<&String> {
    incarnation.lease.as_ref().map(|choice| &choice.id.provider)
}

/// The provider of an incarnation, when it had several troubles of late.
fn avoided<'a>(builder: &PlanBuilder<'a>, incarnation: &Incarnation) -> Option<&'a Experience> {
    let known = builder.input.inventory.experience.get(provider_of(incarnation)?)?;
    known.is_avoided(builder.now()).then_some(known)
}

fn troubles(known: &Experience) -> String {
    format!(
        "its provider had several troubles of late (in all {} failed starts, {} incidents)",
        known.failed_starts, known.incidents
    )
}

/// Its lease was made with other resources than the manifest wants.
fn has_other_resources(builder: &PlanBuilder<'_>, incarnation: &Incarnation) -> bool {
    let has = &incarnation.resources;
    !has.is_empty() && *has != resources_asked(builder.spec())
}

/// The next node whose lease has other resources than the manifest wants: replicas first.
fn other_resources(builder: &PlanBuilder<'_>) -> Option<Found> {
    let master = builder.record.master.as_ref().map(|p| &p.incarnation);
    let mut live = builder.live();
    live.retain(|(_, i)| i.has_joined() && has_other_resources(builder, i));
    live.sort_by_key(|(name, i)| (Some(name) == master, i.ordinal));
    let (name, incarnation) = live.into_iter().next()?;
    // Nobody knows yet what is asked for the new ones.
    let known = lease(builder, &incarnation).map_or(PricePerBlock(1), |lease| lease.price);
    let sentence = "spec.resources are others than those of its lease".to_owned();
    Some(Found { name, why: MoveReason::Resources, known, sentence })
}

/// The node whose provider had most trouble, where somebody else is known to be there.
fn worn_out(builder: &PlanBuilder<'_>) -> Option<Found> {
    let now = builder.now();
    let (_, known) = offers(builder).into_iter().min_by_key(|(who, price)| (*price, *who))?;
    let live = builder.live();
    let worn = live.iter().filter_map(|(name, i)| Some((avoided(builder, i)?, name)));
    let (experience, name) = worn.max_by_key(|(e, name)| (e.trouble_now(now), *name))?;
    let sentence = format!("{}, and another one is known", troubles(experience));
    Some(Found { name: name.clone(), why: MoveReason::Provider, known, sentence })
}

/// The node that would save most.
fn cheaper(builder: &PlanBuilder<'_>) -> Option<Found> {
    let by = u128::from(builder.spec().placement.rebalance?.when_cheaper_by.0.min(100));
    let (who, known) = offers(builder).into_iter().min_by_key(|(who, price)| (*price, *who))?;
    let block_ms = money::block_ms(builder.input.inventory);
    let saves = |(name, incarnation): &(IncarnationName, Incarnation)| {
        let price = lease(builder, incarnation)?.price;
        let most = PricePerBlock(price.0 / 100 * (100 - by));
        (known <= most).then(|| (price, name.clone(), most))
    };
    let (price, name, most) = builder.live().iter().filter_map(saves).max()?;
    let sentence = format!(
        "it costs {} per month, and {who} asked {} of late; nobody above {} is taken",
        price.per_month(block_ms),
        known.per_month(block_ms),
        most.per_month(block_ms)
    );
    Some(Found { name, why: MoveReason::Cheaper(most), known, sentence })
}

/// Incarnations that leave of the operator's own accord.
pub fn leaving(builder: &PlanBuilder<'_>) -> BTreeSet<IncarnationName> {
    let live = builder.live().into_iter();
    live.filter(|(_, i)| i.moving.is_some()).map(|(name, _)| name).collect()
}

/// It was to take the place of a node that may as well stay.
pub fn is_optional(builder: &PlanBuilder<'_>, incarnation: &Incarnation) -> bool {
    let old = incarnation.replaces.as_ref().and_then(|old| builder.incarnation(old));
    let moving = old.and_then(|old| old.moving.as_ref());
    moving.is_some_and(|moving| moving.why.is_optional())
        && !rollout::asked_to_leave(builder)
            .iter()
            .any(|n| incarnation.replaces.as_ref() == Some(n))
}

/// What is bought now of what is missing: empty places and what a person asked for, then successors
/// of leases that are taken back, as many as the budget carries at their present price and the most
/// urgent first, and of those with other resources; others of the operator's own accord only when there is nothing else.
pub fn in_turn(builder: &PlanBuilder<'_>, missing: Vec<Missing>) -> Vec<Missing> {
    let asked = rollout::asked_to_leave(builder);
    let moving = |missing: &Missing| {
        let old = missing.1.as_ref().filter(|old| !asked.contains(*old))?;
        builder.incarnation(old)?.moving.as_ref().map(|moving| moving.why)
    };
    let (own, mut now): (Vec<_>, Vec<_>) = missing.into_iter().partition(|m| moving(m).is_some());
    let (others, mut back): (Vec<_>, Vec<_>) =
        own.into_iter().partition(|m| moving(m).is_some_and(MoveReason::is_optional));
    let old = |m: &Missing| lease(builder, builder.incarnation(m.1.as_ref()?)?);
    let by = |m: &Missing| old(m).and_then(|l| l.reclaim_by);
    back.sort_by_key(|m| (by(m).is_none(), by(m)));
    while !back.is_empty() {
        let count = u32::try_from(now.len() + back.len()).unwrap_or(u32::MAX);
        let share = money::share(builder.input, &builder.record, count).unwrap_or_default();
        if back.iter().all(|m| old(m).is_none_or(|l| l.price <= share)) {
            break;
        }
        back.pop();
    }
    now.extend(back);
    if now.is_empty() {
        let one = others.into_iter().find(|m| {
            let Some(why) = moving(m) else { return false };
            let least = match why {
                MoveReason::Cheaper(most) => most,
                MoveReason::Reclaimed | MoveReason::Provider | MoveReason::Resources => {
                    PricePerBlock(1)
                }
            };
            affordable(builder, why, least).is_ok()
        });
        now.extend(one);
    }
    now
}

/// What the successor of a node may cost, of this share: the order itself makes sure that it is
/// really cheaper.
pub fn most(
    builder: &PlanBuilder<'_>,
    old: Option<&IncarnationName>,
    share: PricePerBlock,
) -> PricePerBlock {
    let moving = old.and_then(|old| builder.incarnation(old)?.moving.as_ref());
    match moving.map(|moving| moving.why) {
        Some(MoveReason::Cheaper(most)) => share.min(most),
        _ => share,
    }
}

/// Attempts to leave a lease that is taken back are spread over the time that is left: each costs
/// the fees of a create and a close.
pub fn pause(builder: &PlanBuilder<'_>, old: &IncarnationName) -> Duration {
    let reclaimed = builder.incarnation(old).filter(|i| is_reclaimed(i));
    let by = reclaimed.and_then(|i| lease(builder, i)?.reclaim_by);
    by.map_or(Duration::ZERO, |by| by.since(builder.now()) / 8)
}

/// The master moves away from a lease that is taken back although nobody takes the node's place in
/// time: a switchover loses nothing, the end of the lease might.
pub fn step_down(builder: &mut PlanBuilder<'_>) {
    let Some(master) = builder.record.master.as_ref().map(|p| p.incarnation.clone()) else {
        return;
    };
    let end = |name: &IncarnationName| {
        let lease = lease(builder, builder.incarnation(name)?)?;
        lease.reclaim_by.filter(|_| lease.state == LeaseState::Reclaiming)
    };
    let Some(by) = end(&master) else { return };
    if builder.now() + STEP_DOWN < by {
        return;
    }
    let live = builder.live();
    let lasting: Vec<_> =
        live.into_iter().filter(|(n, _)| end(n).is_none_or(|end| end > by)).collect();
    if let Some(target) = rollout::best_stayer(builder, &lasting, &master) {
        let reason = format!("the lease of {master} is taken back and may be closed from {by} on");
        switchover::start(builder, &target, &reason);
    }
}

/// What is to be known of a node that moves, or would.
pub fn said(builder: &PlanBuilder<'_>, name: &IncarnationName) -> Option<String> {
    let incarnation = builder.incarnation(name).filter(|i| i.condemned.is_none())?;
    match incarnation.moving.as_ref().map(|moving| moving.why) {
        Some(MoveReason::Reclaimed) => {
            let by = lease(builder, incarnation)?.reclaim_by?;
            Some(format!("its provider takes the lease back and may close it from {by} on"))
        }
        Some(MoveReason::Cheaper(most)) => {
            let month = most.per_month(money::block_ms(builder.input.inventory));
            Some(format!("it moves to a provider that asks {month} per month or less"))
        }
        Some(MoveReason::Provider) => Some("it moves to another provider".to_owned()),
        Some(MoveReason::Resources) => {
            Some("it moves to a lease with the resources of the manifest".to_owned())
        }
        None => avoided(builder, incarnation).map(troubles),
    }
}
