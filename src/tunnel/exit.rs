//! The end at the node.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional_with_sizes};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::{AUTHORITY, CONNECTION_WINDOW, STREAM_WINDOW, STREAMS};

/// How a connection begins on which streams come (RFC 9113 section 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Streams that wait to be taken by Redis at a time, of all connections: its queue holds a few
/// hundred, and what comes beyond that waits for a second.
const PENDING: usize = 64;
/// Redis takes a connection within this, or does not take any.
const DIAL: Duration = Duration::from_secs(2);
/// Read at once, either way.
const BUFFER: usize = 4 << 10;
/// A connection that is silent for so long is asked whether it is there, and ends when it does not
/// say so.
const PING: Duration = Duration::from_secs(15);

/// Leads to Redis of this node.
#[derive(Clone, Debug)]
pub struct Exit {
    redis: SocketAddr,
    places: Arc<Semaphore>,
    pending: Arc<Semaphore>,
}

impl Exit {
    /// To the Redis that listens at this port of loopback. Of all connections together no more than
    /// `most` streams are open.
    #[must_use]
    pub fn new(port: u16, most: usize) -> Self {
        Self {
            redis: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            places: Arc::new(Semaphore::new(most)),
            pending: Arc::new(Semaphore::new(PENDING)),
        }
    }

    /// Carries the streams of one connection until it ends, or this is dropped.
    pub async fn carry<S>(&self, stream: S)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let open = service_fn(|request| self.clone().open(request));
        let served = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(PING)
            .keep_alive_timeout(PING)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(STREAM_WINDOW as usize)
            .max_concurrent_streams(STREAMS)
            // Of a change of masters all streams are closed at once: that is no attack.
            .max_pending_accept_reset_streams(STREAMS as usize)
            .max_local_error_reset_streams(None)
            .serve_connection(TokioIo::new(stream), open);
        if let Err(error) = served.await {
            tracing::debug!(%error, "a connection with streams to redis ends");
        }
    }

    async fn open(self, mut request: Request<Incoming>) -> Result<Response<String>, Infallible> {
        let refused = |status| {
            let mut response = Response::new(String::new());
            *response.status_mut() = status;
            Ok(response)
        };
        let authority = request.uri().authority().map(http::uri::Authority::as_str);
        if request.method() != Method::CONNECT || authority != Some(AUTHORITY) {
            return refused(StatusCode::NOT_FOUND);
        }
        let Ok(place) = self.places.clone().try_acquire_owned() else {
            return refused(StatusCode::SERVICE_UNAVAILABLE);
        };
        let dialled = async {
            let _turn = self.pending.acquire().await;
            timeout(DIAL, TcpStream::connect(self.redis)).await
        };
        let Ok(Ok(mut redis)) = dialled.await else { return refused(StatusCode::BAD_GATEWAY) };
        let _ = redis.set_nodelay(true);
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            if let Ok(stream) = upgrade.await {
                let mut stream = TokioIo::new(stream);
                let ended = copy_bidirectional_with_sizes(&mut stream, &mut redis, BUFFER, BUFFER);
                // Either end sees that it ended.
                let _ = ended.await;
            }
            drop(place);
        });
        Ok(Response::new(String::new()))
    }
}
