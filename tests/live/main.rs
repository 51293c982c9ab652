//! Real programs in a sandbox.

mod demo;
mod family;
mod mesh;
mod moves;
mod node;
mod outage;
mod own;
mod paths;
mod refusals;
mod sandboxed;
mod sigkill;
mod stage;
