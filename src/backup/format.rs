//! The bytes of an encrypted object.
//!
//! A header: the eight bytes `AKREDIS` and 1, the length of the backup's id (one byte), the id, and
//! 16 random bytes. Then chunks of 64 KiB, the last one shorter or as long, each encrypted with
//! AES-256-GCM, which adds 16 bytes. The key is HKDF-SHA256 of the backup's key with the random
//! bytes as salt and the whole header as info; the nonce of a chunk is its number (11 bytes, big
//! endian, from 0) and a byte that is 1 for the last chunk and 0 for all others. So chunks cannot be
//! changed, exchanged, repeated or left out, and an object that ends early is noticed.
//!
//! The key of a backup follows from the root secret and the id ([`crate::secrets`]); the id in the
//! header is what makes the root secret enough to decrypt a file.

use std::io::{self, Read, Write};

use hkdf::Hkdf;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use sha2::Sha256;

/// First bytes of every object: the format's name and number.
const MAGIC: [u8; 8] = *b"AKREDIS\x01";
/// Bytes of a chunk before it is encrypted.
const CHUNK: usize = 64 * 1024;
/// Bytes that encryption adds to a chunk.
const TAG: usize = 16;
/// Random bytes of the header.
const SALT: usize = 16;
/// No id is longer.
const LONGEST_ID: usize = 64;

/// The key of one backup, 32 bytes.
#[derive(Clone)]
pub struct BackupKey(pub [u8; 32]);

impl std::fmt::Debug for BackupKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BackupKey")
    }
}

/// Why an object cannot be decrypted.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// It is something else.
    #[error(
        "this is no encrypted backup: its first bytes are not those of one; name the object that ends in .rdb"
    )]
    NoBackup,
    /// A later version wrote it.
    #[error(
        "this backup has format {0}, and this version reads 1; use a later version of akash-redis"
    )]
    Newer(u8),
    /// The key is wrong, or a byte of it was changed.
    #[error(
        "the backup cannot be decrypted: it was changed or damaged, or the root secret is not the one that it was made with"
    )]
    Forged,
    /// It ends before its last chunk.
    #[error("the backup ends too early: a part of it is missing")]
    Truncated,
}

impl From<FormatError> for io::Error {
    fn from(error: FormatError) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}

/// Encrypts what is written to it.
pub struct Encryptor<W: Write> {
    out: W,
    cipher: LessSafeKey,
    number: u64,
    chunk: Vec<u8>,
}

impl<W: Write> Encryptor<W> {
    /// Writes the header. The same id and key may be used for several objects: each has a key of
    /// its own.
    ///
    /// # Errors
    /// `out` failed, or the id is longer than 64 bytes.
    pub fn new(mut out: W, id: &str, key: &BackupKey) -> io::Result<Self> {
        if id.is_empty() || id.len() > LONGEST_ID {
            return Err(io::Error::other("the id of a backup has 1 to 64 bytes"));
        }
        let mut header = MAGIC.to_vec();
        header.push(u8::try_from(id.len()).unwrap_or(u8::MAX));
        header.extend_from_slice(id.as_bytes());
        header.extend_from_slice(&rand::random::<[u8; SALT]>());
        out.write_all(&header)?;
        let cipher = cipher(key, &header);
        Ok(Self { out, cipher, number: 0, chunk: Vec::with_capacity(CHUNK + TAG) })
    }

    /// Writes the last chunk and hands back what it wrote to.
    ///
    /// # Errors
    /// `out` failed.
    pub fn finish(mut self) -> io::Result<W> {
        self.seal(true)?;
        Ok(self.out)
    }

    fn seal(&mut self, last: bool) -> io::Result<()> {
        let nonce = nonce(self.number, last);
        self.cipher
            .seal_in_place_append_tag(nonce, Aad::empty(), &mut self.chunk)
            .map_err(|_| io::Error::other("a chunk could not be encrypted"))?;
        self.out.write_all(&self.chunk)?;
        self.chunk.clear();
        self.number += 1;
        Ok(())
    }
}

impl<W: Write> Write for Encryptor<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A full chunk waits for the next byte: only then is it known not to be the last.
        if self.chunk.len() == CHUNK {
            self.seal(false)?;
        }
        let taken = bytes.len().min(CHUNK - self.chunk.len());
        self.chunk.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Decrypts what is read from it. Every byte that it gives was checked; that the object is whole is
/// known at its end alone.
pub struct Decryptor<R: Read> {
    from: R,
    id: String,
    header: Vec<u8>,
    cipher: Option<LessSafeKey>,
    number: u64,
    /// A chunk that was read and not yet decrypted: it is the last one when nothing follows.
    ahead: Vec<u8>,
    chunk: Vec<u8>,
    at: usize,
    ended: bool,
}

impl<R: Read> Decryptor<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// [`FormatError`] within, or `from` failed.
    pub fn new(mut from: R) -> io::Result<Self> {
        let mut header = vec![0; MAGIC.len() + 1];
        read_full(&mut from, &mut header)?;
        let (name, version) = (&header[..MAGIC.len() - 1], header[MAGIC.len() - 1]);
        if name != &MAGIC[..MAGIC.len() - 1] {
            return Err(FormatError::NoBackup.into());
        }
        if version != MAGIC[MAGIC.len() - 1] {
            return Err(FormatError::Newer(version).into());
        }
        let length = usize::from(header[MAGIC.len()]);
        if length == 0 || length > LONGEST_ID {
            return Err(FormatError::NoBackup.into());
        }
        let mut rest = vec![0; length + SALT];
        read_full(&mut from, &mut rest)?;
        let id =
            std::str::from_utf8(&rest[..length]).map_err(|_| FormatError::NoBackup)?.to_owned();
        header.extend_from_slice(&rest);
        let (ahead, chunk) = (Vec::new(), Vec::new());
        Ok(Self { from, id, header, cipher: None, number: 0, ahead, chunk, at: 0, ended: false })
    }

    /// The backup that it says it is of.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Gives it the key of that backup; nothing can be read before.
    pub fn unlock(&mut self, key: &BackupKey) {
        self.cipher = Some(cipher(key, &self.header));
    }

    fn next(&mut self) -> io::Result<()> {
        let cipher = self.cipher.as_ref().ok_or_else(|| io::Error::other("no key was given"))?;
        if self.number == 0 && self.ahead.is_empty() {
            self.ahead = read_chunk(&mut self.from)?;
        }
        let following =
            if self.ahead.len() == CHUNK + TAG { read_chunk(&mut self.from)? } else { Vec::new() };
        let last = following.is_empty();
        if self.ahead.len() < TAG {
            return Err(FormatError::Truncated.into());
        }
        let mut chunk = std::mem::replace(&mut self.ahead, following);
        let sealed = last.then(|| chunk.clone());
        let opened = cipher.open_in_place(nonce(self.number, last), Aad::empty(), &mut chunk);
        let Ok(plain) = opened else {
            // What was cut off at the end of a chunk is a good chunk that is not the last.
            let cut = sealed.is_some_and(|mut again| {
                let nonce = nonce(self.number, false);
                cipher.open_in_place(nonce, Aad::empty(), &mut again).is_ok()
            });
            let error = if cut { FormatError::Truncated } else { FormatError::Forged };
            return Err(error.into());
        };
        let length = plain.len();
        chunk.truncate(length);
        (self.chunk, self.at, self.ended) = (chunk, 0, last);
        self.number += 1;
        Ok(())
    }
}

impl<R: Read> Read for Decryptor<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.at == self.chunk.len() {
            if self.ended {
                return Ok(0);
            }
            self.next()?;
        }
        let given = into.len().min(self.chunk.len() - self.at);
        into[..given].copy_from_slice(&self.chunk[self.at..self.at + given]);
        self.at += given;
        Ok(given)
    }
}

fn cipher(key: &BackupKey, header: &[u8]) -> LessSafeKey {
    let salt = &header[header.len() - SALT..];
    let mut own = [0; 32];
    Hkdf::<Sha256>::new(Some(salt), &key.0)
        .expand(header, &mut own)
        .expect("32 bytes are within HKDF's limit");
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &own).expect("a key of AES-256 has 32 bytes"))
}

fn nonce(number: u64, last: bool) -> Nonce {
    let mut bytes = [0; 12];
    bytes[3..11].copy_from_slice(&number.to_be_bytes());
    bytes[11] = u8::from(last);
    Nonce::assume_unique_for_key(bytes)
}

fn read_full(from: &mut impl Read, into: &mut [u8]) -> io::Result<()> {
    from.read_exact(into).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => FormatError::NoBackup.into(),
        _ => error,
    })
}

/// Up to one encrypted chunk; shorter at the end alone.
fn read_chunk(from: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut chunk = Vec::with_capacity(CHUNK + TAG);
    from.take((CHUNK + TAG) as u64).read_to_end(&mut chunk)?;
    Ok(chunk)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> BackupKey {
        BackupKey([byte; 32])
    }

    fn sealed(plain: &[u8]) -> Vec<u8> {
        let mut out = Encryptor::new(Vec::new(), "20261126T030000Z-x7k2", &key(1)).unwrap();
        out.write_all(plain).unwrap();
        out.finish().unwrap()
    }

    fn opened(sealed: &[u8], with: &BackupKey) -> io::Result<Vec<u8>> {
        let mut from = Decryptor::new(sealed)?;
        assert_eq!(from.id(), "20261126T030000Z-x7k2");
        from.unlock(with);
        let mut plain = Vec::new();
        from.read_to_end(&mut plain).map(|_| plain)
    }

    #[test]
    fn what_is_sealed_opens_again_at_every_length() {
        for length in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 3 * CHUNK + 7] {
            let plain: Vec<u8> = (0..length).map(|i| u8::try_from(i % 251).unwrap()).collect();
            let once = sealed(&plain);
            assert_eq!(opened(&once, &key(1)).unwrap(), plain, "{length}");
            assert_ne!(once, sealed(&plain), "no key is used twice");
        }
    }

    #[test]
    fn what_was_changed_cut_or_is_of_another_key_is_refused_with_the_reason() {
        let plain = vec![7; 2 * CHUNK + 100];
        let good = sealed(&plain);
        let says = |bytes: &[u8], with: &BackupKey, what: &str| {
            let error = opened(bytes, with).unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        };
        says(&good, &key(2), "cannot be decrypted");
        let mut touched = good.clone();
        let middle = touched.len() / 2;
        touched[middle] ^= 1;
        says(&touched, &key(1), "cannot be decrypted");
        let header = MAGIC.len() + 1 + 21 + SALT;
        says(&good[..header], &key(1), "ends too early");
        says(&good[..header + CHUNK + TAG], &key(1), "ends too early");
        says(&good[..good.len() - 1], &key(1), "cannot be decrypted");
        let mut swapped = good.clone();
        let (first, second) = (header, header + CHUNK + TAG);
        for at in 0..CHUNK + TAG {
            swapped.swap(first + at, second + at);
        }
        says(&swapped, &key(1), "cannot be decrypted");
        let none = Decryptor::new(&b"REDIS0010 an RDB file"[..]).err().unwrap().to_string();
        assert!(none.contains("no encrypted backup"), "{none}");
        let mut newer = good;
        newer[7] = 2;
        let newer = Decryptor::new(&newer[..]).err().unwrap().to_string();
        assert!(newer.contains("format 2"), "{newer}");
    }
}
