//! A provider of the local market.

pub mod certificate;
pub mod container;
pub mod facts;
pub mod gateway;
pub mod host;
pub mod ingress;
pub mod jwt;
pub mod logs;
pub mod manifest;
pub mod runner;
