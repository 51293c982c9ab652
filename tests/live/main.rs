//! Real programs in a sandbox.

mod demo;
mod family;
mod image;
mod mesh;
mod moves;
mod node;
mod outage;
mod refusals;
mod sandboxed;
mod sigkill;
mod stage;
mod unpacked;
