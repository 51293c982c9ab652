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
use crate::model::ids::IncarnationName;

/// Lines asked for when nothing is said.
pub const DEFAULT_TAIL: u32 = 100;
/// No more old lines than this are asked for; a larger number counts as this one.
pub const MOST_TAIL: u32 = 5000;

/// Lines as `source | text`, without their ends.
pub type LogLines = BoxStream<'static, String>;

/// Whoever can read the logs of nodes.
#[async_trait]
pub trait NodeLogs: Send + Sync {
    /// The last `tail` lines of a node's processes, and with `follow` those to come until the node
    /// goes. An error is one sentence for people; a stream that breaks says so in its last line. To
    /// drop the stream lets go of the node.
    async fn logs(
        &self,
        incarnation: &IncarnationName,
        tail: u32,
        follow: bool,
    ) -> Result<LogLines, String>;
}

#[derive(Deserialize)]
pub(super) struct LogsQuery {
    /// An ordinal or an incarnation; the master when absent.
    node: Option<String>,
    tail: Option<u32>,
    #[serde(default)]
    follow: bool,
}

pub(super) async fn logs(
    State(app): State<App>,
    Path(name): Path<String>,
    Query(query): Query<LogsQuery>,
) -> Result<Response, Refusal> {
    let cluster = app.store.get(&name).await?.cluster;
    let incarnation = actions::named_node(&cluster, query.node.as_deref())?;
    let tail = query.tail.unwrap_or(DEFAULT_TAIL).min(MOST_TAIL);
    let lines = app.logs.logs(&incarnation, tail, query.follow).await;
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
