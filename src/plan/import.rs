//! A new cluster that begins with the data of a running Redis: a node replicates from it, the others
//! replicate from that node, and a person says when it becomes master
//! (docs/decisions/0082-import-as-replication.md).
//!
//! Nobody is master before. The promotion that ends the import is carried out by the node's agent
//! only once the source takes no writes and the node has all of them
//! (docs/decisions/0083-a-cutover.md). A source that lets nobody replicate is copied key by key, and
//! compared once more while it takes no writes (docs/decisions/0084-copy-key-by-key.md).

use std::time::Duration;

use super::backup::size;
use super::builder::PlanBuilder;
use super::{derived, quarantine, roles, settings, versions, word};
use crate::api::conditions::{ConditionStatus, EventReason, Reason};
use crate::api::from_redis::FromRedis;
use crate::api::types::{ACCEPT_DIFFERENCE, CUTOVER, WRITES_STOPPED};
use crate::model::backup::TaskPhase;
use crate::model::ids::IncarnationName;
use crate::model::import::{CopyTask, ImportRecord, ImportTask, SourceRef};
use crate::model::node::{NodeState, Role};
use crate::model::record::{Admitted, Membership, Promotion};
use crate::model::step::{Command, ReplicationGrant};
use crate::model::time::{Backoff, UnixMs};

/// The node that imports may be silent for so long; then another one begins anew.
const SILENCE: Duration = Duration::from_mins(2);
/// Between two nodes.
const PAUSES: Backoff = Backoff { first: Duration::from_secs(10), longest: Duration::from_mins(5) };
/// A cutover that was not made by then is given up.
const LIMIT: Duration = Duration::from_mins(2);
/// So far may a node be behind for a cutover: it catches up within the pause.
const NEAR_BYTES: i64 = 1 << 20;
const NEAR_MS: u64 = 2000;
/// A source whose writes cannot be held has stood still for so long.
const STILL_MS: u64 = 2000;

/// The keys of a source are compared within this: the agent gives up before.
const COMPARE: Duration = Duration::from_mins(35);

/// With this the condition begins to say why a cutover came to nothing.
pub const CUTOVER_FAILED: &str = "the last cutover was not made";

/// The data of a source are to come, and the cluster is not cut over yet.
pub fn pending(builder: &PlanBuilder<'_>) -> bool {
    match &builder.record.import {
        Some(import) => import.done.is_none(),
        None => builder.record.data_epoch == 0 && source(builder).is_some(),
    }
}

fn source(builder: &PlanBuilder<'_>) -> Option<SourceRef> {
    FromRedis::source(builder.input.cluster)
}

fn record<'b>(builder: &'b mut PlanBuilder<'_>) -> &'b mut ImportRecord {
    builder.record.import.get_or_insert_default()
}

/// The node that imports.
fn head(builder: &PlanBuilder<'_>) -> Option<IncarnationName> {
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
    hear(builder, &node);
    if source.copy {
        compare(builder, &node, state);
    } else {
        cut_over(builder, &node, state);
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
fn ready(
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

fn synced(state: &NodeState) -> String {
    let (done, total) = (state.redis.sync_done_bytes, state.redis.sync_total_bytes);
    match (state.redis.is_syncing(), total) {
        (false, _) => String::new(),
        (true, 0) => format!(" ({} so far)", size(done)),
        (true, total) => format!(" ({} of {})", size(done), size(total)),
    }
}

fn lag_in_words(task: &ImportTask, state: &NodeState) -> String {
    let bytes = (task.offset - state.redis.offset).max(0).unsigned_abs();
    format!("{} and {}.{} s", size(bytes), task.lag_ms / 1000, task.lag_ms % 1000 / 100)
}

/// How far a pass over the keys is.
fn looked_at(verb: &str, task: &ImportTask, copy: &CopyTask) -> String {
    let (done, rate, bytes) = (copy.looked_at, copy.keys_per_second, copy.bytes_per_second);
    let total = task.keys.max(done);
    format!("{verb} {done} of about {total} keys ({rate} keys/s, {}/s)", size(bytes))
}

/// A person asked for the cutover: each word is answered once.
fn hear(builder: &mut PlanBuilder<'_>, node: &IncarnationName) {
    let Some(word) = builder.input.cluster.metadata.annotations.get(CUTOVER).cloned() else {
        return;
    };
    if builder.record.import.as_ref().is_some_and(|import| import.word == word) {
        return;
    }
    let Some(state) = builder.connected(node) else { return };
    let asks_for = |what: &str| word.split_whitespace().any(|word| word == what);
    let (stopped, accepts) = (asks_for(WRITES_STOPPED), asks_for(ACCEPT_DIFFERENCE));
    let copies = source(builder).is_some_and(|source| source.copy);
    let can_pause = state.import.as_ref().is_some_and(|task| task.can_pause);
    let (now, mut ready) = (builder.now(), ready(builder, node, state));
    if ready.is_ok() && copies && !can_pause && !stopped {
        ready = Err(format!(
            "the source does not let this user hold its writes (CLIENT PAUSE): stop its applications, and say so with --{WRITES_STOPPED}"
        ));
    }
    let import = record(builder);
    import.word = word;
    if import.cutover.is_some() {
        return;
    }
    match ready {
        Ok(()) => {
            import.cutover = Some(now);
            import.error.clear();
            (import.accepts_difference, import.difference) = (accepts, None);
            if copies {
                import.pass = now.0.to_string();
            }
            let message = format!("{node} is to become master once the source takes no writes");
            builder.event(EventReason::CutoverStarted, message);
        }
        Err(why) => {
            import.error = format!("{CUTOVER_FAILED}: {why}");
            let message = format!("the cutover that was asked for cannot be made now: {why}");
            builder.event(EventReason::CutoverRefused, message);
        }
    }
}

/// Chooses the node that imports, once it is near enough.
fn cut_over(builder: &mut PlanBuilder<'_>, node: &IncarnationName, state: &NodeState) {
    let Some(began) = builder.record.import.as_ref().and_then(|import| import.cutover) else {
        return;
    };
    let task = state.import.clone().unwrap_or_default();
    let obstacle = match ready(builder, node, state) {
        Err(why) => Some(why),
        Ok(()) if !task.can_pause && task.still_ms < STILL_MS => Some(format!(
            "the source does not let this user hold its writes (CLIENT PAUSE), and somebody writes to it; stop the applications: the cutover goes on once nothing was written for {} s",
            STILL_MS / 1000
        )),
        Ok(()) => None,
    };
    match obstacle {
        None => roles::begin_with(builder, node),
        Some(why) if builder.now().passed(began, LIMIT) => failed(builder, node, &why),
        Some(why) => {
            let what = format!("the cutover to {node} ({why})");
            builder.wait(what, began, Some(LIMIT), "it is given up, and the import goes on");
        }
    }
}

/// Chooses the node that copies, once the keys were compared.
fn compare(builder: &mut PlanBuilder<'_>, node: &IncarnationName, state: &NodeState) {
    let import = record(builder).clone();
    let Some(began) = import.cutover else { return };
    let task = state.import.clone().unwrap_or_default();
    let copy = task.copy.clone().unwrap_or_default();
    if !copy.copied {
        return failed(builder, node, "the copy began anew");
    }
    let (now, is_asked) = (builder.now(), copy.pass == import.pass);
    if is_asked && !copy.failed.is_empty() {
        return failed(builder, node, &copy.failed);
    }
    if !is_asked || !copy.done {
        if now.passed(began, COMPARE) {
            return failed(builder, node, "the keys were not compared in time");
        }
        let what = format!("{node} to compare its keys: {}", looked_at("looked at", &task, &copy));
        return builder.wait(what, began, Some(COMPARE), "the cutover is given up");
    }
    let rest = copy.difference.rest();
    let counts = copy.difference.counts();
    record(builder).difference = Some(copy.difference);
    if !rest.is_empty() && !import.accepts_difference {
        let why = format!(
            "{rest} ({counts}); copy them yourself afterwards or do without them, and ask again with --{ACCEPT_DIFFERENCE}"
        );
        return failed(builder, node, &why);
    }
    match ready(builder, node, state) {
        Ok(()) => {
            // Its promotion has the time that every one has.
            record(builder).cutover = Some(now);
            roles::begin_with(builder, node);
        }
        Err(why) => {
            let what = format!("the cutover to {node} ({why})");
            builder.wait(what, began, Some(COMPARE), "it is given up, and the import goes on");
        }
    }
}

fn failed(builder: &mut PlanBuilder<'_>, node: &IncarnationName, why: &str) {
    let import = record(builder);
    import.cutover = None;
    import.pass.clear();
    import.error = format!("{CUTOVER_FAILED}: {why}");
    let message = format!("{node} did not become master, and the import goes on: {why}");
    builder.event(EventReason::CutoverFailed, message);
}

/// The node that imports was chosen, and its promotion is not confirmed. Once it was refused, or
/// took too long, nobody is chosen: under a new epoch, and not before its agent obeys that. True when
/// nothing else is to be done about it.
pub fn undo(builder: &mut PlanBuilder<'_>, promotion: &Promotion) -> bool {
    let node = &promotion.incarnation;
    let undecided = !promotion.confirmed && builder.record.data_epoch == 0;
    if !undecided || head(builder).as_ref() != Some(node) {
        return false;
    }
    let Some(state) = builder.connected(node) else {
        // It may have become master; it is given up as one, or heard again.
        return false;
    };
    if roles::void(builder, promotion).is_some() {
        return false;
    }
    let is_replica = derived::running(&state.redis) && state.redis.role == Role::Replica;
    let task = state.import.clone().unwrap_or_default();
    if promotion.epoch == builder.record.epoch {
        let began = builder.record.import.as_ref().and_then(|import| import.cutover);
        let refused = task.refused_epoch == promotion.epoch && !task.refused.is_empty();
        let late = began.is_none_or(|began| builder.now().passed(began, LIMIT));
        if !is_replica || !(refused || late) {
            return false;
        }
        let why = if refused { task.refused } else { "it took too long".to_owned() };
        builder.record.epoch += 1;
        record(builder).error = why;
    }
    if state.highest.epoch < builder.record.epoch {
        // From its answer on no promotion of an earlier epoch is obeyed.
        if let Some(source) = source(builder) {
            let command = Command::Import { source, last_pass: String::new() };
            builder.command(node, command, "its promotion came to nothing");
        }
        return true;
    }
    if is_replica {
        builder.record.master = None;
        let why = std::mem::take(&mut record(builder).error);
        failed(builder, node, &why);
        return true;
    }
    // It did become master, with all that the source had.
    false
}

/// The node with the data is confirmed as master: it is over.
pub fn complete(builder: &mut PlanBuilder<'_>, master: &IncarnationName) {
    if head(builder).as_ref() != Some(master) {
        return;
    }
    let now = builder.now();
    let import = record(builder);
    import.done = Some(now);
    import.error.clear();
    import.pass.clear();
    let found = found(import);
    let address = source(builder).map(|s| s.spec.address()).unwrap_or_default();
    let name = &builder.input.cluster.metadata.name;
    let message = format!(
        "{master} has what {address} had and takes the writes: point the applications at {name}, and stop {address}{found}"
    );
    builder.event(EventReason::CutoverCompleted, message);
}

/// What the last pass of a copy found.
fn found(import: &ImportRecord) -> String {
    let Some(difference) = &import.difference else { return String::new() };
    let (counts, rest) = (difference.counts(), difference.rest());
    let rest = if rest.is_empty() { "no key differs now".to_owned() } else { rest };
    format!("; the last pass found {counts}; {rest}")
}

/// Says what is wrong with the import.
pub fn report(builder: &mut PlanBuilder<'_>) {
    if let Some((_, Reason::ImportFailed, message)) = condition(builder) {
        builder.problem(Reason::ImportFailed, message);
    }
}

/// How far the import is; none where the cluster began without one.
pub fn condition(builder: &PlanBuilder<'_>) -> Option<(ConditionStatus, Reason, String)> {
    let no = |reason, message| Some((ConditionStatus::False, reason, message));
    let import = builder.record.import.as_deref();
    if let Some((import, at)) = import.and_then(|import| Some((import, import.done?))) {
        let found = found(import);
        let message = format!("the cluster has had the data of the source since {at}{found}");
        return Some((ConditionStatus::True, Reason::ImportCompleted, message));
    }
    let source = source(builder).filter(|_| pending(builder))?;
    let address = source.spec.address();
    let last = import.map(|import| import.error.as_str()).filter(|error| !error.is_empty());
    let last = last.map(|error| format!("; {error}")).unwrap_or_default();
    let Some(node) = head(builder) else {
        let waits = format!("the import from {address} waits for a node{last}");
        return no(Reason::Importing, waits);
    };
    let Some(state) = builder.connected(&node) else {
        return no(Reason::Importing, format!("{node} imports from {address}, and is not heard"));
    };
    let task = state.import.clone().unwrap_or_default();
    if !task.error.is_empty() {
        let copied = if state.redis.is_linked() {
            format!("; {node} still has its link to the source")
        } else {
            String::new()
        };
        return no(Reason::ImportFailed, format!("{}{copied}{last}", task.error));
    }
    if builder.record.import.as_ref().is_some_and(|import| import.cutover.is_some()) {
        let compares = task.copy.as_ref().filter(|copy| !copy.pass.is_empty()).map(|copy| {
            let at = looked_at("compared", &task, copy);
            format!("; {at}: {} so far", copy.difference.counts())
        });
        let compares = compares.unwrap_or_default();
        return no(Reason::Importing, format!("{node} is to take over from {address}{compares}"));
    }
    if let Some(copy) = task.copy.as_ref().filter(|_| source.copy) {
        return Some(copies(builder, &node, (&task, copy), (&address, &last), state));
    }
    let link = if state.redis.is_linked() { "up" } else { "down" };
    let lag = lag_in_words(&task, state);
    match ready(builder, &node, state) {
        Ok(()) => {
            let cluster = &builder.input.cluster.metadata.name;
            let held = if task.can_pause {
                "it holds the writes of the source"
            } else {
                "stop the applications before: the source does not let this user hold its writes"
            };
            let message = format!(
                "{node} follows {address}: link up, {lag} behind, {} keys there; `akash-redis cutover {cluster}` ends the import ({held}){last}",
                task.keys
            );
            no(Reason::ImportReady, message)
        }
        Err(why) => {
            let message = format!("{node} imports from {address}: link {link}, {why}{last}");
            no(Reason::Importing, message)
        }
    }
}

/// How far a copy key by key is.
fn copies(
    builder: &PlanBuilder<'_>,
    node: &IncarnationName,
    (task, copy): (&ImportTask, &CopyTask),
    (address, last): (&str, &str),
    state: &NodeState,
) -> (ConditionStatus, Reason, String) {
    let rest = copy.difference.rest();
    let rest = if rest.is_empty() { rest } else { format!("; {rest}") };
    let (reason, message) = match ready(builder, node, state) {
        Ok(()) => {
            let cluster = &builder.input.cluster.metadata.name;
            let held = if task.can_pause {
                "it holds the writes of the source meanwhile".to_owned()
            } else {
                format!("stop its applications before, and say so with --{WRITES_STOPPED}")
            };
            let message = format!(
                "{node} has copied {address}, of {} keys now; `akash-redis cutover {cluster}` compares them once more and ends the import ({held})",
                task.keys
            );
            (Reason::ImportReady, message)
        }
        Err(why) => (Reason::Importing, format!("{node} copies {address}: {why}")),
    };
    (ConditionStatus::False, reason, format!("{message}{rest}{last}"))
}
