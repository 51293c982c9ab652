//! `GET …/dump`: the data of a cluster as an RDB file, of now.

use async_trait::async_trait;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use futures::stream::BoxStream;

use super::actions::Refusal;
use super::routes::App;
use crate::api::conditions::Phase;
use crate::api::status::NodeStatus;
use crate::api::types::RedisCluster;
use crate::model::ids::IncarnationName;

/// The pieces of an RDB file; after an error there are no more, and what came before is of no use.
pub type Pieces = BoxStream<'static, Result<Bytes, String>>;

/// Whoever can read the data of nodes.
#[async_trait]
pub trait NodeDumps: Send + Sync {
    /// The data of a node, of now. An error is one sentence.
    async fn dump(&self, incarnation: &IncarnationName) -> Result<Pieces, String>;
}

/// The replica that is least behind; the master where there is none in sync.
pub(super) fn source(cluster: &RedisCluster) -> Result<IncarnationName, Refusal> {
    let nodes = cluster.status.as_ref().map(|s| s.nodes.as_slice()).unwrap_or_default();
    let replicas = nodes.iter().filter(|n| n.phase == Phase::Replica);
    let best = replicas.min_by_key(|n| (n.lag_bytes.unwrap_or(i64::MAX), n.ordinal));
    let master = || nodes.iter().find(|n| n.phase == Phase::Master);
    let found: Option<&NodeStatus> = best.or_else(master);
    found.map(|n| IncarnationName(n.incarnation.clone())).ok_or_else(|| {
        Refusal::conflict(format!(
            "no node of {} is master or a replica in sync, so there is nothing to dump; `akash-redis describe` says why",
            cluster.metadata.name
        ))
    })
}

pub(super) async fn dump(
    State(app): State<App>,
    Path(name): Path<String>,
) -> Result<Response, Refusal> {
    let cluster = app.store.get(&name).await?.cluster;
    let node = source(&cluster)?;
    let pieces = app.dumps.dump(&node).await;
    let pieces = pieces.map_err(|why| {
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, why.replace(char::is_control, "?"))
    })?;
    let pieces = pieces.map(|piece| piece.map_err(std::io::Error::other));
    let pieces = pieces.take_until(app.shutdown.cancelled_owned());
    let kind = [(header::CONTENT_TYPE, "application/octet-stream")];
    Ok((kind, Body::from_stream(pieces)).into_response())
}

#[cfg(test)]
pub(crate) mod fake {
    use futures::stream;

    use super::*;

    /// A node with a file of a few bytes.
    pub struct FakeDumps;

    #[async_trait]
    impl NodeDumps for FakeDumps {
        async fn dump(&self, _: &IncarnationName) -> Result<Pieces, String> {
            let pieces = ["REDIS", "0010", ""].map(|piece| Ok(Bytes::from(piece)));
            Ok(stream::iter(pieces).boxed())
        }
    }
}
