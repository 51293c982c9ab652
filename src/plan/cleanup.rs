//! What is left of those given up: deployments are closed, devices deleted, keys revoked, then they
//! are forgotten.

use std::collections::BTreeSet;
use std::time::Duration;

use super::builder::PlanBuilder;
use super::{confirmed, derived};
use crate::api::conditions::Reason;
use crate::api::events::EventReason;
use crate::model::chain::ChainView;
use crate::model::ids::IncarnationName;
use crate::model::incarnation::Incarnation;
use crate::model::mesh::MeshView;
use crate::model::step::Effect;
use crate::model::time::UnixMs;

/// A close and a few calls of the control API take far less when chain and mesh answer.
const CLEAN_LIMIT: Duration = Duration::from_mins(5);

/// A close is in a block within this, mostly, and its container is stopped then.
const GOODBYE: Duration = Duration::from_secs(30);

/// What an earlier process asked the control API for is carried out within this, or never.
const LATE_CALL: Duration = Duration::from_secs(10);
/// A reading is believed about what is not in it while its block is younger. Blocks take 6 s; a
/// chain or an endpoint that stands still has nothing new to say, and a clock may be off by some
/// minutes.
pub const FRESH: Duration = Duration::from_mins(5);
/// A create that was signed when its incarnation was given up lives for a minute of block time;
/// clocks differ by some seconds.
const LAST_LANDING: Duration = Duration::from_secs(90);

/// Cleans up after every condemned incarnation; forgets it when nothing of it is left by fresh
/// readings.
pub fn clean(builder: &mut PlanBuilder<'_>) {
    let condemned: Vec<_> = builder
        .record
        .incarnations
        .iter()
        .filter_map(|(n, i)| {
            i.condemned.as_ref().map(|c| (n.clone(), i.dseq, c.at, c.reason.clone()))
        })
        .collect();
    for (name, dseq, since, reason) in condemned {
        let deployment = close_deployment(builder, &name, dseq, since, &reason);
        note_closed(builder, &name, deployment.is_ok());
        let lingers = deployment.is_err() && says_goodbye(builder, &name, dseq, since);
        let mesh_gone = leave_mesh(builder, &name, lingers);
        if deployment.is_ok() && mesh_gone && confirmed::counts(builder, &name) {
            builder.wait(
                format!("others to have what {name} may have confirmed"),
                since,
                None,
                "it is forgotten",
            );
            continue;
        }
        if let (Ok(what), true) = (&deployment, mesh_gone) {
            builder.record.incarnations.remove(&name);
            builder.event(
                EventReason::NodeRemoved,
                format!("{name} is removed: {what}; its device and key are gone from the tailnet"),
            );
        } else {
            let why = deployment.err().map(|why| format!(": {why}")).unwrap_or_default();
            builder.watch(
                format!("{name} to be cleaned up{why}"),
                since,
                CLEAN_LIMIT,
                Reason::CleanupStalled,
            );
        }
    }
}

/// It runs still, and ends with the lease that is being closed: its connections end as they should,
/// which nobody on the tailnet hears of once its device is gone. Whoever spoke with it would wait in
/// vain, until its own time is up.
fn says_goodbye(
    builder: &PlanBuilder<'_>,
    name: &IncarnationName,
    dseq: u64,
    since: UnixMs,
) -> bool {
    let chain = builder.input.inventory.chain.present();
    let deployment = chain.and_then(|chain| chain.deployments.get(&dseq));
    if deployment.and_then(derived::active_lease).is_none() {
        return false;
    }
    let isolated = builder.incarnation(name).is_some_and(|i| i.quarantined.is_some());
    let runs = builder.connected(name).is_some();
    runs && !isolated && !builder.now().passed(since, GOODBYE)
}

/// `Ok` when the chain shows its deployment closed, which is for good, or is known to have none and
/// no transaction of ours may still make one: what became of it, never more than was seen. Else
/// what is waited for.
fn close_deployment(
    builder: &mut PlanBuilder<'_>,
    name: &IncarnationName,
    dseq: u64,
    since: UnixMs,
    reason: &str,
) -> Result<String, String> {
    let inventory = builder.input.inventory;
    let chain = inventory.chain.present().ok_or_else(|| "the chain does not answer".to_owned())?;
    if inventory.pending.contains(&dseq) {
        return Err(format!("a transaction of deployment {dseq} is on its way"));
    }
    match chain.deployments.get(&dseq) {
        Some(deployment) if deployment.active && !derived::is_own(builder, name, deployment) => {
            builder.problem(
                Reason::ForeignDeployment,
                format!(
                    "deployment {dseq} is left alone: its group is {}, not {name}'s",
                    deployment.group_name
                ),
            );
            Ok(format!("deployment {dseq} is not its own and stays open"))
        }
        Some(deployment) if deployment.active => {
            builder.step(
                Effect::CloseDeployment { incarnation: name.clone(), dseq },
                format!("{name} was given up: {reason}"),
            );
            Err(format!("deployment {dseq} is open"))
        }
        Some(_) => Ok(format!("its deployment {dseq} is closed")),
        None => match absent(chain, builder.now(), since) {
            Ok(()) => Ok(format!("deployment {dseq} was never made, or is forgotten by the chain")),
            Err(why) => Err(format!(
                "the endpoint knows no deployment {dseq}, which cannot be believed yet: {why}"
            )),
        },
    }
}

fn note_closed(builder: &mut PlanBuilder<'_>, name: &IncarnationName, gone: bool) {
    let now = builder.now();
    builder.change(name, |i| {
        if let Some(condemned) = &mut i.condemned {
            condemned.closed = gone.then(|| condemned.closed.unwrap_or(now));
        }
    });
}

/// Whether a reading without a deployment proves that there is none: a node that is behind does not
/// know what was made later. `since` is when the incarnation was given up; nothing is created for
/// it after that.
fn absent(chain: &ChainView, now: UnixMs, since: UnixMs) -> Result<(), String> {
    if now.since(chain.block_time) > FRESH {
        return Err(format!(
            "its newest block is of {}, so the chain stands still, the endpoint is behind, or this machine's clock is wrong",
            chain.block_time
        ));
    }
    if !chain.block_time.passed(since, LAST_LANDING) {
        return Err(format!(
            "a transaction from before may be in a block up to {}",
            since + LAST_LANDING
        ));
    }
    Ok(())
}

/// Deletes the devices that nodes had before they joined again. The list lacked them, which is why
/// they joined again, and may have been wrong.
pub fn delete_former_devices(builder: &mut PlanBuilder<'_>) {
    let Some(mesh) = builder.input.inventory.mesh.present() else { return };
    for (name, incarnation) in builder.live() {
        let joins = incarnation.rejoin.is_some() || incarnation.device.is_none();
        if incarnation.former_devices.is_empty() || joins {
            continue;
        }
        let former = incarnation.former_devices.iter().map(String::as_str);
        let left = not_deleted(builder, mesh, former);
        builder.change(&name, |i| i.former_devices.clone_from(&left));
        delete(builder, &name, left, "its node joined again as another device");
    }
}

/// Those of the recorded devices that may be on the tailnet. That its list lacks one proves nothing
/// by itself: nobody looks for it once its incarnation is forgotten.
fn not_deleted<'a>(
    builder: &PlanBuilder<'_>,
    mesh: &MeshView,
    recorded: impl Iterator<Item = &'a str>,
) -> Vec<String> {
    let deleted = &builder.input.inventory.deleted_devices;
    let listed = |id: &str| mesh.devices.iter().any(|d| d.id == id);
    recorded.filter(|id| listed(id) || !deleted.contains(*id)).map(str::to_owned).collect()
}

fn delete(
    builder: &mut PlanBuilder<'_>,
    name: &IncarnationName,
    devices: impl IntoIterator<Item = String>,
    why: &str,
) {
    for device in devices {
        builder.step(Effect::DeleteDevice { incarnation: name.clone(), device }, why);
    }
}

/// True when the control API, asked after its deployment was closed and after the last mint for it,
/// knows neither a device nor a usable key of it.
///
/// The container may live a moment longer than its lease, and a key that is minted while a node is
/// given up comes after any earlier reading. The device of one that `lingers` is left for now.
fn leave_mesh(builder: &mut PlanBuilder<'_>, name: &IncarnationName, lingers: bool) -> bool {
    let inventory = builder.input.inventory;
    let Some(mesh) = inventory.mesh.present() else { return false };
    let constants = builder.input.constants;
    let description = name.key_description(&constants.installation);
    let mut gone = true;
    for key in mesh.keys.iter().filter(|k| k.description == description && !k.invalid) {
        builder.step(
            Effect::RevokeKey { incarnation: name.clone(), key: key.id.clone() },
            "it is no longer needed",
        );
        gone = false;
    }
    let named = derived::devices(builder, mesh, name).into_iter().map(|d| d.id.clone());
    let recorded = builder.incarnation(name).into_iter().flat_map(Incarnation::devices);
    let left: BTreeSet<_> = named.chain(not_deleted(builder, mesh, recorded)).collect();
    gone &= left.is_empty();
    if !lingers {
        delete(builder, name, left, "its node was given up");
    }
    let began = inventory.mesh.at;
    let closed = builder.incarnation(name).and_then(|i| i.condemned.as_ref()?.closed);
    let late_enough =
        closed.is_some_and(|closed| began > closed) && began.passed(constants.started, LATE_CALL);
    gone && mesh.all_keys && late_enough && !inventory.minting.contains(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_node_lacks_is_believed_only_when_it_is_past_all_that_could_be_in_it() {
        let now = 1_795_000_000_000;
        let lacks = |block: u64, given_up: u64| {
            let view =
                ChainView { height: 5, block_time: UnixMs(now - block), ..ChainView::default() };
            absent(&view, UnixMs(now), UnixMs(now - given_up))
        };
        let minute = 60_000;
        assert_eq!(lacks(6_000, 2 * minute), Ok(()));
        assert_eq!(
            lacks(4 * minute, 60 * minute),
            Ok(()),
            "a chain that stands still for a moment"
        );
        for (block, given_up) in
            [(0, 0), (0, minute), (minute, 2 * minute), (3 * minute, 4 * minute)]
        {
            let why = lacks(block, given_up).expect_err("a create may be in a later block");
            assert!(why.contains("may be in a block up to"), "{why}");
        }
        for given_up in [0, 60 * minute, 48 * 60 * minute] {
            let why = lacks(24 * 60 * minute, given_up).expect_err("a day old");
            assert!(why.contains("the endpoint is behind"), "{why}");
        }
    }
}
