//! What the agent keeps on disk: the memory of commands and where the data stood. Written twice and
//! synced each time, in room that was taken when the volume was not full yet; nobody waits for the
//! second.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::{self, JoinHandle};

use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};

use super::append_only::Covered;
use super::commands::Memory;
use super::history::Kept;
use super::rest::REST;
use crate::announce::KeptWord;
use crate::model::kept_copy;
use crate::model::step::SettingsUser;
use crate::wire::akash_redis::agent::v1 as wire;

/// Bytes of a file; the text is filled up with blanks.
const ROOM: usize = 4096;

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

/// What the operator gave this node to keep for the case that its own store is lost. Only the
/// operator can tell whether it is its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptCopy {
    /// Text.
    pub content: String,
    /// Hex.
    pub signature: String,
}

impl KeptCopy {
    /// The word for it.
    #[must_use]
    pub fn hash(&self) -> String {
        kept_copy::hash(self.content.as_bytes())
    }

    /// As it came; `None` when it is nothing that an operator sends.
    #[must_use]
    pub fn from_wire(copy: wire::KeptCopy) -> Option<Self> {
        let content = String::from_utf8(copy.content).ok()?;
        (content.len() <= kept_copy::LARGEST)
            .then(|| Self { content, signature: hex::encode(copy.signature) })
    }

    /// As it goes back.
    #[must_use]
    pub fn to_wire(&self) -> wire::KeptCopy {
        wire::KeptCopy {
            content: self.content.clone().into_bytes(),
            signature: hex::decode(&self.signature).unwrap_or_default(),
        }
    }
}

/// By the name of the file.
type Pairs = BTreeMap<&'static str, Arc<Mutex<Pair>>>;

/// The agent's directory on the volume.
#[derive(Clone, Debug)]
pub struct StateFile {
    dir: PathBuf,
    pairs: Arc<Mutex<Pairs>>,
}

impl StateFile {
    /// Files below this directory, which exists.
    #[must_use]
    pub fn new(dir: PathBuf) -> Self {
        Self { dir, pairs: Arc::default() }
    }

    /// The memory of commands; `None` when it was never written or is gone.
    pub fn memory(&self) -> Result<Option<Memory>, StateFileError> {
        read(&self.dir.join("commands.json"))
    }

    /// Keeps the memory; it is on disk when this returns.
    pub fn keep_memory(&self, memory: &Memory) -> Result<(), StateFileError> {
        self.write("commands.json", memory)
    }

    /// Where the data stood.
    pub fn history(&self) -> Result<Option<Kept>, StateFileError> {
        read(&self.dir.join("history.json"))
    }

    /// Which snapshot was there when the append-only file had everything.
    pub fn append_only(&self) -> Result<Option<Covered>, StateFileError> {
        read(&self.dir.join("append-only.json"))
    }

    /// Keeps it.
    pub fn keep_append_only(&self, covered: Covered) -> Result<(), StateFileError> {
        self.write("append-only.json", &covered)
    }

    /// The copy of manifest and record, with its signature.
    pub fn copy(&self) -> Result<Option<KeptCopy>, StateFileError> {
        read(&self.dir.join("copy.json"))
    }

    /// Keeps it.
    pub fn keep_copy(&self, copy: &KeptCopy) -> Result<(), StateFileError> {
        self.write("copy.json", copy)
    }

    /// The newest word about the master.
    pub fn word(&self) -> Result<Option<KeptWord>, StateFileError> {
        read(&self.dir.join("word.json"))
    }

    /// Keeps it.
    pub fn keep_word(&self, word: &KeptWord) -> Result<(), StateFileError> {
        self.write("word.json", word)
    }

    /// The users of the manifest.
    pub fn users(&self) -> Result<Option<Vec<SettingsUser>>, StateFileError> {
        read(&self.dir.join("users.json"))
    }

    /// Keeps them.
    pub fn keep_users(&self, users: &[SettingsUser]) -> Result<(), StateFileError> {
        self.write("users.json", &users)
    }

    /// Keeps where the data stands, or forgets it.
    pub fn keep_history(&self, history: Option<&Kept>) -> Result<(), StateFileError> {
        self.write("history.json", &history)
    }

    fn write<T: Serialize>(&self, name: &'static str, value: &T) -> Result<(), StateFileError> {
        let path = self.dir.join(name);
        let mut text = serde_json::to_vec(value)
            .map_err(|source| StateFileError::Damaged { path: path.clone(), source })?;
        text.resize(text.len().max(ROOM), b' ');
        let pair = lock(&self.pairs).entry(name).or_default().clone();
        lock(&pair).write(&self.dir, path, text)
    }
}

/// What the twin holds, or the file where a crash cut the twin. A file never holds what its twin did
/// not hold before.
fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, StateFileError> {
    let read = |path: &Path| match fs::read(path) {
        // `Option` so that a kept `null` reads as nothing.
        Ok(text) => serde_json::from_slice::<Option<T>>(&text)
            .map(Some)
            .map_err(|source| StateFileError::Damaged { path: path.to_owned(), source }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(StateFileError::Io { what: "read", path: path.to_owned(), source }),
    };
    let found = match read(&twin(path)) {
        Ok(Some(value)) => return Ok(value),
        other => other,
    };
    match (found, read(path)) {
        (_, Ok(Some(value))) => Ok(value),
        (Ok(_), Err(error)) => Err(error),
        (found, _) => found.map(Option::flatten),
    }
}

fn twin(path: &Path) -> PathBuf {
    path.with_extension("twin.json")
}

/// How far the file is behind its twin.
#[derive(Debug, Default)]
enum Pair {
    /// A crash may have come between the two.
    #[default]
    Found,
    /// Both say the same.
    Even,
    /// The file is written after [`REST`], or as soon as the next text comes.
    Following(mpsc::Sender<()>, JoinHandle<Result<(), StateFileError>>),
    /// The file could not be written: the twin is the only one that is whole.
    Behind,
}

impl Pair {
    /// The text is on disk when this returns, in the twin; the file follows. A crash leaves one of
    /// both whole, since neither is touched before the other has all. Both are overwritten in place
    /// and never grow: a volume that is full takes them too.
    fn write(&mut self, dir: &Path, path: PathBuf, text: Vec<u8>) -> Result<(), StateFileError> {
        let twin = twin(&path);
        let even = match std::mem::replace(self, Self::Behind) {
            Self::Found => !is_ahead(&twin, &path),
            Self::Even => true,
            Self::Following(rest, file) => {
                drop(rest);
                matches!(file.join(), Ok(Ok(())))
            }
            Self::Behind => false,
        };
        if !even {
            put(dir, &path, &fs::read(&twin).map_err(io("read", &twin))?)?;
        }
        *self = Self::Even;
        put(dir, &twin, &text)?;
        let dir = dir.to_owned();
        let (rest, over) = mpsc::channel();
        let file = thread::spawn(move || {
            // Clients may wait for what comes after the twin.
            let _ = over.recv_timeout(REST);
            put(&dir, &path, &text)
        });
        *self = Self::Following(rest, file);
        Ok(())
    }
}

/// Whether the twin is whole and holds another text than the file.
fn is_ahead(twin: &Path, path: &Path) -> bool {
    let whole = |text: &Vec<u8>| serde_json::from_slice::<IgnoredAny>(text).is_ok();
    let text = fs::read(twin).ok().filter(whole);
    text.is_some() && text != fs::read(path).ok()
}

/// On disk when this returns.
fn put(dir: &Path, path: &Path, text: &[u8]) -> Result<(), StateFileError> {
    if overwritten(path, text)? { Ok(()) } else { replace(dir, path, text) }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn io(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> StateFileError {
    let path = path.to_owned();
    move |source| StateFileError::Io { what, path, source }
}

/// Whether the file was there in this size, and now holds this text.
fn overwritten(path: &Path, text: &[u8]) -> Result<bool, StateFileError> {
    let Ok(mut file) = File::options().write(true).open(path) else { return Ok(false) };
    if file.metadata().map_err(io("read", path))?.len() != text.len() as u64 {
        return Ok(false);
    }
    // The same bytes of the disk as before: when they were written need not be on it, and clients
    // wait for this while a master moves.
    file.write_all(text).and_then(|()| file.sync_data()).map_err(io("write", path))?;
    Ok(true)
}

fn replace(dir: &Path, path: &Path, text: &[u8]) -> Result<(), StateFileError> {
    let temporary = path.with_extension("new");
    let mut file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)
        .map_err(io("create", &temporary))?;
    file.write_all(text).and_then(|()| file.sync_all()).map_err(io("write", &temporary))?;
    fs::rename(&temporary, path).map_err(io("rename", path))?;
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
        let dir = tempfile::tempdir().unwrap();
        let file = StateFile::new(dir.path().to_owned());
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
    fn a_crash_while_a_file_is_overwritten_leaves_its_twin() {
        let dir = tempfile::tempdir().unwrap();
        let file = StateFile::new(dir.path().to_owned());
        let memory = |epoch| Memory {
            highest: Authority { term: 3, epoch },
            target: Target::Other("m".into()),
            lost: false,
        };
        file.keep_memory(&memory(1)).unwrap();
        file.keep_memory(&memory(2)).unwrap();
        let (own, twin) = (dir.path().join("commands.json"), dir.path().join("commands.twin.json"));
        settled(&file);
        fs::write(&own, b"{\"high").unwrap();
        assert_eq!(file.memory().unwrap(), Some(memory(2)), "the file was cut");
        file.keep_memory(&memory(3)).unwrap();
        settled(&file);
        fs::write(&twin, b"{\"high").unwrap();
        assert_eq!(file.memory().unwrap(), Some(memory(3)), "its twin was cut");
        fs::remove_file(&own).unwrap();
        assert!(file.memory().is_err(), "neither is there as a whole, and that is no empty memory");
    }

    /// Waits until each file has what its twin has.
    fn settled(file: &StateFile) {
        for pair in lock(&file.pairs).values() {
            let mut pair = lock(pair);
            if let Pair::Following(_, file) = std::mem::take(&mut *pair) {
                file.join().unwrap().unwrap();
            }
        }
    }

    #[test]
    fn what_the_twin_has_is_newer_and_is_never_the_only_one_that_is_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let file = StateFile::new(dir.path().to_owned());
        let memory = |epoch| Memory { highest: Authority { term: 3, epoch }, ..Memory::default() };
        file.keep_memory(&memory(1)).unwrap();
        settled(&file);
        let own = dir.path().join("commands.json");
        let first = fs::read(&own).unwrap();
        file.keep_memory(&memory(2)).unwrap();
        settled(&file);
        fs::write(&own, &first).unwrap();
        let file = StateFile::new(dir.path().to_owned());
        assert_eq!(
            file.memory().unwrap(),
            Some(memory(2)),
            "a crash came before the file followed"
        );
        fs::write(&own, b"{\"high").unwrap();
        lock(&file.pairs).entry("commands.json").or_default();
        let pair = lock(&file.pairs)["commands.json"].clone();
        lock(&pair).write(dir.path(), own.clone(), b"{\"cut".to_vec()).unwrap();
        assert_eq!(
            file.memory().unwrap(),
            Some(memory(2)),
            "the file had it before the twin was touched"
        );
        settled(&file);

        // The file cannot be written, as on a volume with an error.
        fs::remove_file(&own).unwrap();
        fs::create_dir(&own).unwrap();
        file.keep_memory(&memory(3)).unwrap();
        assert_eq!(file.memory().unwrap(), Some(memory(3)));
        assert!(file.keep_memory(&memory(4)).is_err());
        assert_eq!(file.memory().unwrap(), Some(memory(3)), "the only one that is whole");
        fs::remove_dir(&own).unwrap();
        file.keep_memory(&memory(4)).unwrap();
        settled(&file);
        assert_eq!(file.memory().unwrap(), Some(memory(4)));
        fs::write(dir.path().join("commands.twin.json"), b"{").unwrap();
        assert_eq!(file.memory().unwrap(), Some(memory(4)), "both have it");
    }

    #[test]
    fn a_copy_of_any_size_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let file = StateFile::new(dir.path().to_owned());
        assert_eq!(file.copy().unwrap(), None);
        for length in [10, 100_000, 20] {
            let copy = KeptCopy { content: "x".repeat(length), signature: "ab".into() };
            file.keep_copy(&copy).unwrap();
            assert_eq!(file.copy().unwrap(), Some(copy));
        }
    }

    #[test]
    fn a_damaged_file_is_an_error_and_never_an_empty_memory() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("commands.json"), b"{").unwrap();
        assert!(StateFile::new(dir.path().to_owned()).memory().is_err());
    }
}
