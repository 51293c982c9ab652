//! What holds without any peer: pure parts, simulated worlds, the shape of the source.

mod arrows;
mod books;
mod candidates;
mod cold_start;
mod confirmed;
mod crashes;
mod docs;
mod failover;
mod faults;
mod giving_up;
mod handover;
mod lifecycle;
mod linear;
mod many_clusters;
mod market;
mod notices;
mod previews;
mod recover;
mod replay;
mod soak;
mod stalls;
mod store_contract;
mod two_masters;
mod updates;
mod word;
mod world;
