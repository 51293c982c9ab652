//! How far long work is: a line that moves on a terminal. Elsewhere there is none, and whoever works
//! says what happens in lines of its own.

use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressFinish, ProgressStyle};

/// The line is drawn anew this often, so that it is seen that somebody works.
const TICK: Duration = Duration::from_millis(120);

/// A line on standard error, gone at its end; nothing where that is no terminal.
pub(super) struct Progress(Option<ProgressBar>);

impl Progress {
    /// Says what is done, and for how long already.
    pub(super) fn of(what: &str) -> Self {
        Self::styled("{spinner} {elapsed} {wide_msg}", what)
    }

    /// The same, with the bytes that came.
    pub(super) fn of_bytes(what: &str) -> Self {
        Self::styled("{spinner} {elapsed} {bytes} ({bytes_per_sec}) {wide_msg}", what)
    }

    fn styled(template: &str, what: &str) -> Self {
        let style = ProgressStyle::with_template(template);
        let style = style.ok().filter(|_| std::io::stderr().is_terminal());
        Self(style.map(|style| {
            let bar = ProgressBar::new_spinner().with_finish(ProgressFinish::AndClear);
            let bar = bar.with_style(style).with_message(what.to_owned());
            bar.enable_steady_tick(TICK);
            bar
        }))
    }

    /// It is something else now; `false` where nobody sees that.
    pub(super) fn tell(&self, what: &str) -> bool {
        if let Some(bar) = &self.0 {
            bar.set_message(what.to_owned());
        }
        self.0.is_some()
    }

    /// So many bytes more came.
    pub(super) fn more(&self, bytes: usize) {
        if let Some(bar) = &self.0 {
            bar.inc(bytes as u64);
        }
    }
}
