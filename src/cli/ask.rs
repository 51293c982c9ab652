//! The person at the terminal, if there is one.

use std::io::{BufRead as _, IsTerminal as _, Write as _};

/// Somebody who can be asked before coins are spent.
pub(super) trait Person: Send {
    /// Somebody is there: what is asked is seen, and what is typed is read.
    fn is_there(&self) -> bool;

    /// Asks; only `yes` agrees.
    fn agrees(&mut self, question: &str) -> std::io::Result<bool>;
}

/// Whoever started the program.
pub(super) struct Terminal;

impl Person for Terminal {
    fn is_there(&self) -> bool {
        std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
    }

    fn agrees(&mut self, question: &str) -> std::io::Result<bool> {
        eprint!("{question}");
        std::io::stderr().flush()?;
        let mut line = String::new();
        std::io::stdin().lock().read_line(&mut line)?;
        Ok(matches!(line.trim(), "yes" | "y"))
    }
}
