//! The plan as it is shown to people: what would be done now, why, and what is waited for; and how
//! the operator itself stands.

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
