//! What holds without any peer: pure parts, simulated worlds, the shape of the source.

mod arrows;
mod bounds;
mod candidates;
mod cold_start;
mod docs;
mod failover;
mod faults;
mod giving_up;
mod lifecycle;
mod many_clusters;
mod scene;
mod two_masters;
mod world;
