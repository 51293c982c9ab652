//! What an apply would do, for people: made by the operator, and nothing is changed for it.

use std::fmt;

use serde::{Deserialize, Serialize};
use strum::Display;

use super::difference::{self, FieldChange, How};
use super::quantity::Money;
use super::report::StepCount;
use super::template;
use super::types::Spec;
use super::validate::Problem;

/// What an apply of one manifest would do.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Preview {
    /// Name of the cluster.
    pub name: String,
    /// It is not there yet.
    pub is_new: bool,
    /// Why it would be refused; then nothing else is told.
    pub problems: Vec<Problem>,
    /// What would be different.
    pub changes: Vec<PreviewChange>,
    /// What would be bought, and what it costs; `None` where that cannot be told.
    pub bill: Option<Bill>,
    /// Who could run a node.
    pub offers: Offers,
    /// What should be known before it is applied, one sentence each.
    pub warnings: Vec<String>,
    /// Nodes that stay, and on which something would be different.
    pub nodes_changed: u32,
    /// Nodes that would leave, or are bought anew.
    pub nodes_closed: u32,
}

impl Preview {
    /// It would be refused.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        !self.problems.is_empty()
    }

    /// How many nodes would be created, changed and closed.
    #[must_use]
    pub fn count(&self) -> StepCount {
        StepCount {
            create: self.bill.as_ref().map_or(0, |bill| bill.new_nodes),
            change: self.nodes_changed,
            close: self.nodes_closed,
        }
    }

    /// Coins would leave the wallet.
    #[must_use]
    pub fn spends(&self) -> bool {
        self.bill.as_ref().is_some_and(|bill| bill.new_nodes > 0)
    }
}

/// One field that would have another value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PreviewChange {
    /// `spec.nodes`.
    pub path: String,
    /// `3 -> 5`, `added`, `removed`, or `changed` where the value is nobody's business.
    pub what: String,
    /// What follows from it.
    pub consequence: Consequence,
}

/// What follows from the change of a field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, Display)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum Consequence {
    /// It is in force within seconds; no node restarts.
    Live,
    /// Nodes are started anew, one after the other, replicas first; leases and volumes stay.
    Rolls,
    /// Nodes are bought.
    Buys,
    /// Nodes leave, one at a time; their leases are closed.
    Leaves,
    /// It counts from the next order on; leases that run stay as they are.
    NextOrder,
    /// Nodes are bought one at a time, take over the data, and those before them leave; replicas first.
    Moves,
    /// Nothing of it ran yet: what is under way is closed and refunded, and bought anew.
    BuysAnew,
    /// A lease keeps it as it was made, so the apply is refused.
    Refused,
    /// A consequence of another version.
    #[default]
    #[serde(other)]
    Other,
}

/// Money of one cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Bill {
    /// Nodes that would be bought now.
    pub new_nodes: u32,
    /// Paid into the escrow of each of them; what is not used comes back.
    pub deposit: Option<Money>,
    /// All of these deposits.
    pub deposits: Option<Money>,
    /// What the wallet holds for deposits.
    pub balance: Option<Money>,
    /// What the leases that run cost per month.
    pub now: Option<Money>,
    /// The most that all leases together can cost per month then: those that run, and for each order
    /// the highest bid that may be taken.
    pub at_most: Option<Money>,
    /// The most that is allowed per month.
    pub allowed: Option<Money>,
    /// Whose word that is.
    pub allowed_by: String,
    /// What a node of this size cost or was offered for lately, per month: lowest and highest.
    pub observed: Option<[Money; 2]>,
    /// Of so many leases and bids.
    pub observed_of: u32,
}

/// Who could run a node, by the chain's list of providers. Whether one of them is there and has room
/// is not on the chain: only its bid tells.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Offers {
    /// Why the list could not be read.
    pub unknown: Option<String>,
    /// Providers on the list.
    pub listed: u32,
    /// Those that match in all that the chain tells.
    pub matching: u32,
    /// The first of them: address, host and region.
    pub first: Vec<String>,
    /// Why the others do not match, and how many for each reason.
    pub others: Vec<(String, u32)>,
}

impl fmt::Display for PreviewChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.path, self.what)
    }
}

/// What differs, each field with its consequence; `runs` when a node of the cluster ran already.
#[must_use]
pub fn changes(old: &Spec, new: &Spec, runs: bool) -> Vec<PreviewChange> {
    let more = new.nodes > old.nodes;
    difference::differences(old, new)
        .into_iter()
        .map(|change| PreviewChange {
            consequence: if runs && difference::is_taken_by_moving(old, new, &change.path) {
                Consequence::Moves
            } else {
                consequence(&change, more, runs)
            },
            what: what(&change.how),
            path: change.path,
        })
        .collect()
}

fn what(how: &How) -> String {
    match how {
        How::Changed { old, new } => format!("{old} -> {new}"),
        How::Hidden => "changed".to_owned(),
        How::Added => "added".to_owned(),
        How::Removed => "removed".to_owned(),
    }
}

fn consequence(change: &FieldChange, more: bool, runs: bool) -> Consequence {
    let path = change.path.as_str();
    if template::is_part(path) {
        if runs { Consequence::Rolls } else { Consequence::Live }
    } else if difference::is_lease_term(path) {
        if runs { Consequence::Refused } else { Consequence::BuysAnew }
    } else if path == "spec.nodes" {
        if more { Consequence::Buys } else { Consequence::Leaves }
    } else if ["spec.budget.maxPerMonth", "spec.budget.deposit"].contains(&path) {
        Consequence::NextOrder
    } else {
        Consequence::Live
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_field_has_its_consequence() {
        use Consequence as C;
        let spec = |json: serde_json::Value| serde_json::from_value::<Spec>(json).expect("a spec");
        let old = spec(serde_json::json!({ "nodes": 3 }));
        let rows = [
            (serde_json::json!({ "nodes": 5 }), "spec.nodes", "3 -> 5", [C::Buys, C::Buys]),
            (serde_json::json!({ "nodes": 2 }), "spec.nodes", "3 -> 2", [C::Leaves, C::Leaves]),
            (
                serde_json::json!({ "nodes": 3, "resources": { "memory": "2Gi" } }),
                "spec.resources.memory",
                "1Gi -> 2Gi",
                [C::BuysAnew, C::Refused],
            ),
            (
                serde_json::json!({ "nodes": 3, "resources": { "cpu": "1" } }),
                "spec.resources.cpu",
                "500m -> 1",
                [C::BuysAnew, C::Moves],
            ),
            (
                serde_json::json!({ "nodes": 3, "budget": { "maxPerMonth": "9act" } }),
                "spec.budget.maxPerMonth",
                "none -> 9act",
                [C::NextOrder, C::NextOrder],
            ),
            (
                serde_json::json!({ "nodes": 3, "redis": { "config": { "timeout": "5" } } }),
                "spec.redis.config.timeout",
                "none -> 5",
                [C::Live, C::Live],
            ),
            (
                serde_json::json!({ "nodes": 3, "mesh": { "serve": true } }),
                "spec.mesh.serve",
                "false -> true",
                [C::Live, C::Rolls],
            ),
            (
                serde_json::json!({ "nodes": 3, "mesh": { "service": true } }),
                "spec.mesh.service",
                "none -> true",
                [C::Live, C::Rolls],
            ),
            (
                serde_json::json!({ "nodes": 3, "mesh": { "announce": "names" } }),
                "spec.mesh.announce",
                "none -> names",
                [C::Live, C::Live],
            ),
            (
                serde_json::json!({ "nodes": 3, "failover": { "downAfter": "20s" } }),
                "spec.failover.downAfter",
                "10s -> 20s",
                [C::Live, C::Live],
            ),
        ];
        for (new, path, what, expected) in rows {
            for (runs, expected) in [false, true].into_iter().zip(expected) {
                let told = changes(&old, &spec(new.clone()), runs);
                assert_eq!(told.len(), 1, "{told:?}");
                let of = (told[0].path.as_str(), told[0].what.as_str(), told[0].consequence);
                assert_eq!(of, (path, what, expected), "runs: {runs}");
            }
        }
        assert!(changes(&old, &old, true).is_empty());
    }
}
