//! A local Akash market and tailnet on this machine, speaking the real wire formats over real sockets.

pub mod net;
pub mod provider;
