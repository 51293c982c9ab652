//! Clients and stand-ins against recorded answers of the real thing.

mod gateway;
mod provider;
mod provider_gateway;
