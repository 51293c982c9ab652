//! What an import says of itself: how far it is, and what is wrong with it.

use super::backup::size;
use super::builder::PlanBuilder;
use super::import::{head, pending, ready, source};
use crate::api::annotations::WRITES_STOPPED;
use crate::api::conditions::{ConditionStatus, Reason};
use crate::model::ids::IncarnationName;
use crate::model::import::{CopyTask, ImportRecord, ImportTask};
use crate::model::node::NodeState;

pub fn synced(state: &NodeState) -> String {
    let (done, total) = (state.redis.sync_done_bytes, state.redis.sync_total_bytes);
    match (state.redis.is_syncing(), total) {
        (false, _) => String::new(),
        (true, 0) => format!(" ({} so far)", size(done)),
        (true, total) => format!(" ({} of {})", size(done), size(total)),
    }
}

pub fn lag_in_words(task: &ImportTask, state: &NodeState) -> String {
    let bytes = (task.offset - state.redis.offset).max(0).unsigned_abs();
    format!("{} and {}.{} s", size(bytes), task.lag_ms / 1000, task.lag_ms % 1000 / 100)
}

/// How far a pass over the keys is.
pub fn looked_at(verb: &str, task: &ImportTask, copy: &CopyTask) -> String {
    let (done, rate, bytes) = (copy.looked_at, copy.keys_per_second, copy.bytes_per_second);
    let total = task.keys.max(done);
    format!("{verb} {done} of about {total} keys ({rate} keys/s, {}/s)", size(bytes))
}

/// What the last pass of a copy found.
pub fn found(import: &ImportRecord) -> String {
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
