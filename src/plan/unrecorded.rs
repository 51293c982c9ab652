//! Deployments with our installation id that are in no record, as after the loss of the store:
//! nothing is bought beside them, and each is closed at a person's word alone.

use std::collections::BTreeMap;

use super::builder::PlanBuilder;
use crate::api::annotations::CLOSE;
use crate::api::conditions::Reason;
use crate::api::events::EventReason;
use crate::model::ids::IncarnationName;
use crate::model::incarnation::{Condemned, Incarnation};
use crate::model::money::PricePerBlock;

/// Those of this cluster, by dseq.
fn of_cluster(builder: &PlanBuilder<'_>) -> BTreeMap<u64, IncarnationName> {
    let own = |name: &IncarnationName| name.cluster() == builder.input.cluster.metadata.name;
    let recorded = |dseq: u64| builder.record.incarnations.values().any(|i| i.dseq == dseq);
    let all = &builder.input.inventory.unrecorded;
    all.iter()
        .filter(|(dseq, name)| own(name) && !recorded(**dseq))
        .map(|(dseq, name)| (*dseq, name.clone()))
        .collect()
}

/// Incarnations of this cluster of which the tailnet knows a device or a key, whatever the record
/// says, with the deployment that each had.
fn devices_and_keys(builder: &PlanBuilder<'_>) -> BTreeMap<u64, IncarnationName> {
    let installation = &builder.input.constants.installation;
    let Some(mesh) = builder.input.inventory.mesh.present() else { return BTreeMap::new() };
    let devices = mesh.devices.iter();
    let devices = devices.filter_map(|d| IncarnationName::from_hostname(&d.hostname, installation));
    let keys = mesh.keys.iter();
    let keys =
        keys.filter_map(|k| IncarnationName::from_key_description(&k.description, installation));
    let own = |name: &IncarnationName| name.cluster() == builder.input.cluster.metadata.name;
    devices.chain(keys).filter(own).map(|name| (name.dseq(installation), name)).collect()
}

/// Says so, and returns whether nothing may be bought beside them. A cluster that never had a node
/// waits for those of other clusters too: an operator with an empty store and a wallet that pays
/// for deployments of its own has lost its store, and changes nothing.
pub fn hold(builder: &mut PlanBuilder<'_>) -> bool {
    let own = of_cluster(builder);
    let name = builder.input.cluster.metadata.name.clone();
    if !own.is_empty() {
        let close = close_command(&name, own.keys());
        let list = list(own.keys());
        builder.problem(
            Reason::OrphanedDeployment,
            format!(
                "the wallet pays for deployments of this cluster that are in no record (dseq {list}), as after the loss of the store; \
                 nothing is bought beside them: bring the store back, take the cluster over with `akash-redis recover`, or close them with `{close}`, which ends their data"
            ),
        );
        return true;
    }
    let untouched = builder.record.incarnations.is_empty() && builder.record.epoch == 0;
    let others = &builder.input.inventory.unrecorded;
    if !untouched || others.is_empty() {
        return false;
    }
    let mut by_cluster: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for (dseq, name) in others {
        by_cluster.entry(name.cluster()).or_default().push(*dseq);
    }
    let told =
        |(cluster, dseqs): (&&str, &Vec<u64>)| format!("{} of {cluster}", list(dseqs.iter()));
    let dseqs = by_cluster.iter().map(told).collect::<Vec<_>>().join("; ");
    let close = |cluster: &&str| format!("`akash-redis orphans {cluster} --close`");
    let closes = by_cluster.keys().map(close).collect::<Vec<_>>().join(", ");
    builder.problem(
        Reason::OrphanedDeployment,
        format!(
            "the wallet pays for deployments of this installation that are in no record ({dseqs}), as after the loss of the store; no new \
             cluster is begun beside them: bring the store back, take those clusters over with `akash-redis recover`, or close them with {closes}"
        ),
    );
    true
}

/// Those that a person named become given up, by which they are closed and cleaned up after like
/// any other.
pub fn close_at_word(builder: &mut PlanBuilder<'_>) {
    let word = builder.input.cluster.metadata.annotations.get(CLOSE).cloned().unwrap_or_default();
    let words: Vec<&str> = word.split(',').map(str::trim).collect();
    let now = builder.now();
    let meant = |dseq: &u64, name: &IncarnationName| {
        words.iter().any(|word| *word == name.0 || word.parse() == Ok(*dseq))
    };
    let deployments = of_cluster(builder).into_iter();
    let left = devices_and_keys(builder).into_iter();
    for (dseq, name) in deployments.chain(left).filter(|(dseq, name)| meant(dseq, name)) {
        if builder.record.incarnations.contains_key(&name) {
            continue;
        }
        let reason = "a close was requested; it is in no record".to_owned();
        let mut incarnation = Incarnation::new(
            name.ordinal().unwrap_or(0),
            dseq,
            now,
            builder.record.epoch,
            PricePerBlock(0),
        );
        incarnation.condemned = Some(Condemned { at: now, reason, closed: None });
        builder.record.incarnations.insert(name.clone(), incarnation);
        builder.event(
            EventReason::OrphanClosing,
            format!("{name} (deployment {dseq}), which is in no record, is going to be closed as requested, with its device and its key"),
        );
    }
}

/// Whether the end of a deletion has to wait: for the chain, or for a person's word about what it
/// still pays for.
pub fn left(builder: &mut PlanBuilder<'_>) -> bool {
    let deleted = builder.now();
    if builder.input.inventory.chain.present().is_none() {
        builder.wait(
            "the chain, to see that nothing of the cluster is left on it",
            deleted,
            None,
            "the cluster is forgotten",
        );
        return true;
    }
    let asked = builder.input.cluster.metadata.annotations.get(CLOSE);
    if asked.is_some_and(|word| !word.is_empty())
        && builder.input.inventory.mesh.present().is_none()
    {
        builder.wait(
            "the tailnet, to see that nothing of what was to be closed is left on it",
            deleted,
            None,
            "the cluster is forgotten",
        );
        return true;
    }
    let own = of_cluster(builder);
    if own.is_empty() {
        return false;
    }
    let (list, name) = (list(own.keys()), builder.input.cluster.metadata.name.clone());
    let how = format!("`{}`, which ends their data", close_command(&name, own.keys()));
    builder.problem(
        Reason::OrphanedDeployment,
        format!("the wallet pays for deployments of this cluster that are in no record (dseq {list}), so it is not forgotten: {how}"),
    );
    builder.wait(
        format!("manual action on the deployments {list}: {how}"),
        deleted,
        None,
        "the cluster is forgotten when they are closed",
    );
    true
}

/// What a person types to close them all.
fn close_command<'a>(cluster: &str, dseqs: impl Iterator<Item = &'a u64>) -> String {
    let dseqs = dseqs.map(ToString::to_string).collect::<Vec<_>>().join(" ");
    format!("akash-redis close {cluster} {dseqs}")
}

fn list<'a>(dseqs: impl Iterator<Item = &'a u64>) -> String {
    dseqs.map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
