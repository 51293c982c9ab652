//! Where the program's log goes.

use tracing_subscriber::EnvFilter;

use crate::config::LogFormat;

/// Sends the log to standard error. The first call in a process wins; an unreadable filter counts
/// as `info`.
pub fn init(format: LogFormat, level: &str) {
    let filter = EnvFilter::try_new(level).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    // Tests start several servers in one process; the log they have is good enough.
    drop(started);
}
