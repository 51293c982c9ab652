//! What the agent keeps on disk: the memory of commands and where the data stood. Written whole,
//! synced, then renamed.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::commands::Memory;
use super::history::Kept;

/// Why a file could not be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum StateFileError {
    /// The file system said no.
    #[error(
        "cannot {what} {path}: the volume may be full or read-only, no command is accepted until that is cured"
    )]
    Io {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is there but not ours to understand.
    #[error(
        "{path} cannot be read as the agent's own file: it was damaged or written by a newer version; replace this node"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

impl StateFileError {
    /// The task that wrote came to a bad end.
    #[must_use]
    pub fn ended(error: &tokio::task::JoinError) -> Self {
        Self::Io {
            what: "write below",
            path: "agent".into(),
            source: std::io::Error::other(error.to_string()),
        }
    }
}

/// The agent's directory on the volume.
#[derive(Clone, Debug)]
pub struct StateFile {
    dir: PathBuf,
}

impl StateFile {
    /// Files below this directory, which exists.
    #[must_use]
    pub fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// The memory of commands; `None` when it was never written or is gone.
    pub fn memory(&self) -> Result<Option<Memory>, StateFileError> {
        read(&self.dir.join("commands.json"))
    }

    /// Keeps the memory; it is on disk when this returns.
    pub fn keep_memory(&self, memory: &Memory) -> Result<(), StateFileError> {
        write(&self.dir, "commands.json", memory)
    }

    /// Where the data stood.
    pub fn history(&self) -> Result<Option<Kept>, StateFileError> {
        read(&self.dir.join("history.json"))
    }

    /// Keeps where the data stands, or forgets it.
    pub fn keep_history(&self, history: Option<&Kept>) -> Result<(), StateFileError> {
        write(&self.dir, "history.json", &history)
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, StateFileError> {
    match fs::read(path) {
        // `Option` so that a kept `null` reads as nothing.
        Ok(text) => serde_json::from_slice::<Option<T>>(&text)
            .map_err(|source| StateFileError::Damaged { path: path.to_owned(), source }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(StateFileError::Io { what: "read", path: path.to_owned(), source }),
    }
}

fn write<T: Serialize>(dir: &Path, name: &str, value: &T) -> Result<(), StateFileError> {
    let path = dir.join(name);
    let temporary = dir.join(format!("{name}.new"));
    let io = |what, path: &Path| {
        let path = path.to_owned();
        move |source| StateFileError::Io { what, path, source }
    };
    let text = serde_json::to_vec(value)
        .map_err(|source| StateFileError::Damaged { path: path.clone(), source })?;
    let mut file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)
        .map_err(io("create", &temporary))?;
    file.write_all(&text).and_then(|()| file.sync_all()).map_err(io("write", &temporary))?;
    fs::rename(&temporary, &path).map_err(io("rename", &path))?;
    // The rename itself must outlive a crash of the machine.
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(io("sync", dir))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::node::{Authority, History};
    use crate::model::time::UnixMs;
    use crate::node::commands::Target;

    #[test]
    fn a_crash_while_writing_leaves_the_last_complete_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = StateFile::new(dir.path().to_owned());
        assert_eq!(file.memory().unwrap(), None);
        let memory = Memory {
            highest: Authority { term: 3, epoch: 7 },
            target: Target::Other("m".into()),
            lost: false,
        };
        file.keep_memory(&memory).unwrap();
        fs::write(dir.path().join("commands.json.new"), b"{\"high").unwrap();
        assert_eq!(StateFile::new(dir.path().to_owned()).memory().unwrap(), Some(memory.clone()));
        file.keep_memory(&memory).unwrap();
        let history =
            History { replid: "r".into(), offset: 4, epoch: 2, gap_ms: History::UNKNOWN_GAP };
        let history = Kept { history, open_since: Some(UnixMs(7)) };
        file.keep_history(Some(&history)).unwrap();
        assert_eq!(file.history().unwrap(), Some(history));
        fs::write(dir.path().join("history.json"), br#"{"replid":"r","offset":4,"epoch":2}"#)
            .unwrap();
        let older = file.history().unwrap().unwrap();
        assert_eq!(
            (older.history.gap_ms, older.open_since),
            (History::UNKNOWN_GAP, None),
            "written by an agent that knew of no gaps"
        );
        file.keep_history(None).unwrap();
        assert_eq!(file.history().unwrap(), None);
    }

    #[test]
    fn a_damaged_file_is_an_error_and_never_an_empty_memory() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("commands.json"), b"{").unwrap();
        assert!(StateFile::new(dir.path().to_owned()).memory().is_err());
    }
}
