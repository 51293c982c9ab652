//! Real programs in a sandbox.

mod article;
mod confirmed;
mod control_faults;
mod demo;
mod distance;
mod ends;
mod family;
mod front;
mod handover;
mod image;
mod life;
#[path = "../sim/linear.rs"]
mod linear;
mod machine;
mod market_faults;
mod mesh;
mod mesh_faults;
mod moves;
mod node;
mod node_faults;
mod one_way;
mod outage;
mod own;
mod paths;
mod policy;
mod readme;
mod recover;
mod refusals;
mod sandboxed;
mod sigkill;
mod stage;
mod status_page;
mod unpacked;
mod versions;
mod writing;
