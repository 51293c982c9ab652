//! What Redis says at the beginning of an RDB file of the moment at which it was taken.

use std::io::{self, Read, Seek, SeekFrom};

/// The fields that are looked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// Replication id; empty where the server had none to tell.
    pub replid: String,
    /// Offset under it.
    pub offset: Option<i64>,
}

/// Begins a named field; anything else ends them.
const FIELD: u8 = 0xfa;
/// No field is longer, bytes; nor are there more of them.
const LONGEST: usize = 1024;
const MOST: usize = 64;

/// Reads the fields at the beginning; the file is at its beginning again then.
///
/// # Errors
/// It is no RDB file, or cannot be read.
pub fn read(file: &mut (impl Read + Seek)) -> io::Result<Header> {
    let header = fields(&mut io::BufReader::new(&mut *file))?;
    file.seek(SeekFrom::Start(0))?;
    Ok(header)
}

fn fields(from: &mut impl Read) -> io::Result<Header> {
    let mut magic = [0; 9];
    from.read_exact(&mut magic)?;
    if !magic.starts_with(b"REDIS") && !magic.starts_with(b"VALKEY") {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is no RDB file"));
    }
    let mut header = Header::default();
    for _ in 0..MOST {
        if byte(from)? != FIELD {
            break;
        }
        let (name, value) = (text(from)?, text(from)?);
        match name.as_str() {
            "repl-id" => header.replid = value,
            "repl-offset" => header.offset = value.parse().ok(),
            _ => {}
        }
    }
    Ok(header)
}

fn byte(from: &mut impl Read) -> io::Result<u8> {
    let mut byte = [0];
    from.read_exact(&mut byte)?;
    Ok(byte[0])
}

/// A text, or a number that stands for one.
fn text(from: &mut impl Read) -> io::Result<String> {
    let first = byte(from)?;
    let low = usize::from(first & 0x3f);
    let length = match first >> 6 {
        0 => low,
        1 => low << 8 | usize::from(byte(from)?),
        2 => {
            let mut bytes = [0; 4];
            from.read_exact(&mut bytes)?;
            usize::try_from(u32::from_be_bytes(bytes)).unwrap_or(usize::MAX)
        }
        _ => return number(from, low),
    };
    if length > LONGEST {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a field of it is too long"));
    }
    let mut bytes = vec![0; length];
    from.read_exact(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn number(from: &mut impl Read, kind: usize) -> io::Result<String> {
    let mut bytes = [0; 4];
    let number = match kind {
        0 => {
            from.read_exact(&mut bytes[..1])?;
            i32::from(i8::from_le_bytes([bytes[0]]))
        }
        1 => {
            from.read_exact(&mut bytes[..2])?;
            i32::from(i16::from_le_bytes([bytes[0], bytes[1]]))
        }
        2 => {
            from.read_exact(&mut bytes)?;
            i32::from_le_bytes(bytes)
        }
        _ => return Err(io::Error::new(io::ErrorKind::InvalidData, "a field of it is compressed")),
    };
    Ok(number.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_in_the_history_is_read_and_the_file_is_where_it_was() {
        let mut file = b"REDIS0010".to_vec();
        let name = |file: &mut Vec<u8>, text: &str| {
            file.push(u8::try_from(text.len()).unwrap());
            file.extend_from_slice(text.as_bytes());
        };
        for (field, value) in
            [("redis-ver", "7.0.15"), ("repl-id", &"a".repeat(40)), ("repl-offset", "9876543210")]
        {
            file.push(FIELD);
            name(&mut file, field);
            name(&mut file, value);
        }
        file.push(FIELD);
        name(&mut file, "redis-bits");
        file.extend_from_slice(&[0xc0, 64]);
        file.extend_from_slice(&[0xfe, 0]);
        let mut from = io::Cursor::new(file);
        let header = read(&mut from).unwrap();
        assert_eq!(header, Header { replid: "a".repeat(40), offset: Some(9_876_543_210) });
        assert_eq!(from.position(), 0);
        let mut small = b"REDIS0011".to_vec();
        small.push(FIELD);
        name(&mut small, "repl-offset");
        small.extend_from_slice(&[0xc1, 0x39, 0x30, 0xff]);
        assert_eq!(read(&mut io::Cursor::new(small)).unwrap().offset, Some(12345));
        assert!(read(&mut io::Cursor::new(b"something".to_vec())).is_err());
        assert!(read(&mut io::Cursor::new(b"REDIS".to_vec())).is_err());
    }
}
