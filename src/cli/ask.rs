//! The person at the terminal, if there is one.

use std::io::{BufRead as _, IsTerminal as _, Write as _};

/// Somebody who can be asked before coins are spent.
pub(super) trait Person: Send {
    /// Somebody is there: what is asked is seen, and what is typed is read.
    fn is_there(&self) -> bool;

    /// Asks, and returns what is typed.
    fn answers(&mut self, question: &str) -> std::io::Result<String>;

    /// Asks; only `yes` agrees.
    fn agrees(&mut self, question: &str) -> std::io::Result<bool> {
        Ok(matches!(self.answers(question)?.trim(), "yes" | "y"))
    }

    /// Asks for a word that has to be typed whole.
    fn says(&mut self, question: &str, word: &str) -> std::io::Result<bool> {
        Ok(self.answers(question)?.trim() == word)
    }
}

/// Whoever started the program.
pub(super) struct Terminal;

impl Person for Terminal {
    fn is_there(&self) -> bool {
        std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
    }

    fn answers(&mut self, question: &str) -> std::io::Result<String> {
        eprint!("{question}");
        std::io::stderr().flush()?;
        let mut line = String::new();
        std::io::stdin().lock().read_line(&mut line)?;
        Ok(line)
    }
}
