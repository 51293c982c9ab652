//! A file that is read while another process writes it from its beginning to its end.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Between two looks at a file of which all was read so far.
const LOOK: Duration = Duration::from_millis(20);

/// What is known of the process that writes.
#[derive(Debug)]
enum Writing {
    /// It is not at its end, as far as anybody knows.
    Goes,
    /// The file is whole.
    Ended,
    /// It will never be, and why.
    Failed(String),
}

type Shared = Arc<(Mutex<Writing>, Condvar)>;

/// The file. A read at its present end waits, at most until the [`End`] is told: **the end of it is
/// seen only where somebody said that it is whole**, and all else is an error.
#[derive(Debug)]
pub struct GrowingFile {
    file: File,
    writing: Shared,
}

/// With whoever watches the process that writes. Dropped, it says that nothing is known, and no read
/// waits any more.
#[derive(Debug)]
pub struct End(Shared);

impl GrowingFile {
    /// Reads `file` from where it stands.
    #[must_use]
    pub fn new(file: File) -> (Self, End) {
        let writing: Shared = Arc::new((Mutex::new(Writing::Goes), Condvar::new()));
        (Self { file, writing: writing.clone() }, End(writing))
    }

    /// The file itself, without what is known of its end.
    #[must_use]
    pub fn into_file(self) -> File {
        self.file
    }
}

impl Read for GrowingFile {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let (writing, told) = &*self.writing;
        loop {
            // First how far the writer is, then the file: what is read after the end is all of it.
            let ended = match &*writing.lock().unwrap_or_else(PoisonError::into_inner) {
                Writing::Goes => false,
                Writing::Ended => true,
                Writing::Failed(why) => return Err(io::Error::other(why.clone())),
            };
            let read = self.file.read(into)?;
            if read > 0 || ended || into.is_empty() {
                return Ok(read);
            }
            let goes = writing.lock().unwrap_or_else(PoisonError::into_inner);
            if matches!(*goes, Writing::Goes) {
                let _ = told.wait_timeout(goes, LOOK);
            }
        }
    }
}

impl Seek for GrowingFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

impl End {
    /// The file is whole.
    pub fn whole(self) {
        self.tell(Writing::Ended);
    }

    /// It never will be.
    pub fn failed(self, why: &str) {
        self.tell(Writing::Failed(why.to_owned()));
    }

    fn tell(&self, what: Writing) {
        let (writing, told) = &*self.0;
        let mut writing = writing.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*writing, Writing::Goes) {
            *writing = what;
        }
        told.notify_all();
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.tell(Writing::Failed("nobody knows whether it is whole".to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    /// Long enough that nobody who waits is there by chance.
    const LONG: Duration = Duration::from_secs(20);

    /// A file with its writer; a thread that reads all of it, and the pieces that it got.
    struct Scene {
        to: File,
        end: End,
        pieces: mpsc::Receiver<io::Result<Vec<u8>>>,
    }

    fn scene() -> Scene {
        let to = tempfile::NamedTempFile::new().unwrap();
        let (mut file, end) = GrowingFile::new(to.reopen().unwrap());
        let (pieces_to, pieces) = mpsc::channel();
        thread::spawn(move || {
            loop {
                let mut piece = vec![0; 8];
                let read = file.read(&mut piece).map(|read| {
                    piece.truncate(read);
                    piece
                });
                let over = read.as_ref().map_or(true, Vec::is_empty);
                if pieces_to.send(read).is_err() || over {
                    return;
                }
            }
        });
        Scene { to: to.into_file(), end, pieces }
    }

    fn next(pieces: &mpsc::Receiver<io::Result<Vec<u8>>>) -> io::Result<Vec<u8>> {
        pieces.recv_timeout(LONG).expect("it does not wait for ever")
    }

    #[test]
    fn what_is_there_is_read_at_once_and_the_end_only_once_it_is_told() {
        let Scene { mut to, end, pieces } = scene();
        for piece in [&b"first"[..], b"second"] {
            to.write_all(piece).unwrap();
            assert_eq!(next(&pieces).unwrap(), piece);
        }
        assert!(pieces.recv_timeout(5 * LOOK).is_err(), "it waits for more");
        to.write_all(b"last").unwrap();
        end.whole();
        let mut rest = Vec::new();
        while let Ok(piece) = pieces.recv_timeout(LONG) {
            rest.extend(piece.unwrap());
        }
        assert_eq!(rest, b"last", "what was written before the end was told is read");
    }

    #[test]
    fn a_writer_that_failed_or_is_unknown_never_ends_the_file() {
        let Scene { mut to, end, pieces } = scene();
        to.write_all(b"half").unwrap();
        assert_eq!(next(&pieces).unwrap(), b"half");
        end.failed("it was killed");
        assert_eq!(next(&pieces).unwrap_err().to_string(), "it was killed");
        let Scene { end, pieces, .. } = scene();
        drop(end);
        let why = next(&pieces).unwrap_err();
        assert!(why.to_string().contains("nobody knows"), "{why}");
    }
}
