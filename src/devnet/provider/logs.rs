//! What workloads print: the last lines in memory, all of them in a file.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _};

const KEPT_LINES: usize = 2000;
const MAX_LINE: u64 = 16 * 1024;

/// The log of one workload, over all its starts.
#[derive(Debug)]
pub struct Log {
    inner: Mutex<(VecDeque<String>, File)>,
}

impl Log {
    /// Appends to this file.
    pub fn open(file: &Path) -> std::io::Result<Self> {
        let file = File::options().create(true).append(true).open(file)?;
        Ok(Self { inner: Mutex::new((VecDeque::new(), file)) })
    }

    /// Adds a line.
    pub fn add(&self, line: &str) {
        let mut inner = self.lock();
        // A full disk must not stop the workload.
        let _ = writeln!(inner.1, "{line}");
        if inner.0.len() == KEPT_LINES {
            inner.0.pop_front();
        }
        inner.0.push_back(line.to_owned());
    }

    /// The last lines, oldest first.
    #[must_use]
    pub fn tail(&self, lines: usize) -> Vec<String> {
        let inner = self.lock();
        inner.0.iter().skip(inner.0.len().saturating_sub(lines)).cloned().collect()
    }

    /// Takes in an output until it ends.
    pub async fn drain(&self, mut output: impl AsyncBufRead + Unpin) {
        while let Some(line) = read_line(&mut output).await {
            self.add(&line);
        }
    }

    fn lock(&self) -> MutexGuard<'_, (VecDeque<String>, File)> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One line, cut where it is endless; `None` at the end.
pub async fn read_line(output: &mut (impl AsyncBufRead + Unpin)) -> Option<String> {
    let mut line = Vec::new();
    match output.take(MAX_LINE).read_until(b'\n', &mut line).await {
        Ok(read) if read > 0 => Some(String::from_utf8_lossy(&line).trim_end().to_owned()),
        _ => None,
    }
}
