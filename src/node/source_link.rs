//! The way to a running Redis outside of the cluster: a connection there, over the mesh and TLS where
//! that is asked for, and what carries Redis' own connection to its master.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::convert::Source;
use super::state::Node;
use crate::http_client;
use crate::model::import::SourceSpec;

/// A connection is there, and its TLS is agreed on, within this.
const DIAL: Duration = Duration::from_secs(10);
/// Read at once.
const BUFFER: usize = 64 * 1024;
/// Connections at a time: Redis needs one.
const OPEN: usize = 4;
/// No line of the beginning of a replication is longer, bytes.
const LONGEST: usize = 1024;

/// Bytes both ways.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// Why the source let nobody replicate, in its own words.
#[derive(Clone, Default)]
pub struct Refused(Arc<Mutex<String>>);

impl Refused {
    fn set(&self, words: &str) {
        words.clone_into(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// In a sentence; `None` where it let somebody.
    #[must_use]
    pub fn sentence(&self) -> Option<String> {
        let words = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        (!words.is_empty()).then(|| {
            format!(
                "the source lets nobody replicate ({words}): give the user +psync +replconf +ping there, or write `method: copy` in fromRedis where the service forbids these to everybody"
            )
        })
    }
}

/// Dials the source.
///
/// # Errors
/// One sentence.
pub async fn dial(node: &Node, spec: &SourceSpec) -> Result<Box<dyn Stream>, String> {
    let address = spec.address();
    let late =
        |_| format!("{address} cannot be reached within {} s from this node", DIAL.as_secs());
    let stream = timeout(DIAL, node.egress.dial(&spec.host, spec.port)).await.map_err(late)?;
    let stream = stream.map_err(|error| {
        format!(
            "{address} cannot be reached from this node ({error}); check host, port and firewall"
        )
    })?;
    let _ = stream.set_nodelay(true);
    if !spec.tls {
        return Ok(Box::new(stream));
    }
    let name = if spec.server_name.is_empty() { &spec.host } else { &spec.server_name };
    let name = ServerName::try_from(name.trim_end_matches('.').to_owned())
        .map_err(|_| format!("`{name}` is no name that a certificate can have"))?;
    let connector = TlsConnector::from(Arc::new(http_client::tls_and(&spec.ca)?));
    let agreed = timeout(DIAL, connector.connect(name, stream)).await.map_err(|_| {
        format!(
            "{address} speaks no TLS, or is too slow: nothing was agreed on within {} s; check fromRedis.tls",
            DIAL.as_secs()
        )
    })?;
    let stream = agreed.map_err(|error| {
        format!(
            "{address} is not who it should be, or speaks no TLS ({error}); check fromRedis.tls"
        )
    })?;
    Ok(Box::new(stream))
}

/// Carries what comes to `listener` to the source.
pub async fn carry(listener: TcpListener, node: Arc<Node>, source: Arc<Source>, refused: Refused) {
    let mut open = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = open.join_next() => {}
            accepted = listener.accept(), if open.len() < OPEN => {
                let Ok((local, _)) = accepted else {
                    // Out of descriptors: the pause keeps this loop from burning the CPU meanwhile.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                };
                let (node, source, refused) = (node.clone(), source.clone(), refused.clone());
                open.spawn(async move {
                    let _ = local.set_nodelay(true);
                    match dial(&node, &source.spec).await {
                        Ok(remote) => drop(pass(local, remote, &refused).await),
                        // Redis learns at once, and the other connection says why.
                        Err(_) => drop(local.set_zero_linger()),
                    }
                });
            }
        }
    }
}

/// Passes bytes both ways until one side ends.
async fn pass(local: TcpStream, remote: Box<dyn Stream>, refused: &Refused) -> io::Result<()> {
    let (mut from_redis, mut to_redis) = local.into_split();
    let (mut from_source, mut to_source) = tokio::io::split(remote);
    let there = tokio::io::copy(&mut from_redis, &mut to_source);
    let back = async {
        let (mut buffer, mut greeting) = (vec![0; BUFFER], Greeting::default());
        loop {
            let read = from_source.read(&mut buffer).await?;
            if read == 0 {
                return Ok(0);
            }
            greeting.hear(&buffer[..read], refused);
            to_redis.write_all(&buffer[..read]).await?;
        }
    };
    tokio::select! {
        ended = there => ended.map(drop),
        ended = back => ended.map(|_: u64| ()),
    }
}

/// The lines with which a source answers before it sends data.
#[derive(Default)]
struct Greeting {
    line: Vec<u8>,
    over: bool,
}

impl Greeting {
    fn hear(&mut self, bytes: &[u8], refused: &Refused) {
        for byte in bytes {
            if self.over {
                return;
            }
            if *byte != b'\n' {
                self.over = self.line.len() >= LONGEST;
                self.line.push(*byte);
                continue;
            }
            let line = String::from_utf8_lossy(&std::mem::take(&mut self.line)).trim().to_owned();
            if line.starts_with("+FULLRESYNC") || line.starts_with("+CONTINUE") {
                self.over = true;
                refused.set("");
            } else if let Some(words) = line.strip_prefix('-') {
                refused.set(words);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_refusal_is_kept_until_data_come() {
        let (refused, mut greeting) = (Refused::default(), Greeting::default());
        greeting.hear(b"+PONG\r\n-ERR unknown com", &refused);
        assert_eq!(refused.sentence(), None, "half a line says nothing");
        greeting.hear(b"mand\r\n-NOPERM no psync\r\n", &refused);
        assert!(refused.sentence().unwrap().contains("(NOPERM no psync)"));
        let mut next = Greeting::default();
        next.hear(b"+OK\r\n+FULLRESYNC abc 1\r\n$5\r\n-no!\n", &refused);
        assert_eq!(refused.sentence(), None);
        next.hear(b"\r\n-what looks like a refusal is data now\r\n", &refused);
        assert_eq!(refused.sentence(), None);
    }
}
