//! Where commands end in a stream of replication. A replica may be stopped there, and nowhere else:
//! in the middle of a command it would wait for the rest, and in the middle of a transaction it would
//! drop what it has of it.

use std::io;

/// A line of the protocol is no longer, bytes.
const LONGEST_LINE: usize = 64;
/// `MULTI`, `EXEC` and `DISCARD` are no longer.
const LONGEST_NAME: u64 = 8;

/// Reads a stream as it comes, in pieces of any length.
#[derive(Debug)]
pub struct Scanner {
    /// Offset of the next byte.
    next: i64,
    boundary: i64,
    line: Vec<u8>,
    /// Words of the present command that are to come.
    words: u64,
    /// Bytes of the present word that are to come, with its line end.
    rest: u64,
    /// The command's name, as far as it is needed.
    name: Vec<u8>,
    names: bool,
    multi: bool,
}

impl Scanner {
    /// Begins at an offset at which a command begins, outside of a transaction.
    #[must_use]
    pub fn new(next: i64) -> Self {
        Self {
            next,
            boundary: next,
            line: Vec::new(),
            words: 0,
            rest: 0,
            name: Vec::new(),
            names: false,
            multi: false,
        }
    }

    /// Offset after the last command that is whole and outside of a transaction.
    #[must_use]
    pub fn boundary(&self) -> i64 {
        self.boundary
    }

    /// Offset of the next byte.
    #[must_use]
    pub fn next(&self) -> i64 {
        self.next
    }

    /// Reads on.
    ///
    /// # Errors
    /// This is no stream of replication.
    pub fn feed(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let taken = if self.rest > 0 { self.word(bytes) } else { self.read_line(bytes)? };
            self.next += i64::try_from(taken).unwrap_or(i64::MAX);
            bytes = &bytes[taken..];
            if self.rest == 0 && self.words == 0 && self.line.is_empty() {
                self.ended();
            }
        }
        Ok(())
    }

    fn word(&mut self, bytes: &[u8]) -> usize {
        let taken = usize::try_from(self.rest).unwrap_or(usize::MAX).min(bytes.len());
        if self.names {
            self.name.extend_from_slice(&bytes[..taken]);
        }
        self.rest -= taken as u64;
        if self.rest == 0 {
            self.words -= 1;
            self.names = false;
        }
        taken
    }

    fn read_line(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let taken = end.map_or(bytes.len(), |end| end + 1);
        self.line.extend_from_slice(&bytes[..taken]);
        if self.line.len() > LONGEST_LINE {
            return Err(unknown());
        }
        if end.is_some() {
            let line = std::mem::take(&mut self.line);
            let text = std::str::from_utf8(&line).map_err(|_| unknown())?.trim_end();
            let (kind, number) = (text.as_bytes().first(), text.get(1..).unwrap_or_default());
            match (kind, self.words) {
                (Some(b'*'), 0) => {
                    self.words = number.parse().ok().filter(|n| *n > 0).ok_or_else(unknown)?;
                    self.name.clear();
                    self.names = true;
                }
                (Some(b'$'), 1..) => {
                    let length: u64 = number.parse().map_err(|_| unknown())?;
                    self.rest = length.checked_add(2).ok_or_else(unknown)?;
                    self.names = self.names && length <= LONGEST_NAME;
                }
                // An empty line keeps a link alive.
                (None, 0) => {}
                _ => return Err(unknown()),
            }
        }
        Ok(taken)
    }

    fn ended(&mut self) {
        match self.name.trim_ascii_end().to_ascii_uppercase().as_slice() {
            b"MULTI" => self.multi = true,
            b"EXEC" | b"DISCARD" => self.multi = false,
            _ => {}
        }
        self.name.clear();
        if !self.multi {
            self.boundary = self.next;
        }
    }
}

fn unknown() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the log holds no stream of replication")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn command(words: &[&str]) -> Vec<u8> {
        let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            bytes.extend(format!("${}\r\n{word}\r\n", word.len()).bytes());
        }
        bytes
    }

    #[test]
    fn a_boundary_is_after_a_whole_command_and_not_within_a_transaction() {
        let mut scanner = Scanner::new(100);
        let set = command(&["SET", "key", "two\r\n*1\r\nlines"]);
        scanner.feed(&set[..set.len() - 1]).unwrap();
        assert_eq!(scanner.boundary(), 100);
        scanner.feed(&set[set.len() - 1..]).unwrap();
        let after = 100 + i64::try_from(set.len()).unwrap();
        assert_eq!((scanner.boundary(), scanner.next()), (after, after));
        scanner.feed(&command(&["multi"])).unwrap();
        scanner.feed(&command(&["INCR", "n"])).unwrap();
        assert_eq!(scanner.boundary(), after);
        scanner.feed(&command(&["EXEC"])).unwrap();
        assert_eq!(scanner.boundary(), scanner.next());
        scanner.feed(&command(&["SET", "MULTI", ""])).unwrap();
        assert_eq!(scanner.boundary(), scanner.next(), "a key of that name is none");
    }

    #[test]
    fn what_is_no_stream_is_refused() {
        for wrong in ["SET a b\r\n", "*0\r\n", "*x\r\n", "$3\r\nSET\r\n", "*1\r\n*1\r\n"] {
            assert!(Scanner::new(1).feed(wrong.as_bytes()).is_err(), "{wrong:?}");
        }
        assert!(Scanner::new(1).feed(&[b'*'; 100]).is_err());
    }

    proptest! {
        #[test]
        fn it_does_not_matter_where_pieces_are_cut(
            values in prop::collection::vec("[\\PC\r\n*$]{0,40}", 1..12),
            multi in any::<bool>(),
            cuts in prop::collection::vec(1usize..30, 1..60),
        ) {
            let mut stream = Vec::new();
            if multi {
                stream.extend(command(&["MULTI"]));
            }
            for value in &values {
                stream.extend(command(&["SET", value, value]));
            }
            if multi {
                stream.extend(command(&["EXEC"]));
            }
            let mut whole = Scanner::new(1);
            whole.feed(&stream).unwrap();
            let mut pieces = Scanner::new(1);
            let (mut at, mut cuts) = (0, cuts.iter().cycle());
            while at < stream.len() {
                let end = (at + cuts.next().unwrap()).min(stream.len());
                pieces.feed(&stream[at..end]).unwrap();
                at = end;
            }
            let end = 1 + i64::try_from(stream.len()).unwrap();
            prop_assert_eq!((whole.boundary(), pieces.boundary(), pieces.next()), (end, end, end));
        }
    }
}
