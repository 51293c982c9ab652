//! The end of an import: a person says when, and the node that imports becomes master
//! (docs/decisions/0083-a-cutover.md).

use super::builder::PlanBuilder;
use super::import::{head, ready, record, source};
use super::import_status::{found, looked_at};
use super::{derived, roles};
use crate::api::annotations::{ACCEPT_DIFFERENCE, CUTOVER, WRITES_STOPPED};
use crate::api::events::EventReason;
use crate::model::ids::IncarnationName;
use crate::model::node::{NodeState, Role};
use crate::model::record::Promotion;
use crate::model::step::Command;
use std::time::Duration;

/// A cutover that was not made by then is given up.
const LIMIT: Duration = Duration::from_mins(2);
/// A source whose writes cannot be held has stood still for so long.
const STILL_MS: u64 = 2000;

/// The keys of a source are compared within this: the agent gives up before.
const COMPARE: Duration = Duration::from_mins(35);

/// With this the condition begins to say why a cutover came to nothing.
pub const CUTOVER_FAILED: &str = "the last cutover was not made";

/// A person asked for the cutover: each word is answered once.
pub fn hear(builder: &mut PlanBuilder<'_>, node: &IncarnationName) {
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
pub fn make(builder: &mut PlanBuilder<'_>, node: &IncarnationName, state: &NodeState) {
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
pub fn compare(builder: &mut PlanBuilder<'_>, node: &IncarnationName, state: &NodeState) {
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
