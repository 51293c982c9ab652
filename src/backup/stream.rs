//! An RDB file on its way to a storage and back, a few MiB of it at a time: read, compressed,
//! encrypted and uploaded in parts; downloaded, decrypted and decompressed.
//!
//! Compression and encryption run on a thread of their own, and each side waits for the other: the
//! memory is bounded however slow the storage is.

use std::io::{self, Read, Write};

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{GetResultPayload, ObjectStoreExt as _, WriteMultipart};
use ring::digest::{Context, SHA256};
use tokio::sync::mpsc;

use super::format::{BackupKey, Decryptor, Encryptor};
use super::storage::{Storage, StorageError};

/// Bytes of a part: S3 takes no smaller ones, and 10 000 of them at most.
const PART: u64 = 5 * 1024 * 1024;
/// Parts of one object, with room to spare.
const PARTS: u64 = 9000;
/// Parts under way at one time.
const UPLOADS: usize = 2;
/// Bytes that are handed on at a time.
const BLOCK: usize = 256 * 1024;
/// Level of zstd: a good half of the size of a typical dump at several hundred MB/s.
pub(super) const LEVEL: i32 = 3;
/// Memory that a compressed stream may ask for to be read, as a power of two.
const WINDOW: u32 = 27;

/// Why a stream came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The storage.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The bytes themselves.
    #[error("{0}")]
    Data(String),
    /// The thread that works on them ended.
    #[error("internal error: the stream was dropped before its end")]
    Dropped,
}

/// What was uploaded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Uploaded {
    /// Bytes of the object.
    pub stored_bytes: u64,
    /// SHA-256 of the object, hex.
    pub stored_sha256: String,
    /// Bytes before compression.
    pub plain_bytes: u64,
    /// SHA-256 before compression, hex.
    pub plain_sha256: String,
}

/// Counts and hashes what passes.
struct Digest {
    context: Context,
    bytes: u64,
}

impl Digest {
    fn new() -> Self {
        Self { context: Context::new(&SHA256), bytes: 0 }
    }
    fn update(&mut self, bytes: &[u8]) {
        self.context.update(bytes);
        self.bytes += bytes.len() as u64;
    }
    fn end(self) -> (u64, String) {
        (self.bytes, hex::encode(self.context.finish()))
    }
}

/// Hands what is written to it on, in parts of one size.
struct Parts {
    to: mpsc::Sender<Bytes>,
    part: Vec<u8>,
    size: usize,
}

impl Parts {
    fn send(&mut self) -> io::Result<()> {
        let part = std::mem::replace(&mut self.part, Vec::with_capacity(self.size));
        self.to.blocking_send(part.into()).map_err(|_| io::Error::other("the upload ended"))
    }
}

impl Write for Parts {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(self.size - self.part.len());
        self.part.extend_from_slice(&bytes[..taken]);
        if self.part.len() == self.size {
            self.send()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Uploads what `from` gives as the object `object` of the backup `id`. `total` is about how much
/// that is at most, bytes; `progress` is told how much was read so far. Nothing is left at the storage
/// when it fails, as far as that can be asked to forget it; `from` is read no further then, once the
/// read ends that it is in.
///
/// # Errors
/// One sentence.
pub async fn upload(
    storage: &Storage,
    object: &str,
    (id, key): (&str, &BackupKey),
    from: impl Read + Send + 'static,
    total: u64,
    progress: impl Fn(u64) + Send + 'static,
) -> Result<Uploaded, StreamError> {
    let size = usize::try_from(PART.max(total.div_ceil(PARTS))).unwrap_or(usize::MAX);
    let (to, mut parts) = mpsc::channel(1);
    let (id, key) = (id.to_owned(), key.clone());
    let work = tokio::task::spawn_blocking(move || {
        let parts = Parts { to, part: Vec::with_capacity(size), size };
        pack(from, Encryptor::new(parts, &id, &key)?, progress)
    });
    let began = storage.store().put_multipart(&Path::from(object)).await;
    let began = began.map_err(|error| storage.error("write", &error))?;
    let mut upload = WriteMultipart::new_with_chunk_size(began, size);
    let mut stored = Digest::new();
    let mut failed = None;
    while let Some(part) = parts.recv().await {
        stored.update(&part);
        if let Err(error) = upload.wait_for_capacity(UPLOADS).await {
            failed = Some(storage.error("write", &error));
            break;
        }
        upload.put(part);
    }
    drop(parts);
    let failure = match failed {
        // What it reads may not go on for long: it is not waited for, and ends with its next part.
        Some(error) => error.into(),
        None => match work.await.map_err(|_| StreamError::Dropped)? {
            Err(error) => StreamError::Data(format!("the snapshot cannot be read ({error})")),
            Ok((plain_bytes, plain_sha256)) => {
                upload.finish().await.map_err(|error| storage.error("write", &error))?;
                let (stored_bytes, stored_sha256) = stored.end();
                return Ok(Uploaded { stored_bytes, stored_sha256, plain_bytes, plain_sha256 });
            }
        },
    };
    // What cannot be taken back now is swept up with the next look at the storage.
    let _ = upload.abort().await;
    Err(failure)
}

fn pack(
    mut from: impl Read,
    to: Encryptor<Parts>,
    progress: impl Fn(u64),
) -> io::Result<(u64, String)> {
    let mut packer = zstd::Encoder::new(to, LEVEL)?;
    packer.include_checksum(true)?;
    let (mut plain, mut block) = (Digest::new(), vec![0; BLOCK]);
    loop {
        let read = from.read(&mut block)?;
        if read == 0 {
            break;
        }
        plain.update(&block[..read]);
        packer.write_all(&block[..read])?;
        progress(plain.bytes);
    }
    let mut parts = packer.finish()?.finish()?;
    if !parts.part.is_empty() {
        parts.send()?;
    }
    Ok(plain.end())
}

/// Reads from a channel of blocks.
struct Blocks {
    from: mpsc::Receiver<io::Result<Bytes>>,
    block: Bytes,
}

impl Read for Blocks {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.block.is_empty() {
            match self.from.blocking_recv() {
                Some(block) => self.block = block?,
                None => return Ok(0),
            }
        }
        let given = into.len().min(self.block.len());
        into[..given].copy_from_slice(&self.block.split_to(given));
        Ok(given)
    }
}

/// What is expected of a download.
#[derive(Clone, Debug)]
pub struct Expected {
    /// Bytes of the RDB file.
    pub bytes: u64,
    /// Its SHA-256, hex.
    pub sha256: String,
}

/// Downloads the object of backup `id` and gives its plain bytes, block by block. **The last block
/// comes once all of them were found to be as expected**: whoever needs every byte gets a good file
/// or an error, and no more than a part of a bad one.
#[must_use]
pub fn download(
    storage: Storage,
    object: String,
    (id, key): (String, BackupKey),
    expected: Expected,
) -> mpsc::Receiver<Result<Bytes, StreamError>> {
    let (plain_to, plain) = mpsc::channel(2);
    tokio::spawn(async move {
        let found = storage.store().get(&Path::from(object)).await;
        let body = match found {
            Ok(found) => found.payload,
            Err(error) => {
                let _ = plain_to.send(Err(storage.error("read", &error).into())).await;
                return;
            }
        };
        let from: Box<dyn Read + Send> = match body {
            // A directory's is read where it is: the other way takes 8 KiB of it at a time.
            GetResultPayload::File(file, _) => Box::new(file),
            GetResultPayload::Stream(body) => {
                let (blocks_to, from) = mpsc::channel(4);
                tokio::spawn(hand_on(storage, body, blocks_to));
                Box::new(Blocks { from, block: Bytes::new() })
            }
        };
        let (end, work) = (plain_to.clone(), plain_to);
        let unpacking =
            tokio::task::spawn_blocking(move || unpack(from, &id, &key, &expected, &work));
        if let Ok(Err(error)) = unpacking.await {
            let _ = end.send(Err(StreamError::Data(error.to_string()))).await;
        }
    });
    plain
}

/// Hands on what a storage sends, until it or whoever reads it ends.
async fn hand_on(
    storage: Storage,
    mut body: BoxStream<'static, object_store::Result<Bytes>>,
    to: mpsc::Sender<io::Result<Bytes>>,
) {
    while let Some(block) = body.next().await {
        let block = block.map_err(|e| io::Error::other(storage.error("read", &e).to_string()));
        let failed = block.is_err();
        if to.send(block).await.is_err() || failed {
            return;
        }
    }
}

fn unpack(
    from: impl Read,
    id: &str,
    key: &BackupKey,
    expected: &Expected,
    to: &mpsc::Sender<Result<Bytes, StreamError>>,
) -> io::Result<()> {
    let mut opened = Decryptor::new(from)?;
    if opened.id() != id {
        return Err(io::Error::other(format!(
            "the data are of backup {} and not of {id}: they were moved there",
            opened.id()
        )));
    }
    opened.unlock(key);
    let gone = |_| io::Error::other("nobody reads any more");
    let mut digest = Digest::new();
    let mut held: Option<Bytes> = None;
    let mut unpacker = unpacker(opened)?;
    loop {
        let mut block = Vec::with_capacity(BLOCK);
        if unpacker.by_ref().take(BLOCK as u64).read_to_end(&mut block)? == 0 {
            break;
        }
        digest.update(&block);
        if digest.bytes > expected.bytes {
            return Err(io::Error::other("the data are longer than their manifest says"));
        }
        if let Some(held) = held.replace(block.into()) {
            to.blocking_send(Ok(held)).map_err(gone)?;
        }
    }
    let (bytes, sha256) = digest.end();
    if bytes != expected.bytes || sha256 != expected.sha256 {
        return Err(io::Error::other(format!(
            "the data are not those of the manifest: {bytes} bytes of {}, with another checksum or length",
            expected.bytes
        )));
    }
    if let Some(held) = held {
        to.blocking_send(Ok(held)).map_err(gone)?;
    }
    Ok(())
}

pub(super) fn unpacker<R: Read>(from: R) -> io::Result<zstd::Decoder<'static, io::BufReader<R>>> {
    let mut unpacker = zstd::Decoder::new(from)?.single_frame();
    unpacker.window_log_max(WINDOW)?;
    Ok(unpacker)
}

/// Decrypts a whole object: the RDB file. `key_of` gives the key of the backup that the object says
/// it is of. Returns that backup's id and the bytes written; what was written before an error is no
/// good.
///
/// # Errors
/// It is no backup, another root secret's, damaged, or one of the files failed.
pub fn decrypt(
    from: impl Read,
    key_of: impl Fn(&str) -> BackupKey,
    mut to: impl Write,
) -> io::Result<(String, u64)> {
    let mut opened = Decryptor::new(from)?;
    let id = opened.id().to_owned();
    opened.unlock(&key_of(&id));
    let mut unpacker = unpacker(opened)?;
    let bytes = io::copy(&mut unpacker, &mut to)?;
    // What follows the compressed data is part of what was encrypted: the end must be seen.
    io::copy(&mut unpacker.finish(), &mut io::sink())?;
    to.flush()?;
    Ok((id, bytes))
}
