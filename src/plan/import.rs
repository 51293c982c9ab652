//! A new cluster that begins with the data of a running Redis: a node replicates from it, the others
//! replicate from that node, and a person says when it becomes master
//! (docs/decisions/0082-import-as-replication.md).
//!
//! Nobody is master before. The promotion that ends the import is carried out by the node's agent
//! only once the source takes no writes and the node has all of them
//! (docs/decisions/0083-a-cutover.md). A source that lets nobody replicate is copied key by key, and
//! compared once more while it takes no writes (docs/decisions/0084-copy-key-by-key.md).

use super::backup::size;
use super::builder::PlanBuilder;
use super::import_status::{lag_in_words, looked_at, synced};
use super::{cutover, derived, quarantine, roles, settings, versions, word};
use crate::api::conditions::Reason;
use crate::api::events::EventReason;
use crate::api::from_redis::FromRedis;
use crate::model::backup::TaskPhase;
use crate::model::ids::IncarnationName;
use crate::model::import::{ImportRecord, SourceRef};
use crate::model::incarnation::{Admitted, Membership};
use crate::model::node::NodeState;
use crate::model::step::{Command, ReplicationGrant};
use crate::model::time::{Backoff, UnixMs};
use std::time::Duration;

/// The node that imports may be silent for so long; then another one begins anew.
const SILENCE: Duration = Duration::from_mins(2);
/// Between two nodes.
const PAUSES: Backoff = Backoff { first: Duration::from_secs(10), longest: Duration::from_mins(5) };
/// So far may a node be behind for a cutover: it catches up within the pause.
const NEAR_BYTES: i64 = 1 << 20;
const NEAR_MS: u64 = 2000;
/// The data of a source are to come, and the cluster is not cut over yet.
pub fn pending(builder: &PlanBuilder<'_>) -> bool {
    match &builder.record.import {
        Some(import) => import.done.is_none(),
        None => builder.record.data_epoch == 0 && source(builder).is_some(),
    }
}

pub fn source(builder: &PlanBuilder<'_>) -> Option<SourceRef> {
    FromRedis::source(builder.input.cluster)
}

pub fn record<'b>(builder: &'b mut PlanBuilder<'_>) -> &'b mut ImportRecord {
    builder.record.import.get_or_insert_default()
}

/// The node that imports.
pub fn head(builder: &PlanBuilder<'_>) -> Option<IncarnationName> {
    builder.record.import.as_ref().filter(|import| import.done.is_none())?.node.clone()
}

/// Name of the import that the promotion of this node ends; empty where it ends none.
pub fn ended_by(builder: &PlanBuilder<'_>, name: &IncarnationName) -> String {
    let ends = head(builder).as_ref() == Some(name) && builder.record.data_epoch == 0;
    source(builder).filter(|_| ends).map(|source| source.id()).unwrap_or_default()
}

/// The node that imported was lost before anybody knew of its promotion: the source has everything.
pub fn again(builder: &mut PlanBuilder<'_>) {
    let now = builder.now();
    let Some(import) = builder.record.import.as_mut().filter(|import| import.done.is_none()) else {
        return;
    };
    (import.node, import.cutover) = (None, None);
    import.pass.clear();
    import.failures += 1;
    import.failed = now;
}

/// One step further while nobody is master.
pub fn advance(builder: &mut PlanBuilder<'_>) {
    let Some(source) = source(builder) else {
        let message = "the manifest has no spec.bootstrap.fromRedis any more, and the import is not ended; write it again, or delete the cluster";
        return builder.problem(Reason::ImportFailed, message.to_owned());
    };
    let Some(node) = head(builder) else { return begin(builder, &source) };
    if builder.incarnation(&node).is_none_or(|i| i.condemned.is_some()) {
        return interrupt(builder, &node, "it is given up");
    }
    let Some(state) = builder.connected(&node) else {
        let since = derived::last_heard(builder, &node);
        if builder.now().passed(since, SILENCE) {
            interrupt(builder, &node, &format!("it is not heard since {since}"));
        } else {
            let what = format!("{node} to be heard, which imports from {}", source.spec.address());
            builder.wait(what, since, Some(SILENCE), "another node begins anew");
        }
        return;
    };
    let task = state.import.clone().unwrap_or_default();
    let last_pass = builder.record.import.as_ref().map(|i| i.pass.clone()).unwrap_or_default();
    let other_pass = task.copy.as_ref().is_some_and(|copy| copy.pass != last_pass);
    if task.id != source.id() || task.phase != TaskPhase::Running || other_pass {
        let why = if last_pass.is_empty() {
            "the cluster begins with the data of a running Redis"
        } else {
            "its keys are compared with the source once more"
        };
        builder.command(&node, Command::Import { source: source.clone(), last_pass }, why);
    }
    let copied = task.copy.as_ref().is_none_or(|copy| copy.copied);
    if state.redis.is_linked() && !state.redis.is_syncing() && copied {
        chain(builder, &node, state);
    }
    let began = builder.record.import.as_ref().map_or(builder.now(), |import| import.began);
    let what = format!("{node} to import from {}", source.spec.address());
    let command = format!("akash-redis cutover {}", builder.input.cluster.metadata.name);
    builder.wait(what, began, None, format!("manual action required: `{command}`"));
    cutover::hear(builder, &node);
    if source.copy {
        cutover::compare(builder, &node, state);
    } else {
        cutover::make(builder, &node, state);
    }
}

/// Chooses a node.
fn begin(builder: &mut PlanBuilder<'_>, source: &SourceRef) {
    let import = builder.record.import.as_deref().cloned().unwrap_or_default();
    if import.failures > 0 {
        let pause = PAUSES.delay(import.failures - 1);
        if !builder.now().passed(import.failed, pause) {
            let what = format!("the import from {} to begin anew", source.spec.address());
            return builder.wait(what, import.failed, Some(pause), "a node begins");
        }
    }
    // Not the one that failed last, where there is another one.
    let mut ready: Vec<_> =
        builder.live().into_iter().filter(|(n, _)| is_ready(builder, n)).collect();
    let count = ready.len().max(1);
    ready.rotate_left(import.failures as usize % count);
    let Some((node, _)) = ready.into_iter().next() else {
        let what = format!("a node that can import from {}", source.spec.address());
        return builder.wait(what, UnixMs::default(), None, "it replicates from there");
    };
    let now = builder.now();
    builder.record.epoch += 1;
    let import = record(builder);
    import.node = Some(node.clone());
    import.began = now;
    import.cutover = None;
    import.pass.clear();
    let (address, does) =
        (source.spec.address(), if source.copy { "copies" } else { "replicates from" });
    builder.event(EventReason::ImportStarted, format!("{node} {does} {address}"));
    let why = "the cluster begins with the data of a running Redis";
    let (source, last_pass) = (source.clone(), String::new());
    builder.command(&node, Command::Import { source, last_pass }, why);
}

fn is_ready(builder: &PlanBuilder<'_>, name: &IncarnationName) -> bool {
    builder.connected(name).is_some_and(|s| {
        s.import.is_some() && !word::is_fenced(builder, name) && serves(builder, name, s)
    })
}

fn serves(builder: &PlanBuilder<'_>, name: &IncarnationName, state: &NodeState) -> bool {
    derived::running(&state.redis)
        && !state.stopping
        && derived::fqdn(state).is_some()
        && state.configured == settings::for_node(builder, name).generation
}

fn interrupt(builder: &mut PlanBuilder<'_>, node: &IncarnationName, why: &str) {
    // Whatever it was told last is void.
    builder.record.epoch += 1;
    again(builder);
    record(builder).error = format!("{node}: {why}");
    let message = format!("{node} does not import any more: {why}; another node begins anew");
    builder.event(EventReason::ImportInterrupted, message);
}

/// The other nodes replicate from the one that imports: at the cutover they have its data, and the
/// first write that is confirmed is on two nodes.
fn chain(builder: &mut PlanBuilder<'_>, head: &IncarnationName, state: &NodeState) {
    let Some(fqdn) = derived::fqdn(state).map(str::to_owned) else { return };
    let (epoch, mut anew) = (builder.record.epoch, state.admits != Some(builder.record.epoch));
    let mut others = Vec::new();
    for (name, incarnation) in builder.live().into_iter().filter(|(n, _)| n != head) {
        let Some(own) = builder.connected(&name).filter(|s| serves(builder, &name, s)) else {
            continue;
        };
        let fits = own.admits.is_some()
            && !quarantine::isolated(builder, &name)
            && versions::can_follow(builder, &name, head);
        if !fits {
            continue;
        }
        if !incarnation.is_member() {
            let run_id = own.redis.run_id.clone();
            builder.change(&name, |i| {
                i.raise(Membership::Member);
                i.admitted = Some(Admitted { epoch, run_id });
            });
            anew = true;
        }
        let told = own.redis.master_host == fqdn && own.highest.epoch >= epoch;
        // It was told, and is not let in.
        anew |= told && !own.redis.is_linked() && !own.redis.is_syncing();
        others.push((name, told));
    }
    if others.is_empty() {
        return;
    }
    if anew {
        let members = builder.live().into_iter().filter(|(n, i)| n != head && i.is_member());
        let mut replicas: Vec<_> =
            members.map(|(incarnation, _)| ReplicationGrant { incarnation, epoch }).collect();
        replicas.sort();
        let why = "the other nodes replicate from it while it imports";
        return builder.command(head, Command::Admit { replicas }, why);
    }
    for (name, _) in others.into_iter().filter(|(_, told)| !told) {
        let command = Command::Follow {
            master: head.clone(),
            master_name: fqdn.clone(),
            grant: ReplicationGrant { incarnation: name.clone(), epoch },
            save_first: false,
            data_epoch: 0,
        };
        builder.command(&name, command, format!("{head} imports, and is to be master"));
    }
}

/// How many of the others have all that the node has that imports, but for the last moments.
fn attached(builder: &PlanBuilder<'_>, head: &IncarnationName, state: &NodeState) -> u32 {
    let near = |name: &IncarnationName| {
        builder.connected(name).is_some_and(|own| {
            derived::running(&own.redis)
                && !own.redis.is_syncing()
                && own.redis.replid == state.redis.replid
                && state.redis.offset - own.redis.offset <= NEAR_BYTES
                && roles::attached(state, name, own)
        })
    };
    let others = builder.live().into_iter().filter(|(n, _)| n != head);
    u32::try_from(others.filter(|(n, _)| near(n)).count()).unwrap_or(u32::MAX)
}

/// Why a cutover cannot be made now; `Ok` when it can.
pub fn ready(
    builder: &PlanBuilder<'_>,
    node: &IncarnationName,
    state: &NodeState,
) -> Result<(), String> {
    let task = state.import.clone().unwrap_or_default();
    if !task.error.is_empty() {
        return Err(task.error);
    }
    if source(builder).is_some_and(|source| source.copy) {
        match &task.copy {
            None => {
                return Err(format!(
                    "the agent of {node} copies no keys: its image is older than the operator (spec.image)"
                ));
            }
            Some(copy) if !copy.copied => return Err(looked_at("copied", &task, copy)),
            Some(_) => {}
        }
    }
    if !state.redis.is_linked() || state.redis.is_syncing() {
        return Err(format!("{node} does not have the data of the source yet{}", synced(state)));
    }
    if task.phase != TaskPhase::Running || !task.answers {
        return Err("the source does not say how far it is".to_owned());
    }
    if task.replid != state.redis.replid {
        return Err(format!("{node} does not have the history of the source yet"));
    }
    let lag = task.offset - state.redis.offset;
    if lag > NEAR_BYTES || task.lag_ms > NEAR_MS {
        let behind = lag_in_words(&task, state);
        return Err(format!(
            "{node} is {behind} behind the source, more than {} and {} s",
            size(NEAR_BYTES.unsigned_abs()),
            NEAR_MS / 1000
        ));
    }
    let needed = if builder.spec().nodes > 1 { builder.spec().write_replicas() } else { 0 };
    let there = attached(builder, node, state);
    if there < needed {
        return Err(format!(
            "{there} of the other nodes have the data, and a write needs {needed}"
        ));
    }
    if needed > 0 && state.admits != Some(builder.record.epoch) {
        return Err(format!("{node} is being made ready for its replicas"));
    }
    Ok(())
}
