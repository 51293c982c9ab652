//! Real programs in a sandbox.

mod article;
mod control_faults;
mod demo;
mod ends;
mod family;
mod front;
mod image;
mod machine;
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
mod refusals;
mod sandboxed;
mod sigkill;
mod stage;
mod status_page;
mod unpacked;
mod writing;
