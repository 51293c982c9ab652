//! A local Akash market and tailnet on this machine, speaking the real wire formats over real sockets.

pub mod account;
pub mod chain;
pub mod ledger;
pub mod net;
pub mod provider;
pub mod sandbox;
pub mod tailnet;
