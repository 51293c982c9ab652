//! From a reserved incarnation to a node that reports: create, choose, lease, deliver, wait; and
//! when to give up.

use std::collections::BTreeSet;
use std::time::Duration;

use super::builder::{Blame, PlanBuilder};
use super::derived::{self, Stage};
use super::{
    bids, control, deposits, devices, fees, give_up, money, moves, no_bids, placement, rejoin,
    repair, stopping, update,
};
use crate::api::conditions::Reason;
use crate::api::difference::lease_terms;
use crate::api::events::EventReason;
use crate::model::chain::DeploymentView;
use crate::model::experience::Note;
use crate::model::ids::IncarnationName;
use crate::model::incarnation::{Choice, Incarnation, Membership};
use crate::model::node::Process;
use crate::model::step::Effect;
use crate::model::time::Backoff;

/// A redis that died or was just leased answers within this.
const START: Duration = Duration::from_secs(30);
/// The chain is expected back, and a transaction in a block, within this; their own time-out is a
/// minute of block time.
const OUTAGE: Duration = Duration::from_mins(2);

/// A provider's cluster takes a few seconds to show what its gateway took (409 manifests were sent
/// in 35 s of that to a real one).
const RESTS: Backoff = Backoff { first: Duration::from_secs(10), longest: Duration::from_mins(1) };

/// Gives up incarnations whose lease is gone or that stayed silent too long.
pub fn give_up_lost(builder: &mut PlanBuilder<'_>) {
    for (name, incarnation) in builder.live() {
        match derived::stage(builder, &name) {
            _ if outdated(builder, &name, &incarnation) => builder.condemn(
                &name,
                "the manifest wants other resources, placement or mesh than its lease is made with",
                Blame::Nobody,
            ),
            Stage::Lost(why) => lost(builder, &name, &incarnation, &why),
            Stage::Unreachable if devices::deleted(builder, &name) => deleted(builder, &name),
            Stage::Unreachable => silent(builder, &name),
            Stage::Connected => connected(builder, &name, &incarnation),
            _ => {}
        }
    }
}

/// The manifest was corrected while nothing of it ran yet: what was asked for is not wanted any more.
fn outdated(builder: &PlanBuilder<'_>, name: &IncarnationName, incarnation: &Incarnation) -> bool {
    !incarnation.has_joined()
        && builder.view(name).is_none()
        && !incarnation.lease_terms.is_empty()
        && incarnation.lease_terms != lease_terms(builder.spec())
}

fn connected(builder: &mut PlanBuilder<'_>, name: &IncarnationName, incarnation: &Incarnation) {
    if !incarnation.has_joined() {
        builder.change(name, |i| i.raise(Membership::Joined));
        builder.event(EventReason::NodeJoined, format!("{name} is on the mesh and reports"));
        builder
            .noted
            .extend(incarnation.lease.iter().map(|c| (c.id.provider.clone(), Note::Started)));
    }
    let own = derived::own_device(builder, name);
    let own = own.filter(|id| !incarnation.former_devices.contains(id));
    if let (None, Some(id)) = (&incarnation.device, own) {
        builder.change(name, |i| i.device = Some(id));
    }
    let Some(state) = builder.connected(name) else { return };
    if !state.mesh.ip.is_empty() && incarnation.address.as_ref() != Some(&state.mesh.ip) {
        let address = state.mesh.ip.clone();
        builder.change(name, |i| i.address = Some(address));
    }
    let loops = repair::loops(state);
    if repair::broken(state) {
        repair::repair(builder, name, incarnation, state);
    }
    if derived::running(&state.redis) {
        builder.change(name, |i| i.redis_down = None);
        if !incarnation.is_member() {
            // What was tried in its place before is over: it runs.
            builder.record.failures.remove(&incarnation.ordinal);
        }
    } else if loops || state.redis.process != Process::Running {
        redis_down(builder, name, incarnation);
    }
    // One that loads is on its way up: it has been down for as long as it was before.
}

/// Its agent lives and its redis does not run. A redis that died is there again within seconds; one
/// that cannot start never is.
fn redis_down(builder: &mut PlanBuilder<'_>, name: &IncarnationName, incarnation: &Incarnation) {
    let (now, limit) = (builder.now(), builder.input.timing.replace_after);
    let since = incarnation.redis_down.unwrap_or(now);
    builder.change(name, |i| i.redis_down = Some(since));
    if !now.passed(since, START) {
        return;
    }
    let said = builder
        .connected(name)
        .and_then(|s| s.notes.first().cloned())
        .map_or(String::new(), |note| format!(" ({note})"));
    let stuck = builder.connected(name).is_some_and(|s| s.redis.process == Process::Stuck);
    let does = if stuck { "answer" } else { "run" };
    let logs =
        format!("akash-redis logs {} {}", builder.input.cluster.metadata.name, incarnation.ordinal);
    builder.problem(
        Reason::RedisDown,
        format!("redis of {name} does not {does} since {since}{said}; `{logs}` says why"),
    );
    if update::is_spared(builder, name) {
        return;
    }
    if builder.record.master.as_ref().is_some_and(|p| &p.incarnation == name) {
        // Who may take its place is decided elsewhere; nothing of it is given up before.
        return;
    }
    let why = format!("its redis did not start for {} s{said}", limit.as_secs());
    if !now.passed(since, limit) {
        builder.wait(
            format!("redis of {name} to start"),
            since,
            Some(limit),
            "the node is replaced by a new one",
        );
    } else if incarnation.is_member() {
        give_up::ask(builder, name, &why, Blame::Attempt);
    } else {
        builder.condemn(name, &why, Blame::Attempt);
    }
}

/// The volume is gone with the lease. The present master is only given up once a failover chose
/// another, or when nobody can take over from it.
fn lost(
    builder: &mut PlanBuilder<'_>,
    name: &IncarnationName,
    incarnation: &Incarnation,
    why: &str,
) {
    let is_master = builder.record.master.as_ref().is_some_and(|p| &p.incarnation == name);
    let others = builder.live().iter().any(|(n, i)| n != name && i.is_candidate());
    let lives = builder.connected(name).is_some();
    if is_master && (others || lives || builder.record.change.is_some()) {
        builder.problem(Reason::MasterLost, format!("{name} was master and is lost: {why}"));
        return;
    }
    if is_master {
        lose_master(builder, name, why);
    }
    let blame = match (incarnation.has_joined(), derived::left_by_provider(builder, name)) {
        (false, _) => Blame::Attempt,
        (true, true) => Blame::Provider,
        (true, false) => Blame::Nobody,
    };
    builder.condemn(name, why, blame);
}

/// The master is gone for good, and nobody follows it in: from here on it is a cold start.
pub fn lose_master(builder: &mut PlanBuilder<'_>, name: &IncarnationName, why: &str) {
    builder.record.master = None;
    builder.event(EventReason::MasterLost, format!("{name} was master and is lost for good: {why}; the newest history that is left is looked for"));
    let blame =
        if derived::left_by_provider(builder, name) { Blame::Provider } else { Blame::Nobody };
    builder.condemn(name, why, blame);
}

fn silent(builder: &mut PlanBuilder<'_>, name: &IncarnationName) {
    if builder.input.inventory.own_mesh.error.is_some() {
        // The operator itself hears nobody, which is told once and is no news of any node.
        return;
    }
    if update::is_expected(builder, name) {
        // It was started anew: what is waited for is told there.
        return;
    }
    let heard = derived::last_heard(builder, name);
    let limit = builder.input.timing.replace_after;
    if stopping::is_back_soon(builder, name) {
        let limit = builder.spec().failover.down_after.0;
        let what = format!("{name}, whose container was stopped, to be started again");
        builder.wait(what, heard, Some(limit), "it is reported as unreachable");
        return;
    }
    builder.problem(Reason::NodeUnreachable, format!("{name} has not reported since {heard}"));
    if rejoin::spared(builder, name) || update::is_spared(builder, name) {
        return;
    }
    if let Some(why) = devices::key_spent(builder, name) {
        give_up::ask(builder, name, &why, Blame::Provider);
    } else if builder.now().passed(heard, limit) {
        give_up::ask(builder, name, &format!("it has been silent since {heard}"), Blame::Provider);
    } else {
        builder.wait(
            format!("{name} to be heard again"),
            heard,
            Some(limit),
            "it is replaced by a new node",
        );
    }
}

/// Its device was deleted by somebody else. It cannot come back, so nothing is gained by waiting;
/// but one node at a time, and the next one only when the cluster is whole again: a list that
/// wrongly lacks devices must not take a cluster apart.
fn deleted(builder: &mut PlanBuilder<'_>, name: &IncarnationName) {
    let message = format!(
        "the mesh device of {name} was deleted: its key is spent, so it cannot join again; it is replaced once another node is a healthy master"
    );
    builder.problem(Reason::DeviceDeleted, message);
    if rejoin::spared(builder, name)
        || update::is_spared(builder, name)
        || !devices::others_whole(builder, name)
    {
        silent(builder, name);
        return;
    }
    let (heard, down_after) =
        (derived::last_heard(builder, name), builder.spec().failover.down_after.0);
    if builder.now().passed(heard, down_after) {
        give_up::ask(builder, name, "its mesh device was deleted", Blame::Nobody);
    }
}

/// The next step of each incarnation on its way to the mesh.
pub fn advance(builder: &mut PlanBuilder<'_>) {
    let unpaid = deposits::unpaid(builder);
    for (name, incarnation) in builder.live() {
        let pending = builder.input.inventory.pending.contains(&incarnation.dseq);
        match derived::stage(builder, &name) {
            Stage::Unknown => {
                wait_for_chain(builder, &name.0);
            }
            Stage::Reserved if !pending => {
                if control::hold(builder) {
                    continue;
                }
                if !fees::pays_for(builder, uncreated(builder)) {
                    builder.wait(
                        format!("AKT for the fees of {name}"),
                        builder.now(),
                        None,
                        "its deployment is created",
                    );
                    continue;
                }
                if unpaid.contains(&name) {
                    builder.wait(
                        format!("the deposit of {name}"),
                        builder.now(),
                        None,
                        "its deployment is created",
                    );
                    continue;
                }
                control::revoke_lost(builder, &name);
                let deposit =
                    money::deposit(builder.input, incarnation.ordinal, incarnation.max_price);
                builder.step(
                    Effect::CreateDeployment { incarnation: name.clone(), deposit },
                    format!("node {} needs a lease", incarnation.ordinal),
                );
            }
            Stage::Bidding if !pending => bidding(builder, &name, &incarnation),
            Stage::Leased if !pending => deliver(builder, &name, &incarnation),
            Stage::GatewayAway(why) => {
                let since = since_choice(&incarnation);
                wait_for_join(
                    builder,
                    &name,
                    since,
                    &format!("the gateway of {name}'s provider ({why})"),
                );
            }
            Stage::Delivered => {
                if let Some(why) = devices::key_spent(builder, &name) {
                    builder.condemn(&name, &why, Blame::Attempt);
                    continue;
                }
                let since = since_choice(&incarnation);
                wait_for_join(builder, &name, since, &format!("{name} to start and join the mesh"));
            }
            Stage::Reserved | Stage::Bidding | Stage::Leased => {
                builder.watch(
                    format!("the transaction of {name} to be in a block"),
                    since_choice(&incarnation),
                    OUTAGE,
                    Reason::TransactionStalled,
                );
            }
            Stage::Unreachable | Stage::Connected | Stage::Lost(_) => {}
        }
    }
}

/// Nodes that are reserved and whose deployment is not there yet.
fn uncreated(builder: &PlanBuilder<'_>) -> usize {
    let live = builder.live();
    let created = |dseq: &u64| {
        let chain = builder.input.inventory.chain.value.as_ref();
        chain.is_some_and(|c| c.deployments.contains_key(dseq))
    };
    live.iter().filter(|(_, i)| !created(&i.dseq)).count()
}

/// Nothing can be bought, and nothing new is known.
pub fn wait_for_chain(builder: &mut PlanBuilder<'_>, whose: &str) {
    let chain = &builder.input.inventory.chain;
    let why = chain.error.clone().unwrap_or_else(|| "it was not read yet".to_owned());
    builder.watch(
        format!("the chain, for {whose} ({why})"),
        chain.at,
        OUTAGE,
        Reason::ChainUnavailable,
    );
}

fn since_choice(incarnation: &Incarnation) -> crate::model::time::UnixMs {
    incarnation.lease.as_ref().map_or(incarnation.reserved, |c| c.at)
}

fn wait_for_join(
    builder: &mut PlanBuilder<'_>,
    name: &IncarnationName,
    since: crate::model::time::UnixMs,
    what: &str,
) {
    let limit = builder.input.timing.join_deadline;
    if builder.now().passed(since, limit) {
        let more =
            devices::not_joined(builder, name).map_or(String::new(), |why| format!("; {why}"));
        // Without the control server nobody can join: that is no provider's fault.
        let blame = if builder.input.inventory.mesh.present().is_some() {
            Blame::Attempt
        } else {
            Blame::Nobody
        };
        builder.condemn(
            name,
            &format!("timed out after {} s waiting for {what}{more}", limit.as_secs()),
            blame,
        );
    } else {
        builder.wait(
            what,
            since,
            Some(limit),
            "the node is given up and tried with another provider",
        );
    }
}

fn bidding(builder: &mut PlanBuilder<'_>, name: &IncarnationName, incarnation: &Incarnation) {
    let Some(chain) = builder.input.inventory.chain.present() else { return };
    let Some(deployment) = chain.deployments.get(&incarnation.dseq) else { return };
    let Some(open_order) = deployment.open_order else { return };
    if let Some(choice) = &incarnation.lease {
        if deployment.bids.iter().any(|b| b.id == choice.id && b.id.oseq == open_order) {
            if keyless(builder, name) && control::hold(builder) {
                return;
            }
            let effect =
                Effect::CreateLease { incarnation: name.clone(), lease: choice.id.clone() };
            builder.step(effect, format!("the bid of {} was chosen", choice.id.provider));
            return;
        }
        // The provider withdrew its bid before the lease was made: choose again.
        builder.change(name, |i| i.lease = None);
    }
    let timing = builder.input.timing;
    let since = bids::since(builder, incarnation, deployment);
    if keyless(builder, name) && control::hold(builder) {
        // A lease would be paid for in vain, and no provider is to blame.
        if builder.now().passed(since, timing.bid_deadline) {
            builder.condemn(
                name,
                "the mesh control API did not answer until the bids were too old",
                Blame::Nobody,
            );
        }
        return;
    }
    let taken = taken(builder, name);
    let avoid = builder
        .record
        .failures
        .get(&incarnation.ordinal)
        .map(|f| f.providers.clone())
        .unwrap_or_default();
    let choice = placement::Choice {
        placement: &builder.spec().placement,
        providers: &chain.providers,
        taken: &taken,
        avoid: &avoid,
        max_price: incarnation.max_price,
        open_order,
        experience: &builder.input.inventory.experience,
        now: builder.now(),
    };
    let enough = bids::are_enough(builder, &choice, &deployment.bids);
    match placement::choose(&choice, &deployment.bids) {
        Ok(bid) if enough || builder.now().passed(since, timing.bid_window) => {
            let chosen = Choice { id: bid.id.clone(), price: bid.price, at: builder.now() };
            let month = bid.price.per_month(money::block_ms(builder.input.inventory));
            builder.change(name, |i| i.lease = Some(chosen));
            builder.event(
                EventReason::BidAccepted,
                format!("{name}: the bid of {} at {month} per month was accepted", bid.id.provider),
            );
            let effect = Effect::CreateLease { incarnation: name.clone(), lease: bid.id.clone() };
            builder.step(effect, format!("the best of {} bids", deployment.bids.len()));
            bids::note(builder, deployment, Some(&bid.id));
        }
        Ok(_) => builder.wait(
            format!("bids for {name} ({} so far)", deployment.bids.len()),
            since,
            Some(timing.bid_window),
            "the best one is taken",
        ),
        Err(refused) => no_bid(builder, name, incarnation, deployment, &refused),
    }
}

fn no_bid(
    builder: &mut PlanBuilder<'_>,
    name: &IncarnationName,
    incarnation: &Incarnation,
    deployment: &DeploymentView,
    refused: &[String],
) {
    let since = bids::since(builder, incarnation, deployment);
    let limit = builder.input.timing.bid_deadline;
    let month = incarnation.max_price.per_month(money::block_ms(builder.input.inventory));
    let why = if refused.is_empty() {
        let suppliers = &builder.input.inventory.suppliers;
        no_bids::why(&no_bids::Order {
            spec: builder.spec(),
            list: suppliers.value.as_ref().map(|list| list.as_slice()),
            taken: &taken(builder, name),
            experience: &builder.input.inventory.experience,
            max_price: incarnation.max_price,
            month,
        })
    } else {
        format!("no bid could be taken at {month} per month or less ({})", refused.join("; "))
    };
    if builder.now().passed(since, limit) {
        bids::note(builder, deployment, None);
        let blame = if moves::is_optional(builder, incarnation) {
            // The node that it was to take the place of stays: nothing failed.
            Blame::Nobody
        } else {
            Blame::Attempt
        };
        builder.condemn(name, &why, blame);
    } else {
        if !refused.is_empty() {
            builder.problem(Reason::NoAcceptableBid, format!("{name}: {why}"));
        }
        builder.wait(
            format!("a bid for {name}"),
            since,
            Some(limit),
            "the deployment is closed, refunded, and tried again later",
        );
    }
}

/// The secret of its key died with an earlier process, so that the control API is needed once more.
fn keyless(builder: &PlanBuilder<'_>, name: &IncarnationName) -> bool {
    !builder.input.inventory.held.contains_key(name)
}

/// Providers of the other live incarnations; the one being replaced counts too, or a migration
/// would stay where it is.
fn taken(builder: &PlanBuilder<'_>, name: &IncarnationName) -> BTreeSet<String> {
    builder
        .live()
        .iter()
        .filter(|(n, _)| n != name)
        .filter_map(|(_, i)| i.lease.as_ref())
        .map(|c| c.id.provider.clone())
        .collect()
}

/// How long a provider that took the manifest so many times may have nothing deployed before it is
/// sent once more. In the end the join deadline gives the node up.
fn pause_after(times: u32) -> Duration {
    RESTS.delay(times.saturating_sub(1))
}

fn deliver(builder: &mut PlanBuilder<'_>, name: &IncarnationName, incarnation: &Incarnation) {
    let inventory = builder.input.inventory;
    let Some(deployment) =
        inventory.chain.present().and_then(|c| c.deployments.get(&incarnation.dseq))
    else {
        return;
    };
    let Some(lease) = derived::active_lease(deployment) else { return };
    if incarnation.lease.as_ref().is_none_or(|c| c.id != lease.id) {
        let chosen = Choice { id: lease.id.clone(), price: lease.price, at: builder.now() };
        builder.change(name, |i| i.lease = Some(chosen));
    }
    let since = since_choice(incarnation);
    let too_late = builder.now().passed(since, builder.input.timing.join_deadline);
    if keyless(builder, name) && inventory.mesh.present().is_none() {
        let why = inventory.mesh.error.clone().unwrap_or_default();
        if too_late {
            builder.condemn(
                name,
                &format!("no key could be minted for it in time ({why})"),
                Blame::Nobody,
            );
            return;
        }
        builder.wait(
            format!("the mesh control API, to mint a key for {name} ({why})"),
            since,
            Some(builder.input.timing.join_deadline),
            "the node is given up",
        );
        return;
    }
    if too_late {
        let (why, blame) = match inventory.not_minted.get(name) {
            Some(why) => (format!("no key could be minted for it in time ({why})"), Blame::Nobody),
            None => ("its provider did not take the manifest in time".to_owned(), Blame::Attempt),
        };
        builder.condemn(name, &why, blame);
        return;
    }
    control::revoke_lost(builder, name);
    if let Some(delivered) = inventory.delivered.get(name) {
        let pause = pause_after(delivered.times);
        if !builder.now().passed(delivered.at, pause) {
            builder.wait(
                format!("the provider of {name} to start what it took"),
                delivered.at,
                Some(pause),
                "the manifest is sent once more",
            );
            return;
        }
    }
    let carries = update::wanted(builder).deployed();
    builder.change(name, |i| i.deployed = Some(carries));
    builder.step(
        Effect::DeliverManifest { incarnation: name.clone(), lease: lease.id.clone() },
        "its provider waits for the manifest",
    );
}
