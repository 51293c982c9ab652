//! The stream of one node's states, and how it is opened again after a silence.

use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::time::{Instant, sleep_until, timeout};
use tonic::Streaming;
use tonic::transport::Channel;

use super::{COMMAND_LIMIT, said};
use crate::model::ids::IncarnationName;
use crate::model::node::NodeState;
use crate::model::text::clipped;
use crate::operator::agent_protocol::{LARGEST_STATE, SENTENCE, node_state};
use crate::wire::akash_redis::agent::v1::agent_client::AgentClient;
use crate::wire::akash_redis::agent::v1::{self as wire, WatchRequest};

/// An agent pushes at least once a second; a stream that is silent for longer than this is taken
/// for dead, and others are asked about the node.
pub(super) const SILENCE: Duration = Duration::from_millis(2500);
/// Pause before a node is dialled again when no dial is under way.
pub(super) const PAUSE: Duration = Duration::from_millis(300);
/// A dial that was not answered for so long gets company. On a path where nothing passes TCP sends
/// again after ever longer pauses, so that a connection of before, or a dial of before, is silent
/// for up to twice as long as the path: the youngest is heard first.
const COMPANY: Duration = Duration::from_secs(1);
/// So many dials follow each other that quickly: longer than any silence that is waited for.
const QUICK: usize = 30;
/// After those the node is away for good, as far as one can see.
const SELDOM: Duration = Duration::from_secs(5);

/// An open stream, of which the first state has come.
pub(super) struct States {
    /// What it runs over.
    pub(super) channel: Channel,
    name: IncarnationName,
    stream: Streaming<wire::NodeState>,
    /// The first one, until it is asked for.
    read: Option<NodeState>,
}

impl States {
    /// Waits until the node is heard: dials by `dial` until one of the dials brings a state. Those
    /// that are slower than it are given up. No deadline: whoever lets the node go drops this.
    pub(super) async fn open(
        name: &IncarnationName,
        mut dial: impl FnMut() -> Option<Channel>,
    ) -> Self {
        let mut dials = FuturesUnordered::new();
        let mut made = 0usize;
        let mut next = Instant::now();
        loop {
            tokio::select! {
                Some(end) = dials.next() => match end {
                    Ok(states) => return states,
                    Err(detail) => {
                        tracing::debug!(incarnation = %name, detail, "a node is not heard");
                        if dials.is_empty() {
                            next = next.min(Instant::now() + PAUSE);
                        }
                    }
                },
                () = sleep_until(next) => {
                    dials.extend(dial().map(|channel| Self::dialled(name, channel)));
                    made += 1;
                    next = Instant::now() + if made < QUICK { COMPANY } else { SELDOM };
                }
            }
        }
    }

    async fn dialled(name: &IncarnationName, channel: Channel) -> Result<Self, String> {
        let mut client = AgentClient::new(channel.clone()).max_decoding_message_size(LARGEST_STATE);
        let heard = async {
            let stream = client.watch(WatchRequest {}).await.map_err(|s| said(&s))?.into_inner();
            let mut states = Self { channel, name: name.clone(), stream, read: None };
            let first = states.read().await?;
            states.read = Some(first);
            Ok(states)
        };
        timeout(COMMAND_LIMIT, heard).await.unwrap_or_else(|_| Err("no answer in time".to_owned()))
    }

    /// The next state; an error when the stream ended, is silent, or is another node's.
    pub(super) async fn next(&mut self) -> Result<NodeState, String> {
        match self.read.take() {
            Some(state) => Ok(state),
            None => timeout(SILENCE, self.read())
                .await
                .unwrap_or_else(|_| Err("no state in time".to_owned())),
        }
    }

    async fn read(&mut self) -> Result<NodeState, String> {
        match self.stream.message().await.map_err(|s| said(&s))? {
            Some(state) if state.incarnation == self.name.0 => Ok(node_state(state)),
            Some(other) => {
                Err(format!("{} answers in its place", clipped(other.incarnation, SENTENCE)))
            }
            None => Err("it ended".to_owned()),
        }
    }
}
