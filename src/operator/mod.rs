//! The controller service: observe, plan, carry out, publish.

mod agents;
mod controller;
mod convert;
mod effects;
mod observe;
mod seams;

pub use agents::MeshAgents;
pub use controller::{Controller, Settings};
pub use seams::{AgentError, Agents, World};
