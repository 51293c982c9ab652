//! `akash-redis operator`: its flags and settings.

use std::path::PathBuf;

use super::logging;
use crate::config::{Config, ConfigError};

/// Run the operator.
#[derive(Debug, clap::Args)]
pub struct Operator {
    /// File with the settings; each of them can be given as an environment variable too.
    #[arg(long, env = "AKASH_REDIS_CONFIG", default_value = "/etc/akash-redis/operator.yaml", value_name = "FILE")]
    pub config: PathBuf,
    /// Check the settings and what they point to, spend nothing, and end.
    #[arg(long)]
    pub check: bool,
}

impl Operator {
    /// Reads the settings and starts the log as they say.
    pub fn settings(&self) -> Result<Config, ConfigError> {
        let config = Config::load(&self.config)?;
        logging::init(config.log.format, &config.log.level);
        Ok(config)
    }
}
