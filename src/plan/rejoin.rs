//! A living node whose device is gone from the tailnet joins again: at a person's word it gets a
//! new key by a new manifest. Lease and volume stay; its container is started anew. One node at a
//! time.

use std::collections::BTreeSet;
use std::time::Duration;

use super::builder::PlanBuilder;
use super::{control, derived, devices, update};
use crate::api::annotations::REJOIN;
use crate::api::conditions::Reason;
use crate::api::events::EventReason;
use crate::model::ids::{IncarnationName, LeaseId};
use crate::model::incarnation::Rejoin;
use crate::model::step::Effect;

/// Between two tries to bring the new manifest: a provider that took it starts a container and a
/// login, which takes some seconds.
const AGAIN: Duration = Duration::from_secs(30);
/// Names in one sentence at most.
const NAMED: usize = 5;

/// Those that a person named.
fn asked(builder: &PlanBuilder<'_>) -> BTreeSet<IncarnationName> {
    let word = builder.input.cluster.metadata.annotations.get(REJOIN).map_or("", String::as_str);
    word.split(',').map(|n| IncarnationName(n.trim().to_owned())).collect()
}

/// It is about to be heard again: it is not given up for its silence meanwhile.
pub fn spared(builder: &PlanBuilder<'_>, name: &IncarnationName) -> bool {
    let under_way = builder.incarnation(name).and_then(|i| i.rejoin.as_ref()).map(|r| r.at);
    match under_way {
        Some(at) => !builder.now().passed(at, builder.input.timing.join_deadline),
        None => asked(builder).contains(name) && devices::unlisted(builder, name),
    }
}

/// Says that the tailnet has forgotten the nodes, begins what a person asked for, and goes on with
/// what was begun.
pub fn plan(builder: &mut PlanBuilder<'_>) {
    let live: Vec<_> =
        builder.live().into_iter().filter(|(_, i)| i.has_joined()).map(|(n, _)| n).collect();
    let gone: Vec<_> = live.iter().filter(|n| devices::unlisted(builder, n)).cloned().collect();
    if !gone.is_empty() && live.iter().all(|n| gone.contains(n) || builder.connected(n).is_none()) {
        report(builder, &gone);
    }
    for name in &live {
        finish(builder, name);
    }
    let under_way =
        live.iter().find(|n| builder.incarnation(n).is_some_and(|i| i.rejoin.is_some())).cloned();
    let next = || gone.iter().find(|n| asked(builder).contains(n)).cloned();
    let Some(name) = under_way.or_else(next) else { return };
    if builder.spec().resources.data.is_none() {
        builder.problem(
            Reason::RejoinStalled,
            format!(
                "{name} has no data volume: a new key would end what its redis holds in memory"
            ),
        );
        return;
    }
    if let Some(lease) = lease(builder, &name) {
        deliver(builder, &name, lease);
    }
}

/// The API's words about an empty list do not tell why it is empty: a person has to look.
fn report(builder: &mut PlanBuilder<'_>, gone: &[IncarnationName]) {
    let (cluster, first) = (&builder.input.cluster.metadata.name, &gone[0]);
    let names = gone.iter().take(NAMED).map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let how = if builder.spec().resources.data.is_some() {
        format!(
            "`akash-redis rejoin {cluster} {first}`, then the others one by one, gives each a new key and keeps its lease and its volume"
        )
    } else {
        "without a data volume no node can be given a new key and keep its data; see docs/runbooks/mesh-device.md".to_owned()
    };
    let message = format!(
        "the tailnet does not list the devices of {names}, and none of the nodes is heard: its database was restored to an old copy, the devices were deleted, or the OAuth client does not see them; their leases run and their data is there: {how}"
    );
    builder.problem(Reason::DevicesMissing, message);
}

/// It speaks from a device that is listed.
fn finish(builder: &mut PlanBuilder<'_>, name: &IncarnationName) {
    let Some(rejoin) = builder.incarnation(name).and_then(|i| i.rejoin.clone()) else { return };
    let heard = builder.view(name).is_some_and(|v| v.heard > rejoin.at);
    let former = builder.incarnation(name).map(|i| i.former_devices.clone()).unwrap_or_default();
    let own = derived::own_device(builder, name);
    let Some(device) = own.filter(|id| heard && !former.contains(id)) else { return };
    builder.event(
        EventReason::NodeRejoined,
        format!("{name} is on the mesh again, as device {device}"),
    );
    builder.change(name, |i| (i.device, i.rejoin) = (Some(device), None));
}

fn lease(builder: &PlanBuilder<'_>, name: &IncarnationName) -> Option<LeaseId> {
    let chain = builder.input.inventory.chain.present()?;
    let deployment =
        chain.deployments.get(&builder.incarnation(name)?.dseq).filter(|d| d.active)?;
    derived::active_lease(deployment).map(|l| l.id.clone())
}

fn deliver(builder: &mut PlanBuilder<'_>, name: &IncarnationName, lease: LeaseId) {
    let now = builder.now();
    let known = builder.incarnation(name).and_then(|i| i.rejoin.clone());
    let at = known.as_ref().map_or(now, |r| r.at);
    let limit = builder.input.timing.join_deadline;
    builder.watch(
        format!("{name} to join again with its new key"),
        at,
        limit,
        Reason::RejoinStalled,
    );
    if control::hold(builder) || known.as_ref().is_some_and(|r| !now.passed(r.sent, AGAIN)) {
        return;
    }
    if known.is_none() {
        builder.event(EventReason::RejoinStarted, format!("{name} gets a new key, because its device is gone from the tailnet and a rejoin was requested"));
    }
    let carries = update::wanted(builder).deployed();
    builder.change(name, |i| {
        i.deployed = Some(carries);
        i.former_devices.extend(i.device.take());
        i.rejoin = Some(Rejoin { at, sent: now });
    });
    control::revoke_lost(builder, name);
    let effect = Effect::DeliverManifest { incarnation: name.clone(), lease };
    builder.step(effect, "its device is gone from the tailnet and a rejoin was requested");
}
