//! The socket by which the running market is told to misbehave: one request and one answer a
//! connection, each a line of JSON.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

use super::faults::{Fault, MarketFaults};

/// Its name in the market's directory.
pub const SOCKET: &str = "faults.sock";
/// A provider's transaction may take as long as it lives.
const TIME_OUT: Duration = Duration::from_secs(30);
/// No line is longer.
const LONGEST: u64 = 64 * 1024;

/// What is asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// What is wrong now?
    List,
    /// End this fault, or all.
    Clear(Option<String>),
    /// Make it so.
    Inject(Fault),
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// It is so: a sentence.
    Done(String),
    /// What is wrong, one line each.
    Listed(Vec<String>),
    /// It is not so: a sentence.
    Failed(String),
}

/// Serves the socket until `shutdown`.
///
/// # Errors
/// It cannot be made.
pub fn serve(faults: MarketFaults, path: &Path, shutdown: CancellationToken) -> io::Result<()> {
    // One that an earlier market left.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    tokio::spawn(async move {
        while let Some(accepted) = shutdown.run_until_cancelled(listener.accept()).await {
            match accepted {
                Ok((stream, _)) => {
                    let faults = faults.clone();
                    tokio::spawn(async move {
                        if let Err(error) = answer(&faults, stream).await {
                            tracing::debug!(%error, "a caller of the fault socket went away");
                        }
                    });
                }
                // Too many open files: not in a tight loop.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    });
    Ok(())
}

async fn answer(faults: &MarketFaults, stream: UnixStream) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    let mut read = BufReader::new(read.take(LONGEST));
    tokio::time::timeout(TIME_OUT, read.read_line(&mut line)).await??;
    let answer = match serde_json::from_str(&line) {
        Ok(request) => carry_out(faults, request).await,
        Err(error) => Answer::Failed(format!(
            "the running market does not know this fault ({error}); is it of another version?"
        )),
    };
    let mut text = serde_json::to_string(&answer).map_err(io::Error::other)?;
    text.push('\n');
    write.write_all(text.as_bytes()).await
}

async fn carry_out(faults: &MarketFaults, request: Request) -> Answer {
    let done = match request {
        Request::List => return Answer::Listed(faults.list()),
        Request::Clear(name) => faults.clear(name.as_deref()),
        Request::Inject(fault) => faults.inject(&fault).await,
    };
    done.map_or_else(|error| Answer::Failed(error.to_string()), Answer::Done)
}

/// Asks a running market.
///
/// # Errors
/// None answers there, or not in time.
pub async fn ask(path: &Path, request: &Request) -> io::Result<Answer> {
    let asked = async {
        let (read, mut write) = UnixStream::connect(path).await?.into_split();
        let mut text = serde_json::to_string(request).map_err(io::Error::other)?;
        text.push('\n');
        write.write_all(text.as_bytes()).await?;
        let mut line = String::new();
        BufReader::new(read.take(LONGEST)).read_line(&mut line).await?;
        serde_json::from_str(&line).map_err(io::Error::other)
    };
    tokio::time::timeout(2 * TIME_OUT, asked).await?
}
