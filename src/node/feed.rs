//! The agent as the master of its own Redis: Redis begins empty, and carries out what it is sent as
//! the stream of its master. So it stays the replica that nobody else may write to, and hands what it
//! gets to its own replicas.
//!
//! Redis answers nothing to its master: a command that it does not take is not told.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::master_link::{self, ATTACH, BEAT, OFFSET, greet, split};
use super::psync::request;
use super::redis_config::FROM_A_MASTER;
use super::restore::{STALL, attach, loaded};
use super::state::Node;

/// A data set without a key, as every version reads it: without a checksum.
const NOTHING: &[u8] = b"REDIS0009\xff\0\0\0\0\0\0\0\0";
/// Redis has carried out what it was sent within this.
const APPLY: Duration = Duration::from_mins(2);

/// A link to Redis, whose master this is for as long as it is kept.
pub(super) struct Feed {
    /// Name of the history.
    pub history: String,
    to: mpsc::Sender<Said>,
    sent: watch::Receiver<i64>,
    acked: watch::Receiver<i64>,
    _tasks: [AbortOnDropHandle<()>; 2],
}

enum Said {
    /// Whole commands.
    Commands(Vec<u8>),
    /// Have Redis say how far it is; the answer is what it was sent so far.
    Ask(oneshot::Sender<i64>),
}

/// The link is over: Redis was started anew, or follows somebody else.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the link of the agent to redis ended: {0}")]
pub(super) struct Ended(pub String);

impl Feed {
    /// Has Redis drop what it has, and follow the agent.
    pub async fn begin(node: &Arc<Node>) -> Result<Self, Ended> {
        let io = |error: io::Error| Ended(error.to_string());
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.map_err(io)?;
        let port = listener.local_addr().map_err(io)?.port();
        let run_id = {
            // A promotion may not come in between the look at the role and the change of it.
            let _one = node.accepting.lock().await;
            attach(node, port, FROM_A_MASTER).await.map_err(Ended)?.0
        };
        let late = || Ended("redis did not ask for its data in time".to_owned());
        let accepted = timeout(ATTACH, listener.accept()).await;
        let (stream, _) = accepted.map_err(|_| late())?.map_err(io)?;
        drop(listener);
        let (mut from, mut to) = split(stream);
        let history = greet(&mut from, &mut to, NOTHING.len() as u64).await.map_err(io)?;
        to.write_all(NOTHING).await.map_err(io)?;
        let (said, heard) = mpsc::channel(1);
        let (sent_to, sent) = watch::channel(OFFSET);
        let (acked_to, acked) = watch::channel(0);
        let tasks = [tokio::spawn(listen(from, acked_to)), tokio::spawn(speak(to, heard, sent_to))];
        let feed =
            Self { history, to: said, sent, acked, _tasks: tasks.map(AbortOnDropHandle::new) };
        loaded(node, &run_id).await.map_err(Ended)?;
        Ok(feed)
    }

    /// Offset of what Redis was sent.
    pub fn sent(&self) -> i64 {
        *self.sent.borrow()
    }

    /// Sends whole commands. What is cancelled is sent as a whole, or not at all.
    pub async fn send(&self, commands: Vec<u8>) -> Result<(), Ended> {
        self.to.send(Said::Commands(commands)).await.map_err(|_| over())
    }

    /// Waits until Redis has carried out all that it was sent.
    pub async fn applied(&self) -> Result<(), Ended> {
        let (answer, sent) = oneshot::channel();
        self.to.send(Said::Ask(answer)).await.map_err(|_| over())?;
        let target = sent.await.map_err(|_| over())?;
        let mut acked = self.acked.clone();
        let reached = timeout(APPLY, acked.wait_for(|acked| *acked >= target)).await;
        let late = || Ended(format!("redis did not carry out a write in {} s", APPLY.as_secs()));
        reached.map_err(|_| late())?.map(drop).map_err(|_| over())
    }

    /// Returns when the link is over.
    pub async fn ended(&self) -> Ended {
        let mut acked = self.acked.clone();
        tokio::select! {
            () = self.to.closed() => {}
            () = async { while acked.changed().await.is_ok() {} } => {}
        }
        over()
    }
}

fn over() -> Ended {
    Ended("redis closed it".to_owned())
}

/// Hears how far Redis is.
async fn listen(mut from: BufReader<OwnedReadHalf>, acked: watch::Sender<i64>) {
    while let Ok(words) = master_link::request(&mut from).await {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        if let ["REPLCONF", "ACK", offset, ..] = words[..]
            && let Ok(offset) = offset.parse()
        {
            acked.send_replace(offset);
        }
    }
}

/// Sends what there is, and keeps the link alive when there is nothing.
async fn speak(mut to: OwnedWriteHalf, mut said: mpsc::Receiver<Said>, sent: watch::Sender<i64>) {
    loop {
        let bytes = tokio::select! {
            said = said.recv() => match said {
                None => return,
                Some(Said::Commands(bytes)) => bytes,
                Some(Said::Ask(answer)) => {
                    let _ = answer.send(*sent.borrow());
                    request(&["REPLCONF", "GETACK", "*"])
                }
            },
            () = sleep(BEAT) => request(&["PING"]),
        };
        if !matches!(timeout(STALL, to.write_all(&bytes)).await, Ok(Ok(()))) {
            return;
        }
        sent.send_modify(|sent| *sent += i64::try_from(bytes.len()).unwrap_or(0));
    }
}
