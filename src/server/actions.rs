//! What requests mean for an object: pure, so that every refusal can be tested.

use axum::http::StatusCode;

use super::messages::{Close, Cutover, Migrate, Rejoin, Restart, Switchover, VerifyBackup};
use crate::api::annotations::{
    ACCEPT_DIFFERENCE, ACCEPT_LOSS, BACKUP, CLOSE, CUTOVER, FENCE, MASTER, MIGRATE, REJOIN,
    RESTART, VERIFY, WRITES_STOPPED, YES_DELETE_DATA,
};
use crate::api::conditions::{ConditionType, Phase, Reason};
use crate::api::deletion::{self, Deletion};
use crate::api::difference;
use crate::api::status::NodeStatus;
use crate::api::types::RedisCluster;
use crate::model::ids::IncarnationName;
use crate::model::image;
use crate::model::incarnation::Incarnation;
use crate::model::record::Record;
use crate::model::redis_version::RedisVersion;

/// Deployments closed by one word at most.
const MOST_CLOSED: usize = 64;

/// Why a request is not carried out.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) message: String,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    pub(super) fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, message)
    }

    fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }
}

/// Nothing is changed any more on an object that is being deleted. One whose deletion waits goes on.
pub(super) fn alive(cluster: &RedisCluster) -> Result<(), Refusal> {
    if cluster.metadata.deletion_timestamp.is_none() || deletion::waits(cluster) {
        return Ok(());
    }
    let name = &cluster.metadata.name;
    Err(Refusal::conflict(format!(
        "{name} is being deleted; wait with `akash-redis delete {name} --wait`, then apply it anew"
    )))
}

/// Nothing is asked of a cluster that is paused: it would not be done now, and be a surprise when
/// it is resumed.
pub(super) fn at_work(cluster: &RedisCluster, command: &str) -> Result<(), Refusal> {
    alive(cluster)?;
    if !cluster.spec.paused {
        return Ok(());
    }
    let name = &cluster.metadata.name;
    Err(Refusal::conflict(format!(
        "{name} is paused (spec.paused), so {command} would not be carried out before somebody resumes it, and nothing was noted; `akash-redis resume {name}` first, then ask again"
    )))
}

/// Pauses a cluster. Returns what to tell.
pub(super) fn pause(cluster: &mut RedisCluster) -> Result<String, Refusal> {
    alive(cluster)?;
    let name = cluster.metadata.name.clone();
    if std::mem::replace(&mut cluster.spec.paused, true) {
        return Ok(format!("{name} is paused already"));
    }
    Ok(format!(
        "{name} is paused: the operator watches it and changes nothing, so that a master that dies is not replaced; `akash-redis resume {name}` ends it"
    ))
}

/// Resumes a cluster. Returns what to tell, with what was asked for before it was paused.
pub(super) fn resume(cluster: &mut RedisCluster) -> Result<String, Refusal> {
    alive(cluster)?;
    let name = cluster.metadata.name.clone();
    if !std::mem::replace(&mut cluster.spec.paused, false) {
        return Ok(format!("{name} is not paused"));
    }
    let nodes = cluster.status.as_ref().map(|s| s.nodes.as_slice()).unwrap_or_default();
    let asked = cluster.metadata.annotations.get(MIGRATE).map_or("", String::as_str);
    let moving: Vec<&str> = asked
        .split(',')
        .map(str::trim)
        .filter(|moving| nodes.iter().any(|n| n.incarnation == *moving))
        .collect();
    let goes_on = if moving.is_empty() {
        String::new()
    } else {
        format!(
            "; what was asked for before goes on: {} moves to another provider",
            moving.join(", ")
        )
    };
    Ok(format!("{name} is resumed{goes_on}"))
}

/// Whether a new manifest may take the place of the old one; completes it by what other commands
/// wrote.
pub(super) fn replace(
    old: &RedisCluster,
    record: &Record,
    new: &mut RedisCluster,
) -> Result<(), Refusal> {
    alive(old)?;
    // A lease keeps the resources, the placement and the mesh identity that it was made with. What
    // never ran is bought anew; what ran may hold data.
    let runs = record.incarnations.values().any(Incarnation::has_joined);
    let mut kept = difference::differences(&old.spec, &new.spec);
    let moves = |path: &str| difference::is_taken_by_moving(&old.spec, &new.spec, path);
    kept.retain(|c| runs && difference::is_lease_term(&c.path) && !moves(&c.path));
    if !kept.is_empty() {
        let name = &old.metadata.name;
        return Err(Refusal::conflict(format!(
            "{name} has nodes that run, and a lease keeps the resources, placement and mesh tag it was made with, so nothing was changed: {}; \
             keep these fields (nodes take other cpu, data.class and a larger data.size by moving), or apply a second cluster under another name with them, copy the data over, and delete {name}",
            difference::sentence(&kept)
        )));
    }
    no_way_back(old, new)?;
    begun(old, record, new)?;
    // A manifest from a file knows nothing of a migration or a switchover that was asked for
    // meanwhile.
    for key in
        [MIGRATE, MASTER, ACCEPT_LOSS, CLOSE, REJOIN, RESTART, FENCE, BACKUP, CUTOVER, VERIFY]
    {
        if let Some(value) = old.metadata.annotations.get(key) {
            new.metadata.annotations.entry(key.to_owned()).or_insert_with(|| value.clone());
        }
    }
    Ok(())
}

/// What a cluster begins with counts until it has begun.
fn begun(old: &RedisCluster, record: &Record, new: &RedisCluster) -> Result<(), Refusal> {
    let from = |c: &RedisCluster| c.spec.bootstrap.as_ref().and_then(|b| b.from_backup.clone());
    let (had, has) = (from(old), from(new));
    imported(old, record, new)?;
    let begun = record.data_epoch > 0 || record.restore.is_some();
    if !begun || had == has || has.is_none() {
        return Ok(());
    }
    let name = &old.metadata.name;
    Err(Refusal::conflict(format!(
        "{name} has begun, and what it begins with (spec.bootstrap.fromBackup) cannot be changed any more, so nothing was changed; \
         leave the field as it was, or apply a second cluster under another name with it"
    )))
}

/// Where an import comes from may be corrected while it goes on; it is not left out half-way.
fn imported(old: &RedisCluster, record: &Record, new: &RedisCluster) -> Result<(), Refusal> {
    let from = |c: &RedisCluster| c.spec.bootstrap.as_ref().and_then(|b| b.from_redis.clone());
    let (had, has, name) = (from(old), from(new), &old.metadata.name);
    let goes_on = record.import.as_ref().is_some_and(|import| import.done.is_none());
    if goes_on && has.is_none() {
        return Err(Refusal::conflict(format!(
            "{name} is importing, and without spec.bootstrap.fromRedis a node with half of the data would be left, so nothing was changed; \
             `akash-redis cutover {name}` ends the import, `akash-redis delete {name}` ends the cluster"
        )));
    }
    let begun = record.data_epoch > 0 || record.restore.is_some();
    if begun && has.is_some() && had != has {
        return Err(Refusal::conflict(format!(
            "{name} has begun, and what it begins with (spec.bootstrap.fromRedis) cannot be changed any more, so nothing was changed; \
             leave the field as it was or leave it out, or apply a second cluster under another name with it"
        )));
    }
    Ok(())
}

/// What the manifest's image cannot read of the present master's data would be lost with it.
fn no_way_back(old: &RedisCluster, new: &RedisCluster) -> Result<(), Refusal> {
    let Some(image) = new.spec.image.as_ref().filter(|_| old.spec.image != new.spec.image) else {
        return Ok(());
    };
    let nodes = old.status.as_ref().map(|s| s.nodes.as_slice()).unwrap_or_default();
    let master = nodes.iter().find(|n| n.phase == Phase::Master);
    let its = master.and_then(|n| RedisVersion::parse(n.version.as_deref()?));
    let (Some(its), Ok(wanted)) = (its, image::version(&image.redis)) else { return Ok(()) };
    if wanted.can_follow(its) {
        return Ok(());
    }
    let name = &old.metadata.name;
    Err(Refusal::conflict(format!(
        "{name} runs {its}, and {wanted} cannot read its data: there is no way back over this step, so nothing was changed; \
         keep an image with {its} or a later version, or apply a second cluster with {wanted} under another name and copy the data over"
    )))
}

/// Asks for a node to move. Returns what to tell.
pub(super) fn migrate(cluster: &mut RedisCluster, request: &Migrate) -> Result<String, Refusal> {
    at_work(cluster, "a migration")?;
    let nodes = nodes(cluster)?;
    let ordinal = match (request.ordinal, request.incarnation.as_deref()) {
        (Some(ordinal), None) => ordinal,
        (None, Some(name)) => {
            nodes
                .iter()
                .find(|n| n.incarnation == name)
                .ok_or_else(|| no_incarnation(cluster, name))?
                .ordinal
        }
        _ => {
            return Err(Refusal::new(
                StatusCode::BAD_REQUEST,
                "name either an ordinal or an incarnation",
            ));
        }
    };
    let here = |n: &&NodeStatus| {
        n.phase != Phase::Leaving
            && request.incarnation.as_ref().is_none_or(|name| n.incarnation == *name)
    };
    let fillers: Vec<_> = nodes
        .iter()
        .filter(|n| n.ordinal == ordinal)
        .filter(here)
        .map(|n| n.incarnation.clone())
        .collect();
    if fillers.is_empty() {
        return Err(no_node(cluster, ordinal));
    }
    // Names of incarnations that are gone mean nothing any more.
    let asked = cluster.metadata.annotations.get(MIGRATE).cloned().unwrap_or_default();
    let mut marked: Vec<&str> = asked
        .split(',')
        .map(str::trim)
        .filter(|name| nodes.iter().any(|n| n.incarnation == *name))
        .collect();
    if let Some(moving) = marked
        .iter()
        .find(|name| nodes.iter().any(|n| n.ordinal == ordinal && n.incarnation == **name))
    {
        return Err(Refusal::conflict(format!(
            "node {ordinal} is on its way to another provider already ({moving} leaves)"
        )));
    }
    marked.extend(fillers.iter().map(String::as_str));
    let value = marked.join(",");
    cluster.metadata.annotations.insert(MIGRATE.to_owned(), value);
    Ok(format!("node {ordinal} ({}) moves to another provider", fillers.join(", ")))
}

/// Asks for a node whose device is gone from the tailnet to join again. Returns what to tell.
pub(super) fn rejoin(cluster: &mut RedisCluster, request: &Rejoin) -> Result<String, Refusal> {
    at_work(cluster, "a new key")?;
    let name = named_node(cluster, Some(&request.node))?.0;
    if cluster.spec.resources.data.is_none() {
        return Err(Refusal::conflict(format!(
            "{name} has no data volume, so a new key would end what its redis holds in memory; it can only be replaced"
        )));
    }
    let asked = cluster.metadata.annotations.get(REJOIN).cloned().unwrap_or_default();
    let nodes = seen(cluster)?;
    let mut marked: Vec<&str> = asked
        .split(',')
        .map(str::trim)
        .filter(|n| nodes.iter().any(|node| node.incarnation == *n))
        .collect();
    marked.retain(|n| *n != name);
    marked.push(&name);
    let value = marked.join(",");
    cluster.metadata.annotations.insert(REJOIN.to_owned(), value);
    Ok(format!(
        "{name} gets a new key and keeps its lease and volume, once it is silent and its device is missing from the tailnet's list"
    ))
}

/// Asks for containers to be started anew: of one node, or of all. Returns what to tell.
pub(super) fn restart(cluster: &mut RedisCluster, request: &Restart) -> Result<String, Refusal> {
    at_work(cluster, "a restart")?;
    let name = cluster.metadata.name.clone();
    if cluster.spec.resources.data.is_none() {
        return Err(Refusal::conflict(format!(
            "{name} has no data volumes, so a node that is restarted has neither its data nor its place on the mesh any more; migrate its nodes instead: that makes a new one first"
        )));
    }
    let asked: Vec<String> = if let Some(node) = &request.node {
        vec![named_node(cluster, Some(node))?.0]
    } else {
        let stays = |n: &&NodeStatus| n.phase != Phase::Leaving;
        nodes(cluster)?.iter().filter(stays).map(|n| n.incarnation.clone()).collect()
    };
    // No two requests are made of the same version of an object.
    let word = cluster.metadata.resource_version.clone().unwrap_or_default();
    let before = cluster.metadata.annotations.get(RESTART).cloned().unwrap_or_default();
    let all = nodes(cluster)?;
    let other = |entry: &&str| {
        let of = entry.split_once('@').map_or("", |(of, _)| of);
        all.iter().any(|n| n.incarnation == of) && !asked.iter().any(|n| n == of)
    };
    let others = before.split(',').filter(other).map(str::to_owned);
    let entries: Vec<String> = asked.iter().map(|n| format!("{n}@{word}")).chain(others).collect();
    cluster.metadata.annotations.insert(RESTART.to_owned(), entries.join(","));
    Ok(format!(
        "{} started anew, one at a time and the master last, each once all nodes are in sync; `akash-redis describe {name}` says how far it is",
        match &asked[..] {
            [one] => format!("{one} is"),
            all => format!("{} are", all.join(", ")),
        }
    ))
}

/// Asks for a backup. Returns what to tell.
pub(super) fn backup(cluster: &mut RedisCluster) -> Result<String, Refusal> {
    at_work(cluster, "a backup")?;
    let name = cluster.metadata.name.clone();
    let Some(backup) = &cluster.spec.backup else {
        return Err(Refusal::conflict(format!(
            "{name} has no place for backups; add spec.backup to its manifest and apply it"
        )));
    };
    let to = backup.to.clone();
    // No two requests are made of the same version of an object.
    let word = cluster.metadata.resource_version.clone().unwrap_or_default();
    cluster.metadata.annotations.insert(BACKUP.to_owned(), word);
    Ok(format!(
        "a backup of {name} goes to {to}, once a replica is in sync; `akash-redis backups {name}` lists it when it is complete"
    ))
}

/// Asks for the end of an import. Returns what to tell.
pub(super) fn cutover(cluster: &mut RedisCluster, request: Cutover) -> Result<String, Refusal> {
    at_work(cluster, "a cutover")?;
    let name = cluster.metadata.name.clone();
    let status = cluster.status.as_ref();
    let Some(import) = status.and_then(|s| s.condition(ConditionType::Imported)) else {
        return Err(Refusal::conflict(format!(
            "{name} imports from no Redis, so there is nothing to cut over; a new cluster begins with one by spec.bootstrap.fromRedis"
        )));
    };
    if import.reason != Reason::ImportReady {
        return Err(Refusal::conflict(format!(
            "{name} cannot be cut over now, and nothing was noted: {}",
            import.message
        )));
    }
    // No two requests are made of the same version of an object.
    let mut word = cluster.metadata.resource_version.clone().unwrap_or_default();
    let says =
        [(request.writes_stopped, WRITES_STOPPED), (request.accept_difference, ACCEPT_DIFFERENCE)];
    for (_, said) in says.into_iter().filter(|(is_said, _)| *is_said) {
        word = format!("{word} {said}");
    }
    cluster.metadata.annotations.insert(CUTOVER.to_owned(), word);
    Ok(format!(
        "{name} is cut over; `akash-redis describe {name}` says when it is done. Writes to the source are held from then on for 10 min at most: point the applications at {name}, and stop the source"
    ))
}

/// Asks for a backup to be restored to see that it can be. Returns what to tell.
pub(super) fn verify_backup(
    cluster: &mut RedisCluster,
    request: &VerifyBackup,
) -> Result<String, Refusal> {
    at_work(cluster, "a verification")?;
    let name = cluster.metadata.name.clone();
    let status = cluster.status.as_ref().and_then(|status| status.backup.as_ref());
    let all = status.map(|backup| backup.backups.as_slice()).unwrap_or_default();
    let mut own = all.iter().filter(|backup| backup.of_this_cluster);
    let found = match &request.id {
        Some(id) => own.find(|backup| backup.id == *id),
        None => own.next(),
    };
    let Some(found) = found else {
        return Err(Refusal::conflict(match &request.id {
            Some(id) => format!(
                "there is no backup {id} of {name}; `akash-redis backups {name}` lists them"
            ),
            None => format!(
                "there is no backup of {name} yet; `akash-redis backup {name} --wait` takes one"
            ),
        }));
    };
    let id = found.id.clone();
    let version = cluster.metadata.resource_version.clone().unwrap_or_default();
    cluster.metadata.annotations.insert(VERIFY.to_owned(), format!("{version} {id}"));
    Ok(format!(
        "backup {id} of {name} is restored into a throw-away redis-server on a replica's node, once one has the memory for it; the condition BackupVerified of `akash-redis describe {name}` says what came of it"
    ))
}

/// Whether a cluster may be deleted, and by whose word: `named` is the one that a person gave. Leaves
/// that word on the object. Returns what becomes of the cluster.
pub(super) fn delete(
    cluster: &mut RedisCluster,
    record: &Record,
    named: Option<&str>,
) -> Result<Deletion, Refusal> {
    let name = cluster.metadata.name.clone();
    if let Some(other) = named.filter(|named| *named != name) {
        return Err(Refusal::new(
            StatusCode::BAD_REQUEST,
            format!(
                "the data of `{other}` may be deleted, and {name} was to be; nothing was deleted: name the same cluster twice"
            ),
        ));
    }
    if named.is_some() {
        cluster.metadata.annotations.insert(YES_DELETE_DATA.to_owned(), name.clone());
    }
    let verdict = deletion::if_asked(cluster, record);
    if verdict == Deletion::Refused {
        return Err(Refusal::conflict(format!(
            "{name} may hold data, which go with its leases, and spec.deletionPolicy is Refuse, so nothing was deleted: `akash-redis backup {name} --wait` or `akash-redis dump {name}` keeps them, `akash-redis delete {name} --yes-delete-data {name}` deletes the cluster with them"
        )));
    }
    Ok(verdict)
}

/// Asks for deployments of the cluster that are in no record to be closed, also while it is being
/// deleted. Returns what to tell.
pub(super) fn close(cluster: &mut RedisCluster, request: &Close) -> Result<String, Refusal> {
    if cluster.metadata.deletion_timestamp.is_none() {
        at_work(cluster, "a close")?;
    }
    close_unpaused(cluster, request)
}

/// The same, for an object that is about to be marked as deleted.
pub(super) fn close_unpaused(
    cluster: &mut RedisCluster,
    request: &Close,
) -> Result<String, Refusal> {
    let dseqs = request.dseqs.iter().map(u64::to_string);
    let asked: Vec<String> = dseqs.chain(request.incarnations.iter().cloned()).collect();
    if asked.is_empty() || asked.len() > MOST_CLOSED {
        return Err(Refusal::new(
            StatusCode::BAD_REQUEST,
            format!("name 1 to {MOST_CLOSED} deployments by their dseq"),
        ));
    }
    let before = cluster.metadata.annotations.get(CLOSE).cloned().unwrap_or_default();
    let before = before.split(',').map(|word| word.trim().to_owned());
    let before = before.filter(|word| !word.is_empty() && !asked.contains(word));
    // What was asked for long ago is closed long since.
    let all: Vec<String> = asked.iter().cloned().chain(before).take(MOST_CLOSED).collect();
    cluster.metadata.annotations.insert(CLOSE.to_owned(), all.join(","));
    let name = &cluster.metadata.name;
    Ok(format!(
        "what of {} is of {name} and in no record is going to be closed; `akash-redis events {name}` says what came of it",
        asked.join(",")
    ))
}

/// Asks for another master. Returns what to tell.
pub(super) fn switchover(
    cluster: &mut RedisCluster,
    request: &Switchover,
) -> Result<String, Refusal> {
    at_work(cluster, "a switchover")?;
    let nodes = nodes(cluster)?;
    let replicas = || nodes.iter().filter(|n| n.phase == Phase::Replica);
    let target = match request.to.as_deref() {
        None => replicas()
            .min_by_key(|n| (n.lag_bytes.unwrap_or(i64::MAX), n.ordinal))
            .ok_or_else(|| {
                Refusal::conflict(format!(
                    "no replica of {} is in sync, so none can take over without losing writes",
                    cluster.metadata.name
                ))
            })?,
        Some(to) => {
            let named = |n: &&NodeStatus| n.incarnation == to || n.ordinal.to_string() == to;
            // While a node moves, two fill its ordinal: the one in sync is meant.
            replicas()
                .find(named)
                .or_else(|| nodes.iter().find(named))
                .ok_or_else(|| no_incarnation(cluster, to))?
        }
    };
    match target.phase {
        Phase::Replica => {}
        Phase::Master => {
            return Err(Refusal::conflict(format!("{} is the master already", target.incarnation)));
        }
        phase => {
            let name = &target.incarnation;
            return Err(Refusal::conflict(format!(
                "{name} is {phase} and not a replica in sync, so it cannot take over without losing writes"
            )));
        }
    }
    let name = target.incarnation.clone();
    let told = format!("{name} becomes master");
    // The request is for the present epoch: once the master changed for whatever reason it has
    // lapsed.
    let epoch = cluster.status.as_ref().map_or(0, |s| s.epoch);
    cluster.metadata.annotations.insert(MASTER.to_owned(), format!("{name}@{epoch}"));
    Ok(told)
}

/// Asks for another number of nodes. Returns what to tell.
pub(super) fn scale(cluster: &mut RedisCluster, nodes: u32) -> Result<String, Refusal> {
    at_work(cluster, "another number of nodes")?;
    let name = cluster.metadata.name.clone();
    let before = std::mem::replace(&mut cluster.spec.nodes, nodes);
    if before == nodes {
        return Ok(format!("{name} has {nodes} nodes already"));
    }
    Ok(format!("{name} goes from {before} to {nodes} nodes"))
}

/// Whom an ordinal or an incarnation means; the master when nothing is said. While a node moves,
/// two fill its ordinal: the one that stays is meant.
pub(super) fn named_node(
    cluster: &RedisCluster,
    node: Option<&str>,
) -> Result<IncarnationName, Refusal> {
    let (name, nodes) = (&cluster.metadata.name, seen(cluster)?);
    let found = match node {
        None => nodes.iter().find(|n| n.phase == Phase::Master).ok_or_else(|| {
            Refusal::conflict(format!("{name} has no master now, so say which node is meant; `akash-redis describe {name}` lists them"))
        })?,
        Some(node) => {
            let named = |n: &&NodeStatus| n.incarnation == node || n.ordinal.to_string() == node;
            let stays = |n: &&NodeStatus| n.phase != Phase::Leaving;
            let found = nodes.iter().filter(named).find(stays).or_else(|| nodes.iter().find(named));
            found.ok_or_else(|| node.parse().map_or_else(|_| no_incarnation(cluster, node), |ordinal| no_node(cluster, ordinal)))?
        }
    };
    Ok(IncarnationName(found.incarnation.clone()))
}

fn nodes(cluster: &RedisCluster) -> Result<&[NodeStatus], Refusal> {
    alive(cluster)?;
    seen(cluster)
}

fn seen(cluster: &RedisCluster) -> Result<&[NodeStatus], Refusal> {
    let status = cluster.status.as_ref();
    status.map(|s| s.nodes.as_slice()).ok_or_else(|| {
        Refusal::conflict(format!(
            "the operator has not looked at {} yet, so it is not known what fills its nodes; ask again",
            cluster.metadata.name
        ))
    })
}

fn no_node(cluster: &RedisCluster, ordinal: u32) -> Refusal {
    let (name, nodes) = (&cluster.metadata.name, cluster.spec.nodes);
    if ordinal < nodes {
        Refusal::conflict(format!(
            "node {ordinal} of {name} is empty; the operator is filling it already"
        ))
    } else {
        Refusal::not_found(format!(
            "{name} has no node {ordinal}; its nodes are 0 to {}",
            nodes.saturating_sub(1)
        ))
    }
}

fn no_incarnation(cluster: &RedisCluster, wanted: &str) -> Refusal {
    let name = &cluster.metadata.name;
    Refusal::not_found(format!(
        "{name} has no incarnation {wanted}; `akash-redis describe {name}` lists those there are"
    ))
}

#[cfg(test)]
#[path = "actions_tests.rs"]
mod tests;
