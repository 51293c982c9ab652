//! No text of a plan is longer than a person reads, whatever a node, a provider or a control server
//! said: the status is stored, and read again at each pass.

use super::Plan;
use crate::api::status::{FailoverStatus, NodeStatus, Status};
use crate::model::text::{clipped, few};

/// A sentence or some, bytes.
const SENTENCE: usize = 1000;
/// All problems of a cluster, one behind the other.
const SENTENCES: usize = 8000;
/// A name.
const NAME: usize = 253;
/// Witnesses and candidates of a report.
const LIST: usize = 64;

/// Cuts what is too long.
pub fn bound(plan: &mut Plan) {
    status(&mut plan.status);
    for (_, message) in &mut plan.events {
        cut(message, SENTENCE);
    }
    for step in &mut plan.steps {
        cut(&mut step.reason, SENTENCE);
    }
    for wait in &mut plan.waits {
        cut(&mut wait.what, SENTENCE);
    }
}

fn status(status: &mut Status) {
    for condition in &mut status.conditions {
        cut(&mut condition.message, SENTENCES);
    }
    if let Some(master) = &mut status.master {
        cut(&mut master.name, NAME);
        cut(&mut master.ip, NAME);
    }
    for waiting in &mut status.waiting {
        cut(&mut waiting.what, SENTENCE);
    }
    status.nodes.iter_mut().for_each(node);
    if let Some(report) = &mut status.last_failover {
        failover(report);
    }
}

fn node(node: &mut NodeStatus) {
    let NodeStatus { provider, provider_host, region, mesh_name, path, message, .. } = node;
    for name in [provider, provider_host, region, mesh_name, path].into_iter().flatten() {
        cut(name, NAME);
    }
    if let Some(message) = message {
        cut(message, SENTENCE);
    }
}

fn failover(report: &mut FailoverStatus) {
    cut(&mut report.reason, SENTENCE);
    cut(&mut report.fence, SENTENCE);
    for list in [&mut report.witnesses, &mut report.candidates] {
        *list = few(std::mem::take(list), LIST, SENTENCE);
    }
}

fn cut(text: &mut String, most: usize) {
    if text.len() > most {
        *text = clipped(std::mem::take(text), most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::status::{Condition, Endpoint, Waiting};

    #[test]
    fn what_others_say_does_not_fill_the_status() {
        let huge = || "x".repeat(3_000_000);
        let some = || Some(huge());
        let mut published = Status {
            conditions: vec![Condition { message: huge(), ..Condition::default() }],
            master: Some(Endpoint { name: huge(), ip: huge(), ..Endpoint::default() }),
            nodes: vec![NodeStatus {
                provider: some(),
                provider_host: some(),
                region: some(),
                mesh_name: some(),
                path: some(),
                message: some(),
                ..NodeStatus::default()
            }],
            waiting: vec![Waiting { what: huge(), ..Waiting::default() }],
            last_failover: Some(FailoverStatus {
                reason: huge(),
                fence: huge(),
                witnesses: vec![huge(); 70],
                candidates: vec!["x".into(); 100_000],
                ..FailoverStatus::default()
            }),
            ..Status::default()
        };
        status(&mut published);
        let text = serde_json::to_string(&published).unwrap();
        assert!(text.len() < 100_000, "{} bytes", text.len());
    }
}
