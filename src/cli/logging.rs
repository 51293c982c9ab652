//! Where the program's log goes.

use std::io::IsTerminal as _;

use tracing::Metadata;
use tracing_subscriber::filter::{FilterExt as _, filter_fn};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, Registry, fmt, registry};

use crate::config::LogFormat;
use crate::traces::Traces;

/// Sends the log to standard error. The first call in a process wins; an unreadable filter counts
/// as `info`.
pub fn init(format: LogFormat, level: &str) {
    init_with(format, level, None);
}

/// The same, and spans go to a collector where there are `traces`. The log shows none of them.
pub fn init_with(format: LogFormat, level: &str, traces: Option<&Traces>) {
    let filter = EnvFilter::try_new(level).unwrap_or_else(|_| EnvFilter::new("info"));
    let filter = filter.and(filter_fn(is_event));
    // A file or another program reads what is no terminal: it gets no colours.
    let coloured = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(coloured);
    let lines = match format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let traces = traces.map(Traces::layer::<Registry>);
    let started = registry().with(traces).with(lines.with_filter(filter)).try_init();
    // Tests start several servers in one process; the log they have is good enough.
    drop(started);
}

/// A line of the log; spans are for traces.
fn is_event(metadata: &Metadata<'_>) -> bool {
    metadata.is_event()
}
