//! The controller service: observe, plan, carry out, publish.

mod agents;
mod controller;
mod convert;
mod effects;
mod metrics;
mod observe;
mod policy;
mod ports;
mod run;
mod status_pages;
mod way;

pub use agents::MeshAgents;
pub use controller::{Controller, Settings};
pub use metrics::Metrics;
pub use ports::{AgentError, Agents, LogLines, Ports};
pub use run::{Finding, RunError, check, run};
