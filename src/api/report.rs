//! The plan as it is shown to people: what would be done now, why, and what is waited for.

use serde::{Deserialize, Serialize};

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
