//! `GET …/logs`: what the processes of a node print, as lines of text.

use std::convert::Infallible;

use async_trait::async_trait;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use futures::stream::BoxStream;
use serde::Deserialize;

use super::actions::{self, Refusal};
use super::routes::App;
use crate::api::quantity::Span;
use crate::model::ids::IncarnationName;
use crate::model::logs::{LogQuery, USUAL};

/// Lines asked for when nothing is said.
pub const DEFAULT_TAIL: u32 = 100;
/// No more old lines than this are asked for; a larger number counts as this one.
pub const MOST_TAIL: u32 = 5000;

/// Lines as `source | text`, without their ends.
pub type LogLines = BoxStream<'static, String>;

/// Whoever can read the logs of nodes.
#[async_trait]
pub trait NodeLogs: Send + Sync {
    /// The lines of a node's processes that are asked for, with `follow` until the node goes. An error is one sentence for people; a stream that breaks says so in its last line. To
    /// drop the stream lets go of the node.
    async fn logs(
        &self,
        incarnation: &IncarnationName,
        query: &LogQuery,
    ) -> Result<LogLines, String>;
}

#[derive(Deserialize)]
pub(super) struct LogsQuery {
    /// An ordinal or an incarnation; the master when absent.
    node: Option<String>,
    tail: Option<u32>,
    #[serde(default)]
    follow: bool,
    /// `agent`, `tailscaled`, `redis` or `all`; agent and redis when absent.
    process: Option<String>,
    /// No line is older than this.
    since: Option<Span>,
    /// Each line begins with its time.
    #[serde(default)]
    timestamps: bool,
}

impl LogsQuery {
    fn understood(&self) -> Result<LogQuery, Refusal> {
        let processes = match self.process.as_deref() {
            None => USUAL.to_vec(),
            Some("all") => Vec::new(),
            Some(one) => vec![one.parse().map_err(|_| {
                Refusal::new(
                    StatusCode::BAD_REQUEST,
                    format!("{one} is no process of a node; write agent, tailscaled, redis or all"),
                )
            })?],
        };
        Ok(LogQuery {
            tail: self.tail.unwrap_or(DEFAULT_TAIL).min(MOST_TAIL),
            follow: self.follow,
            processes,
            since: self.since.map(|Span(since)| since),
            timestamps: self.timestamps,
        })
    }
}

pub(super) async fn logs(
    State(app): State<App>,
    Path(name): Path<String>,
    Query(query): Query<LogsQuery>,
) -> Result<Response, Refusal> {
    let cluster = app.store.get(&name).await?.cluster;
    let incarnation = actions::named_node(&cluster, query.node.as_deref())?;
    let lines = app.logs.logs(&incarnation, &query.understood()?).await;
    // Part of the sentence is the node's, and it ends on a terminal.
    let lines = lines.map_err(|why| {
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, why.replace(char::is_control, "?"))
    })?;
    // Line ends are ours alone, whatever a node calls a line.
    let text = lines.map(|line| Ok::<_, Infallible>(line.replace(['\n', '\r'], " ") + "\n"));
    let text = text.take_until(app.shutdown.cancelled_owned());
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], Body::from_stream(text))
        .into_response())
}

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod tests;
