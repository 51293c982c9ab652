//! Real programs in a sandbox.

mod article;
mod demo;
mod family;
mod machine;
mod mesh;
mod mesh_faults;
mod moves;
mod node;
mod node_faults;
mod outage;
mod own;
mod refusals;
mod sandboxed;
mod sigkill;
mod stage;
mod witness;
