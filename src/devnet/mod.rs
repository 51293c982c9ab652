//! A local Akash market and tailnet on this machine, speaking the real wire formats over real
//! sockets.

pub mod account;
pub mod chain;
pub mod control;
pub mod distance;
pub mod faults;
pub mod foreign;
mod http;
pub mod ledger;
pub mod market;
pub mod net;
pub mod provider;
pub mod relay;
pub mod sandbox;
pub mod switch;
pub mod tailnet;
pub mod tool;
