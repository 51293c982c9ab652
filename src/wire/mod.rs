//! Messages, clients and servers of the chain's gRPC and of the agent's, generated from `proto/`: a
//! protobuf package is a module path, `akash.market.v1beta5` is [`akash::market::v1beta5`].
#![allow(missing_docs, clippy::all, clippy::pedantic, rustdoc::all)]

include!(concat!(env!("OUT_DIR"), "/wire.rs"));

impl std::fmt::Debug for akash_redis::agent::v1::Follow {
    /// Without the password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Follow")
            .field("master_name", &self.master_name)
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}
