//! Where one message of the Redis protocol (RESP2 and 3) ends, and which command a request is. What
//! else it says is nobody's business here.

/// A line of a request or of a reply; Redis itself takes no longer one of a request.
const LONGEST_LINE: usize = 64 << 10;
/// The name of a command, or of a subcommand.
const LONGEST_WORD: usize = 64;
/// Replies within replies; no reply of Redis comes near.
const DEEPEST: usize = 32;

/// What came is not of the protocol.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("what came is not of the Redis protocol: {0}")]
pub(super) struct Malformed(&'static str);

/// Finds the end of a message in a stream that comes in pieces.
#[derive(Debug, Default)]
pub(super) struct Scanner {
    /// Elements still to come, the innermost list last.
    open: Vec<u64>,
    /// Bytes of a text still to come, its line end included.
    text: u64,
    /// The part of a line that was seen.
    line: Vec<u8>,
}

impl Scanner {
    /// How many of these bytes belong to the present message, and whether it ends with them. Then
    /// the next one begins.
    pub fn take(&mut self, bytes: &[u8]) -> Result<(usize, bool), Malformed> {
        let mut at = 0;
        while at < bytes.len() {
            let left = &bytes[at..];
            if self.text > 0 {
                let some = usize::try_from(self.text).unwrap_or(usize::MAX).min(left.len());
                self.text -= some as u64;
                at += some;
                if self.text == 0 && self.element() {
                    return Ok((at, true));
                }
                continue;
            }
            let end = left.iter().position(|byte| *byte == b'\n');
            let some = end.map_or(left.len(), |end| end + 1);
            if self.line.len() + some > LONGEST_LINE {
                return Err(Malformed("a line does not end"));
            }
            self.line.extend_from_slice(&left[..some]);
            at += some;
            if end.is_some() && self.header()? {
                return Ok((at, true));
            }
        }
        Ok((at, false))
    }

    /// A line is whole; whether the message ends with it.
    fn header(&mut self) -> Result<bool, Malformed> {
        let line = std::mem::take(&mut self.line);
        let number = || number(&line[1..]);
        let elements = match line.first() {
            Some(b'$' | b'=' | b'!') => {
                let Some(length) = number()? else { return Ok(self.element()) };
                self.text = length + 2;
                return Ok(false);
            }
            Some(b'*' | b'~' | b'>') => number()?.unwrap_or(0),
            Some(b'%') => number()?.unwrap_or(0).saturating_mul(2),
            // Attributes stand before what they are about; both are one element.
            Some(b'|') => number()?.unwrap_or(0).saturating_mul(2).saturating_add(1),
            // A line by itself: a reply of one, or a request typed by hand.
            _ => 0,
        };
        if elements == 0 {
            return Ok(self.element());
        }
        if self.open.len() == DEEPEST {
            return Err(Malformed("lists within lists without end"));
        }
        self.open.push(elements);
        Ok(false)
    }

    /// An element is whole; whether the message ends with it.
    fn element(&mut self) -> bool {
        while let Some(left) = self.open.last_mut() {
            *left -= 1;
            if *left > 0 {
                return false;
            }
            self.open.pop();
        }
        true
    }
}

/// A length; `None` for the -1 of RESP2, which stands for nothing.
fn number(text: &[u8]) -> Result<Option<u64>, Malformed> {
    let text = std::str::from_utf8(text).map(str::trim_end).unwrap_or_default();
    if text == "-1" {
        return Ok(None);
    }
    let number = text.parse::<u64>().ok().filter(|n| *n <= 1 << 40);
    number.map(Some).ok_or(Malformed("a length is no number"))
}

/// The first words of a request, in upper case; a word that is too long to be a name is empty.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// Name of the command; empty for an empty line, which has no reply.
    pub name: String,
    /// Its first argument, e.g. a subcommand.
    pub first: String,
}

/// The first words of the request at the beginning of `bytes`; `None` as long as they are not there.
pub(super) fn head(bytes: &[u8]) -> Result<Option<Head>, Malformed> {
    let Some((line, rest)) = line(bytes)? else { return Ok(None) };
    if line.first() != Some(&b'*') {
        let text = String::from_utf8_lossy(line).to_ascii_uppercase();
        let mut words = text.split_ascii_whitespace().map(str::to_owned);
        let (name, first) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        return Ok(Some(Head { name, first }));
    }
    let count = number(&line[1..])?.unwrap_or(0);
    if count == 0 {
        return Ok(Some(Head { name: String::new(), first: String::new() }));
    }
    let Some((name, rest)) = word(rest)? else { return Ok(None) };
    if count == 1 {
        return Ok(Some(Head { name, first: String::new() }));
    }
    Ok(word(rest)?.map(|(first, _)| Head { name, first }))
}

/// What was looked for, and the bytes after it.
type Found<'b, T> = Option<(T, &'b [u8])>;

fn line(bytes: &[u8]) -> Result<Found<'_, &[u8]>, Malformed> {
    match bytes.iter().position(|byte| *byte == b'\n') {
        Some(end) => Ok(Some((bytes[..end].trim_ascii_end(), &bytes[end + 1..]))),
        None if bytes.len() > LONGEST_LINE => Err(Malformed("a line does not end")),
        None => Ok(None),
    }
}

/// A text of a request; of a long one not even its end is waited for.
fn word(bytes: &[u8]) -> Result<Found<'_, String>, Malformed> {
    let Some((header, rest)) = line(bytes)? else { return Ok(None) };
    if header.first() != Some(&b'$') {
        return Err(Malformed("a request is no list of texts"));
    }
    let length = number(&header[1..])?.ok_or(Malformed("a request is no list of texts"))?;
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if length > LONGEST_WORD {
        return Ok(Some((String::new(), &[])));
    }
    if rest.len() < length + 2 {
        return Ok(None);
    }
    let text = String::from_utf8_lossy(&rest[..length]).to_ascii_uppercase();
    Ok(Some((text, &rest[length + 2..])))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// One of each kind, as Redis writes them.
    const MESSAGES: [&str; 16] = [
        "+OK\r\n",
        "-ERR no\r\n",
        ":12\r\n",
        "$5\r\nhello\r\n",
        "$0\r\n\r\n",
        "$-1\r\n",
        "*-1\r\n",
        "*0\r\n",
        "*2\r\n$1\r\na\r\n*2\r\n:1\r\n*0\r\n",
        "%2\r\n+a\r\n:1\r\n+b\r\n*1\r\n_\r\n",
        "~1\r\n#t\r\n",
        ">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n",
        "=7\r\ntxt:a\r\n\r\n",
        "|1\r\n+ttl\r\n:3\r\n*1\r\n,1.5\r\n",
        "(3492890328409238509324850943850943825024385\r\n",
        "$4\r\n*1\r\n\r\n",
    ];

    fn lengths(scanner: &mut Scanner, piece: &[u8], open: &mut usize, found: &mut Vec<usize>) {
        let mut at = 0;
        while at < piece.len() {
            let (taken, ends) = scanner.take(&piece[at..]).unwrap();
            (at, *open) = (at + taken, *open + taken);
            if ends {
                found.push(std::mem::take(open));
            }
        }
    }

    proptest! {
        #[test]
        fn messages_end_where_they_end_however_they_are_cut(
            chosen in prop::collection::vec(0..MESSAGES.len(), 1..8),
            cuts in prop::collection::vec(1_usize..9, 1..40),
        ) {
            let all: Vec<u8> = chosen.iter().flat_map(|n| MESSAGES[*n].bytes()).collect();
            let (mut scanner, mut open, mut found, mut rest) = (Scanner::default(), 0, vec![], &all[..]);
            for cut in cuts.iter().cycle() {
                if rest.is_empty() { break }
                let (piece, others) = rest.split_at((*cut).min(rest.len()));
                lengths(&mut scanner, piece, &mut open, &mut found);
                rest = others;
            }
            prop_assert_eq!(found, chosen.iter().map(|n| MESSAGES[*n].len()).collect::<Vec<_>>());
        }

        #[test]
        fn no_bytes_break_it(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = head(&bytes);
            let mut scanner = Scanner::default();
            let mut at = 0;
            while at < bytes.len() {
                let Ok((taken, _)) = scanner.take(&bytes[at..]) else { break };
                prop_assert!(taken > 0);
                at += taken;
            }
        }
    }

    #[test]
    fn a_request_is_known_as_soon_as_its_first_words_are_there() {
        let known = |text: &str| head(text.as_bytes()).unwrap().map(|h| (h.name, h.first));
        let words = |name: &str, first: &str| Some((name.to_owned(), first.to_owned()));
        for text in [
            "",
            "*2\r\n",
            "*2\r\n$3\r\nge",
            "*2\r\n$3\r\nget\r\n",
            "*2\r\n$3\r\nget\r\n$1\r\nk",
            "PIN",
        ] {
            assert_eq!(known(text), None, "{text:?}");
        }
        assert_eq!(known("*1\r\n$4\r\nping\r\n"), words("PING", ""));
        assert_eq!(known("*3\r\n$6\r\nclient\r\n$5\r\nreply\r\n"), words("CLIENT", "REPLY"));
        assert_eq!(known("*3\r\n$3\r\nset\r\n$9999\r\nxx"), words("SET", ""), "a long key");
        assert_eq!(known("set k v\r\n"), words("SET", "K"), "typed by hand");
        assert_eq!(known("\r\n"), words("", ""));
        for text in ["*1\r\n:1\r\n", "*x\r\n", "*1\r\n$-1\r\n"] {
            assert!(head(text.as_bytes()).is_err(), "{text:?}");
        }
    }
}
