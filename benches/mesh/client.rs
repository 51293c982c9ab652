//! A small client of Redis, the same whatever carries its bytes.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader,
};

use crate::figure::median;

/// Where the value of one mebibyte is.
pub const KEY: &str = "bulk";
const MIB: usize = 1024 * 1024;

pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

pub struct Client(BufReader<Box<dyn Stream>>);

impl Client {
    pub fn new(stream: impl Stream + 'static) -> Self {
        Self(BufReader::with_capacity(256 * 1024, Box::new(stream)))
    }

    /// Sends one command and reads its answer.
    pub async fn command(&mut self, words: &[&str]) -> String {
        self.try_command(words).await.expect("a connection")
    }

    async fn try_command(&mut self, words: &[&str]) -> std::io::Result<String> {
        self.send(words).await?;
        self.answer().await
    }

    /// Whether Redis is at the other end: a carrier takes a connection before it has one itself.
    pub async fn answers(&mut self) -> bool {
        self.try_command(&["PING"]).await.is_ok_and(|answer| answer == "PONG")
    }

    /// Median time of so many pings, one after the other.
    pub async fn pings(&mut self, count: usize) -> Duration {
        let mut took = Vec::with_capacity(count);
        for _ in 0..count {
            let begun = Instant::now();
            assert!(self.answers().await, "the connection broke");
            took.push(begun.elapsed().as_secs_f64());
        }
        Duration::from_secs_f64(median(&took))
    }

    /// Fetches so many mebibytes, eight commands ahead; megabytes a second.
    pub async fn bulk(&mut self, mebibytes: u32) -> f64 {
        const AHEAD: u32 = 8;
        let begun = Instant::now();
        for _ in 0..AHEAD.min(mebibytes) {
            self.send(&["GET", KEY]).await.expect("a connection");
        }
        for done in 0..mebibytes {
            assert_eq!(self.answer().await.expect("a connection").len(), MIB);
            if done + AHEAD < mebibytes {
                self.send(&["GET", KEY]).await.expect("a connection");
            }
        }
        f64::from(mebibytes) * 1.048_576 / begun.elapsed().as_secs_f64()
    }

    pub async fn fill(&mut self) {
        assert_eq!(self.command(&["SET", KEY, &"x".repeat(MIB)]).await, "OK");
    }

    async fn send(&mut self, words: &[&str]) -> std::io::Result<()> {
        let mut text = format!("*{}\r\n", words.len());
        for word in words {
            let _ = write!(text, "${}\r\n{word}\r\n", word.len());
        }
        self.0.write_all(text.as_bytes()).await?;
        self.0.flush().await
    }

    /// A simple string, an error, a number or a bulk string, as text.
    async fn answer(&mut self) -> std::io::Result<String> {
        let mut line = String::new();
        self.0.read_line(&mut line).await?;
        let line = line.trim_end();
        let Some(length) = line.strip_prefix('$') else {
            return Ok(line.get(1..).unwrap_or_default().to_owned());
        };
        let mut body = vec![0; length.parse::<usize>().expect("a length") + 2];
        self.0.read_exact(&mut body).await?;
        body.truncate(body.len() - 2);
        String::from_utf8(body).map_err(std::io::Error::other)
    }
}
