//! The words of the program as data: ids, money, what was observed, what must be remembered, what
//! shall be done.
//!
//! Nothing here does I/O or decides; every other room speaks in these types.

pub mod announcement;
pub mod archive;
pub mod backup;
pub mod books;
pub mod chain;
pub mod change;
pub mod experience;
pub mod funds;
pub mod group;
pub mod identity;
pub mod ids;
pub mod image;
pub mod import;
pub mod incarnation;
pub mod interval;
pub mod inventory;
pub mod kept_copy;
pub mod logs;
pub mod memory;
pub mod mesh;
pub mod money;
pub mod node;
pub mod ports;
pub mod record;
pub mod redis_version;
pub mod status_page;
pub mod step;
pub mod text;
pub mod time;
