//! A connection whose writes are confirmed: the reply to a write is held back until enough replicas
//! have it, and is an error when they do not have it in time.
//!
//! Redis itself is asked, on the same connection: a `WAIT` follows each run of commands that may
//! write. It is answered at once when nothing was written.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufWriter};
use tokio::sync::{mpsc, oneshot};

use super::resp::{self, Scanner};

const BUFFER: usize = 64 * 1024;
/// Replies that are waited for; further requests are not read meanwhile.
const MOST_OPEN: usize = 64 * 1024;
/// Replies that are held back, bytes.
const MOST_HELD: usize = 64 << 20;

/// What counts as confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Confirm {
    /// So many replicas must have a write; 0 stands for as many as the manifest says.
    pub replicas: u32,
    /// Within this; at least a millisecond.
    pub timeout: Duration,
}

/// Commands that write nothing and wait for nothing: their replies are not held back. What is not
/// listed is taken for a write.
const READS: &[&str] = &[
    "AUTH",
    "BITCOUNT",
    "BITFIELD_RO",
    "BITPOS",
    "CLIENT",
    "COMMAND",
    "CONFIG",
    "DBSIZE",
    "DUMP",
    "ECHO",
    "EVALSHA_RO",
    "EVAL_RO",
    "EXISTS",
    "EXPIRETIME",
    "FCALL_RO",
    "GEODIST",
    "GEOHASH",
    "GEOPOS",
    "GEORADIUSBYMEMBER_RO",
    "GEORADIUS_RO",
    "GEOSEARCH",
    "GET",
    "GETBIT",
    "GETRANGE",
    "HELLO",
    "HEXISTS",
    "HGET",
    "HGETALL",
    "HKEYS",
    "HLEN",
    "HMGET",
    "HRANDFIELD",
    "HSCAN",
    "HSTRLEN",
    "HVALS",
    "INFO",
    "KEYS",
    "LASTSAVE",
    "LCS",
    "LINDEX",
    "LLEN",
    "LOLWUT",
    "LPOS",
    "LRANGE",
    "MEMORY",
    "MGET",
    "OBJECT",
    "PEXPIRETIME",
    "PFCOUNT",
    "PING",
    "PTTL",
    "RANDOMKEY",
    "READONLY",
    "ROLE",
    "SCAN",
    "SCARD",
    "SDIFF",
    "SELECT",
    "SINTER",
    "SINTERCARD",
    "SISMEMBER",
    "SLOWLOG",
    "SMEMBERS",
    "SMISMEMBER",
    "SORT_RO",
    "SRANDMEMBER",
    "SSCAN",
    "STRLEN",
    "SUBSTR",
    "SUNION",
    "TIME",
    "TTL",
    "TYPE",
    "UNWATCH",
    "WATCH",
    "XINFO",
    "XLEN",
    "XPENDING",
    "XRANGE",
    "XREVRANGE",
    "ZCARD",
    "ZCOUNT",
    "ZMSCORE",
    "ZRANGE",
    "ZSCAN",
    "ZSCORE",
];

/// Commands that may wait themselves: replies before them are not held back until they end.
const WAITS: &[&str] = &[
    "BLMOVE",
    "BLMPOP",
    "BLPOP",
    "BRPOP",
    "BRPOPLPUSH",
    "BZMPOP",
    "BZPOPMAX",
    "BZPOPMIN",
    "WAIT",
    "WAITAOF",
    "XREAD",
    "XREADGROUP",
];

/// After these the server speaks by itself. Such a connection writes nothing any more.
const LISTENS: &[&str] = &["MONITOR", "PSUBSCRIBE", "SSUBSCRIBE", "SUBSCRIBE"];
/// What may be sent on a connection that listens.
const WHILE_LISTENING: &[&str] = &[
    "PING",
    "PSUBSCRIBE",
    "PUNSUBSCRIBE",
    "QUIT",
    "SSUBSCRIBE",
    "SUBSCRIBE",
    "SUNSUBSCRIBE",
    "UNSUBSCRIBE",
];

/// What is done with the next reply.
enum Expect {
    /// It is passed on.
    Through,
    /// It is held back.
    Held,
    /// It is that of our own `WAIT`, which decides about those that are held back.
    Wait,
    /// It says whether a transaction begins.
    Multi(oneshot::Sender<bool>),
    /// None comes: this is it.
    Own(&'static [u8]),
    /// From here on everything is passed on.
    Listens,
}

/// Carries requests to the master and replies back until one side ends.
///
/// # Errors
/// A connection broke, or what came is not of the protocol.
pub(super) async fn carry(
    client: impl AsyncRead + AsyncWrite,
    server: impl AsyncRead + AsyncWrite,
    confirm: Confirm,
) -> io::Result<()> {
    let (from_client, to_client) = tokio::io::split(client);
    let (from_server, to_server) = tokio::io::split(server);
    let (expect, expected) = mpsc::channel(MOST_OPEN);
    let up = async {
        let mut requests = Requests::new(to_server, confirm, expect);
        requests.run(from_client).await?;
        // Replies may be still to come; redis would drop them if it were told of the end now.
        drop(requests);
        std::future::pending().await
    };
    tokio::select! {
        end = up => end,
        end = Replies::new(from_server, to_client, confirm).run(expected) => end,
    }
}

/// The way to the server.
struct Requests<S> {
    server: S,
    /// What is to be sent.
    out: Vec<u8>,
    wait: Vec<u8>,
    expect: mpsc::Sender<Expect>,
    /// Replies are held back, and no `WAIT` was sent after them.
    run: bool,
    transaction: bool,
    listens: bool,
}

impl<S: AsyncWrite + Unpin> Requests<S> {
    fn new(server: S, confirm: Confirm, expect: mpsc::Sender<Expect>) -> Self {
        let (replicas, ms) =
            (confirm.replicas.to_string(), confirm.timeout.as_millis().max(1).to_string());
        let wait = format!(
            "*3\r\n$4\r\nWAIT\r\n${}\r\n{replicas}\r\n${}\r\n{ms}\r\n",
            replicas.len(),
            ms.len()
        );
        Self {
            server,
            out: Vec::new(),
            wait: wait.into_bytes(),
            expect,
            run: false,
            transaction: false,
            listens: false,
        }
    }

    async fn run(&mut self, mut client: impl AsyncRead + Unpin) -> io::Result<()> {
        let (mut bytes, mut scanner) = (Vec::with_capacity(BUFFER), Scanner::default());
        let mut within = false;
        // Whether the present request is passed on.
        let mut passed = true;
        loop {
            let mut at = 0;
            while at < bytes.len() {
                if !within {
                    let Some(head) = resp::head(&bytes[at..]).map_err(malformed)? else { break };
                    passed = self.begin(&head.name, &head.first).await?;
                }
                let (taken, ends) = scanner.take(&bytes[at..]).map_err(malformed)?;
                if passed {
                    self.out.extend_from_slice(&bytes[at..at + taken]);
                }
                (at, within) = (at + taken, !ends);
            }
            bytes.drain(..at);
            if !within {
                self.confirm().await?;
            }
            self.flush().await?;
            if client.read_buf(&mut bytes).await? == 0 {
                return Ok(());
            }
        }
    }

    /// A request begins; whether it is passed on.
    async fn begin(&mut self, name: &str, first: &str) -> io::Result<bool> {
        if name.is_empty() {
            return Ok(true);
        }
        if self.listens && WHILE_LISTENING.contains(&name) {
            return Ok(true);
        }
        if self.listens || (self.transaction && LISTENS.contains(&name)) {
            let text = format!(
                "{name} and a subscription on one connection: replies could not be told from messages; use a connection for each"
            );
            return Err(io::Error::new(io::ErrorKind::Unsupported, text));
        }
        if let ("CLIENT", "REPLY") | ("SYNC" | "PSYNC" | "REPLCONF", _) = (name, first) {
            self.confirm().await?;
            self.expect(Expect::Own(b"-ERR not through a proxy that confirms writes: it needs the reply to each command; connect to the master itself\r\n")).await?;
            return Ok(false);
        }
        if self.transaction && !matches!(name, "EXEC" | "DISCARD" | "RESET") {
            self.expect(Expect::Through).await?;
            return Ok(true);
        }
        self.transaction = false;
        let waits = WAITS.contains(&name);
        if waits || READS.contains(&name) || LISTENS.contains(&name) || name == "MULTI" {
            self.confirm().await?;
        }
        if LISTENS.contains(&name) {
            self.listens = true;
            self.expect(Expect::Listens).await?;
        } else if READS.contains(&name) {
            self.expect(Expect::Through).await?;
        } else if name == "MULTI" {
            // What follows is held back or not according to the reply.
            let (begins, told) = oneshot::channel();
            self.expect(Expect::Multi(begins)).await?;
            self.out.extend_from_slice(b"*1\r\n$5\r\nMULTI\r\n");
            self.flush().await?;
            self.transaction = told.await.unwrap_or(false);
            return Ok(false);
        } else {
            self.expect(Expect::Held).await?;
            self.run = true;
        }
        Ok(true)
    }

    /// Asks whether the replicas have what was written.
    async fn confirm(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.run) {
            self.expect(Expect::Wait).await?;
            self.out.extend_from_slice(&self.wait);
        }
        Ok(())
    }

    async fn expect(&mut self, what: Expect) -> io::Result<()> {
        let closed = || io::Error::from(io::ErrorKind::BrokenPipe);
        match self.expect.try_send(what) {
            Ok(()) => Ok(()),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(closed()),
            Err(mpsc::error::TrySendError::Full(what)) => {
                // Room comes with replies, and those with what is to be sent.
                self.flush().await?;
                self.expect.send(what).await.map_err(|_| closed())
            }
        }
    }

    async fn flush(&mut self) -> io::Result<()> {
        self.server.write_all(&self.out).await?;
        self.out.clear();
        self.server.flush().await
    }
}

/// The way back.
struct Replies<S, C> {
    server: S,
    client: BufWriter<C>,
    confirm: Confirm,
    bytes: Vec<u8>,
    held: Vec<Vec<u8>>,
    held_bytes: usize,
}

impl<S: AsyncRead + Unpin, C: AsyncWrite + Unpin> Replies<S, C> {
    fn new(server: S, client: C, confirm: Confirm) -> Self {
        Self {
            server,
            client: BufWriter::with_capacity(BUFFER, client),
            confirm,
            bytes: Vec::with_capacity(BUFFER),
            held: Vec::new(),
            held_bytes: 0,
        }
    }

    async fn run(mut self, mut expected: mpsc::Receiver<Expect>) -> io::Result<()> {
        loop {
            if expected.is_empty() {
                self.client.flush().await?;
            }
            let what = tokio::select! {
                what = expected.recv() => what,
                // News that nobody asked for: a push, or the end.
                more = self.server.read_buf(&mut self.bytes), if self.bytes.is_empty() => {
                    if more? == 0 {
                        return self.client.flush().await;
                    }
                    continue;
                }
                () = std::future::ready(()), if self.bytes.first() == Some(&b'>') => {
                    self.pass().await?;
                    continue;
                }
            };
            match what {
                // The client is done, and so are its replies.
                None => return self.client.flush().await,
                Some(Expect::Through) => {
                    self.pushes().await?;
                    self.pass().await?;
                }
                Some(Expect::Held) => {
                    let reply = self.reply().await?;
                    self.held_bytes += reply.len();
                    self.held.push(reply);
                }
                Some(Expect::Wait) => self.decide().await?,
                Some(Expect::Multi(begins)) => {
                    let reply = self.reply().await?;
                    let _ = begins.send(reply.starts_with(b"+OK"));
                    self.client.write_all(&reply).await?;
                }
                Some(Expect::Own(reply)) => self.client.write_all(reply).await?,
                Some(Expect::Listens) => {
                    self.client.write_all(&self.bytes).await?;
                    self.client.flush().await?;
                    tokio::io::copy(&mut self.server, &mut self.client).await?;
                    return Ok(());
                }
            }
        }
    }

    /// Passes on what the replicas have, and an error in place of each reply to what they may lack.
    async fn decide(&mut self) -> io::Result<()> {
        let answer = self.reply().await?;
        let text = String::from_utf8_lossy(&answer).trim_end().to_owned();
        let have = text.strip_prefix(':').and_then(|n| n.parse::<u32>().ok());
        let Confirm { replicas, timeout } = self.confirm;
        let why = match have {
            Some(have) if have >= replicas => None,
            Some(have) => Some(format!(
                "{have} of {replicas} replicas had this write after {} ms",
                timeout.as_millis()
            )),
            None => Some(format!(
                "redis did not say which replicas have this write ({})",
                text.trim_start_matches('-')
            )),
        };
        self.held_bytes = 0;
        for reply in std::mem::take(&mut self.held) {
            match &why {
                // What redis refused was not written.
                Some(why) if !reply.starts_with(b"-") => {
                    let error = format!(
                        "-UNCONFIRMED {why}: the master has it, and a failover may lose it; read it again, or repeat it\r\n"
                    );
                    self.client.write_all(error.as_bytes()).await?;
                }
                _ => self.client.write_all(&reply).await?,
            }
        }
        Ok(())
    }

    /// Passes on pushes until a reply begins.
    async fn pushes(&mut self) -> io::Result<()> {
        loop {
            match self.bytes.first() {
                None => self.fill().await?,
                Some(b'>') => self.pass().await?,
                Some(_) => return Ok(()),
            }
        }
    }

    /// Passes on one message.
    async fn pass(&mut self) -> io::Result<()> {
        let mut scanner = Scanner::default();
        loop {
            let (taken, ends) = scanner.take(&self.bytes).map_err(malformed)?;
            self.client.write_all(&self.bytes[..taken]).await?;
            self.bytes.drain(..taken);
            if ends {
                return Ok(());
            }
            self.fill().await?;
        }
    }

    /// The next reply.
    async fn reply(&mut self) -> io::Result<Vec<u8>> {
        self.pushes().await?;
        let (mut scanner, mut reply) = (Scanner::default(), Vec::new());
        loop {
            let (taken, ends) = scanner.take(&self.bytes).map_err(malformed)?;
            reply.extend(self.bytes.drain(..taken));
            if ends {
                return Ok(reply);
            }
            if self.held_bytes + reply.len() > MOST_HELD {
                return Err(io::Error::new(
                    io::ErrorKind::OutOfMemory,
                    "replies to commands that may write are larger than 64 MiB",
                ));
            }
            self.fill().await?;
        }
    }

    /// More from the server. What the client can have it has before this waits.
    async fn fill(&mut self) -> io::Result<()> {
        self.client.flush().await?;
        if self.server.read_buf(&mut self.bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }
}

fn malformed(error: resp::Malformed) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
#[path = "confirm_tests.rs"]
mod tests;
