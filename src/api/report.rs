//! The plan as it is shown to people: what would be done now, why, and what is waited for; and how
//! the operator itself stands.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use strum::Display;

use super::quantity::Money;
use super::status::{Cost, Waiting};

/// The operator's present plan for one cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PlanReport {
    /// What is done next.
    pub steps: Vec<PlannedStep>,
    /// What is waited for.
    pub waiting: Vec<Waiting>,
    /// What it costs now.
    pub cost: Cost,
    /// The most that all leases can cost per month once the plan is carried out; empty where that is
    /// not known.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub then_per_month: String,
}

impl PlanReport {
    /// How many nodes are created, changed and closed.
    #[must_use]
    pub fn count(&self) -> StepCount {
        let of = |kind| {
            let steps = self.steps.iter().filter(move |step| step.kind == kind);
            steps.map(|step| step.incarnation.as_str()).collect::<BTreeSet<_>>()
        };
        let (created, closed) = (of(StepKind::Create), of(StepKind::Close));
        let changed = of(StepKind::Change);
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        StepCount {
            create: number(created.len()),
            // What is created or closed is not counted twice.
            change: number(
                changed.iter().filter(|n| !created.contains(*n) && !closed.contains(*n)).count(),
            ),
            close: number(closed.len()),
        }
    }
}

/// How many nodes a plan creates, changes and closes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StepCount {
    /// Deployments that are bought.
    pub create: u32,
    /// Nodes that stay, and are not as they were.
    pub change: u32,
    /// Deployments that are closed.
    pub close: u32,
}

/// What a step is to the deployments of a cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepKind {
    /// One is bought.
    Create,
    /// One is closed.
    Close,
    /// Something else; also what an operator of another version says.
    #[default]
    #[serde(other)]
    Change,
}

impl StepKind {
    /// As terraform writes it.
    #[must_use]
    pub fn mark(self) -> char {
        match self {
            Self::Create => '+',
            Self::Change => '~',
            Self::Close => '-',
        }
    }
}

/// One step of a plan.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PlannedStep {
    /// On which incarnation.
    pub incarnation: String,
    /// What, one phrase.
    pub what: String,
    /// Why, one sentence.
    pub reason: String,
    /// What it is to the deployments of the cluster.
    pub kind: StepKind,
}

/// How the operator itself stands, whether there is a cluster or not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OperatorReport {
    /// Of the program.
    pub version: String,
    /// Follows from the root secret.
    pub installation: String,
    /// Public part of the key that signs the word about masters, hex.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub public_key: String,
    /// Account that pays.
    pub wallet: String,
    /// The chain and the wallet on it.
    pub chain: Source,
    /// The tailnet's control API.
    pub tailnet: Source,
    /// The operator's own way onto the mesh.
    pub mesh: Source,
    /// What the wallet holds for deposits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub balance: Option<Money>,
    /// What the wallet holds for fees, in uakt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fee_balance: Option<u64>,
    /// The most that all clusters together may cost per month.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget_global: Option<Money>,
    /// The same for a cluster whose manifest does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget_per_cluster: Option<Money>,
    /// Why the store is taken for lost, one sentence; none when it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store_lost: Option<String>,
}

/// Something outside that every cluster needs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Source {
    /// Whether it is there.
    pub state: SourceState,
    /// Since when.
    pub since: String,
    /// What is wrong, or what was seen.
    pub message: String,
}

/// Whether something outside is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, Display)]
pub enum SourceState {
    /// It answers.
    Ok,
    /// It does not answer, or not with what can be used.
    Away,
    /// It answers and says no.
    Refused,
    /// It was not asked yet.
    #[default]
    #[serde(other)]
    Unknown,
}

impl OperatorReport {
    /// The sources with their names.
    #[must_use]
    pub fn sources(&self) -> [(&'static str, &Source); 3] {
        [("chain", &self.chain), ("tailnet", &self.tailnet), ("mesh", &self.mesh)]
    }

    /// What is away or refuses, one sentence each.
    #[must_use]
    pub fn wrong(&self) -> Vec<String> {
        let bad =
            |source: &Source| matches!(source.state, SourceState::Away | SourceState::Refused);
        let sources = self.sources().into_iter().filter(|(_, source)| bad(source));
        let sources = sources.map(|(name, source)| format!("{name}: {}", source.message));
        sources.chain(self.store_lost.iter().map(|why| format!("store: {why}"))).collect()
    }
}
