//! The agent's own part in a replication of which it is the master: what a redis asks that attaches to
//! it, and what keeps the link alive.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::{sleep, timeout};

use super::nonces::random_hex;

/// Redis asks its new master within this.
pub(super) const ATTACH: Duration = Duration::from_secs(30);
/// Between two looks at Redis while it loads, and two pings to it.
pub(super) const BEAT: Duration = Duration::from_secs(1);
/// A request of Redis has no more words, and no longer ones.
const WORDS: usize = 16;
const LONGEST: usize = 512;
/// Where the history of what it sends begins.
pub(super) const OFFSET: i64 = 1;

/// The link to a redis whose master this agent is.
pub(super) type Link = (BufReader<OwnedReadHalf>, OwnedWriteHalf);

/// Both ways of a link.
pub(super) fn split(stream: TcpStream) -> (BufReader<OwnedReadHalf>, OwnedWriteHalf) {
    let _ = stream.set_nodelay(true);
    let (from, to) = stream.into_split();
    (BufReader::new(from), to)
}

/// A master's part of the beginning of a replication: every request is granted, and the last one is
/// answered with the announcement of the whole data set, of so many bytes. Returns the name of the
/// history, which begins at [`OFFSET`].
pub(super) async fn greet(
    from: &mut BufReader<OwnedReadHalf>,
    to: &mut OwnedWriteHalf,
    bytes: u64,
) -> io::Result<String> {
    let work = async {
        loop {
            let request = request(from).await?;
            let answer = match request.first().map(|word| word.to_ascii_uppercase()).as_deref() {
                Some("PING") => "+PONG\r\n".to_owned(),
                Some("PSYNC" | "SYNC") => {
                    // 40 characters, as every history's name.
                    let history: String = (random_hex() + &random_hex()).chars().take(40).collect();
                    let start = format!("+FULLRESYNC {history} {OFFSET}\r\n${bytes}\r\n");
                    to.write_all(start.as_bytes()).await?;
                    return Ok(history);
                }
                _ => "+OK\r\n".to_owned(),
            };
            to.write_all(answer.as_bytes()).await?;
        }
    };
    timeout(ATTACH, work).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// One request of Redis: an array of texts, or a line.
pub(super) async fn request(from: &mut BufReader<OwnedReadHalf>) -> io::Result<Vec<String>> {
    let first = line(from).await?;
    let Some(count) = first.strip_prefix('*') else {
        return Ok(first.split_whitespace().map(str::to_owned).collect());
    };
    let count = number(count, WORDS)?;
    let mut words = Vec::with_capacity(count);
    for _ in 0..count {
        let length = line(from).await?;
        let length = number(length.strip_prefix('$').unwrap_or_default(), LONGEST)?;
        let mut word = vec![0; length + 2];
        from.read_exact(&mut word).await?;
        word.truncate(length);
        words.push(String::from_utf8_lossy(&word).into_owned());
    }
    Ok(words)
}

fn number(text: &str, most: usize) -> io::Result<usize> {
    let number = text.parse().ok().filter(|number| *number <= most);
    number
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "Redis asked in an unknown way"))
}

async fn line(from: &mut BufReader<OwnedReadHalf>) -> io::Result<String> {
    let mut line = Vec::new();
    let read = from.take(LONGEST as u64).read_until(b'\n', &mut line).await?;
    if read == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
}

/// Keeps the link alive until Redis ends it. What it acknowledges is read and means nothing here.
/// `sent` counts the bytes that become part of the stream.
pub(super) async fn stay(
    from: &mut BufReader<OwnedReadHalf>,
    to: &mut OwnedWriteHalf,
    sent: &mut i64,
) {
    const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";
    let mut buffer = [0; 1024];
    loop {
        tokio::select! {
            read = from.read(&mut buffer) => match read {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            },
            () = sleep(BEAT) => {
                // A piece of one would spoil the rest: it is written as a whole, or the link is over.
                if to.write_all(PING).await.is_err() {
                    return;
                }
                *sent += 14;
            }
        }
    }
}
