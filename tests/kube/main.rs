//! The Kubernetes home, on a real kube-apiserver and etcd. Each test has a sandbox with its own.

mod apiserver;
mod chart;
mod contract;
mod crd;
mod election;
mod faults;
mod frozen;
mod life;
mod operators;
mod passwords;
mod person;
#[path = "../live/sandboxed.rs"]
mod sandboxed;
#[path = "../live/stage.rs"]
#[allow(dead_code, reason = "the live tests use all of it")]
mod stage;
mod steady;
#[path = "../sim/store_promises.rs"]
mod store_promises;
#[path = "../live/writing.rs"]
#[allow(dead_code, reason = "the live tests use all of it")]
mod writing;
