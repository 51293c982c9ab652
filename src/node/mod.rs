//! The agent in the leased container: keeps tailscaled and redis-server running and does what the
//! operator says.
//!
//! Promises: redis never boots writable; a command with a stale nonce, a lower (term, epoch) pair
//! or a second target of promotion is refused before anything is touched; every change of state is
//! pushed at once. `commands` decides, the other files act.

pub mod acl;
pub mod agent;
pub mod announced;
pub mod append_only;
pub mod archive;
pub mod backup;
pub mod command_executor;
pub mod commands;
pub mod configure;
pub mod convert;
pub mod copy;
mod copy_digest;
mod copy_found;
mod copy_pass;
pub mod exchange;
mod feed;
pub mod forwarder;
mod growing;
pub mod guard;
pub mod handover;
pub mod history;
pub mod hosts;
pub mod import;
pub mod info;
pub mod leaving;
pub mod life;
pub mod local_api;
pub mod logs;
mod master_link;
pub mod mesh;
mod mesh_service;
pub mod nonces;
mod path_search;
pub mod paths;
pub mod probe;
pub mod progress;
pub mod proxychains;
mod psync;
mod rdb_header;
pub mod redis_config;
pub mod redis_control;
pub mod redis_process;
mod rest;
pub mod restore;
mod save_again;
mod saving;
mod segments;
pub mod service;
pub mod settings;
pub mod snapshots;
pub mod source_asking;
pub mod source_link;
pub mod spares;
pub mod stand_in;
pub mod state;
pub mod state_file;
pub mod status_page;
pub mod stuck;
pub mod tailscale;
pub mod users;
pub mod verify;
pub mod volume;
mod volume_copy;
pub mod write_probe;

#[cfg(test)]
mod agent_tests;
#[cfg(test)]
mod append_only_tests;
#[cfg(test)]
mod archive_tests;
#[cfg(test)]
mod await_handover_tests;
#[cfg(test)]
mod backup_tests;
#[cfg(test)]
mod configure_tests;
#[cfg(test)]
mod copy_tests;
#[cfg(test)]
mod grants_tests;
#[cfg(test)]
mod handover_tests;
#[cfg(test)]
mod health_tests;
#[cfg(test)]
mod import_tests;
#[cfg(test)]
mod kept_copy_tests;
#[cfg(test)]
mod life_tests;
#[cfg(test)]
mod master_tests;
#[cfg(test)]
mod restore_tests;
#[cfg(test)]
mod saving_tests;
#[cfg(test)]
mod stand_in_tests;
#[cfg(test)]
mod tests;

pub use agent::{AgentError, run};
pub use settings::Settings;
