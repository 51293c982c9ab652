//! A replica's part of the beginning of a replication, spoken to this node's own Redis: whoever is
//! attached gets the stream from an offset on, as a replica does.

use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::redis_config::AGENT_USER;

/// Redis answers on its socket within this.
const ANSWER: Duration = Duration::from_secs(1);

/// Why nobody is attached.
#[derive(Debug, thiserror::Error)]
pub enum PsyncError {
    /// No connection to Redis, or it broke.
    #[error("redis does not answer on its socket")]
    Unreachable(#[from] std::io::Error),
    /// Redis said something else than was expected.
    #[error("redis does not take it for a replica: {0:?}")]
    Refused(String),
    /// No answer in time.
    #[error("redis did not answer in {ANSWER:?}")]
    Late,
}

/// A link to Redis, and the history that it goes on in.
pub struct Attached {
    /// What follows is the stream.
    pub stream: BufReader<UnixStream>,
    /// The history as Redis calls it now; empty where it did not say.
    pub replid: String,
}

/// A connection that Redis knows as a replica's, and that is attached to nothing yet.
pub struct Introduced {
    stream: BufReader<UnixStream>,
}

/// Connects to `socket` as the replica `name`; Redis need not be master.
///
/// # Errors
/// [`PsyncError`]
pub async fn introduce(
    socket: &Path,
    password: &str,
    name: &str,
) -> Result<Introduced, PsyncError> {
    let work = async {
        let mut stream = BufReader::new(UnixStream::connect(socket).await?);
        let login = request(&["AUTH", AGENT_USER, password]);
        let names = request(&["REPLCONF", "ip-address", name, "capa", "psync2"]);
        stream.get_mut().write_all(&[login, names].concat()).await?;
        for _ in 0..2 {
            answer(&mut stream, "+OK").await?;
        }
        Ok(Introduced { stream })
    };
    timeout(ANSWER, work).await.map_err(|_| PsyncError::Late)?
}

impl Introduced {
    /// Attaches as one that has everything before the offset `next` of the history `replid`. Redis
    /// must go on from there: one that would begin a full copy is let go.
    ///
    /// # Errors
    /// [`PsyncError`]
    pub async fn attach(mut self, replid: &str, next: i64) -> Result<Attached, PsyncError> {
        let work = async {
            // Redis takes no replica that has an answer to come.
            let asked = request(&["PSYNC", replid, &next.to_string()]);
            self.stream.get_mut().write_all(&asked).await?;
            let line = answer(&mut self.stream, "+CONTINUE").await?;
            let replid = line.split_whitespace().nth(1).unwrap_or_default().to_owned();
            Ok(Attached { stream: self.stream, replid })
        };
        timeout(ANSWER, work).await.map_err(|_| PsyncError::Late)?
    }
}

async fn answer(stream: &mut BufReader<UnixStream>, expected: &str) -> Result<String, PsyncError> {
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    if line.starts_with(expected) {
        Ok(line)
    } else {
        Err(PsyncError::Refused(line.trim_end().to_owned()))
    }
}

/// A request as Redis reads it.
#[must_use]
pub fn request(words: &[&str]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend(format!("${}\r\n{word}\r\n", word.len()).bytes());
    }
    bytes
}
