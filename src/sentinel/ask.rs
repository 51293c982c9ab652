//! Asks another node for the word that it has.

use std::time::Duration;

use redis_protocol::bytes::BytesMut;
use redis_protocol::resp2::types::OwnedFrame;
use redis_protocol::resp2::{decode, encode};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

use crate::announce::Signed;
use crate::model::announcement::LARGEST;

/// An answer is a packet or a few; whoever takes longer is asked another time.
const LIMIT: Duration = Duration::from_secs(5);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The connection ended or was silent.
    #[error("it did not answer ({0}); another node may")]
    Away(String),
    /// It is something else that listens there.
    #[error("what it answered is no word about a master; is that port a node's of this cluster?")]
    Unreadable,
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
    let away = |error: &dyn std::fmt::Display| AskError::Away(error.to_string());
    let words = ["SENTINEL", "ANNOUNCEMENT", cluster];
    let words = words.map(|word| OwnedFrame::BulkString(word.as_bytes().to_vec()));
    let frame = OwnedFrame::Array(words.to_vec());
    let mut question = BytesMut::new();
    encode::extend_encode(&mut question, &frame.into_bytes_frame(), false)
        .map_err(|error| away(&error))?;
    let answer = async {
        stream.write_all(&question).await.map_err(|error| away(&error))?;
        let mut read = BytesMut::new();
        loop {
            if let Some((frame, _)) = decode::decode(&read).map_err(|_| AskError::Unreadable)? {
                return Ok(frame);
            }
            if read.len() > 2 * LARGEST {
                return Err(AskError::Unreadable);
            }
            let more = stream.read_buf(&mut read).await.map_err(|error| away(&error))?;
            if more == 0 {
                return Err(AskError::Away("the connection ended".to_owned()));
            }
        }
    };
    let answer = timeout(LIMIT, answer)
        .await
        .map_err(|_| AskError::Away(format!("nothing within {LIMIT:?}")))??;
    match answer {
        OwnedFrame::Null => Ok(None),
        OwnedFrame::Array(parts) => match parts.as_slice() {
            [OwnedFrame::BulkString(content), OwnedFrame::BulkString(signature)] => {
                Ok(Some(Signed { content: content.clone(), signature: signature.clone() }))
            }
            _ => Err(AskError::Unreadable),
        },
        _ => Err(AskError::Unreadable),
    }
}
