//! The controller service: observe, plan, carry out, publish.

mod agents;
mod controller;
mod convert;
mod effects;
mod metrics;
mod observe;
mod policy;
mod run;
mod seams;
mod way;
mod witness;

pub use agents::MeshAgents;
pub use controller::{Controller, Settings};
pub use metrics::Metrics;
pub use run::{Finding, RunError, check, run};
pub use seams::{AgentError, Agents, LogLines, World};
