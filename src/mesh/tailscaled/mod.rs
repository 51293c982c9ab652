//! A tailscaled that this program runs: started, watched, logged in, and started again when it
//! exits or freezes. Each node has one, and the operator may have one; what differs between them is
//! a [`Device`].

pub mod command;
mod key_file;
mod process;
mod silence;
mod supervisor;
mod version;

pub use key_file::KeyFile;
pub use process::{Adopted, Process, STOP, listener};
pub use silence::SilenceLimits;
pub use supervisor::{Credential, Device, Event, credential_wanted, supervise};
pub use version::version;

/// Name of its state file in its state directory: there once it has been logged in.
pub const STATE_FILE: &str = "tailscaled.state";
