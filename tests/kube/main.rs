//! The Kubernetes home, on a real kube-apiserver and etcd. Each test has a sandbox with its own.

mod apiserver;
mod backups;
mod chart;
mod contract;
mod crashes;
mod crd;
#[path = "../live/data.rs"]
#[allow(dead_code, reason = "the live tests use all of it")]
mod data;
mod election;
mod faults;
mod frozen;
mod imports;
mod kubelet;
mod life;
#[path = "../sim/linear.rs"]
#[allow(dead_code, reason = "what the simulations use of it")]
mod linear;
#[path = "../sim/lives.rs"]
mod lives;
mod operators;
mod passwords;
mod person;
#[path = "../live/sandboxed.rs"]
mod sandboxed;
mod shards;
#[path = "../live/source.rs"]
#[allow(dead_code, reason = "the live tests use all of it")]
mod source;
#[path = "../live/stage.rs"]
#[allow(dead_code, reason = "the live tests use all of it")]
mod stage;
mod steady;
#[path = "../sim/store_promises.rs"]
mod store_promises;
mod transcript;
#[path = "../sim/world/mod.rs"]
#[allow(dead_code, reason = "the simulations use all of it")]
mod world;
#[path = "../live/writing.rs"]
#[allow(dead_code, reason = "the live tests use all of it")]
mod writing;
