//! What no plan may do, whatever it was made from. [`super::plan`] holds every plan to it in debug
//! builds, so that each test that plans anything looks for it; nothing here decides.
//!
//! The rules are written a second time on purpose, from what the input and the plan say: a mistake
//! of the planner is not repeated here by calling it. Only sums of money and the comparison of two
//! histories are shared.

mod commands;
mod incarnations;
mod masters;
mod steps;

use super::{Input, Plan, deletion};
use crate::model::chain::DeploymentView;
use crate::model::change::{Change, Switchover};
use crate::model::ids::IncarnationName;
use crate::model::incarnation::Incarnation;
use crate::model::mesh::Device;
use crate::model::node::NodeState;
use crate::model::record::{Promotion, Record};

/// Every rule that the plan breaks, one sentence each.
#[must_use]
pub fn violations(input: &Input<'_>, plan: &Plan) -> Vec<String> {
    let mut check = Check { input, plan, broken: plan.record.flaws() };
    check.epochs();
    check.choice();
    check.change();
    check.incarnations();
    check.reservations();
    check.steps();
    check.rest();
    check.broken
}

/// Epoch of the leave to replicate from the master of this choice.
fn granted(record: &Record, master: &Promotion) -> u64 {
    if record.granted == 0 { master.epoch } else { record.granted }
}

fn switching(record: &Record) -> Option<&Switchover> {
    match &record.change {
        Some(Change::Switchover(switchover)) => Some(switchover),
        _ => None,
    }
}

/// Ends the program when a plan breaks a rule: a fault of the planner that no test may pass over.
pub(super) fn hold(input: &Input<'_>, plan: &Plan) {
    let broken = violations(input, plan);
    assert!(
        broken.is_empty(),
        "a plan breaks its rules: {}\nrecord before: {:#?}\nrecord after: {:#?}\nsteps: {:#?}",
        broken.join("; "),
        input.record,
        plan.record,
        plan.steps
    );
}

struct Check<'a> {
    input: &'a Input<'a>,
    plan: &'a Plan,
    broken: Vec<String>,
}

impl<'a> Check<'a> {
    fn expect(&mut self, holds: bool, sentence: impl FnOnce() -> String) {
        if !holds {
            self.broken.push(sentence());
        }
    }

    fn connected(&self, name: &IncarnationName) -> Option<&'a NodeState> {
        self.input.inventory.nodes.get(name).filter(|v| v.connected).map(|v| &v.state)
    }

    /// The deployment of an incarnation, when the chain shows one that carries its name.
    fn own(&self, name: &IncarnationName, incarnation: &Incarnation) -> Option<&'a DeploymentView> {
        let chain = self.input.inventory.chain.value.as_ref()?;
        let group = name.group_name(&self.input.constants.installation);
        chain.deployments.get(&incarnation.dseq).filter(|d| d.group_name == group)
    }

    fn devices(&self, name: &IncarnationName, incarnation: &Incarnation) -> Vec<&'a Device> {
        let Some(mesh) = self.input.inventory.mesh.present() else { return Vec::new() };
        let hostname = name.hostname(&self.input.constants.installation);
        let tags = [self.input.tags.cluster, self.input.tags.quarantine];
        mesh.devices_of(&hostname, incarnation.device.as_deref(), tags)
    }

    fn deleting(&self) -> bool {
        deletion::begins(self.input)
    }

    /// Waits and the end.
    fn rest(&mut self) {
        let plan = self.plan;
        for wait in &plan.waits {
            self.expect(!wait.what.is_empty() && !wait.then.is_empty(), || {
                format!("a wait that says not what for, or what then: {wait:?}")
            });
            self.expect(wait.deadline.is_none_or(|end| end >= wait.since), || {
                format!("a wait that ended before it began: {wait:?}")
            });
        }
        let nothing_left = plan.record.incarnations.is_empty() && plan.steps.is_empty();
        self.expect(!plan.finished || (self.deleting() && nothing_left), || {
            "the cluster is forgotten, and something of it is left".to_owned()
        });
        let endpoint = plan.status.master.as_ref().map(|m| (m.epoch, m.incarnation.as_str()));
        let master = plan.record.master.as_ref().filter(|m| m.confirmed);
        let known = master.map(|m| (m.epoch, m.incarnation.0.as_str()));
        self.expect(endpoint.is_none() || endpoint == known, || {
            "writes are sent to one that is not the confirmed master".to_owned()
        });
    }
}
