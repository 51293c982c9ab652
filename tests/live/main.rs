//! Real programs in a sandbox.

mod demo;
mod family;
mod mesh;
mod mesh_faults;
mod moves;
mod node;
mod outage;
mod own;
mod refusals;
mod sandboxed;
mod sigkill;
mod stage;
mod witness;
