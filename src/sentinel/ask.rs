//! Asks another node for the word that it has, and listens for newer ones.

use std::time::Duration;

use redis_protocol::bytes::{Buf as _, BytesMut};
use redis_protocol::resp2::types::OwnedFrame;
use redis_protocol::resp2::{decode, encode};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{sleep, timeout};

use super::WORDS;
use crate::announce::Signed;
use crate::model::announcement::LARGEST;

/// An answer is a packet or a few; whoever takes longer is asked another time.
const LIMIT: Duration = Duration::from_secs(5);
/// A node that has nothing to tell is asked so often whether it is there.
const PING_EVERY: Duration = Duration::from_secs(5);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The connection ended or was silent.
    #[error("it did not answer ({0}); another node may")]
    Away(String),
    /// It is something else that listens there.
    #[error("what it answered is no word about a master; is that port a node's of this cluster?")]
    Unreadable,
    /// It knows no such cluster.
    #[error("{0:?}")]
    Refused(String),
}

fn away(error: &dyn std::fmt::Display) -> AskError {
    AskError::Away(error.to_string())
}

/// Asks over a connection to port 26379 of a node; `None` when it has heard nothing of this cluster.
///
/// # Errors
/// No answer within five seconds, or none that can be read. That it is true is for the caller to
/// prove.
pub async fn ask<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    cluster: &str,
) -> Result<Option<Signed>, AskError> {
    write(&mut stream, &["SENTINEL", "ANNOUNCEMENT", cluster]).await?;
    word(in_time(read(&mut stream, &mut BytesMut::new())).await?)
}

/// Hears the words of one node.
pub struct Listener<S> {
    stream: S,
    buffer: BytesMut,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Listener<S> {
    /// Begins to listen over a connection to port 26379 of a node; the word that it has now, `None`
    /// when it has heard nothing of this cluster.
    ///
    /// # Errors
    /// As [`ask`].
    pub async fn begin(stream: S, cluster: &str) -> Result<(Self, Option<Signed>), AskError> {
        let mut listener = Self { stream, buffer: BytesMut::new() };
        let Self { stream, buffer } = &mut listener;
        write(stream, &["SENTINEL", "ANNOUNCEMENT", cluster]).await?;
        let first = word(in_time(read(stream, buffer)).await?)?;
        // Whoever begins to listen is told the present word once more: none is missed in between.
        write(stream, &["SUBSCRIBE", WORDS]).await?;
        in_time(read(stream, buffer)).await?;
        Ok((listener, first))
    }

    /// The next word that the node hears.
    ///
    /// # Errors
    /// The node is away; one that is silent is noticed within ten seconds.
    pub async fn next(&mut self) -> Result<Signed, AskError> {
        let Self { stream, buffer } = self;
        loop {
            let frame = tokio::select! {
                frame = read(stream, buffer) => Some(frame?),
                () = sleep(PING_EVERY) => None,
            };
            let frame = if let Some(frame) = frame {
                frame
            } else {
                write(stream, &["PING"]).await?;
                in_time(read(stream, buffer)).await?
            };
            let OwnedFrame::Array(parts) = frame else { return Err(AskError::Unreadable) };
            if let [OwnedFrame::BulkString(kind), _, OwnedFrame::BulkString(line)] =
                parts.as_slice()
                && kind == b"message"
            {
                return Signed::from_line(line).ok_or(AskError::Unreadable);
            }
        }
    }
}

async fn write<S: AsyncWrite + Unpin>(stream: &mut S, words: &[&str]) -> Result<(), AskError> {
    let words = words.iter().map(|word| OwnedFrame::BulkString(word.as_bytes().to_vec()));
    let frame = OwnedFrame::Array(words.collect());
    let mut question = BytesMut::new();
    encode::extend_encode(&mut question, &frame.into_bytes_frame(), false)
        .map_err(|error| away(&error))?;
    in_time(async { stream.write_all(&question).await.map_err(|error| away(&error)) }).await
}

async fn in_time<T>(work: impl Future<Output = Result<T, AskError>>) -> Result<T, AskError> {
    timeout(LIMIT, work).await.map_err(|_| AskError::Away(format!("nothing within {LIMIT:?}")))?
}

/// The next frame. What was read of it stays in the buffer when this is dropped.
async fn read<S: AsyncRead + Unpin>(
    stream: &mut S,
    buffer: &mut BytesMut,
) -> Result<OwnedFrame, AskError> {
    loop {
        if let Some((frame, length)) = decode::decode(buffer).map_err(|_| AskError::Unreadable)? {
            buffer.advance(length);
            return Ok(frame);
        }
        // A signed word as one line is longer by its signature.
        if buffer.len() > 2 * LARGEST {
            return Err(AskError::Unreadable);
        }
        if stream.read_buf(buffer).await.map_err(|error| away(&error))? == 0 {
            return Err(AskError::Away("the connection ended".to_owned()));
        }
    }
}

fn word(frame: OwnedFrame) -> Result<Option<Signed>, AskError> {
    match frame {
        OwnedFrame::Null => Ok(None),
        OwnedFrame::Error(said) => Err(AskError::Refused(said)),
        OwnedFrame::Array(parts) => match parts.as_slice() {
            [OwnedFrame::BulkString(content), OwnedFrame::BulkString(signature)] => {
                Ok(Some(Signed { content: content.clone(), signature: signature.clone() }))
            }
            _ => Err(AskError::Unreadable),
        },
        _ => Err(AskError::Unreadable),
    }
}
