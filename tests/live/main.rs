//! Real programs in a sandbox.

mod control_faults;
mod demo;
mod family;
mod front;
mod mesh;
mod moves;
mod node;
mod outage;
mod policy;
mod refusals;
mod sandboxed;
mod sigkill;
mod stage;
