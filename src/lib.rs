//! akash-redis: an operator that keeps highly available Redis running on the Akash Network.
#![forbid(unsafe_code)]

pub mod announce;
pub mod api;
pub mod api_client;
pub mod backup;
pub mod chain;
pub mod changes;
pub mod cli;
pub mod config;
#[cfg(feature = "devnet")]
pub mod devnet;
pub mod error_chain;
pub mod gateway;
pub mod http_client;
pub mod mesh;
pub mod model;
pub mod node;
pub mod notify;
pub mod operator;
pub mod plan;
pub mod process;
pub mod proxy;
pub mod retry;
pub mod sdl;
pub mod secrets;
pub mod sentinel;
pub mod server;
pub mod store;
pub mod traces;
pub mod tunnel;
pub mod web;
pub mod wire;
