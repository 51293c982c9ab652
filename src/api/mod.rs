//! What users write and read: the manifest, its status, and what is wrong with a manifest.

pub mod commands;
pub mod conditions;
pub mod crd;
pub mod defaults;
pub mod difference;
pub mod endpoint;
pub mod kept_copy;
pub mod measures;
pub mod notifications;
pub mod password;
pub mod preview;
pub mod providers;
pub mod quantity;
pub mod recover;
pub mod redis_settings;
pub mod report;
pub mod rules;
pub mod schema;
pub mod spend;
pub mod status;
pub mod template;
pub mod types;
pub mod validate;
pub mod wallet;
pub mod window;
pub mod word;
