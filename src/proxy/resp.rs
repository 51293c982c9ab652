//! Where one message of the Redis protocol (RESP2 and 3) ends, and which command a request is. What
//! else it says is nobody's business here.

/// A line of a request or of a reply; Redis itself takes no longer one of a request.
const LONGEST_LINE: usize = 64 << 10;
/// The name of a command, or of a subcommand.
const LONGEST_WORD: usize = 24;
/// What came is not of the protocol.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("what came is not of the Redis protocol: {0}")]
pub(super) struct Malformed(&'static str);

/// Finds the end of a message in a stream that comes in pieces.
#[derive(Debug, Default)]
pub(super) struct Scanner {
    /// Elements still to come, those within others included; none between two messages.
    left: u64,
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
            let rest = &bytes[at..];
            if self.text > 0 {
                let some = usize::try_from(self.text).unwrap_or(usize::MAX).min(rest.len());
                self.text -= some as u64;
                at += some;
                if self.text == 0 && self.left == 0 {
                    return Ok((at, true));
                }
                continue;
            }
            let end = rest.iter().position(|byte| *byte == b'\n');
            let some = end.map_or(rest.len(), |end| end + 1);
            if self.line.len() + some > LONGEST_LINE {
                return Err(Malformed("a line does not end"));
            }
            at += some;
            let ends = match end {
                // Nearly every line is there in one piece.
                Some(_) if self.line.is_empty() => self.header(&rest[..some])?,
                Some(_) => {
                    let mut line = std::mem::take(&mut self.line);
                    line.extend_from_slice(&rest[..some]);
                    self.header(&line)?
                }
                None => {
                    self.line.extend_from_slice(rest);
                    false
                }
            };
            if ends {
                return Ok((at, true));
            }
        }
        Ok((at, false))
    }

    /// A line is whole; whether the message ends with it.
    fn header(&mut self, line: &[u8]) -> Result<bool, Malformed> {
        self.left = self.left.max(1) - 1;
        let number = || number(&line[1..]);
        let elements = match line.first() {
            Some(b'$' | b'=' | b'!') => {
                self.text = number()?.map_or(0, |length| length + 2);
                0
            }
            Some(b'*' | b'~' | b'>') => number()?.unwrap_or(0),
            Some(b'%') => number()?.unwrap_or(0).saturating_mul(2),
            // Attributes stand before what they are about; both are one element.
            Some(b'|') => number()?.unwrap_or(0).saturating_mul(2).saturating_add(1),
            // A line by itself: a reply of one, or a request typed by hand.
            _ => 0,
        };
        self.left = self.left.saturating_add(elements);
        Ok(self.left == 0 && self.text == 0)
    }
}

/// A length; `None` for the -1 of RESP2, which stands for nothing.
fn number(text: &[u8]) -> Result<Option<u64>, Malformed> {
    let text = text.trim_ascii_end();
    if text == b"-1" {
        return Ok(None);
    }
    if text.is_empty() || text.len() > 13 || !text.iter().all(u8::is_ascii_digit) {
        return Err(Malformed("a length is no number"));
    }
    let number = text.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0'));
    if number > 1 << 40 { Err(Malformed("a length is no number")) } else { Ok(Some(number)) }
}

/// A word of a request that may be the name of a command or of a subcommand, in upper case; a longer
/// one is empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Name {
    text: [u8; LONGEST_WORD],
    length: u8,
}

impl Name {
    pub(super) fn new(text: &[u8]) -> Self {
        let mut word = Self::default();
        if let Some(place) = word.text.get_mut(..text.len()) {
            place.copy_from_slice(text);
            place.make_ascii_uppercase();
            word.length = u8::try_from(text.len()).unwrap_or_default();
        }
        word
    }
}

impl std::ops::Deref for Name {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.text[..usize::from(self.length)]
    }
}

/// The first words of a request, as they were written; one that is too long to be a [`Name`] is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head<'b> {
    /// Name of the command; empty for an empty line, which has no reply.
    pub name: &'b [u8],
    /// Its first argument, e.g. a subcommand.
    pub first: &'b [u8],
    /// How many words there are.
    pub words: u64,
}

/// The first words of the request at the beginning of `bytes`; `None` as long as they are not there.
pub(super) fn head(bytes: &[u8]) -> Result<Option<Head<'_>>, Malformed> {
    let Some((line, rest)) = line(bytes)? else { return Ok(None) };
    if line.first() != Some(&b'*') {
        let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        let words = words.by_ref();
        let name = words.next().map(short).unwrap_or_default();
        let first = words.next().map(short);
        let more = words.count() as u64;
        let count = u64::from(!name.is_empty()) + u64::from(first.is_some()) + more;
        return Ok(Some(Head { name, first: first.unwrap_or_default(), words: count }));
    }
    let words = number(&line[1..])?.unwrap_or(0);
    let (name, first) = (&[][..], &[][..]);
    if words == 0 {
        return Ok(Some(Head { name, first, words }));
    }
    let Some((name, rest)) = text(rest, LONGEST_WORD)? else { return Ok(None) };
    if words == 1 {
        return Ok(Some(Head { name, first, words }));
    }
    Ok(text(rest, LONGEST_WORD)?.map(|(first, _)| Head { name, first, words }))
}

/// Where the request at the beginning of `bytes` ends, and its first words; `None` where it is not
/// there as a whole, or is not written as programs write it: then the scanner has the word.
#[inline]
pub(super) fn whole(bytes: &[u8]) -> Option<(usize, Head<'_>)> {
    let mut at = 0;
    let words = length(bytes, &mut at, b'*').filter(|words| *words > 0)?;
    let mut head = Head { name: &[], first: &[], words };
    for which in 0..words {
        let length = usize::try_from(length(bytes, &mut at, b'$')?).ok()?;
        let text = bytes.get(at..at.checked_add(length)?)?;
        at += length;
        if bytes.get(at..at + 2)? != b"\r\n" {
            return None;
        }
        at += 2;
        match which {
            0 => head.name = short(text),
            1 => head.first = short(text),
            _ => {}
        }
    }
    Some((at, head))
}

/// Where the reply at the beginning of `bytes` ends, if it is there as a whole and is neither a list
/// nor an error nor a message that nobody asked for; the scanner has the word of any other.
#[inline]
pub(super) fn plain_reply(bytes: &[u8]) -> Option<usize> {
    match bytes.first()? {
        b'$' if bytes.starts_with(b"$-1\r\n") => Some(5),
        b'$' => {
            let mut at = 0;
            let text = usize::try_from(length(bytes, &mut at, b'$')?).ok()?;
            Some(at + text + 2).filter(|end| *end <= bytes.len())
        }
        b'+' | b':' | b'_' | b'#' | b',' => {
            let line = &bytes[..bytes.len().min(LONGEST_LINE)];
            line.iter().position(|byte| *byte == b'\n').map(|end| end + 1)
        }
        _ => None,
    }
}

/// A word as far as it may be a [`Name`].
#[inline]
fn short(word: &[u8]) -> &[u8] {
    if word.len() > LONGEST_WORD { &[] } else { word }
}

/// A line of this kind with a short number, and moves behind it.
#[inline]
fn length(bytes: &[u8], at: &mut usize, kind: u8) -> Option<u64> {
    let digit = |byte: u8| u64::from(byte - b'0');
    let (number, line) = match *bytes.get(*at..)? {
        // Nearly all are this short.
        [first, a @ b'0'..=b'9', b'\r', b'\n', ..] if first == kind => (digit(a), 4),
        [first, a @ b'0'..=b'9', b @ b'0'..=b'9', b'\r', b'\n', ..] if first == kind => {
            (digit(a) * 10 + digit(b), 5)
        }
        [first, ..] if first == kind => return long_length(bytes, at),
        _ => return None,
    };
    *at += line;
    Some(number)
}

/// The same of a number of more digits.
fn long_length(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let mut number = 0;
    for (digits, byte) in bytes[*at + 1..].iter().take(8).enumerate() {
        match byte {
            b'0'..=b'9' => number = number * 10 + u64::from(byte - b'0'),
            b'\r' if digits > 0 && bytes.get(*at + digits + 2) == Some(&b'\n') => {
                *at += digits + 3;
                return Some(number);
            }
            _ => return None,
        }
    }
    None
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

/// A text and what comes after it; of one longer than `most` not even its end is waited for.
fn text(bytes: &[u8], most: usize) -> Result<Found<'_, &[u8]>, Malformed> {
    let Some((header, rest)) = line(bytes)? else { return Ok(None) };
    if header.first() != Some(&b'$') {
        return Err(Malformed("a request is no list of texts"));
    }
    let length = number(&header[1..])?.ok_or(Malformed("a request is no list of texts"))?;
    let length = usize::try_from(length).unwrap_or(usize::MAX - 2);
    let after = rest.get(length + 2..);
    if length > most {
        return Ok(Some((&[], after.unwrap_or_default())));
    }
    Ok(after.map(|after| (&rest[..length], after)))
}

/// A text of a request; of a long one not even its end is waited for.
fn word(bytes: &[u8]) -> Result<Found<'_, Name>, Malformed> {
    Ok(text(bytes, LONGEST_WORD)?.map(|(text, rest)| (Name::new(text), rest)))
}

/// All words of a whole request.
pub(super) fn words(request: &[u8]) -> Vec<&[u8]> {
    let Ok(Some((head, mut rest))) = line(request) else { return Vec::new() };
    if head.first() != Some(&b'*') {
        return head.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).collect();
    }
    let mut words = Vec::new();
    while let Ok(Some((word, after))) = text(rest, usize::MAX - 2) {
        words.push(word);
        rest = after;
    }
    words
}

/// What a message is that may be one of a subscription: its kind and its channel; `None` as long as
/// they are not there. Both are empty where it is something else.
pub(super) fn message(bytes: &[u8]) -> Result<Option<(Name, &[u8])>, Malformed> {
    let Some((line, rest)) = line(bytes)? else { return Ok(None) };
    let other = Ok(Some((Name::default(), &[][..])));
    if number(&line[1..])?.unwrap_or(0) < 2 || rest.first().is_some_and(|byte| *byte != b'$') {
        return other;
    }
    let Some((kind, rest)) = word(rest)? else { return Ok(None) };
    match rest.first() {
        // A channel; none where the last of no subscription ends.
        Some(b'$') if !rest.starts_with(b"$-1") => {
            Ok(text(rest, usize::MAX - 2)?.map(|(channel, _)| (kind, channel)))
        }
        None => Ok(None),
        Some(_) => Ok(Some((kind, &[]))),
    }
}

/// A request of these words.
pub(super) fn request(words: &[&[u8]]) -> Vec<u8> {
    let mut all = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        all.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        all.extend_from_slice(word);
        all.extend_from_slice(b"\r\n");
    }
    all
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
        fn a_whole_request_is_what_the_scanner_finds(
            words in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..6),
            more in prop::collection::vec(any::<u8>(), 0..20),
            changed in (0_usize..60, any::<u8>()),
        ) {
            let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
            let request = request(&words);
            let all = [&request[..], &more].concat();
            let (end, found) = whole(&all).expect("it is there");
            prop_assert_eq!((end, Some(found)), (request.len(), head(&all).unwrap()));
            for cut in 0..request.len() {
                prop_assert_eq!(whole(&request[..cut]), None);
            }
            // Whatever it says of other bytes, the scanner says the same.
            let mut other = all;
            if let Some(byte) = other.get_mut(changed.0) {
                *byte = changed.1;
            }
            if let Some((end, found)) = whole(&other) {
                prop_assert_eq!(Scanner::default().take(&other).unwrap(), (end, true));
                prop_assert_eq!(Some(found), head(&other).unwrap());
            }
        }

        #[test]
        fn no_bytes_break_it(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = head(&bytes);
            let _ = whole(&bytes);
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
        let known = |text: &str| {
            let head = head(text.as_bytes()).unwrap();
            head.map(|head| (Name::new(head.name), Name::new(head.first)))
        };
        let words = |name: &str, first: &str| {
            Some((Name::new(name.as_bytes()), Name::new(first.as_bytes())))
        };
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
        let long = format!("*2\r\n$30\r\n{}\r\n$1\r\nk\r\n", "N".repeat(30));
        assert_eq!(known(&long), words("", "K"), "a long name");
        assert_eq!(known("set k v\r\n"), words("SET", "K"), "typed by hand");
        assert_eq!(known("\r\n"), words("", ""));
        for text in ["*1\r\n:1\r\n", "*x\r\n", "*1\r\n$-1\r\n"] {
            assert!(head(text.as_bytes()).is_err(), "{text:?}");
        }
    }
}
