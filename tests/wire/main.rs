//! Clients and the local market's servers against recorded answers of the real software.

mod akash_sdl;
mod application_users;
mod chain;
mod faults;
mod gateway;
mod grants;
mod ledger;
mod market;
mod mesh;
mod provider;
mod provider_gateway;
mod redis_settings;
mod sdl;
mod traces;
