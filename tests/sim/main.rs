//! What holds without any peer: pure parts, simulated worlds, the shape of the source.

mod arrows;
mod docs;
mod failover;
mod faults;
mod lifecycle;
mod world;
